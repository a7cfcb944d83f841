/* SPDX-License-Identifier: MIT */
/*
 * tsc.c - the rate of the TSC, measured over the run itself.
 *
 * CPUID often does not tell it, or tells a nominal one, and in a VM it may be scaled. The clock is disciplined against the
 * TSC's own drift, and over the seconds of a run the error of a pair of readings (well below a microsecond) does not
 * matter: one part in a hundred thousand at a tenth of a second. An interruption between the two halves of a
 * reading would matter, so the tightest of several is taken.
 */
#include "tsc.h"

#include <time.h>
#include <x86intrin.h>

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct tsc_stamp tsc_now(void)
{
	struct tsc_stamp best = { 0, 0 };
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 5; i++) {
		uint64_t before = __rdtsc(), ns = clock_ns(), after = __rdtsc();

		if (after - before < least) {
			least = after - before;
			best = (struct tsc_stamp){ before + (after - before) / 2, ns };
		}
	}
	return best;
}

double tsc_hz(struct tsc_stamp since)
{
	const uint64_t enough_ns = 100000000;
	struct tsc_stamp now = tsc_now();

	if (now.ns - since.ns < enough_ns) {
		struct timespec rest = { 0, (long)(enough_ns - (now.ns - since.ns)) };

		nanosleep(&rest, NULL);
		now = tsc_now();
	}
	return (double)(now.tsc - since.tsc) * 1e9 / (double)(now.ns - since.ns);
}
