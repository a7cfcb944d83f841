/* SPDX-License-Identifier: MIT */
/*
 * arena.c - metadata memory: exact accounting, zeroing, the injected failure, the leak check.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <gnomon/engine.h>

#include "mmu/arena.h"

Test(arena, counts_what_lives_and_the_highest)
{
	static const size_t sizes[] = { 1, 8, 24, 100, 4096, 5000, 70000, 3 << 20 };
	struct gn_arena *arena;
	void *p[8];
	uint64_t before, all;

	cr_assert_eq(gn_arena_new(&arena), 0);
	cr_assert_eq(gn_arena_bytes(arena), 0);
	for (unsigned i = 0; i < 8; i++) {
		before = gn_arena_bytes(arena);
		p[i] = gn_arena_alloc(arena, sizes[i]);
		cr_assert_not_null(p[i]);
		memset(p[i], 0x55, sizes[i]);
		cr_assert_geq(gn_arena_bytes(arena) - before, sizes[i], "size %zu", sizes[i]);
		cr_assert_leq(gn_arena_bytes(arena) - before, sizes[i] + sizes[i] / 4 + 16);
	}
	all = gn_arena_bytes(arena);
	cr_assert_eq(gn_arena_peak_bytes(arena), all);
	for (unsigned i = 0; i < 8; i++)
		gn_arena_free(arena, p[i], sizes[i]);
	cr_assert_eq(gn_arena_bytes(arena), 0);
	cr_assert_eq(gn_arena_peak_bytes(arena), all);
	gn_arena_free(arena, NULL, 10);
	cr_assert_eq(gn_arena_bytes(arena), 0);
	gn_arena_destroy(arena);
	gn_arena_destroy(NULL);
}

Test(arena, zeroed_memory_is_zero_also_the_second_time)
{
	static const size_t sizes[] = { 1, 40, 4096, 1 << 20 };
	struct gn_arena *arena;

	cr_assert_eq(gn_arena_new(&arena), 0);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 4; i++) {
			uint8_t *p = gn_arena_zalloc(arena, sizes[i]);

			for (size_t at = 0; at < sizes[i]; at++)
				cr_assert_eq(p[at], 0, "size %zu round %u", sizes[i], round);
			memset(p, 0xff, sizes[i]);
			gn_arena_free(arena, p, sizes[i]);
		}
	}
	gn_arena_destroy(arena);
}

Test(arena, nothing_is_a_size)
{
	struct gn_arena *arena;
	void *p;

	cr_assert_eq(gn_arena_new(&arena), 0);
	p = gn_arena_alloc(arena, 0);
	cr_assert_not_null(p);
	gn_arena_free(arena, p, 0);
	cr_assert_eq(gn_arena_bytes(arena), 0);
	gn_arena_destroy(arena);
}

Test(arena, two_arenas_count_apart_and_indexes_come_back)
{
	struct gn_arena *a, *b;

	for (unsigned i = 0; i < 5000; i++) { /* jemalloc has 4095 indexes */
		cr_assert_eq(gn_arena_new(&a), 0, "arena %u", i);
		gn_arena_destroy(a);
	}
	cr_assert_eq(gn_arena_new(&a), 0);
	cr_assert_eq(gn_arena_new(&b), 0);
	void *p = gn_arena_alloc(a, 64);

	cr_assert_gt((long)gn_arena_bytes(a), 0);
	cr_assert_eq(gn_arena_bytes(b), 0);
	gn_arena_free(a, p, 64);
	gn_arena_destroy(a);
	gn_arena_destroy(b);
}

static uint64_t address_space_pages(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	cr_assert_not_null(file);
	cr_assert_eq(fscanf(file, "%lu", &pages), 1);
	fclose(file);
	return pages;
}

/* A VM that changes its scheme again and again must not use up its process's addresses. (Of jemalloc: where plain malloc stands for it,
 * there is nothing to see.) */
Test(arena, address_space_is_used_again)
{
	const uint64_t most = ((uint64_t)64 << 20) / 4096;
	uint64_t before = 0;
	struct gn_arena *arena;
	void *p;

	for (unsigned i = 0; i < 1000; i++) {
		if (i == 10)
			before = address_space_pages();
		cr_assert_eq(gn_arena_new(&arena), 0);
		p = gn_arena_alloc(arena, 64);
		cr_assert_not_null(p);
		gn_arena_free(arena, p, 64);
		gn_arena_destroy(arena);
	}
	cr_assert_leq(address_space_pages(), before + most);
}

Test(arena, the_nth_allocation_fails_once)
{
	struct gn_arena *arena;

	cr_assert_eq(gn_arena_new(&arena), 0);
	gn_alloc_fail_nth(0);
	for (uint64_t n = 1; n <= 5; n++) {
		gn_alloc_fail_nth(n);
		for (uint64_t i = 1; i <= 8; i++) {
			void *p = i & 1 ? gn_arena_alloc(arena, 32) : gn_arena_zalloc(arena, 32);

			cr_assert_eq(p == NULL, i == n, "n %d i %d", (int)n, (int)i);
			gn_arena_free(arena, p, 32);
		}
		cr_assert_eq(gn_alloc_fail_nth(0), 8);
	}
	gn_alloc_fail_nth(1);
	struct gn_arena *none = NULL;

	cr_assert_neq(gn_arena_new(&none), 0);
	cr_assert_null(none);
	cr_assert_eq(gn_alloc_should_fail(), 0);
	gn_arena_destroy(arena);
}

#ifdef GN_DEBUG
Test(arena, a_leak_is_a_bug, .signal = SIGABRT)
{
	struct gn_arena *arena;

	cr_assert_eq(gn_arena_new(&arena), 0);
	cr_assert_not_null(gn_arena_alloc(arena, 10));
	gn_arena_destroy(arena);
}
#endif
