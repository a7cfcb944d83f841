/* SPDX-License-Identifier: MIT */
/*
 * tsc.h - how fast the time-stamp counter runs, found by holding it against the clock.
 */
#ifndef GN_BENCH_TSC_H
#define GN_BENCH_TSC_H

#include <stdint.h>

/* Both at one moment. */
struct tsc_stamp {
	uint64_t tsc, ns; /* ns: CLOCK_MONOTONIC */
};
struct tsc_stamp tsc_now(void);

/* Ticks a second between @since and now; waits until that is at least a tenth of a second. */
double tsc_hz(struct tsc_stamp since);

#endif
