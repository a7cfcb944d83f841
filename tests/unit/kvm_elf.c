/* SPDX-License-Identifier: MIT */
/*
 * kvm_elf.c - the reader of guest images: what a good file says is found, every lie is refused, and no mutation of a file
 * makes it read or promise anything out of bounds.
 */
#include <criterion/criterion.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kvmbackend/elf.h"
#include "support/cases.h"

#define WINDOW	  0xffffffff80000000u
#define PA_MIN	  0x100000u
#define PA_MAX	  0x400000u
#define CODE_SIZE 64
#define SEGMENTS  3

/* A kernel of three segments, the last one all zeros. */
struct image {
	Elf64_Ehdr header;
	Elf64_Phdr segments[SEGMENTS];
	uint8_t code[SEGMENTS * CODE_SIZE];
};

static void forge(struct image *i)
{
	memset(i, 0, sizeof(*i));
	memcpy(i->header.e_ident, ELFMAG, SELFMAG);
	i->header.e_ident[EI_CLASS] = ELFCLASS64;
	i->header.e_ident[EI_DATA] = ELFDATA2LSB;
	i->header.e_type = ET_EXEC;
	i->header.e_machine = EM_X86_64;
	i->header.e_phoff = offsetof(struct image, segments);
	i->header.e_phentsize = sizeof(Elf64_Phdr);
	i->header.e_phnum = SEGMENTS;
	i->header.e_entry = WINDOW + PA_MIN + 16;
	for (unsigned s = 0; s < SEGMENTS; s++) {
		Elf64_Phdr *h = &i->segments[s];

		h->p_type = PT_LOAD;
		h->p_offset = offsetof(struct image, code) + s * CODE_SIZE;
		h->p_paddr = PA_MIN + 0x10000 * s;
		h->p_vaddr = WINDOW + h->p_paddr;
		h->p_filesz = s == 2 ? 0 : CODE_SIZE;
		h->p_memsz = 0x1000;
	}
}

static int parse(const struct image *i, size_t bytes, struct gn_elf *out, char *why, size_t room)
{
	/* A copy of exactly that size, so that a sanitizer sees each byte beyond. */
	void *copy = malloc(bytes ? bytes : 1);
	int err;

	cr_assert(copy);
	memcpy(copy, i, bytes);
	err = gn_elf_parse(copy, bytes, WINDOW, PA_MIN, PA_MAX, out, why, room);
	free(copy);
	return err;
}

Test(kvm_elf, good)
{
	struct image i;
	struct gn_elf elf;
	char why[160] = "";

	forge(&i);
	cr_assert(!parse(&i, sizeof(i), &elf, why, sizeof(why)), "%s", why);
	cr_assert(elf.count == 3 && elf.start == PA_MIN && elf.end == PA_MIN + 0x21000);
	cr_assert(elf.entry == WINDOW + PA_MIN + 16);
	cr_assert(elf.segments[1].file_bytes == CODE_SIZE && elf.segments[2].file_bytes == 0);
	/* In any order; others than PT_LOAD are no affair of a loader. */
	i.segments[0].p_paddr = PA_MIN + 0x30000;
	i.segments[0].p_vaddr = WINDOW + i.segments[0].p_paddr;
	i.segments[2].p_type = PT_NOTE;
	i.segments[2].p_paddr = UINT64_MAX;
	i.header.e_entry = WINDOW + PA_MIN + 0x10000;
	cr_assert(!parse(&i, sizeof(i), &elf, why, sizeof(why)), "%s", why);
	cr_assert(elf.count == 2 && elf.start == PA_MIN + 0x10000);
	/* Next to each other is not over each other; up to the last byte is inside. */
	i.segments[1].p_memsz = 0x20000;
	i.segments[0].p_memsz = PA_MAX - i.segments[0].p_paddr;
	cr_assert(!parse(&i, sizeof(i), &elf, why, sizeof(why)), "%s", why);
	cr_assert(elf.end == PA_MAX);
}

struct lie {
	const char *name, *told; /* a word of the message */
	size_t offset, bytes;
	uint64_t value;
};
#define HEADER(field)                                                                              \
	offsetof(struct image, header.field), sizeof(((struct image *)0)->header.field)
#define SEGMENT(s, field)                                                                          \
	offsetof(struct image, segments[s].field), sizeof(((struct image *)0)->segments[s].field)

