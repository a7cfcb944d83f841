/* SPDX-License-Identifier: MIT */
/*
 * cache.h - the data-cache model: L1, L2 and L3 by 64-byte lines of host-physical addresses.
 *
 * Page-table references and the guest's data go through the same three caches, as they do in a CPU, so
 * data evicts page-table lines. A line that misses is filled into every level.
 *
 * Replacement is bit-PLRU, the cheap stand-in for LRU that hardware uses too: a bit per way says "used
 * lately"; the victim is the first way without it, and when the last one gets it, all others lose it. (TLBs and
 * walk caches, which are what this project is about, have exact LRU: assoc.h.)
 *
 * A set is its tags, 32 bits each: the line's number plus 1, and on top the "used lately" bit. So a set of 16 ways
 * is one cache line of the host.
 *
 * L1 and L2 are indexed by address bits, the L3 by a hash of the line (as Intel's slices are), so its sets
 * may be any number.
 *
 * Deliberately absent: write-backs, prefetchers, inclusion policies (victim L3s are modelled as if filled on
 * a miss), an instruction cache, and what the VMM's own code would evict.
 */
#ifndef GN_SOFT_CACHE_H
#define GN_SOFT_CACHE_H

#include <emmintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GN_LINE_SHIFT	   6
#define GN_CACHE_LATELY	   ((uint32_t)1 << 31)
#define GN_CACHE_MAX_BYTES ((uint64_t)(GN_CACHE_LATELY - 1) << GN_LINE_SHIFT) /* of addresses */
#define GN_CACHE_MAX_WAYS  16

struct gn_cache {
	uint8_t *memory;
	uint32_t sets; /* 0: the cache does not exist */
	uint32_t stride;
	uint32_t full; /* a bit per way */
	uint8_t ways;
	uint8_t units; /* of 16 bytes, in a set's tags: 2..4 */
};

/* @kib * 16 lines in sets of @ways <= 16. -ENOMEM. */
int gn_cache_init(struct gn_cache *c, uint32_t kib, uint32_t ways);
void gn_cache_fini(struct gn_cache *c);
void gn_cache_clear(struct gn_cache *c);

/* @is_hashed: what the cache was made with. */
static inline uint32_t *gn_cache_set(const struct gn_cache *c, uint32_t line, bool is_hashed)
{
	size_t index =
		is_hashed ? ((uint64_t)(line * 0x9e3779b1u) * c->sets) >> 32 : line & (c->sets - 1);

	return (uint32_t *)(void *)(c->memory + index * c->stride);
}

/* A bit per way from four vectors of 4 ways each: the top bits. */
static inline __attribute__((always_inline)) unsigned gn_cache_mask(__m128i a, __m128i b, __m128i c,
								    __m128i d)
{
	return (unsigned)_mm_movemask_epi8(
		_mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d)));
}
static inline __attribute__((always_inline)) __m128i gn_cache_compare(__m128i tags, __m128i want)
{
	const __m128i number = _mm_set1_epi32((int)(GN_CACHE_LATELY - 1));

	return _mm_cmpeq_epi32(_mm_and_si128(tags, number), want);
}

/* All ways were used lately: only @way was, from now on. */
void gn_cache_start_over(const struct gn_cache *c, uint32_t *tags, unsigned way);

/* Use @line of the set @tags: true if it was there. */
static inline __attribute__((always_inline)) bool
gn_cache_use_set(const struct gn_cache *c, uint32_t *tags, uint32_t line, unsigned units)
{
	const __m128i *v = (const __m128i *)(const void *)tags;
	const __m128i want = _mm_set1_epi32((int)(line + 1)), zero = _mm_setzero_si128();
	const __m128i a = _mm_load_si128(v), b = _mm_load_si128(v + 1);
	const __m128i d = units > 2 ? _mm_load_si128(v + 2) : zero;
	const __m128i e = units > 3 ? _mm_load_si128(v + 3) : zero;
	unsigned hits = gn_cache_mask(gn_cache_compare(a, want), gn_cache_compare(b, want),
				      units > 2 ? gn_cache_compare(d, want) : zero,
				      units > 3 ? gn_cache_compare(e, want) : zero);
	unsigned way;
	uint32_t lately;

	if (hits) { /* one bit: a set has a line once */
		way = (unsigned)__builtin_ctz(hits);
		if (tags[way] & GN_CACHE_LATELY)
			return true;
		lately = gn_cache_mask(a, b, d, e) | hits;
	} else {
		lately = gn_cache_mask(a, b, d, e);
		way = (unsigned)__builtin_ctz(~lately);
		lately |= (uint32_t)1 << way;
	}
	tags[way] = (line + 1) | GN_CACHE_LATELY;
	if (__builtin_expect(lately == c->full, 0))
		gn_cache_start_over(c, tags, way);
	return hits != 0;
}

static inline __attribute__((always_inline)) bool gn_cache_use(struct gn_cache *c, uint32_t line,
							       bool is_hashed)
{
	uint32_t *set = gn_cache_set(c, line, is_hashed);

	if (c->units == 2)
		return gn_cache_use_set(c, set, line, 2);
	return c->units == 3 ? gn_cache_use_set(c, set, line, 3)
			     : gn_cache_use_set(c, set, line, 4);
}

/* The CPU's own L1 and L2, and the L3 it shares. */
struct gn_caches {
	uint32_t last_line; /* used last: the youngest of its set already */
	struct gn_cache l1, l2;
	struct gn_cache *l3;
};
#define GN_CACHE_NO_LINE 0xffffffffu

enum gn_cache_level { GN_CACHE_L1, GN_CACHE_L2, GN_CACHE_L3, GN_CACHE_MEMORY, GN_CACHE_LEVELS };

/* Any line but the last one. */
enum gn_cache_level gn_caches_use_other(struct gn_caches *c, uint32_t line);

/* Reference the line of host-physical @address; who served it. */
static inline enum gn_cache_level gn_caches_use(struct gn_caches *c, uint64_t address)
{
	uint32_t line = (uint32_t)(address >> GN_LINE_SHIFT);

	if (line == c->last_line)
		return GN_CACHE_L1;
	return gn_caches_use_other(c, line);
}

#endif
