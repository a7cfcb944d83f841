/* SPDX-License-Identifier: MIT */
/*
 * index.c - the table, and how it stays tidy.
 *
 * The invariant that lets a look-up stop early: between the home of an entry and the bucket it is in there is no bucket
 * with an empty place. So a tag that is not there is mostly told by one line, that of its home.
 *
 * Erasing must not break that. A bucket that has an empty place already is passed by nobody, and gets another; elsewhere
 * the place becomes *erased*: free for an insertion, and no end for a look-up. Cleaning makes erased places empty again: it
 * fills them with entries that were displaced past them, and when there are none of those, nobody needs to pass
 * the bucket any more. It goes on from where it stopped, as many buckets at a time as the caller can afford; an index of which few entries
 * change needs it rarely.
 *
 * A home is the tag's high bits scaled to the number of buckets, which thus need not be a power of two: 21 bytes a page mean
 * 21 bytes. At a fill of three quarters, which that is with an entry for every page, one entry in three million finds
 * no place within its eight buckets.
 *
 * The table asks for huge pages: it is hit at random, and a look-up should cost one miss and not two.
 */
#include "index.h"

#include <errno.h>
#include <sys/mman.h>

#include "mmu/arena.h"
#include "mmu/check.h"

#define EMPTY	       0
#define ERASED	       1
#define BUCKET	       GN_INDEX_BUCKET_ENTRIES
#define BYTES_PER_PAGE 21
#define PAGES_MAX      ((uint64_t)1 << 40)

uint64_t gn_index_buckets(const struct gn_index *index)
{
	return index->bucket_count + GN_INDEX_PROBES - 1;
}

int gn_index_init(struct gn_index *index, uint64_t pages)
{
	void *table;

	if (!pages || pages > PAGES_MAX)
		return -EINVAL;
	index->bucket_count = pages * BYTES_PER_PAGE / (BUCKET * sizeof(index->entries[0])) + 1;
	index->bytes = gn_index_buckets(index) * BUCKET * sizeof(index->entries[0]);
	if (gn_alloc_should_fail())
		return -ENOMEM;
	table = mmap(NULL, index->bytes, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (table == MAP_FAILED)
		return -ENOMEM;
	(void)madvise(table, index->bytes, MADV_HUGEPAGE); /* small ones will do */
	index->entries = (struct gn_index_entry *)table;
	index->used_count = 0;
	index->cursor = 0;
	return 0;
}

void gn_index_fini(struct gn_index *index)
{
	munmap(index->entries, index->bytes);
}

static bool is_used(const struct gn_index_entry *e)
{
	return e->value >= GN_INDEX_VALUE_MIN;
}

static struct gn_index_entry *bucket_at(const struct gn_index *index, uint64_t bucket)
{
	return &index->entries[bucket * BUCKET];
}

/* One past the last place where an entry of that home may be. */
static struct gn_index_entry *reach_of(const struct gn_index *index, uint64_t home)
{
	return bucket_at(index, home + GN_INDEX_PROBES);
}

struct gn_index_entry *gn_index_next(const struct gn_index *index, uint64_t tag,
				     const struct gn_index_entry *last)
{
	const uint64_t home = gn_index_home(index, tag);
	struct gn_index_entry *e =
		last ? (struct gn_index_entry *)last + 1 : bucket_at(index, home);
	struct gn_index_entry *end = reach_of(index, home);

	for (; e < end && e->value != EMPTY; e++)
		if (e->tag == tag && e->value != ERASED)
			return e;
	return NULL;
}

int gn_index_insert(struct gn_index *index, uint64_t tag, uint64_t value,
		    gn_index_give_up_fn *give_up, void *ctx, struct gn_index_entry **out)
{
	const uint64_t home = gn_index_home(index, tag);
	struct gn_index_entry *end = reach_of(index, home), *e;

	GN_BUG_ON(value < GN_INDEX_VALUE_MIN);
	for (e = bucket_at(index, home); e < end && is_used(e); e++)
		;
	if (e == end) {
		for (e = bucket_at(index, home); e < end && !give_up(ctx, e); e++)
			;
		if (e == end)
			return -ENOSPC;
		index->used_count--;
	}
	e->tag = tag;
	e->value = value;
	index->used_count++;
	*out = e;
	return 0;
}

static bool has_empty(const struct gn_index_entry *bucket)
{
	bool any = false;

	for (unsigned i = 0; i < BUCKET; i++)
		any |= bucket[i].value == EMPTY;
	return any;
}

/* The places of a bucket that are empty are its last ones, so that a look-up may stop at the first. */
static void sink_empty(struct gn_index_entry *bucket)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < BUCKET; i++)
		if (bucket[i].value != EMPTY)
			bucket[kept++] = bucket[i];
	for (; kept < BUCKET; kept++)
		bucket[kept].value = EMPTY;
}

void gn_index_erase(struct gn_index *index, struct gn_index_entry *entry)
{
	GN_BUG_ON(!is_used(entry));
	entry->value = ERASED; /* cleaning makes it empty */
	index->used_count--;
}

/* ---- Cleaning ------------------------------------------------------------------------------------ */

/* An entry behind @bucket that would rather be in it. */
static struct gn_index_entry *find_displaced(const struct gn_index *index, uint64_t bucket)
{
	struct gn_index_entry *e = bucket_at(index, bucket + 1);
	uint64_t last = bucket + GN_INDEX_PROBES;
	struct gn_index_entry *end =
		bucket_at(index, last < gn_index_buckets(index) ? last : gn_index_buckets(index));

	for (; e < end; e++)
		if (is_used(e) && gn_index_home(index, e->tag) <= bucket)
			return e;
	return NULL;
}

/* The place is left with an entry that is wanted, or empty. *is_passed: the bucket has had no empty place so far. */
static void clean_place(struct gn_index *index, uint64_t bucket, struct gn_index_entry *place,
			bool *is_passed, gn_index_give_up_fn *give_up, void *ctx)
{
	while (place->value != EMPTY) {
		struct gn_index_entry *displaced;

		if (is_used(place) && !give_up(ctx, place))
			return;
		if (is_used(place))
			gn_index_erase(index, place);
		displaced = *is_passed ? find_displaced(index, bucket) : NULL;
		if (displaced) {
			*place = *displaced;
			displaced->value = ERASED;
		} else {
			place->value = EMPTY;
			*is_passed = false;
		}
	}
}

static void clean_bucket(struct gn_index *index, uint64_t bucket, gn_index_give_up_fn *give_up,
			 void *ctx)
{
	struct gn_index_entry *b = bucket_at(index, bucket);
	bool is_passed = !has_empty(b);

	for (unsigned i = 0; i < BUCKET; i++)
		clean_place(index, bucket, &b[i], &is_passed, give_up, ctx);
	sink_empty(b);
}

bool gn_index_clean(struct gn_index *index, uint64_t buckets, gn_index_give_up_fn *give_up,
		    void *ctx)
{
	bool any_last = false;

	for (; buckets; buckets--) {
		clean_bucket(index, index->cursor, give_up, ctx);
		if (++index->cursor == gn_index_buckets(index)) {
			index->cursor = 0;
			any_last = true;
		}
	}
	return any_last;
}

void gn_index_visit(const struct gn_index *index, gn_index_visit_fn *visit, void *ctx)
{
	struct gn_index_entry *end = bucket_at(index, gn_index_buckets(index));

	for (struct gn_index_entry *e = index->entries; e < end; e++)
		if (is_used(e))
			visit(ctx, e);
}
