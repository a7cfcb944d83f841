/* SPDX-License-Identifier: MIT */
/*
 * ahead.h - looking ahead in a batch of references, for the host's sake alone.
 *
 * A reference that misses the modelled TLBs makes this program touch host memory at five or six random
 * places (guest leaf entry, nested leaf entry, sets of the modelled L3), each a host cache miss. In a batch
 * the addresses to come are known, so what will be touched is guessed and prefetched, in three stages: the guest
 * leaf entry, then (it has arrived) the nested leaf entry it leads to, then the cache sets of the lines
 * found. The model's state is neither read nor changed, and a wrong guess costs nothing but time.
 *
 * The guesses come from where the walkers last found the leaf tables of a 2 MiB region. They may be stale:
 * they are places in the frame pool, which stays mapped as long as the machine lives, and what is read
 * there is only ever prefetched.
 */
#ifndef GN_SOFT_AHEAD_H
#define GN_SOFT_AHEAD_H

#include <gnomon/types.h>

#define GN_AHEAD_HINTS 1024 /* regions remembered per dimension */
#define GN_AHEAD_RING  32

struct gn_ahead_hint {
	uint64_t region; /* address >> 21, plus 1 */
	const uint64_t *table;
};

struct gn_ahead_slot {
	const uint64_t *entry, *nested_entry; /* NULL: no guess */
	uint64_t frame;			      /* what the guest leaf entry says */
};

struct gn_ahead {
	struct gn_ahead_hint guest[GN_AHEAD_HINTS], nested[GN_AHEAD_HINTS];
	struct gn_ahead_slot ring[GN_AHEAD_RING];
};

static inline void gn_ahead_note(struct gn_ahead_hint *hints, uint64_t address,
				 const uint64_t *leaf_entry)
{
	struct gn_ahead_hint *h = &hints[(address >> 21) % GN_AHEAD_HINTS];

	h->region = (address >> 21) + 1;
	h->table = (const uint64_t *)((uintptr_t)leaf_entry & ~(uintptr_t)(GN_PAGE_SIZE - 1));
}

/* The entry that maps the 4 KiB page of @address, if the region is known. */
static inline const uint64_t *gn_ahead_guess(const struct gn_ahead_hint *hints, uint64_t address)
{
	const struct gn_ahead_hint *h = &hints[(address >> 21) % GN_AHEAD_HINTS];

	return h->region == (address >> 21) + 1 ? h->table + ((address >> 12) & 511) : NULL;
}

#endif
