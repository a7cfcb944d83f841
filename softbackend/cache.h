/* SPDX-License-Identifier: MIT */
/*
 * cache.h - the data-cache model: L1, L2 and L3 by 64-byte lines of host-physical addresses.
 *
 * Page-table references and the guest's data go through the same three caches, as they do in a CPU, so
 * data evicts page-table lines. A line that misses is filled into every level.
 *
 * Replacement is bit-PLRU, the cheap stand-in for LRU that hardware uses too: a mark per way says "used
 * lately"; the victim is the first way without it, and when the last one gets it, all others lose it. (TLBs and
 * walk caches, which are what this project is about, have exact LRU: assoc.h.)
 *
 * A set is a lane per way. Its top bit says that the way is idle, that is not marked; the others tell the way's line from
 * others of the set, and are all ones where there is none. The memory of all that is used at random, so it is kept small
 * for the host's caches: a lane has 16 bits wherever that says as much as the line's whole number, because the pool is
 * too small for two lines of one set to be alike in them (gn_cache_init). Else it has 32.
 *
 * The caches only price references, they never steer the machine, and all that is counted is sums. So
 * references may be queued (gn_caches_queue_*) and run later, in order, one level after the other: what misses in
 * one is the next one's queue, and the sets of the big last one are prefetched in time.
 *
 * L1 and L2 are indexed by address bits, the L3 by a hash of the line (as Intel's slices are), so its sets
 * may be any number.
 *
 * Deliberately absent: write-backs, prefetchers, inclusion policies (victim L3s are modelled as if filled on
 * a miss), an instruction cache, and what the VMM's own code would evict.
 */
#ifndef GN_SOFT_CACHE_H
#define GN_SOFT_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GN_LINE_SHIFT	   6
#define GN_CACHE_MAX_LINES ((uint32_t)1 << 31)
/* Of addresses: one line less, whose lane would be all ones. */
#define GN_CACHE_MAX_BYTES ((uint64_t)(GN_CACHE_MAX_LINES - 1) << GN_LINE_SHIFT)
#define GN_CACHE_MAX_WAYS  16
#define GN_CACHE_HASH	   0x9e3779b1u

/* What a lane says. Long: the line. Short: the line's bits above those of the set's number; where sets are hashed, below
 * GN_CACHE_HASHED. */
#define GN_CACHE_LONG_IDLE  0x80000000u
#define GN_CACHE_SHORT_IDLE 0x8000u
#define GN_CACHE_HASHED	    0x4000u

/* The lanes of a set: one, which needs no mark, or 8 or 16 of 4 bytes, or 16 of 2. */
enum gn_cache_shape { GN_CACHE_DIRECT, GN_CACHE_LONG_8, GN_CACHE_LONG_16, GN_CACHE_SHORT_16 };

struct gn_cache {
	uint8_t *memory;			  /* the sets, and behind them: */
	const void *all_idle, *none_idle, *empty; /* idle bits of a set; a set without lines */
	uint32_t sets;				  /* 0: the cache does not exist */
	uint8_t id_shift; /* from a line to what tells it from others of its set */
	uint8_t ways;
	uint8_t shape;
};

/* @kib * 16 lines in sets of @ways <= 16. The number of no line is above @max_line. -ENOMEM. */
int gn_cache_init(struct gn_cache *c, uint32_t kib, uint32_t ways, bool is_hashed,
		  uint32_t max_line);
void gn_cache_fini(struct gn_cache *c);
void gn_cache_clear(struct gn_cache *c);

static inline unsigned gn_cache_set_shift(enum gn_cache_shape shape)
{
	return shape == GN_CACHE_DIRECT ? 2 : shape == GN_CACHE_LONG_16 ? 6 : 5;
}
static inline void *gn_cache_set(const struct gn_cache *c, size_t set, enum gn_cache_shape shape)
{
	return c->memory + (set << gn_cache_set_shift(shape));
}

#define GN_CACHE_QUEUE 2048 /* references */
/* Free ones that who begins a walk makes sure of: for its own and for the data of a batch behind it. */
#define GN_CACHE_ROOM 256
/* On top of a queued line: the guest's datum, not a walk's entry. */
#define GN_CACHE_DATUM GN_CACHE_MAX_LINES
#define GN_CACHE_AHEAD 32 /* references between a prefetch and the use */

/* The number of the set of a line or queued reference. @is_hashed: what the cache was made with. */
static inline size_t gn_cache_index(const struct gn_cache *c, uint32_t line, bool is_hashed)
{
	return is_hashed ? ((uint64_t)((line & ~GN_CACHE_DATUM) * GN_CACHE_HASH) * c->sets) >> 32
			 : line & (c->sets - 1);
}

enum gn_cache_level { GN_CACHE_L1, GN_CACHE_L2, GN_CACHE_L3, GN_CACHE_MEMORY, GN_CACHE_LEVELS };

/* Who served queued references. */
struct gn_cache_served {
	uint32_t entries[GN_CACHE_LEVELS], data[GN_CACHE_LEVELS];
};

/* The CPU's own L1 and L2, and the L3 it shares. */
struct gn_caches {
	/* Used or queued last, but for a walk that goes on: in the L1 by now, and marked. */
	uint32_t last_line;
	uint32_t no_l1; /* GN_CACHE_NO_LINE if there is no L1, else 0 */
	uint32_t queued;
	uint64_t taken; /* references taken out of the queue, ever */
	struct gn_cache l1, l2;
	struct gn_cache *l3;
	uint32_t queue[GN_CACHE_QUEUE + GN_CACHE_AHEAD];
};
#define GN_CACHE_NO_LINE 0xffffffffu

/* Any line but the last one. The queue is empty. */
enum gn_cache_level gn_caches_use_other(struct gn_caches *c, uint32_t line);

/* Reference the line of host-physical @address; who served it. The queue is empty. */
static inline enum gn_cache_level gn_caches_use(struct gn_caches *c, uint64_t address)
{
	uint32_t line = (uint32_t)(address >> GN_LINE_SHIFT);

	if (line == c->last_line)
		return GN_CACHE_L1;
	return gn_caches_use_other(c, line);
}

/* Reference the guest's datum in @line when the queue is run. There is room. */
static inline void gn_caches_queue_datum(struct gn_caches *c, uint32_t line)
{
	c->queue[c->queued++] = line | GN_CACHE_DATUM;
	c->last_line = line | c->no_l1;
}
/* An entry's line. Who queued some says gn_caches_end_walk(). */
static inline void gn_caches_queue_entry(struct gn_caches *c, uint32_t line)
{
	c->queue[c->queued++] = line;
}
static inline void gn_caches_end_walk(struct gn_caches *c)
{
	if (c->queued)
		c->last_line = c->queue[c->queued - 1] | c->no_l1;
}
/* References queued, ever. */
static inline uint64_t gn_caches_total(const struct gn_caches *c)
{
	return c->taken + c->queued;
}
/* Run what is queued, and empty the queue. */
void gn_caches_run(struct gn_caches *c, struct gn_cache_served *served);

#endif
