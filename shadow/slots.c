/* SPDX-License-Identifier: MIT */
/*
 * slots.c - growing and shrinking sets of slots.
 *
 * A vector with its header fills a size class of the allocator: 3, 7, 15, ... slots. It is given
 * back when one slot is left, so a page that was mapped twice for a while costs nothing afterwards.
 * Removal searches from the end, since short-lived mappings (a fork that exec()s) come and go there, and
 * closes the gap with the last slot: order means nothing.
 */
#include "slots.h"

#include <errno.h>
#include <string.h>

#include "mmu/arena.h"
#include "mmu/check.h"

#define FIRST_CAPACITY 3

static size_t vector_bytes(uint32_t capacity)
{
	return sizeof(struct gn_slot_vector) + capacity * sizeof(uint64_t *);
}

static void set_vector(struct gn_slots *set, struct gn_slot_vector *vector)
{
	set->word = (uintptr_t)vector | GN_SLOTS_VECTOR | (set->word & GN_SLOTS_MARKS);
}

int gn_slots_reserve_slow(struct gn_arena *arena, struct gn_slots *set)
{
	bool is_vector = set->word & GN_SLOTS_VECTOR;
	struct gn_slot_vector *old = is_vector ? gn_slots_vector(set) : NULL, *bigger;
	uint32_t capacity;

	if (old && old->count < old->capacity)
		return 0;
	capacity = old ? 2 * old->capacity + 1 : FIRST_CAPACITY;
	bigger = gn_arena_alloc(arena, vector_bytes(capacity));
	if (!bigger)
		return -ENOMEM;
	bigger->capacity = capacity;
	bigger->count = gn_slots_count(set);
	if (old) {
		memcpy(bigger->slot, old->slot, old->count * sizeof(uint64_t *));
		gn_arena_free(arena, old, vector_bytes(old->capacity));
	} else {
		bigger->slot[0] = gn_slots_at(set, 0);
	}
	set_vector(set, bigger);
	return 0;
}

void gn_slots_add(struct gn_slots *set, uint64_t *slot)
{
	GN_BUG_ON((uintptr_t)slot & GN_SLOTS_BITS);
	if (set->word & GN_SLOTS_VECTOR) {
		struct gn_slot_vector *vector = gn_slots_vector(set);

		GN_BUG_ON(vector->count == vector->capacity);
		vector->slot[vector->count++] = slot;
	} else {
		GN_BUG_ON(!gn_slots_is_empty(set));
		set->word |= (uintptr_t)slot;
	}
}

static void shrink(struct gn_arena *arena, struct gn_slots *set, struct gn_slot_vector *vector)
{
	uintptr_t left = vector->count ? (uintptr_t)vector->slot[0] : 0;

	gn_arena_free(arena, vector, vector_bytes(vector->capacity));
	set->word = left | (set->word & GN_SLOTS_MARKS);
}

void gn_slots_remove(struct gn_arena *arena, struct gn_slots *set, uint64_t *slot)
{
	struct gn_slot_vector *vector = gn_slots_vector(set);
	uint32_t i;

	if (!(set->word & GN_SLOTS_VECTOR)) {
		GN_BUG_ON(gn_slots_at(set, 0) != slot);
		set->word &= GN_SLOTS_MARKS;
		return;
	}
	for (i = vector->count; i > 0 && vector->slot[i - 1] != slot; i--)
		;
	GN_BUG_ON(i == 0);
	vector->slot[i - 1] = vector->slot[--vector->count];
	if (vector->count <= 1)
		shrink(arena, set, vector);
}

bool gn_slots_contain(const struct gn_slots *set, const uint64_t *slot)
{
	uint32_t count = gn_slots_count(set);

	for (uint32_t i = 0; i < count; i++)
		if (gn_slots_at(set, i) == slot)
			return true;
	return false;
}
