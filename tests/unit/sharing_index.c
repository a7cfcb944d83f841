/* SPDX-License-Identifier: MIT */
/*
 * sharing_index.c - the index against a plain list of what it must hold.
 */
#include <criterion/criterion.h>

#include <errno.h>

#include <gnomon/engine.h>

#include "sharing/index.h"
#include "support/cases.h"

static bool keep(void *ctx, const struct gn_index_entry *entry)
{
	(void)ctx;
	(void)entry;
	return false;
}

static struct gn_index_entry *insert(struct gn_index *index, uint64_t tag, uint64_t value)
{
	struct gn_index_entry *entry = NULL;

	cr_assert_eq(gn_index_insert(index, tag, value, keep, NULL, &entry), 0);
	return entry;
}

static unsigned count_of(const struct gn_index *index, uint64_t tag)
{
	struct gn_index_entry *e = NULL;
	unsigned count = 0;

	while ((e = gn_index_next(index, tag, e)))
		count++;
	return count;
}

Test(sharing_index, equal_tags_chain)
{
	struct gn_index index;

	cr_assert_eq(gn_index_init(&index, 1000), 0);
	for (uint64_t value = 2; value < 12; value++)
		insert(&index, 77, value);
	cr_assert_eq(count_of(&index, 77), 10);
	cr_assert_eq(count_of(&index, 78), 0);
	gn_index_erase(&index, gn_index_next(&index, 77, NULL));
	cr_assert_eq(count_of(&index, 77), 9);
	cr_assert_eq(index.used_count, 9);
	gn_index_fini(&index);
}

/* One home takes what its buckets hold, and then there is no room. */
Test(sharing_index, a_home_is_full)
{
	const unsigned room = GN_INDEX_PROBES * GN_INDEX_BUCKET_ENTRIES;
	struct gn_index_entry *entry;
	struct gn_index index;

	cr_assert_eq(gn_index_init(&index, 10000), 0);
	for (uint64_t i = 0; i < room; i++)
		insert(&index, ~(uint64_t)0,
		       2 + i); /* the last home: nothing is behind the table */
	cr_assert_eq(gn_index_insert(&index, ~(uint64_t)0, 2, keep, NULL, &entry), -ENOSPC);
	cr_assert_eq(count_of(&index, ~(uint64_t)0), room);
	gn_index_fini(&index);
}

static bool give_up_value(void *value, const struct gn_index_entry *entry)
{
	return entry->value == *(uint64_t *)value;
}

Test(sharing_index, what_is_given_up_makes_room)
{
	const unsigned room = GN_INDEX_PROBES * GN_INDEX_BUCKET_ENTRIES;
	uint64_t unwanted = 2 + room / 2;
	struct gn_index_entry *entry;
	struct gn_index index;

	cr_assert_eq(gn_index_init(&index, 10000), 0);
	for (uint64_t i = 0; i < room; i++)
		insert(&index, 5, 2 + i);
	cr_assert_eq(gn_index_insert(&index, 5, 7777, give_up_value, &unwanted, &entry), 0);
	cr_assert_eq(entry->value, 7777);
	cr_assert_eq(index.used_count, room);
	gn_index_fini(&index);
}

Test(sharing_index, room_for_a_page_each)
{
	const uint64_t pages = 300000;
	struct test_random random = test_random_seed(1);
	struct gn_index_entry *entry;
	struct gn_index index;
	unsigned full = 0;

	cr_assert_eq(gn_index_init(&index, pages), 0);
	cr_assert_leq(index.bytes, pages * 21 + 4096);
	for (uint64_t i = 0; i < pages; i++)
		full += gn_index_insert(&index, test_random_next(&random), 2 + i, keep, NULL,
					&entry) != 0;
	cr_assert_leq(full, pages / 100000, "%u of %llu", full, (unsigned long long)pages);
	gn_index_fini(&index);
}

