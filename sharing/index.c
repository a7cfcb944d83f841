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
 * 21 bytes. At a fill of three quarters, which that is with an entry for every page, eight buckets would not do for one
 * page in 250; within 32 hardly one in a hundred thousand finds no place.
 *
 * The table asks for huge pages: it is hit at random, and a look-up should cost one miss and not two.
 */
#include "index.h"

#include <errno.h>
#include <sys/mman.h>

#include <gnomon/types.h>

#include "mmu/arena.h"
#include "mmu/check.h"

#define EMPTY	       0
#define ERASED	       1
#define BUCKET	       GN_INDEX_BUCKET_ENTRIES
#define BYTES_PER_PAGE 21
#define CLEAN_AHEAD    8 /* buckets */
#define HUGE_BYTES     ((size_t)2 << 20)
#define PAGES_MAX      ((uint64_t)1 << 40)

uint64_t gn_index_buckets(const struct gn_index *index)
{
	return index->bucket_count + GN_INDEX_PROBES - 1;
}

/* Whole huge pages, so that the host can give them: mapped with room for the alignment, which is given back. */
static void *map_aligned(size_t bytes)
{
	uint8_t *room, *at;

	if (gn_alloc_should_fail())
		return NULL;
	room = (uint8_t *)mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room == MAP_FAILED)
		return NULL;
	at = (uint8_t *)(((uintptr_t)room + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
	if (at > room)
		munmap(room, (size_t)(at - room));
	munmap(at + bytes, (size_t)(room + HUGE_BYTES - at));
	(void)madvise(at, bytes, MADV_HUGEPAGE); /* small ones will do */
	return at;
}

int gn_index_init(struct gn_index *index, uint64_t pages)
{
	if (!pages || pages > PAGES_MAX)
		return -EINVAL;
	index->bucket_count = pages * BYTES_PER_PAGE / (BUCKET * sizeof(index->entries[0])) + 1;
	index->bytes = gn_index_buckets(index) * BUCKET * sizeof(index->entries[0]);
	index->bytes = (index->bytes + GN_PAGE_SIZE - 1) & ~(size_t)(GN_PAGE_SIZE - 1);
	index->entries = (struct gn_index_entry *)map_aligned(index->bytes);
	if (!index->entries)
		return -ENOMEM;
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

/*
 * A bit for each place of a bucket. How many places are taken is anybody's guess, the processor's too, so nothing branches on it.
 */
static unsigned places_of_tag(const struct gn_index_entry *bucket, uint64_t tag)
{
	unsigned places = 0;

	for (unsigned i = 0; i < BUCKET; i++)
		places |= (unsigned)((bucket[i].tag == tag) & is_used(&bucket[i])) << i;
	return places;
}

static unsigned free_places(const struct gn_index_entry *bucket)
{
	unsigned places = 0;

	for (unsigned i = 0; i < BUCKET; i++)
		places |= (unsigned)!is_used(&bucket[i]) << i;
	return places;
}

/* The empty places of a bucket are its last ones. */
static bool has_empty(const struct gn_index_entry *bucket)
{
	return bucket[BUCKET - 1].value == EMPTY;
}

struct gn_index_entry *gn_index_next(const struct gn_index *index, uint64_t tag,
				     const struct gn_index_entry *last)
{
	const uint64_t home = gn_index_home(index, tag);
	const uint64_t after = last ? (uint64_t)(last + 1 - index->entries) : home * BUCKET;
	unsigned skipped = after % BUCKET;

	for (uint64_t at = after / BUCKET; at < home + GN_INDEX_PROBES; at++) {
		struct gn_index_entry *b = bucket_at(index, at);
		unsigned places = places_of_tag(b, tag) >> skipped << skipped;

		if (places)
			return &b[__builtin_ctz(places)];
		if (has_empty(b))
			return NULL;
		skipped = 0;
	}
	return NULL;
}

static struct gn_index_entry *find_free(const struct gn_index *index, uint64_t home)
{
	for (uint64_t at = home; at < home + GN_INDEX_PROBES; at++) {
		struct gn_index_entry *b = bucket_at(index, at);
		unsigned places = free_places(b);

		if (places)
			return &b[__builtin_ctz(places)];
	}
	return NULL;
}

int gn_index_insert(struct gn_index *index, uint64_t tag, uint64_t value,
		    gn_index_give_up_fn *give_up, void *ctx, struct gn_index_entry **out)
{
	const uint64_t home = gn_index_home(index, tag);
	struct gn_index_entry *e = find_free(index, home);

	GN_BUG_ON(value < GN_INDEX_VALUE_MIN);
	if (!e) {
		struct gn_index_entry *end = bucket_at(index, home + GN_INDEX_PROBES);

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

/* After places were made empty: they are the last ones. */
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

static void tell_soon(const struct gn_index *index, uint64_t bucket, gn_index_soon_fn *soon,
		      const void *ctx)
{
	const struct gn_index_entry *b;

	if (!soon || bucket >= gn_index_buckets(index))
		return;
	b = bucket_at(index, bucket);
	for (unsigned i = 0; i < BUCKET; i++)
		if (is_used(&b[i]))
			soon(ctx, &b[i]);
}

bool gn_index_clean(struct gn_index *index, uint64_t buckets, gn_index_give_up_fn *give_up,
		    gn_index_soon_fn *soon, void *ctx)
{
	bool any_last = false;

	for (; buckets; buckets--) {
		tell_soon(index, index->cursor + CLEAN_AHEAD, soon, ctx);
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