static const struct lie lies[] = {
	{ "magic", "not an ELF", offsetof(struct image, header), 1, 0x7e },
	{ "class", "x86-64", offsetof(struct image, header.e_ident[EI_CLASS]), 1, ELFCLASS32 },
	{ "byte order", "x86-64", offsetof(struct image, header.e_ident[EI_DATA]), 1, ELFDATA2MSB },
	{ "machine", "x86-64", HEADER(e_machine), EM_386 },
	{ "shared object", "type 3", HEADER(e_type), ET_DYN },
	{ "entry size", "program headers of", HEADER(e_phentsize), 55 },
	{ "headers past the end", "beyond the end", HEADER(e_phoff), sizeof(struct image) - 55 },
	{ "headers wrap", "beyond the end", HEADER(e_phoff), UINT64_MAX - 8 },
	{ "many headers", "beyond the end", HEADER(e_phnum), UINT16_MAX },
	{ "no headers", "nothing", HEADER(e_phnum), 0 },
	{ "entry below", "entry", HEADER(e_entry), WINDOW + PA_MIN - 1 },
	{ "entry above", "entry", HEADER(e_entry), WINDOW + PA_MIN + 0x21000 },
	{ "entry 0", "entry", HEADER(e_entry), 0 },
	{ "file part past the end", "beyond the end", SEGMENT(1, p_offset), sizeof(struct image) },
	{ "file part wraps", "beyond the end", SEGMENT(1, p_offset), UINT64_MAX - 3 },
	{ "more in the file", "more bytes", SEGMENT(1, p_filesz), 0x1001 },
	{ "huge in the file", "more bytes", SEGMENT(1, p_filesz), UINT64_MAX },
	{ "below the image", "outside", SEGMENT(0, p_paddr), PA_MIN - 0x1000 },
	{ "past the memory", "outside", SEGMENT(2, p_paddr), PA_MAX - 0xfff },
	{ "wraps", "outside", SEGMENT(2, p_paddr), UINT64_MAX - 0xff },
	{ "huge", "outside", SEGMENT(2, p_memsz), UINT64_MAX },
	{ "linked elsewhere", "linked", SEGMENT(0, p_vaddr), PA_MIN },
	{ "overlap", "overlap", SEGMENT(0, p_memsz), 0x10001 },
};

Test(kvm_elf, lies)
{
	struct image i;
	struct gn_elf elf;

	for (size_t l = 0; l < sizeof(lies) / sizeof(lies[0]); l++) {
		char why[160] = "";

		forge(&i);
		memcpy((uint8_t *)&i + lies[l].offset, &lies[l].value, lies[l].bytes);
		cr_assert(parse(&i, sizeof(i), &elf, why, sizeof(why)) == -EINVAL, "%s",
			  lies[l].name);
		cr_assert(strstr(why, lies[l].told), "%s: \"%s\"", lies[l].name, why);
	}
	for (size_t bytes = 0; bytes < sizeof(i.header) + sizeof(i.segments); bytes++) {
		char why[160];

		forge(&i);
		cr_assert(parse(&i, bytes, &elf, why, sizeof(why)) == -EINVAL, "%zu bytes", bytes);
	}
}

/* What was accepted keeps its promises. */
Test(kvm_elf, mutations)
{
	struct test_random random = test_random_seed(1);
	unsigned accepted = 0;

	for (unsigned n = 0; n < 200000; n++) {
		const size_t head = sizeof(Elf64_Ehdr) + SEGMENTS * sizeof(Elf64_Phdr);
		size_t bytes = sizeof(struct image);
		struct image i;
		struct gn_elf elf;
		char why[160];

		forge(&i);
		for (uint64_t k = test_random_below(&random, 4); k--;)
			((uint8_t *)&i)[test_random_below(&random, head)] =
				(uint8_t)test_random_next(&random);
		if (test_random_once(&random, 4))
			bytes = test_random_below(&random, sizeof(i));
		if (parse(&i, bytes, &elf, why, sizeof(why)))
			continue;
		accepted++;
		cr_assert(elf.count >= 1 && elf.count <= GN_ELF_SEGMENTS_MAX);
		for (unsigned s = 0; s < elf.count; s++) {
			const struct gn_elf_segment *g = &elf.segments[s];

			cr_assert(g->pa >= PA_MIN && g->pa < PA_MAX && g->bytes <= PA_MAX - g->pa);
			cr_assert(g->file_bytes <= g->bytes && g->file_offset <= bytes &&
				  g->file_bytes <= bytes - g->file_offset);
			cr_assert(!s ||
				  elf.segments[s - 1].pa + elf.segments[s - 1].bytes <= g->pa);
		}
	}
	cr_assert(accepted > 1000, "%u", accepted);
}
