/* SPDX-License-Identifier: MIT */
/*
 * cache.c - the data caches' memory, and references in bulk.
 */
#include "cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ahead.h"
#include "cache_set.h"
#include "mmu/arena.h"
#include "mmu/check.h"

/* The tags of an L3 are megabytes used at random: on huge pages of the host where it gives them. */
#define HOST_LINE      ((size_t)64)
#define HOST_HUGE_PAGE ((size_t)2 << 20)

#define BY_WAY(ROW)                                                                                \
	{                                                                                          \
		ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7), ROW(8), ROW(9),    \
			ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15)                       \
	}
#define LANE(way) [way][way] = (uint16_t)~0u, [16 + (way)][way] = (uint16_t)~0u
const uint16_t gn_cache_lanes_short[32][16] __attribute__((aligned(64))) = BY_WAY(LANE);
#undef LANE
#define LANE(way) [way][way] = ~0u, [16 + (way)][way] = ~0u
const uint32_t gn_cache_lanes_long[32][16] __attribute__((aligned(64))) = BY_WAY(LANE);
#undef LANE
#define OTHERS(way)                                                                                \
	[way] = 0xffff0000u & ~(0x10000u << (way)),                                                \
	[16 + (way)] = 0xffff0000u & ~(0x10000u << (way))
const uint32_t gn_cache_others[32] __attribute__((aligned(64))) = BY_WAY(OTHERS);
#undef OTHERS
#undef BY_WAY

static size_t set_bytes(const struct gn_cache *c)
{
	return (size_t)1 << gn_cache_set_shift(c->shape);
}

/* And three sets more, see fill_patterns(). */
static size_t lanes_bytes(const struct gn_cache *c)
{
	return ((size_t)c->sets + 3) * set_bytes(c);
}

static size_t unit_of(const struct gn_cache *c)
{
	return lanes_bytes(c) < HOST_HUGE_PAGE / 2 ? HOST_LINE : HOST_HUGE_PAGE;
}

static size_t memory_bytes(const struct gn_cache *c)
{
	return (lanes_bytes(c) + unit_of(c) - 1) / unit_of(c) * unit_of(c);
}

/* Hashed: two lines of one set that are alike in a short lane's bits differ by a multiple k of GN_CACHE_HASHED. Their
 * hashes then differ by k times a constant, and by less than a set's share of all hashes. Is there no such k? */
static bool is_short_exact(const struct gn_cache *c, bool is_hashed, uint32_t max_line)
{
	uint64_t share = (((uint64_t)1 << 32) + c->sets - 1) / c->sets;
	uint32_t distance = 0;

	/* No lane is all ones, and a datum's mark is shifted out of it. */
	if (!is_hashed)
		return max_line / c->sets < GN_CACHE_SHORT_IDLE - 1 && c->sets <= 1u << 15;
	for (uint32_t k = 1; k <= max_line / GN_CACHE_HASHED; k++) {
		distance += GN_CACHE_HASH * GN_CACHE_HASHED;
		if (distance < share || -distance < share)
			return false;
	}
	return true;
}

static enum gn_cache_shape shape_of(const struct gn_cache *c, bool is_hashed, uint32_t max_line)
{
	if (c->ways == 1)
		return GN_CACHE_DIRECT;
	if (is_short_exact(c, is_hashed, max_line))
		return GN_CACHE_SHORT_16;
	return c->ways <= 8 ? GN_CACHE_LONG_8 : GN_CACHE_LONG_16;
}

/* What is behind the sets. */
static void fill_patterns(struct gn_cache *c)
{
	size_t lane = c->shape == GN_CACHE_SHORT_16 ? sizeof(uint16_t) : sizeof(uint32_t);
	uint8_t *all = gn_cache_set(c, c->sets, c->shape), *none = all + set_bytes(c),
		*empty = none + set_bytes(c);

	memset(all, 0, 2 * set_bytes(c));
	memset(empty, 0xff, set_bytes(c));
	for (size_t top = lane - 1, way = 0; top < set_bytes(c); top += lane, way++) {
		if (way < c->ways)
			all[top] = 0x80;
		else
			empty[top] = 0x7f;
	}
	c->all_idle = all;
	c->none_idle = none;
	c->empty = empty;
}

int gn_cache_init(struct gn_cache *c, uint32_t kib, uint32_t ways, bool is_hashed,
		  uint32_t max_line)
{
	memset(c, 0, sizeof(*c));
	if (!kib)
		return 0;
	c->sets = kib * (1024 >> GN_LINE_SHIFT) / ways;
	c->ways = (uint8_t)ways;
	c->shape = shape_of(c, is_hashed, max_line);
	c->id_shift = is_hashed ? 0 : (uint8_t)__builtin_ctz(c->sets);
	if (gn_alloc_should_fail())
		return -ENOMEM;
	c->memory = aligned_alloc(unit_of(c), memory_bytes(c));
	if (!c->memory)
		return -ENOMEM;
	if (unit_of(c) == HOST_HUGE_PAGE)
		(void)madvise(c->memory, memory_bytes(c), MADV_HUGEPAGE);
	fill_patterns(c);
	gn_cache_clear(c);
	return 0;
}

