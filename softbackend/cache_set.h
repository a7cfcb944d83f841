/* SPDX-License-Identifier: MIT */
/*
 * cache_set.h - one set of a data cache: find a line, make it used, replace (the rule: cache.h).
 *
 * A set is looked at as a whole, in vectors: of 16 bytes, which every x86-64 host has, or of 32 where the room is compiled
 * for AVX2. Without branches: what hits and what does not is what the host's branch prediction could not know.
 */
#ifndef GN_SOFT_CACHE_SET_H
#define GN_SOFT_CACHE_SET_H

#include <immintrin.h>

#include "cache.h"

#define GN_CACHE_INLINE static inline __attribute__((always_inline))

#ifdef __AVX2__
typedef __m256i gn_cache_vector;
#define GN_CACHE_VECTORS(shape) ((shape) == GN_CACHE_LONG_16 ? 2 : 1)

GN_CACHE_INLINE gn_cache_vector gn_cache_spread(uint32_t tag, enum gn_cache_shape shape)
{
	return shape == GN_CACHE_SHORT_16 ? _mm256_set1_epi16((short)tag)
					  : _mm256_set1_epi32((int)tag);
}

GN_CACHE_INLINE uint32_t gn_cache_find_long(gn_cache_vector v, gn_cache_vector want)
{
	return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(v, want)));
}

/* A bit per way that has the tag. */
GN_CACHE_INLINE uint32_t gn_cache_find(const gn_cache_vector *v, gn_cache_vector want,
				       enum gn_cache_shape shape)
{
	gn_cache_vector equal;

	if (shape == GN_CACHE_LONG_8)
		return gn_cache_find_long(v[0], want);
	if (shape == GN_CACHE_LONG_16)
		return gn_cache_find_long(v[0], want) | gn_cache_find_long(v[1], want) << 8;
	equal = _mm256_cmpeq_epi16(v[0], want);
	return (uint32_t)_mm_movemask_epi8(
		_mm_packs_epi16(_mm256_castsi256_si128(equal), _mm256_extracti128_si256(equal, 1)));
}

/* @want where @lanes are ones, else @v. */
GN_CACHE_INLINE gn_cache_vector gn_cache_blend(gn_cache_vector v, gn_cache_vector want,
					       gn_cache_vector lanes)
{
	return _mm256_blendv_epi8(v, want, lanes);
}
#else
typedef __m128i gn_cache_vector;
#define GN_CACHE_VECTORS(shape) ((shape) == GN_CACHE_LONG_16 ? 4 : 2)

GN_CACHE_INLINE gn_cache_vector gn_cache_spread(uint32_t tag, enum gn_cache_shape shape)
{
	return shape == GN_CACHE_SHORT_16 ? _mm_set1_epi16((short)tag) : _mm_set1_epi32((int)tag);
}

/* A bit per way that has the tag. */
GN_CACHE_INLINE uint32_t gn_cache_find(const gn_cache_vector *v, gn_cache_vector want,
				       enum gn_cache_shape shape)
{
	gn_cache_vector low, high = _mm_setzero_si128();

	if (shape == GN_CACHE_SHORT_16) {
		low = _mm_cmpeq_epi16(v[0], want);
		high = _mm_cmpeq_epi16(v[1], want);
	} else {
		low = _mm_packs_epi32(_mm_cmpeq_epi32(v[0], want), _mm_cmpeq_epi32(v[1], want));
		if (shape == GN_CACHE_LONG_16)
			high = _mm_packs_epi32(_mm_cmpeq_epi32(v[2], want),
					       _mm_cmpeq_epi32(v[3], want));
	}
	return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(low, high));
}

/* @want where @lanes are ones, else @v. */
GN_CACHE_INLINE gn_cache_vector gn_cache_blend(gn_cache_vector v, gn_cache_vector want,
					       gn_cache_vector lanes)
{
	return _mm_xor_si128(v, _mm_and_si128(_mm_xor_si128(v, want), lanes));
}
#endif

/* By found way, 16 more where it is to be replaced: all ones where its tag is; all ones but the way's bit of idle. */
extern const uint32_t gn_cache_lanes_long[32][16];
extern const uint16_t gn_cache_lanes_short[32][16];
extern const uint32_t gn_cache_others[32];

/* Use @line: 0 if it was there, 1 if it was not. @shape: the cache's, a constant. All of the set is stored: were only
 * the tag, loads of other sets would wait until the host knows its address, which it does last. */
GN_CACHE_INLINE uint32_t gn_cache_use_shape(const struct gn_cache *c, uint32_t line, bool is_hashed,
					    enum gn_cache_shape shape)
{
	bool is_short = shape == GN_CACHE_SHORT_16;
	size_t index = gn_cache_index(c, line, is_hashed);
	gn_cache_vector *set = (gn_cache_vector *)gn_cache_tags(c, index, shape);
	uint32_t id = line >> c->id_shift | (uint32_t)1 << GN_CACHE_ID_BITS;
	gn_cache_vector v[4], want = gn_cache_spread(is_short ? id : line + 1, shape);
	uint32_t idle = c->idle[index], found, left;
	const gn_cache_vector *lanes;

	for (unsigned i = 0; i < GN_CACHE_VECTORS(shape); i++)
		v[i] = set[i];
	/* The way that hit, else 16 + the first idle one. */
	found = (uint32_t)__builtin_ctz(gn_cache_find(v, want, shape) | idle);
	left = idle & gn_cache_others[found];
	c->idle[index] = left ? left : (c->full & gn_cache_others[found]) | c->always;
	lanes = (const gn_cache_vector *)(is_short ? (const void *)gn_cache_lanes_short[found]
						   : (const void *)gn_cache_lanes_long[found]);
	for (unsigned i = 0; i < GN_CACHE_VECTORS(shape); i++)
		set[i] = gn_cache_blend(v[i], want, lanes[i]);
	return found >> 4;
}

/* True if @line was there. */
GN_CACHE_INLINE bool gn_cache_use(const struct gn_cache *c, uint32_t line, bool is_hashed)
{
	if (c->shape == GN_CACHE_LONG_8)
		return !gn_cache_use_shape(c, line, is_hashed, GN_CACHE_LONG_8);
	return c->shape == GN_CACHE_LONG_16
		       ? !gn_cache_use_shape(c, line, is_hashed, GN_CACHE_LONG_16)
		       : !gn_cache_use_shape(c, line, is_hashed, GN_CACHE_SHORT_16);
}

#endif
