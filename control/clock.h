/* SPDX-License-Identifier: MIT */
/*
 * clock.h - the two clocks: the one that only goes forward, for all decisions, and the wall's, for people.
 */
#ifndef GN_CONTROL_CLOCK_H
#define GN_CONTROL_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t gn_clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t gn_now_ns(void)
{
	return gn_clock_ns(CLOCK_MONOTONIC);
}

static inline uint64_t gn_wall_us(void)
{
	return gn_clock_ns(CLOCK_REALTIME) / 1000;
}

static inline double gn_now_s(void)
{
	return (double)gn_now_ns() / 1e9;
}

#endif
