/* SPDX-License-Identifier: MIT */
/*
 * cache.h - the data-cache model: L1, L2 and L3 by 64-byte lines of host-physical addresses, exact LRU.
 *
 * Page-table references and the guest's data go through the same three caches, as they do in a CPU, so
 * data evicts page-table lines. A line that misses is filled into every level.
 *
 * A set is contiguous memory: the ages of its ways (0 = used last; as in assoc.h), then their 32-bit tags.
 *
 *     [age: 16 bytes][tag: ways * 4 bytes, rounded up to 16]
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

#define GN_LINE_SHIFT 6
#define GN_CACHE_MAX_BYTES                                                                         \
	((uint64_t)0xffffffff << GN_LINE_SHIFT) /* of addresses: tags are 32 bits */
#define GN_CACHE_AGES 16			/* bytes; the most ways */

struct gn_cache {
	uint8_t *memory;
	uint32_t sets; /* 0: the cache does not exist */
	uint32_t stride;
	uint8_t ways;
	bool is_hashed;
};

/* @kib * 16 lines in sets of @ways <= 16. -ENOMEM. */
int gn_cache_init(struct gn_cache *c, uint32_t kib, uint32_t ways, bool is_hashed);
void gn_cache_fini(struct gn_cache *c);
void gn_cache_clear(struct gn_cache *c);

static inline uint8_t *gn_cache_set(const struct gn_cache *c, uint32_t line)
{
	size_t index = c->is_hashed ? ((uint64_t)(line * 0x9e3779b1u) * c->sets) >> 32
				    : line & (c->sets - 1);

	return c->memory + index * c->stride;
}

/* A bit per way whose tag is @want. Reads 16-byte units up to the set's end only. */
static inline unsigned gn_cache_match(const struct gn_cache *c, const __m128i *tags, __m128i want)
{
	__m128i zero = _mm_setzero_si128();
	__m128i m0 = _mm_cmpeq_epi32(_mm_load_si128(tags), want), m1 = zero, m2 = zero, m3 = zero;

	if (c->ways > 4)
		m1 = _mm_cmpeq_epi32(_mm_load_si128(tags + 1), want);
	if (c->ways > 8)
		m2 = _mm_cmpeq_epi32(_mm_load_si128(tags + 2), want);
	if (c->ways > 12)
		m3 = _mm_cmpeq_epi32(_mm_load_si128(tags + 3), want);
	return (unsigned)_mm_movemask_epi8(
		_mm_packs_epi16(_mm_packs_epi32(m0, m1), _mm_packs_epi32(m2, m3)));
}

/* Use @line: true if it was there. It is the set's youngest afterwards. */
static inline bool gn_cache_use(struct gn_cache *c, uint32_t line)
{
	uint8_t *set = gn_cache_set(c, line);
	uint32_t *tags = (uint32_t *)(void *)(set + GN_CACHE_AGES);
	const __m128i one = _mm_set1_epi8(1);
	__m128i ages = _mm_load_si128((const __m128i *)(const void *)set);
	unsigned mask = gn_cache_match(c, (const __m128i *)(const void *)tags,
				       _mm_set1_epi32((int)(line + 1)));
	unsigned way;

	if (mask) { /* the younger ones age by one */
		way = (unsigned)__builtin_ctz(mask);
		__m128i mine = _mm_set1_epi8((char)set[way]);
		__m128i older = _mm_cmpeq_epi8(_mm_subs_epu8(mine, ages), _mm_setzero_si128());

		ages = _mm_add_epi8(_mm_add_epi8(ages, older), one);
	} else { /* the oldest goes, all others age by one; lanes that are no way stay at 0xff */
		__m128i last = _mm_cmpeq_epi8(ages, _mm_set1_epi8((char)(c->ways - 1)));

		way = (unsigned)__builtin_ctz((unsigned)_mm_movemask_epi8(last));
		tags[way] = line + 1;
		ages = _mm_adds_epu8(ages, one);
	}
	_mm_store_si128((__m128i *)(void *)set, ages);
	set[way] = 0;
	return mask != 0;
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
