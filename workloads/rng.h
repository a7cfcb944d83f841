/* SPDX-License-Identifier: MIT */
/*
 * rng.h - random numbers, hashes and permutations of integers, the same everywhere.
 *
 * splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
 */
#ifndef GN_WORKLOADS_RNG_H
#define GN_WORKLOADS_RNG_H

#include <stdint.h>

static inline uint64_t mix64(uint64_t x)
{
	x = (x ^ x >> 30) * (uint64_t)0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * (uint64_t)0x94d049bb133111eb;
	return x ^ x >> 31;
}

struct rng {
	uint64_t state;
};

static inline struct rng rng_seeded(uint64_t seed)
{
	struct rng r = { mix64(seed + 1) };

	return r;
}

static inline uint64_t rng_next(struct rng *r)
{
	r->state += (uint64_t)0x9e3779b97f4a7c15;
	return mix64(r->state);
}

/* Uniform in [0, n). */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)rng_next(r) * n) >> 64);
}

/* A permutation of [0, 2^bits), bits >= 2: odd multiplications and xor-shifts are each one. */
static inline uint64_t permute(uint64_t x, unsigned bits, uint64_t key)
{
	uint64_t mask = ((uint64_t)1 << bits) - 1;
	unsigned half = (bits + 1) / 2;

	x = (x + key) & mask;
	for (unsigned round = 0; round < 3; round++) {
		x = x * ((uint64_t)0x9e3779b97f4a7c15 | 1) & mask;
		x ^= x >> half;
	}
	return x;
}

/* Largest power of two <= x, as an exponent; x >= 1. */
static inline unsigned floor_log2(uint64_t x)
{
	return 63 - (unsigned)__builtin_clzll(x);
}

#endif
