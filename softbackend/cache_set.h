/* SPDX-License-Identifier: MIT */
/*
 * cache_set.h - one set of a data cache: find a line, make it used, replace (the rule: cache.h).
 *
 * A set is looked at as a whole, in vectors of 32 bytes, which the compiler makes of two where the host has none.
 * Without branches: what hits and what does not is what the host's branch prediction could not know. All of a set is
 * stored: were only the lane, loads of other sets would wait until the host knows its address, which it does last.
 */
#ifndef GN_SOFT_CACHE_SET_H
#define GN_SOFT_CACHE_SET_H

#include <immintrin.h>

#include "cache.h"

#define GN_CACHE_INLINE static inline __attribute__((always_inline))

typedef uint16_t gn_cache_short __attribute__((vector_size(32), may_alias));
typedef uint32_t gn_cache_long __attribute__((vector_size(32), may_alias));

/* A bit per lane that has its top bit: of a vector; of two, the second one's from bit 16 on. */
#if defined(__AVX2__) && defined(__BMI__)
GN_CACHE_INLINE uint32_t gn_cache_signs_long(const gn_cache_long *v)
{
	return (uint32_t)_mm256_movemask_ps((__m256)*v);
}
GN_CACHE_INLINE uint32_t gn_cache_signs_short(const gn_cache_short *a, const gn_cache_short *b)
{
	__m256i both = _mm256_packs_epi16((__m256i)*a, (__m256i)*b);

	return (uint32_t)_mm256_movemask_epi8(
		_mm256_permute4x64_epi64(both, _MM_SHUFFLE(3, 1, 2, 0)));
}
/* The lowest bit of @bits, which has some. */
GN_CACHE_INLINE size_t gn_cache_first(uint32_t bits)
{
	return _tzcnt_u64(bits); /* gcc extends what the portable one returns */
}
#else
GN_CACHE_INLINE uint32_t gn_cache_signs_long(const gn_cache_long *v)
{
	const __m128 *half = (const __m128 *)v;

	return (uint32_t)_mm_movemask_ps(half[0]) | (uint32_t)_mm_movemask_ps(half[1]) << 4;
}
GN_CACHE_INLINE uint32_t gn_cache_signs_short(const gn_cache_short *a, const gn_cache_short *b)
{
	const __m128i *x = (const __m128i *)a, *y = (const __m128i *)b;

	return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(x[0], x[1])) |
	       (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(y[0], y[1])) << 16;
}
GN_CACHE_INLINE size_t gn_cache_first(uint32_t bits)
{
	return (size_t)__builtin_ctz(bits);
}
#endif

/* By way, twice: all ones where its lane is. */
extern const uint32_t gn_cache_lanes_long[32][16];
extern const uint16_t gn_cache_lanes_short[32][16];
/* The same: all bits of the upper half but the way's. */
extern const uint32_t gn_cache_others[32];

/* What was found: the lowest of @bits, whose lower half says which way has the line and whose upper one which are idle.
 * So 16 and more if it was not there. *@made_idle: the idle bits to add, which are all if that was the last idle way. */
GN_CACHE_INLINE size_t gn_cache_choose(const struct gn_cache *c, uint32_t bits,
				       const void **made_idle)
{
	size_t found = gn_cache_first(bits);

	*made_idle = bits & gn_cache_others[found] ? c->none_idle : c->all_idle;
	__asm__("" : "+r"(*made_idle)); /* a choice, not a branch */
	return found;
}

GN_CACHE_INLINE size_t gn_cache_use_short(const struct gn_cache *c, uint32_t ref, bool is_hashed)
{
	gn_cache_short *set = (gn_cache_short *)gn_cache_set(c, gn_cache_index(c, ref, is_hashed),
							     GN_CACHE_SHORT_16);
	uint16_t tag = (uint16_t)(is_hashed ? ref & (GN_CACHE_HASHED - 1) : ref >> c->id_shift);
	gn_cache_short v = *set, want = tag - (gn_cache_short){ 0 };
	gn_cache_short equal = (gn_cache_short)((v & (uint16_t)~GN_CACHE_SHORT_IDLE) == want);
	const void *made_idle;
	size_t found = gn_cache_choose(c, gn_cache_signs_short(&equal, &v), &made_idle);
	const gn_cache_short *lane = (const gn_cache_short *)gn_cache_lanes_short[found];

	v |= *(const gn_cache_short *)made_idle;
	*set = v ^ ((v ^ want) & *lane);
	return found >> 4;
}

/* Of @eights * 8 ways. */
GN_CACHE_INLINE size_t gn_cache_use_long(const struct gn_cache *c, uint32_t ref, bool is_hashed,
					 unsigned eights)
{
	gn_cache_long *set =
		(gn_cache_long *)gn_cache_set(c, gn_cache_index(c, ref, is_hashed),
					      eights == 1 ? GN_CACHE_LONG_8 : GN_CACHE_LONG_16);
	gn_cache_long v[2], equal, want = (ref & ~GN_CACHE_DATUM) - (gn_cache_long){ 0 };
	const gn_cache_long *lane, *idle;
	const void *made_idle;
	uint32_t bits = 0;
	size_t found;

	for (unsigned i = 0; i < eights; i++) {
		v[i] = set[i];
		equal = (gn_cache_long)((v[i] & ~GN_CACHE_LONG_IDLE) == want);
		bits |= (gn_cache_signs_long(&equal) | gn_cache_signs_long(&v[i]) << 16) << 8 * i;
	}
	found = gn_cache_choose(c, bits, &made_idle);
	lane = (const gn_cache_long *)gn_cache_lanes_long[found];
	idle = (const gn_cache_long *)made_idle;
	for (unsigned i = 0; i < eights; i++) {
		v[i] |= idle[i];
		set[i] = v[i] ^ ((v[i] ^ want) & lane[i]);
	}
	return found >> 4;
}

/* Nothing to choose. */
GN_CACHE_INLINE size_t gn_cache_use_direct(const struct gn_cache *c, uint32_t ref, bool is_hashed)
{
	uint32_t *set =
		(uint32_t *)gn_cache_set(c, gn_cache_index(c, ref, is_hashed), GN_CACHE_DIRECT);
	uint32_t tag = ref & ~GN_CACHE_DATUM;
	size_t missed = *set != tag;

	*set = tag;
	return missed;
}

/* Use the line of @ref: 0 if it was there, 1 if it was not. @shape: the cache's, a constant. */
GN_CACHE_INLINE size_t gn_cache_use_shape(const struct gn_cache *c, uint32_t ref, bool is_hashed,
					  enum gn_cache_shape shape)
{
	switch (shape) {
	case GN_CACHE_DIRECT:
		return gn_cache_use_direct(c, ref, is_hashed);
	case GN_CACHE_LONG_8:
		return gn_cache_use_long(c, ref, is_hashed, 1);
	case GN_CACHE_LONG_16:
		return gn_cache_use_long(c, ref, is_hashed, 2);
	default:
		return gn_cache_use_short(c, ref, is_hashed);
	}
}

#endif