void gn_cache_fini(struct gn_cache *c)
{
	free(c->memory);
	memset(c, 0, sizeof(*c));
}

void gn_cache_clear(struct gn_cache *c)
{
	if (!c->sets)
		return;
	for (uint32_t set = 0; set < c->sets; set++)
		memcpy(gn_cache_set(c, set, c->shape), c->empty, set_bytes(c));
}

enum gn_cache_level gn_caches_use_other(struct gn_caches *c, uint32_t line)
{
	c->last_line = line | c->no_l1;
	if (c->l1.sets && !gn_cache_use_shape(&c->l1, line, false, c->l1.shape))
		return GN_CACHE_L1;
	if (c->l2.sets && !gn_cache_use_shape(&c->l2, line, false, c->l2.shape))
		return GN_CACHE_L2;
	if (c->l3->sets && !gn_cache_use_shape(c->l3, line, true, c->l3->shape))
		return GN_CACHE_L3;
	return GN_CACHE_MEMORY;
}

GN_CACHE_INLINE void prefetch_set(const struct gn_cache *c, uint32_t ref, bool is_hashed,
				  enum gn_cache_shape shape)
{
	gn_prefetch(gn_cache_set(c, gn_cache_index(c, ref, is_hashed), shape));
}

/* Use the queued references of @cache: what missed stays, in order. How many. */
GN_CACHE_INLINE uint32_t run_shape(const struct gn_cache *cache, uint32_t *queue, uint32_t count,
				   bool is_hashed, enum gn_cache_shape shape)
{
	const struct gn_cache copy = *cache, *c = &copy; /* in registers: no store can be to it */
	uint32_t *missed = queue;

	/* Behind the queue's end there is something too, and any of it is in some set. */
	for (uint32_t i = 0; is_hashed && i < GN_CACHE_AHEAD && i < count; i++)
		prefetch_set(c, queue[i], is_hashed, shape);
	for (const uint32_t *at = queue, *end = queue + count; at < end; at++) {
		uint32_t ref = *at;

		if (is_hashed)
			prefetch_set(c, at[GN_CACHE_AHEAD], is_hashed, shape);
		*missed = ref;
		missed += gn_cache_use_shape(c, ref, is_hashed, shape);
	}
	return (uint32_t)(missed - queue);
}

GN_CACHE_INLINE uint32_t run_level(const struct gn_cache *c, uint32_t *queue, uint32_t count,
				   bool is_hashed)
{
	if (!c->sets || !count)
		return count;
	switch (c->shape) {
	case GN_CACHE_DIRECT:
		return run_shape(c, queue, count, is_hashed, GN_CACHE_DIRECT);
	case GN_CACHE_LONG_8:
		return run_shape(c, queue, count, is_hashed, GN_CACHE_LONG_8);
	case GN_CACHE_LONG_16:
		return run_shape(c, queue, count, is_hashed, GN_CACHE_LONG_16);
	default:
		return run_shape(c, queue, count, is_hashed, GN_CACHE_SHORT_16);
	}
}

/* How many of the queue's references are data: their top bits. */
static uint32_t count_data(const uint32_t *queue, uint32_t count)
{
	typedef uint32_t eight __attribute__((vector_size(32), aligned(4), may_alias));
	eight sum = { 0 };
	uint32_t i = 0, data = 0;

	for (; i + 8 <= count; i += 8)
		sum += *(const eight *)&queue[i] >> 31;
	for (; i < count; i++)
		data += queue[i] >> 31;
	for (unsigned lane = 0; lane < 8; lane++)
		data += sum[lane];
	return data;
}

void gn_caches_run(struct gn_caches *c, struct gn_cache_served *served)
{
	const struct gn_cache *level[] = { &c->l1, &c->l2, c->l3 };
	uint32_t count = c->queued, data = count_data(c->queue, count);

	c->taken += count;
	c->queued = 0;
	for (unsigned i = GN_CACHE_L1; i < GN_CACHE_MEMORY; i++) {
		uint32_t left = i == GN_CACHE_L3 ? run_level(level[i], c->queue, count, true)
						 : run_level(level[i], c->queue, count, false);
		uint32_t data_left = count_data(c->queue, left);

		served->data[i] = data - data_left;
		served->entries[i] = count - left - served->data[i];
		count = left;
		data = data_left;
	}
	served->data[GN_CACHE_MEMORY] = data;
	served->entries[GN_CACHE_MEMORY] = count - data;
}
