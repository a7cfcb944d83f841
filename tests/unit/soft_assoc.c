/* SPDX-License-Identifier: MIT */
/*
 * soft_assoc.c - the set-associative array against a plain one that keeps a list per set in order of use.
 */
#include <criterion/criterion.h>

#include "softbackend/assoc.h"

#include "support/cases.h"

#define MAX_WAYS 96
#define MAX_SETS 64

struct plain {
	uint64_t order[MAX_SETS][MAX_WAYS]; /* keys, used last first */
	unsigned count[MAX_SETS];
};

static int plain_find(const struct plain *p, unsigned set, uint64_t key)
{
	for (unsigned i = 0; i < p->count[set]; i++)
		if (p->order[set][i] == key)
			return (int)i;
	return -1;
}

static void plain_remove(struct plain *p, unsigned set, unsigned at)
{
	p->count[set]--;
	for (unsigned i = at; i < p->count[set]; i++)
		p->order[set][i] = p->order[set][i + 1];
}

static void plain_push(struct plain *p, unsigned set, uint64_t key)
{
	for (unsigned i = p->count[set]; i; i--)
		p->order[set][i] = p->order[set][i - 1];
	p->order[set][0] = key;
	p->count[set]++;
}

static const struct shape {
	unsigned sets, ways;
} shapes[] = { { 1, 1 },  { 2, 1 },  { 16, 4 }, { 8, 4 },  { 128 / 2, 12 }, { 64, 8 },
	       { 1, 16 }, { 1, 17 }, { 1, 64 }, { 1, 72 }, { 1, 96 } };

static void run_shape(const struct shape *shape, uint64_t seed)
{
	static struct plain plain;
	struct test_random r = test_random_seed(seed);
	struct gn_assoc a;

	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(gn_assoc_init(&a, shape->sets * shape->ways, shape->ways), 0);
	for (unsigned step = 0; step < 20000; step++) {
		uint64_t page = test_random_below(&r, (uint64_t)shape->sets * shape->ways * 2 + 2);
		uint64_t key = page << GN_KEY_PAGE_SHIFT | GN_KEY_VALID, replaced;
		unsigned set = (unsigned)(page % shape->sets);
		struct gn_assoc_place s = gn_assoc_place(&a, page, key);
		int way = gn_assoc_find(&a, &s), at = plain_find(&plain, set, key);

		cr_assert_eq(way >= 0, at >= 0, "%ux%u step %u", shape->sets, shape->ways, step);
		if (way >= 0 && test_random_once(&r, 8)) {
			gn_assoc_drop(&a, s.set, (unsigned)way);
			plain_remove(&plain, set, (unsigned)at);
		} else if (way >= 0) {
			cr_assert_eq(gn_assoc_get(&a, &s)->frame, page);
			plain_remove(&plain, set, (unsigned)at);
			plain_push(&plain, set, key);
		} else {
			uint64_t expected = 0;

			if (plain.count[set] == shape->ways) {
				expected = plain.order[set][shape->ways - 1];
				plain.count[set]--;
			}
			plain_push(&plain, set, key);
			cr_assert_null(gn_assoc_get(&a, &s));
			gn_assoc_put(&a, &s, &replaced)->frame = page;
			cr_assert_eq(replaced, expected, "%ux%u step %u: not the oldest went",
				     shape->sets, shape->ways, step);
		}
		if (test_random_once(&r, 100)) {
			gn_assoc_clear(&a);
			memset(plain.count, 0, sizeof(plain.count));
			cr_assert_eq(a.used, 0);
		}
	}
	gn_assoc_fini(&a);
}

Test(soft_assoc, is_exact_lru)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		run_shape(&shapes[i], i + 1);
}

Test(soft_assoc, global_keys_match_any_tag)
{
	const uint64_t page = 0x12345, base = page << GN_KEY_PAGE_SHIFT | GN_KEY_VALID;
	const uint64_t tag = (uint64_t)7 << GN_KEY_TAG_SHIFT,
		       other = (uint64_t)9 << GN_KEY_TAG_SHIFT;

	cr_assert(gn_key_matches(base | tag, base | tag));
	cr_assert(!gn_key_matches(base | tag, base | other));
	cr_assert(gn_key_matches(base | tag | GN_KEY_GLOBAL, base | other));
	cr_assert(!gn_key_matches(base | tag | GN_KEY_GLOBAL,
				  (page + 1) << GN_KEY_PAGE_SHIFT | GN_KEY_VALID | tag));
	cr_assert(!gn_key_matches(0, base | tag));
}

static void count_dropped(void *ctx, uint64_t key)
{
	(void)key;
	++*(unsigned *)ctx;
}

Test(soft_assoc, drops_what_matches)
{
	struct gn_assoc a;
	uint64_t replaced;
	unsigned dropped = 0;

	cr_assert_eq(gn_assoc_init(&a, 64, 4), 0);
	for (uint64_t page = 0; page < 64; page++) {
		struct gn_assoc_place s = gn_assoc_place(
			&a, page,
			page << GN_KEY_PAGE_SHIFT | (page & 3) << GN_KEY_TAG_SHIFT | GN_KEY_VALID);

		gn_assoc_put(&a, &s, &replaced);
	}
	cr_assert_eq(a.used, 64);
	gn_assoc_drop_matching(&a, GN_KEY_TAG_MASK, (uint64_t)2 << GN_KEY_TAG_SHIFT, count_dropped,
			       &dropped);
	cr_assert_eq(dropped, 16);
	cr_assert_eq(a.used, 48);
	for (uint64_t page = 0; page < 64; page++) {
		struct gn_assoc_place s = gn_assoc_place(
			&a, page,
			page << GN_KEY_PAGE_SHIFT | (page & 3) << GN_KEY_TAG_SHIFT | GN_KEY_VALID);

		cr_assert_eq(gn_assoc_find(&a, &s) < 0, (page & 3) == 2, "page %lu",
			     (unsigned long)page);
	}
	gn_assoc_clear(&a);
	cr_assert_eq(a.used, 0);
	gn_assoc_fini(&a);
}
