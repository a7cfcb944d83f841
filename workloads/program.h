/* SPDX-License-Identifier: MIT */
/*
 * program.h - a small program, for workloads that run many: its image, its start, and what each run touches.
 */
#ifndef GN_WORKLOADS_PROGRAM_H
#define GN_WORKLOADS_PROGRAM_H

#include "kernel.h"

struct program {
	int image;
	uint64_t seed;
	struct kernel_image parts;
};

/* "Compile and install" it. 0 or a K_E* value. */
int program_install(struct program *p, uint64_t seed, const struct kernel_image *parts);

/* In a forked child: exec, then run from start to main: fetch @text_pages of the text (spread over it), write
 * one page in two of data and bss, use the stack. Everything is checked against the image.
 * 0, or -1 with *why. */
int program_start(const struct program *p, uint32_t text_pages, struct kernel_layout *layout,
		  const char **why);

#endif
