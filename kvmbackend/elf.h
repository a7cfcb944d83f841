/* SPDX-License-Identifier: MIT */
/*
 * elf.h - the loadable part of a 64-bit ELF file, checked.
 */
#ifndef GN_KVM_ELF_H
#define GN_KVM_ELF_H

#include <stddef.h>
#include <stdint.h>

#define GN_ELF_SEGMENTS_MAX 16

struct gn_elf_segment {
	uint64_t pa;	      /* where it goes */
	uint64_t bytes;	      /* in memory; what the file does not fill is zero */
	uint64_t file_offset; /* within the file, as is file_offset + file_bytes */
	uint64_t file_bytes;  /* <= bytes */
};

struct gn_elf {
	uint64_t entry; /* within the window */
	unsigned count; /* 1.. */
	struct gn_elf_segment
		segments[GN_ELF_SEGMENTS_MAX]; /* rising, apart, within [pa_min, pa_max) */
	uint64_t start, end;		       /* of the first, of the last */
};

/* @window: the virtual address of pa 0; each segment must be linked there. Every field of the file may be a
 * lie. -EINVAL, and @why says which. */
int gn_elf_parse(const void *file, size_t file_bytes, uint64_t window, uint64_t pa_min,
		 uint64_t pa_max, struct gn_elf *out, char *why, size_t why_bytes);

#endif
