/* SPDX-License-Identifier: MIT */
/*
 * ahead.h - looking ahead in a batch of references, for the host's sake alone.
 *
 * A reference that misses the modelled TLBs makes this program touch host memory at five or six random
 * places (guest leaf entry, nested leaf entry, sets of the modelled L3), each a host cache miss. The
 * cache model has a queue of its own (cache.h). For the entries, the addresses to come are known in a batch, so
 * what will be touched is guessed and prefetched, in two stages: the guest leaf entry, then (it has arrived) the
 * nested leaf entry it leads to. The model's state is neither read nor changed, and a wrong guess costs nothing but time.
 *
 * The guesses come from where the walkers last found the leaf table of a 2 MiB region. They may be stale, or of
 * another region that shares the place: they are frames of the pool, which stays mapped as long as the machine
 * lives, and what is read there is only ever prefetched.
 */
#ifndef GN_SOFT_AHEAD_H
#define GN_SOFT_AHEAD_H

#include <gnomon/types.h>

#include "mmu/prefetch.h"

#define GN_AHEAD_HINTS 1024 /* regions remembered per dimension */

struct gn_ahead {
	uint32_t guest[GN_AHEAD_HINTS], nested[GN_AHEAD_HINTS]; /* frame numbers */
};

static inline void gn_ahead_note(uint32_t *hints, uint64_t address, uint64_t leaf_table)
{
	hints[(address >> 21) % GN_AHEAD_HINTS] = (uint32_t)(leaf_table >> GN_PAGE_SHIFT);
}

/* The HPA of the entry that maps the 4 KiB page of @address. */
static inline uint64_t gn_ahead_guess(const uint32_t *hints, uint64_t address)
{
	return ((uint64_t)hints[(address >> 21) % GN_AHEAD_HINTS] << GN_PAGE_SHIFT) |
	       ((address >> 9) & 0xff8);
}

#endif
