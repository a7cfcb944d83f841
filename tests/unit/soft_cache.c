/* SPDX-License-Identifier: MIT */
/*
 * soft_cache.c - the data-cache model against the replacement rule told plainly.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "softbackend/cache_set.h"

#include "support/cases.h"

static const struct shape {
	uint32_t kib, ways;
	bool is_hashed;
} shapes[] = { { 1, 1, false },	  { 4, 4, false },  { 8, 8, false },  { 12, 12, false },
	       { 16, 16, false }, { 11, 11, true }, { 15, 15, true }, { 33, 11, true } };

/* The largest line: one that makes 16-bit tags exact, and one that does not. */
static const uint32_t max_lines[] = { 0x7fff, 0x7ffffffe };

/* One set as the rule says it: a mark per way that was used lately; when all are marked, only the last one stays so;
 * the first way without a mark is replaced. */
struct plain {
	uint32_t line[16]; /* plus 1; 0: none */
	bool lately[16];
};

static bool plain_use(struct plain *set, unsigned ways, uint32_t line)
{
	unsigned way = 0, marks = 0;
	bool hit;

	while (way < ways && set->line[way] != line + 1)
		way++;
	hit = way < ways;
	if (!hit)
		for (way = 0; set->lately[way]; way++)
			;
	set->line[way] = line + 1;
	set->lately[way] = true;
	for (unsigned i = 0; i < ways; i++)
		marks += set->lately[i];
	if (marks == ways)
		for (unsigned i = 0; i < ways; i++)
			set->lately[i] = ways > 1 && i == way;
	return hit;
}

static void run_shape(const struct shape *shape, uint32_t max_line)
{
	struct test_random r = test_random_seed(shape->kib * 100 + shape->ways);
	static struct plain sets[1024];
	struct gn_cache c;
	unsigned hits = 0;

	memset(sets, 0, sizeof(sets));
	cr_assert_eq(gn_cache_init(&c, shape->kib, shape->ways, shape->is_hashed, max_line), 0);
	cr_assert_leq(c.sets, 1024);
	for (unsigned step = 0; step < 40000; step++) {
		uint32_t line = (uint32_t)test_random_below(&r, shape->kib * 16 * 3 / 2 + 4);
		size_t index;
		bool hit;

		if (test_random_once(&r, 4))
			line += max_line / 2 + 1; /* far apart, for the tags */
		index = gn_cache_index(&c, line, shape->is_hashed);
		hit = plain_use(&sets[index], shape->ways, line);
		cr_assert_eq(!gn_cache_use_shape(&c, line, shape->is_hashed, c.shape), hit,
			     "%u KiB, %u ways, step %u", shape->kib, shape->ways, step);
		hits += hit;
	}
	cr_assert(hits > 1000);
	gn_cache_fini(&c);
}

Test(soft_cache, replaces_what_was_not_used_lately)
{
#ifdef __AVX2__
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2"))
		cr_skip_test("this CPU has no AVX2");
#endif
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		for (size_t j = 0; j < 2; j++)
			run_shape(&shapes[i], max_lines[j]);
}

Test(soft_cache, a_line_moves_up_the_hierarchy)
{
	struct gn_cache l3;
	struct gn_caches c = { .last_line = GN_CACHE_NO_LINE, .l3 = &l3 };

	cr_assert_eq(gn_cache_init(&c.l1, 1, 1, false, 1000), 0); /* 16 lines */
	cr_assert_eq(gn_cache_init(&c.l2, 2, 1, false, 1000), 0); /* 32 lines */
	cr_assert_eq(gn_cache_init(&l3, 64, 16, true, 1000), 0);
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

static int make_caches(struct gn_caches *c, struct gn_cache *l3)
{
	*c = (struct gn_caches){ .last_line = GN_CACHE_NO_LINE, .l3 = l3 };
	return gn_cache_init(&c->l1, 2, 8, false, 1 << 24) ||
	       gn_cache_init(&c->l2, 8, 4, false, 0x7fff) ||
	       gn_cache_init(l3, 33, 11, true, 1 << 14);
}

static void drop_caches(struct gn_caches *c)
{
	gn_cache_fini(&c->l1);
	gn_cache_fini(&c->l2);
	gn_cache_fini(c->l3);
}

/* Walks of a few entries, and their data, by level and kind: the same in bulk as one by one. */
Test(soft_cache, a_queue_counts_as_single_references_do)
{
	struct test_random r = test_random_seed(11);
	struct gn_cache single_l3, queued_l3;
	static struct gn_caches single, queued;
	struct gn_cache_served want = { 0 }, got = { 0 }, served;

	cr_assert_eq(make_caches(&single, &single_l3), 0);
	cr_assert_eq(make_caches(&queued, &queued_l3), 0);
	for (unsigned step = 0; step < 20000; step++) {
		uint32_t line, entries = (uint32_t)test_random_below(&r, 5);

		for (uint32_t i = 0; i < entries; i++) {
			line = (uint32_t)test_random_below(&r, 700);
			want.entries[gn_caches_use(&single, (uint64_t)line << GN_LINE_SHIFT)]++;
			gn_caches_queue_entry(&queued, line);
		}
		gn_caches_end_walk(&queued);
		cr_assert(!entries || queued.last_line == line);
		line = (uint32_t)test_random_below(&r, 700);
		if (line != queued.last_line) {
			want.data[gn_caches_use(&single, (uint64_t)line << GN_LINE_SHIFT)]++;
			gn_caches_queue_datum(&queued, line);
		}
		if (queued.queued < GN_CACHE_QUEUE - GN_CACHE_ROOM && step + 1 < 20000)
			continue;
		gn_caches_run(&queued, &served);
		for (unsigned level = 0; level < GN_CACHE_LEVELS; level++) {
			got.entries[level] += served.entries[level];
			got.data[level] += served.data[level];
		}
	}
	for (unsigned level = 0; level < GN_CACHE_LEVELS; level++) {
		cr_assert(want.entries[level] > 100 && want.data[level] > 100);
		cr_assert_eq(got.entries[level], want.entries[level]);
		cr_assert_eq(got.data[level], want.data[level]);
	}
	drop_caches(&single);
	drop_caches(&queued);
}
