/* SPDX-License-Identifier: MIT */
/*
 * w_demand_zero.c - the first touch of memory.
 *
 * Models the page faults of a starting or growing program (LMbench lat_pagefault, will-it-scale page_fault1):
 * map a region, read a word of each page (the zero page for some) and write it, check, unmap, again. One page in
 * eight is read before it is written, so it goes through the shared zero page and copy on write. From the
 * second round on the kernel hands out used frames and has to clear them.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define ROUNDS	     4
#define COMPUTE_STEP 20

static uint64_t value_of(uint64_t seed, uint64_t page, unsigned round)
{
	return mix64(seed ^ page << 8 ^ round);
}

static int touch(uint64_t base, uint64_t pages, uint64_t seed, unsigned round, const char **why)
{
	for (uint64_t page = 0; page < pages; page++) {
		uint64_t at = base + page * K_PAGE + page % 64 * 64;

		if (page % 8 == 0 && cpu_load64(at))
			return workload_fail(why, "demand-zero: fresh memory was not zero");
		cpu_store64(at, value_of(seed, page, round));
		cpu_compute(COMPUTE_STEP);
		region_progress(round * pages + page, ROUNDS * pages);
	}
	for (uint64_t page = 0; page < pages; page++) {
		uint64_t at = base + page * K_PAGE + page % 64 * 64;

		if (cpu_load64(at) != value_of(seed, page, round))
			return workload_fail(why,
					     "demand-zero: a page does not hold what was written");
		if (cpu_load64(base + page * K_PAGE + (page + 1) % 64 * 64))
			return workload_fail(why,
					     "demand-zero: the rest of a fresh page was not zero");
	}
	return 0;
}

static int run(const struct workload_params *params, const char **why)
{
	uint64_t pages = params->size / K_PAGE;

	if (!pages)
		pages = 1;
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t base = sys_mmap(0, pages * K_PAGE, K_READ | K_WRITE, 0);

		if (!base)
			return workload_fail(why, "demand-zero: mmap failed");
		if (touch(base, pages, params->seed, round, why))
			return -1;
		if (sys_munmap(base, pages * K_PAGE))
			return workload_fail(why, "demand-zero: munmap failed");
	}
	return 0;
}

const struct workload workload_demand_zero = {
	.name = "demand-zero",
	.kind = WORKLOAD_OS,
	.models = "first touch of fresh memory (lat_pagefault, program start)",
	.size_unit = "bytes",
	.size_default = (uint64_t)8 << 20,
	.size_quick = (uint64_t)1 << 20,
	.run = run,
};
