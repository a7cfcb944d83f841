/* SPDX-License-Identifier: MIT */
/*
 * index.h - pages by tag: a compact table of (tag, value), 16 bytes an entry.
 *
 * Open addressing over buckets of one cache line. A tag's home is a bucket, and its entries are there or in one of the
 * next few, so looking costs a bounded number of lines, mostly one. Several entries may have one tag: pages that are
 * equal, or only look so.
 *
 * What a value means is its owner's affair (sharing/entry.h, for one); 0 and 1 mean nothing.
 *
 * Threads: one at a time.
 */
#ifndef GN_SHARING_INDEX_H
#define GN_SHARING_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GN_INDEX_BUCKET_ENTRIES 4
#define GN_INDEX_PROBES		32 /* buckets in which an entry may be */
#define GN_INDEX_VALUE_MIN	2

struct gn_index_entry {
	uint64_t tag, value;
};

struct gn_index {
	struct gn_index_entry *entries; /* (c) */
	uint64_t bucket_count; /* (c) homes; GN_INDEX_PROBES - 1 buckets more are behind them */
	size_t bytes;	       /* (c) */
	uint64_t used_count;   /* entries */
	uint64_t cursor;       /* the bucket cleaned next */
};

/* Whether an entry has lost its meaning and may be overwritten. It has when this returns true: what the entry stood for was
 * let go of. */
typedef bool gn_index_give_up_fn(void *ctx, const struct gn_index_entry *entry);
/* That will be asked of the entry soon, if it is still there: what it looks at can be fetched meanwhile. */
typedef void gn_index_soon_fn(const void *ctx, const struct gn_index_entry *entry);

/* Room for @pages entries at the usual fill, 21 bytes each. -EINVAL, -ENOMEM. */
int gn_index_init(struct gn_index *index, uint64_t pages);
void gn_index_fini(struct gn_index *index);

static inline uint64_t gn_index_home(const struct gn_index *index, uint64_t tag)
{
	return (uint64_t)((unsigned __int128)tag * index->bucket_count >> 64);
}
/* The line where @tag is looked for first will be wanted soon. */
static inline void gn_index_prefetch(const struct gn_index *index, uint64_t tag)
{
	__builtin_prefetch(&index->entries[gn_index_home(index, tag) * GN_INDEX_BUCKET_ENTRIES], 1);
}

/* The next entry of @tag after @last (NULL: the first); NULL: no more. */
struct gn_index_entry *gn_index_next(const struct gn_index *index, uint64_t tag,
				     const struct gn_index_entry *last);
/* One entry more, wherever there is room: a free place, or that of an entry @give_up gives up. An entry stays where it is
 * until it is erased, given up or cleaned. -ENOSPC: no room. */
int gn_index_insert(struct gn_index *index, uint64_t tag, uint64_t value,
		    gn_index_give_up_fn *give_up, void *ctx, struct gn_index_entry **out);
void gn_index_erase(struct gn_index *index, struct gn_index_entry *entry);

/* Look at the next @buckets buckets, round and round: what is given up goes, and what lies away from its home for no reason any
 * more moves towards it. @soon may be NULL, and is told of most entries. Returns true when the last bucket was among them. */
bool gn_index_clean(struct gn_index *index, uint64_t buckets, gn_index_give_up_fn *give_up,
		    gn_index_soon_fn *soon, void *ctx);
uint64_t gn_index_buckets(const struct gn_index *index); /* in all */

/* Visit all. The index must not change meanwhile, but for values. */
typedef void gn_index_visit_fn(void *ctx, struct gn_index_entry *entry);
void gn_index_visit(const struct gn_index *index, gn_index_visit_fn *visit, void *ctx);

#endif