Test(sharing_index, what_cannot_be)
{
	struct gn_index index;

	cr_assert_eq(gn_index_init(&index, 0), -EINVAL);
	cr_assert_eq(gn_index_init(&index, UINT64_MAX), -EINVAL);
	gn_alloc_fail_nth(1);
	cr_assert_eq(gn_index_init(&index, 100), -ENOMEM);
}

/* ---- Against an oracle ------------------------------------------------------------------------------- */

#define ENTRIES 600
#define TAGS	400 /* so that many are equal */
#define STEPS	200000

struct oracle {
	struct {
		uint64_t tag;
		bool is_in, is_unwanted;
	} entries[ENTRIES]; /* by value - 2 */
	unsigned in;
};

static bool give_up_unwanted(void *ctx, const struct gn_index_entry *entry)
{
	struct oracle *o = ctx;
	uint64_t i = entry->value - GN_INDEX_VALUE_MIN;

	if (!o->entries[i].is_unwanted)
		return false;
	o->entries[i].is_in = false;
	o->entries[i].is_unwanted = false;
	o->in--;
	return true;
}

static unsigned told_soon;

/* Told of what there is, and of nothing else. */
static void note_soon(const void *ctx, const struct gn_index_entry *entry)
{
	const struct oracle *o = ctx;

	told_soon++;
	cr_assert(o->entries[entry->value - GN_INDEX_VALUE_MIN].is_in);
}

static struct gn_index_entry *find(const struct gn_index *index, uint64_t tag, uint64_t value)
{
	struct gn_index_entry *e = NULL;

	while ((e = gn_index_next(index, tag, e)))
		if (e->value == value)
			return e;
	return NULL;
}

static void check_all(const struct gn_index *index, const struct oracle *o)
{
	cr_assert_eq(index->used_count, o->in);
	for (uint64_t i = 0; i < ENTRIES; i++)
		cr_assert_eq(find(index, o->entries[i].tag, i + 2) != NULL, o->entries[i].is_in,
			     "entry %d", (int)i);
}

static void act(struct gn_index *index, struct oracle *o, struct test_random *r)
{
	uint64_t i = test_random_below(r, ENTRIES);
	struct gn_index_entry *e;

	switch (test_random_below(r, 8)) {
	case 0:
		gn_index_clean(index, 1 + test_random_below(r, 20), give_up_unwanted, note_soon, o);
		return;
	case 1:
		o->entries[i].is_unwanted = o->entries[i].is_in;
		return;
	case 2:
	case 3:
	case 4:
		if (!o->entries[i].is_in)
			return;
		gn_index_erase(index, find(index, o->entries[i].tag, i + 2));
		o->entries[i].is_in = o->entries[i].is_unwanted = false;
		o->in--;
		return;
	default:
		if (o->entries[i].is_in)
			return;
		/* Neighbouring homes, so that they get in each other's way. */
		o->entries[i].tag = test_random_below(r, TAGS) * 0x0010000000000000u;
		if (gn_index_insert(index, o->entries[i].tag, i + 2, give_up_unwanted, o, &e))
			return;
		o->entries[i].is_in = true;
		o->in++;
	}
}

Test(sharing_index, random_operations)
{
	struct test_random random = test_random_seed(20);
	struct gn_index index;
	static struct oracle o;

	cr_assert_eq(gn_index_init(&index, ENTRIES), 0);
	for (unsigned i = 0; i < STEPS; i++) {
		act(&index, &o, &random);
		if (i % 200 == 0)
			check_all(&index, &o);
	}
	cr_assert_gt(told_soon, 0);
	/* Cleaned twice over, nothing lies further away than it must: places are empty again. */
	for (unsigned i = 0; i < 2; i++)
		while (!gn_index_clean(&index, 7, give_up_unwanted, NULL, &o))
			;
	check_all(&index, &o);
	for (uint64_t i = 0; i < gn_index_buckets(&index) * GN_INDEX_BUCKET_ENTRIES; i++)
		cr_assert_neq(index.entries[i].value, 1, "place %d is still erased", (int)i);
	gn_index_fini(&index);
}
