/* SPDX-License-Identifier: MIT */
/*
 * soft_cache.c - the data-cache model against a plain LRU list per set.
 */
#include <criterion/criterion.h>

#include "softbackend/cache.h"

#include "support/cases.h"

static const struct shape {
	uint32_t kib, ways;
	bool is_hashed;
} shapes[] = { { 1, 1, false },	  { 4, 4, false },  { 8, 8, false },  { 12, 12, false },
	       { 16, 16, false }, { 11, 11, true }, { 15, 15, true }, { 33, 11, true } };

static void run_shape(const struct shape *shape)
{
	struct test_random r = test_random_seed(shape->kib * 100 + shape->ways);
	uint32_t lists[1024][16] = { { 0 } };
	struct gn_cache c;
	unsigned hits = 0;

	cr_assert_eq(gn_cache_init(&c, shape->kib, shape->ways, shape->is_hashed), 0);
	cr_assert_leq(c.sets, 1024);
	for (unsigned step = 0; step < 40000; step++) {
		uint32_t line = (uint32_t)test_random_below(&r, shape->kib * 16 * 3 / 2 + 4);
		uint32_t *list = lists[(gn_cache_set(&c, line) - c.memory) / c.stride];
		unsigned at = 0;
		bool hit;

		if (test_random_once(&r, 4))
			line += 0x40000000; /* far apart, for the tags */
		list = lists[(gn_cache_set(&c, line) - c.memory) / c.stride];
		while (at < shape->ways - 1 && list[at] != line + 1)
			at++;
		hit = list[at] == line + 1;
		for (; at; at--)
			list[at] = list[at - 1];
		list[0] = line + 1;
		cr_assert_eq(gn_cache_use(&c, line), hit, "%u KiB, %u ways, step %u", shape->kib,
			     shape->ways, step);
		hits += hit;
	}
	cr_assert(hits > 1000);
	gn_cache_fini(&c);
}

Test(soft_cache, is_exact_lru)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		run_shape(&shapes[i]);
}

Test(soft_cache, a_line_moves_up_the_hierarchy)
{
	struct gn_cache l3;
	struct gn_caches c = { .last_line = GN_CACHE_NO_LINE, .l3 = &l3 };

	cr_assert_eq(gn_cache_init(&c.l1, 1, 1, false), 0); /* 16 lines */
	cr_assert_eq(gn_cache_init(&c.l2, 2, 1, false), 0); /* 32 lines */
	cr_assert_eq(gn_cache_init(&l3, 64, 16, true), 0);
	cr_assert_eq(gn_caches_use(&c, 0), GN_CACHE_MEMORY);
	cr_assert_eq(gn_caches_use(&c, 63), GN_CACHE_L1);
	cr_assert_eq(gn_caches_use(&c, 16 * 64), GN_CACHE_MEMORY); /* evicts line 0 from L1 */
	cr_assert_eq(gn_caches_use(&c, 0), GN_CACHE_L2);
	cr_assert_eq(gn_caches_use(&c, 32 * 64), GN_CACHE_MEMORY); /* and from L2 */
	cr_assert_eq(gn_caches_use(&c, 0), GN_CACHE_L3);
	gn_cache_clear(&c.l1);
	c.last_line = GN_CACHE_NO_LINE;
	cr_assert_eq(gn_caches_use(&c, 0), GN_CACHE_L2);
	gn_cache_fini(&c.l1);
	gn_cache_fini(&c.l2);
	gn_cache_fini(&l3);
}
