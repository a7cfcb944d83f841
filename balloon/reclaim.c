/* SPDX-License-Identifier: MIT */
/*
 * reclaim.c - goes round the VM's memory like the hand of a clock, and takes what is cold and zero.
 *
 * Memory is looked at in pieces of 2 MiB, so that a large leaf's one accessed bit, and the block it stands for, are judged as
 * a whole. A piece's accessed bits are taken, and what was not accessed since the hand came by the last time is cold: so the first time
 * round finds little, for nearly all was accessed once. A page of zeros that is in use is most likely about to be
 * filled, and to take it would cost a fault and win nothing.
 *
 * A scheme that keeps no tables has no such bits: all pages count as cold, and the price of a mistake is that fault.
 *
 * Deliberately absent: a clock. Who calls decides how often it comes round.
 */
#include "reclaim.h"

#include <errno.h>

#include "mmu/p2m.h"
#include "mmu/vm.h"

#define PIECE_PAGES 512

/* The piece at the hand, which moves on. */
static int take_piece(struct gn_reclaim *r, uint64_t *looked_pages, uint64_t *freed_pages)
{
	uint64_t left = r->vm->p2m.gfn_count - r->hand.v;
	uint64_t pages = left < PIECE_PAGES ? left : PIECE_PAGES;
	uint8_t accessed[PIECE_PAGES / 8] = { 0 };
	gfn_t first = r->hand;
	int err;

	r->hand = gfn(pages < left ? first.v + pages : 0);
	*looked_pages = pages;
	*freed_pages = 0;
	err = gn_accessed_harvest(r->vm, first, pages, accessed);
	if (!err || err == -EOPNOTSUPP)
		err = gn_p2m_discard_zeroes(r->vm, first, pages, accessed, freed_pages);
	return err;
}

int gn_reclaim_run(struct gn_reclaim *r, uint64_t bytes, uint64_t *freed_bytes)
{
	const uint64_t look_pages = GN_RECLAIM_LOOK_BYTES / GN_PAGE_SIZE;
	const uint64_t all_pages = r->vm->p2m.gfn_count;
	uint64_t left = all_pages < look_pages ? all_pages : look_pages;
	int err = 0;

	*freed_bytes = 0;
	while (left && *freed_bytes < bytes && !err) {
		uint64_t looked, freed;

		err = take_piece(r, &looked, &freed);
		*freed_bytes += freed * GN_PAGE_SIZE;
		left -= looked < left ? looked : left;
	}
	return err;
}
