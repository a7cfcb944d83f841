/* SPDX-License-Identifier: MIT */
/*
 * zipf.c - Zipf without floating point, which guest code may not use.
 *
 * The continuous approximation of Zipf's law with exponent t has the distribution function
 * (k^(1-t) - 1) / (n^(1-t) - 1). Its inverse, with t = 0.99, is k = (1 + u (n^0.01 - 1))^100: a hundredth power,
 * which is eight multiplications in 32.32 fixed point. A root is wanted only once, for n, and found by bisection.
 */
#include "zipf.h"

#define ONE ((uint64_t)1 << 32)

static uint64_t multiply(uint64_t a, uint64_t b)
{
	return (uint64_t)(((unsigned __int128)a * b) >> 32);
}

/* x^100 = x^64 x^32 x^4; below 2^64 for x <= (2^31)^0.01. */
static uint64_t power100(uint64_t x)
{
	uint64_t x2 = multiply(x, x), x4 = multiply(x2, x2), x8 = multiply(x4, x4);
	uint64_t x16 = multiply(x8, x8), x32 = multiply(x16, x16), x64 = multiply(x32, x32);

	return multiply(multiply(x64, x32), x4);
}

void zipf_init(struct zipf *z, uint64_t count)
{
	uint64_t low = ONE, high = ONE + ONE * 24 / 100; /* 1.24^100 = 2^31.03: nothing overflows */

	if (count > (uint64_t)1 << 31)
		count = (uint64_t)1 << 31;
	z->count = count;
	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;

		if (power100(middle) >> 32 < count)
			low = middle;
		else
			high = middle;
	}
	z->top = high;
}

uint64_t zipf_rank(const struct zipf *z, struct rng *rng)
{
	uint64_t x = ONE + (uint64_t)(((unsigned __int128)(z->top - ONE) * rng_next(rng)) >> 64);
	uint64_t k = (power100(x) >> 32) - 1;

	return k < z->count ? k : z->count - 1;
}
