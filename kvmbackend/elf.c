/* SPDX-License-Identifier: MIT */
/*
 * elf.c - a reader of ELF64 executables that trusts no field.
 *
 * Only what a loader needs: the header, the program headers of type PT_LOAD. Sections, relocations and interpreters are
 * absent on purpose: a guest image is linked for its place. Sums are never formed before it is known that they do not
 * wrap, and nothing is read through a pointer into the file: the file may be unaligned.
 */
#include "elf.h"

#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct parse {
	const uint8_t *file;
	size_t file_bytes;
	uint64_t window, pa_min, pa_max;
	struct gn_elf *out;
	char *why;
	size_t why_bytes;
};

__attribute__((format(printf, 2, 3))) static int refuse(const struct parse *p, const char *format,
							...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(p->why, p->why_bytes, format, arguments);
	va_end(arguments);
	return -EINVAL;
}

/* [start, start + bytes) lies in [0, limit) */
static int is_within(uint64_t start, uint64_t bytes, uint64_t limit)
{
	return bytes <= limit && start <= limit - bytes;
}

static int check_header(const struct parse *p, Elf64_Ehdr *h)
{
	if (p->file_bytes < sizeof(*h))
		return refuse(p, "not an ELF file: %zu bytes", p->file_bytes);
	memcpy(h, p->file, sizeof(*h));
	if (memcmp(h->e_ident, ELFMAG, SELFMAG) != 0)
		return refuse(p, "not an ELF file");
	if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB ||
	    h->e_machine != EM_X86_64)
		return refuse(p, "not an ELF file for x86-64");
	if (h->e_type != ET_EXEC)
		return refuse(p, "an ELF file of type %u: it must be linked for its place (2)",
			      h->e_type);
	if (h->e_phentsize != sizeof(Elf64_Phdr))
		return refuse(p, "program headers of %u bytes each", h->e_phentsize);
	if (!is_within(h->e_phoff, (uint64_t)h->e_phnum * sizeof(Elf64_Phdr), p->file_bytes))
		return refuse(p, "program headers beyond the end of the file");
	return 0;
}

static int add_segment(struct parse *p, const Elf64_Phdr *h)
{
	struct gn_elf *elf = p->out;
	unsigned at = elf->count;
	uint64_t place;

	if (h->p_filesz > h->p_memsz)
		return refuse(p, "a segment with more bytes in the file than in memory");
	if (!is_within(h->p_offset, h->p_filesz, p->file_bytes))
		return refuse(p, "a segment beyond the end of the file");
	if (!h->p_memsz)
		return 0;
	if (h->p_paddr < p->pa_min || !is_within(h->p_paddr, h->p_memsz, p->pa_max))
		return refuse(p,
			      "a segment of %#llx bytes at physical %#llx, outside %#llx to %#llx",
			      (unsigned long long)h->p_memsz, (unsigned long long)h->p_paddr,
			      (unsigned long long)p->pa_min, (unsigned long long)p->pa_max);
	place = p->window + h->p_paddr;
	if (h->p_vaddr != place)
		return refuse(p, "a segment linked at %#llx: physical %#llx is at %#llx",
			      (unsigned long long)h->p_vaddr, (unsigned long long)h->p_paddr,
			      (unsigned long long)place);
	if (elf->count == GN_ELF_SEGMENTS_MAX)
		return refuse(p, "more than %d segments", GN_ELF_SEGMENTS_MAX);
	while (at > 0 && elf->segments[at - 1].pa > h->p_paddr) {
		elf->segments[at] = elf->segments[at - 1];
		at--;
	}
	elf->segments[at] = (struct gn_elf_segment){ .pa = h->p_paddr,
						     .bytes = h->p_memsz,
						     .file_offset = h->p_offset,
						     .file_bytes = h->p_filesz };
	elf->count++;
	return 0;
}

/* What only shows when all are known. */
static int check_whole(const struct parse *p)
{
	struct gn_elf *elf = p->out;
	const struct gn_elf_segment *last;

	if (!elf->count)
		return refuse(p, "nothing in it is loadable");
	for (unsigned i = 1; i < elf->count; i++)
		if (elf->segments[i - 1].pa + elf->segments[i - 1].bytes > elf->segments[i].pa)
			return refuse(p, "segments overlap at physical %#llx",
				      (unsigned long long)elf->segments[i].pa);
	last = &elf->segments[elf->count - 1];
	elf->start = elf->segments[0].pa;
	elf->end = last->pa + last->bytes;
	if (elf->entry < p->window + elf->start || elf->entry >= p->window + elf->end)
		return refuse(p, "its entry %#llx lies outside of what is loaded",
			      (unsigned long long)elf->entry);
	return 0;
}

int gn_elf_parse(const void *file, size_t file_bytes, uint64_t window, uint64_t pa_min,
		 uint64_t pa_max, struct gn_elf *out, char *why, size_t why_bytes)
{
	struct parse p = { .file = (const uint8_t *)file,
			   .file_bytes = file_bytes,
			   .window = window,
			   .pa_min = pa_min,
			   .pa_max = pa_max,
			   .out = out,
			   .why = why,
			   .why_bytes = why_bytes };
	Elf64_Ehdr header;
	int err;

	memset(out, 0, sizeof(*out));
	err = check_header(&p, &header);
	if (err)
		return err;
	out->entry = header.e_entry;
	for (unsigned i = 0; i < header.e_phnum && !err; i++) {
		Elf64_Phdr segment;

		memcpy(&segment, p.file + header.e_phoff + i * sizeof(segment), sizeof(segment));
		if (segment.p_type == PT_LOAD)
			err = add_segment(&p, &segment);
	}
	return err ? err : check_whole(&p);
}
