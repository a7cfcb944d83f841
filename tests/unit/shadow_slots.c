/* SPDX-License-Identifier: MIT */
/*
 * shadow_slots.c - sets of slots against a plain array, sizes 0 to 100.
 */
#include <criterion/criterion.h>

#include <gnomon/engine.h>

#include "mmu/arena.h"
#include "shadow/slots.h"

Test(shadow_slots, add_and_remove)
{
	static uint64_t slot[100];
	struct gn_slots set = { 6 }; /* both marks */
	struct gn_arena *arena;
	uint32_t random = 12345;

	cr_assert_eq(gn_arena_new(&arena), 0);
	for (unsigned size = 0; size <= 100; size++) {
		bool in[100] = { false };
		uint32_t left = size;

		for (unsigned i = 0; i < size; i++) {
			cr_assert_eq(gn_slots_reserve(arena, &set), 0);
			gn_slots_add(&set, &slot[i]);
			in[i] = true;
			cr_assert_eq(gn_slots_last(&set), &slot[i]);
		}
		cr_assert_eq(gn_slots_count(&set), size);
		while (left) {
			unsigned i = (random = random * 1664525 + 1013904223) >> 8;

			for (i %= size; !in[i]; i = (i + 1) % size)
				;
			gn_slots_remove(arena, &set, &slot[i]);
			in[i] = false;
			cr_assert_eq(gn_slots_count(&set), --left);
			for (unsigned j = 0; j < size; j++)
				cr_assert_eq(gn_slots_contain(&set, &slot[j]), in[j], "size %u",
					     size);
			cr_assert_eq(set.word & GN_SLOTS_MARKS, 6);
		}
		cr_assert_eq(gn_arena_bytes(arena), 0);
	}
	gn_arena_destroy(arena);
}

Test(shadow_slots, growing_may_fail)
{
	static uint64_t slot[4];
	struct gn_slots set = { 0 };
	struct gn_arena *arena;

	cr_assert_eq(gn_arena_new(&arena), 0);
	gn_slots_add(&set, &slot[0]);
	gn_alloc_fail_nth(1);
	cr_assert_neq(gn_slots_reserve(arena, &set), 0);
	gn_alloc_fail_nth(0);
	cr_assert(gn_slots_contain(&set, &slot[0]));
	cr_assert_eq(gn_slots_reserve(arena, &set), 0);
	gn_slots_add(&set, &slot[1]);
	gn_slots_remove(arena, &set, &slot[0]);
	gn_slots_remove(arena, &set, &slot[1]);
	cr_assert(gn_slots_is_empty(&set));
	gn_arena_destroy(arena);
}
