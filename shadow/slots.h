/* SPDX-License-Identifier: MIT */
/*
 * slots.h - a compact, exact set of entry slots.
 *
 * Two things of a shadow table must be known backwards: which leaf entries map a gfn, and which
 * entries point at a shadow page. Nearly always the answer is "one", so a set of one slot is the slot's
 * address itself, in one word; larger sets are a vector the word points to.
 *
 * Slots are 8-byte aligned, so three low bits are free: one tells a vector, two are marks for the set's
 * owner, which adding and removing leave alone.
 *
 * Adding cannot fail, because room is reserved beforehand (gn_slots_reserve): a fault must be able to
 * give up before it has changed anything. A slot is in a set at most once. The caller's lock guards it all.
 */
#ifndef GN_SHADOW_SLOTS_H
#define GN_SHADOW_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

struct gn_arena;

struct gn_slots {
	uintptr_t word;
};

#define GN_SLOTS_VECTOR ((uintptr_t)1)
#define GN_SLOTS_MARKS	((uintptr_t)6)
#define GN_SLOTS_BITS	((uintptr_t)7)

struct gn_slot_vector {
	uint32_t count, capacity;
	uint64_t *slot[];
};

static inline struct gn_slot_vector *gn_slots_vector(const struct gn_slots *set)
{
	return (struct gn_slot_vector *)(set->word & ~GN_SLOTS_BITS);
}
static inline uint32_t gn_slots_count(const struct gn_slots *set)
{
	if (set->word & GN_SLOTS_VECTOR)
		return gn_slots_vector(set)->count;
	return (set->word & ~GN_SLOTS_BITS) != 0;
}
/* @i below the count. */
static inline uint64_t *gn_slots_at(const struct gn_slots *set, uint32_t i)
{
	if (set->word & GN_SLOTS_VECTOR)
		return gn_slots_vector(set)->slot[i];
	return (uint64_t *)(set->word & ~GN_SLOTS_BITS);
}
static inline uint64_t *gn_slots_last(const struct gn_slots *set)
{
	return gn_slots_at(set, gn_slots_count(set) - 1);
}
static inline bool gn_slots_is_empty(const struct gn_slots *set)
{
	return gn_slots_count(set) == 0;
}

/* Room for one more. -ENOMEM: the set is as it was. */
int gn_slots_reserve_slow(struct gn_arena *arena, struct gn_slots *set);
static inline int gn_slots_reserve(struct gn_arena *arena, struct gn_slots *set)
{
	if (!(set->word & ~GN_SLOTS_MARKS))
		return 0;
	return gn_slots_reserve_slow(arena, set);
}
/* After gn_slots_reserve(). */
void gn_slots_add(struct gn_slots *set, uint64_t *slot);
/* @slot is in the set. */
void gn_slots_remove(struct gn_arena *arena, struct gn_slots *set, uint64_t *slot);
/* For audits. */
bool gn_slots_contain(const struct gn_slots *set, const uint64_t *slot);

#endif
