/* SPDX-License-Identifier: MIT */
/*
 * cache.h - the data-cache model: L1, L2 and L3 by 64-byte lines of host-physical addresses, exact LRU.
 *
 * Page-table references and the guest's data go through the same three caches, as they do in a CPU, so
 * data evicts page-table lines. A line that misses is filled into every level.
 *
 * A set is an array of 32-bit tags in order of use, the last one first: finding is a vector compare, using
 * a line moves it to the front. L1 and L2 are indexed by address bits, the L3 by a hash of the line (as
 * Intel's slices are), so its sets may be any number.
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
#define GN_CACHE_MAX_BYTES ((uint64_t)0xffffffff << GN_LINE_SHIFT) /* of addresses: tags are 32 bits */

struct gn_cache {
	uint32_t *tags; /* line + 1; 0: empty */
	uint32_t sets;	/* 0: the cache does not exist */
	uint8_t ways;
	uint8_t lane_shift; /* a set takes 1 << lane_shift tags */
	bool is_hashed;
};

/* @kib * 16 lines in sets of @ways <= 16. -ENOMEM. */
int gn_cache_init(struct gn_cache *c, uint32_t kib, uint32_t ways, bool is_hashed);
void gn_cache_fini(struct gn_cache *c);
void gn_cache_clear(struct gn_cache *c);

static inline uint32_t *gn_cache_set(const struct gn_cache *c, uint32_t line)
{
	size_t index = c->is_hashed ? ((uint64_t)(line * 0x9e3779b1u) * c->sets) >> 32 :
				      line & (c->sets - 1);

	return c->tags + (index << c->lane_shift);
}

/* Lanes 0..@last move up by one, @tag becomes lane 0; a branch-free rotate of 4 lanes. */
static inline __m128i gn_cache_rotate(__m128i v, __m128i below, int first, __m128i last)
{
	__m128i lane = _mm_add_epi32(_mm_set_epi32(3, 2, 1, 0), _mm_set1_epi32(first));
	__m128i keep = _mm_cmpgt_epi32(lane, last);
	__m128i up = _mm_or_si128(_mm_slli_si128(v, 4), _mm_srli_si128(below, 12));

	return _mm_or_si128(_mm_and_si128(keep, v), _mm_andnot_si128(keep, up));
}

/* Use @line: true if it was there. It is the set's first afterwards. */
static inline bool gn_cache_use(struct gn_cache *c, uint32_t line)
{
	uint32_t tag = line + 1;
	uint32_t *set = gn_cache_set(c, line);
	__m128i *at = (__m128i *)(void *)set;
	__m128i want, v0, v1, v2, v3, last;
	unsigned mask, way;

	if (set[0] == tag)
		return true;
	want = _mm_set1_epi32((int)tag);
	v0 = _mm_load_si128(at);
	v1 = _mm_load_si128(at + 1);
	if (c->lane_shift == 3) {
		mask = (unsigned)_mm_movemask_epi8(_mm_packs_epi16(
			_mm_packs_epi32(_mm_cmpeq_epi32(v0, want), _mm_cmpeq_epi32(v1, want)),
			_mm_setzero_si128()));
		way = mask ? (unsigned)__builtin_ctz(mask) : c->ways - 1u;
		last = _mm_set1_epi32((int)way);
		_mm_store_si128(at + 1, gn_cache_rotate(v1, v0, 4, last));
	} else {
		v2 = _mm_load_si128(at + 2);
		v3 = _mm_load_si128(at + 3);
		mask = (unsigned)_mm_movemask_epi8(_mm_packs_epi16(
			_mm_packs_epi32(_mm_cmpeq_epi32(v0, want), _mm_cmpeq_epi32(v1, want)),
			_mm_packs_epi32(_mm_cmpeq_epi32(v2, want), _mm_cmpeq_epi32(v3, want))));
		way = mask ? (unsigned)__builtin_ctz(mask) : c->ways - 1u;
		last = _mm_set1_epi32((int)way);
		_mm_store_si128(at + 3, gn_cache_rotate(v3, v2, 12, last));
		_mm_store_si128(at + 2, gn_cache_rotate(v2, v1, 8, last));
		_mm_store_si128(at + 1, gn_cache_rotate(v1, v0, 4, last));
	}
	_mm_store_si128(at, gn_cache_rotate(v0, _mm_slli_si128(want, 12), 0, last));
	return mask != 0;
}

/* The CPU's own L1 and L2, and the L3 it shares. */
struct gn_caches {
	struct gn_cache l1, l2;
	struct gn_cache *l3;
};

enum gn_cache_level { GN_CACHE_L1, GN_CACHE_L2, GN_CACHE_L3, GN_CACHE_MEMORY, GN_CACHE_LEVELS };

enum gn_cache_level gn_caches_miss_l1(struct gn_caches *c, uint32_t line);

/* Reference the line of host-physical @address; who served it. */
static inline enum gn_cache_level gn_caches_use(struct gn_caches *c, uint64_t address)
{
	uint32_t line = (uint32_t)(address >> GN_LINE_SHIFT);

	if (__builtin_expect(c->l1.sets != 0, 1) && gn_cache_use(&c->l1, line))
		return GN_CACHE_L1;
	return gn_caches_miss_l1(c, line);
}

#endif
