/* SPDX-License-Identifier: MIT */
/*
 * forming.h - blocks of 2 MiB that were split for sharing are made whole when little of them is shared any more.
 *
 * An area is looked at some sweeps after the last page of it was merged. If no more pages are shared or empty than the
 * bound says, those get frames of their own, and the engine puts the area together. The bound is a quarter of what a
 * block is split for, so a block does not flutter.
 *
 * Threads: one at a time for an object.
 */
#ifndef GN_SHARING_FORMING_H
#define GN_SHARING_FORMING_H

#include <stdbool.h>
#include <stdint.h>

#include "block.h"

struct gn_vm;

struct gn_forming {
	struct gn_vm *vm;
	uint8_t *
		in; /* by area: looks until it may be formed, and one; 0: nothing of it was merged. NULL: no large blocks */
	uint64_t areas, at; /* the area that is considered next */
	unsigned saved_most;
};

/* Of a VM whose blocks are split for @split_pages. One without large frames has no areas. -ENOMEM. */
int gn_forming_init(struct gn_forming *f, struct gn_vm *vm, unsigned split_pages);
void gn_forming_fini(struct gn_forming *f);
/* A page was published or merged: if it was in a large block, that is in pieces. True: this is news. */
bool gn_forming_note_small(struct gn_forming *f, gfn_t at);
/* Form a few areas, once a sweep. How many. */
unsigned gn_forming_step(struct gn_forming *f);

#endif
