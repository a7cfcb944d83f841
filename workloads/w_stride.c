/* SPDX-License-Identifier: MIT */
/*
 * w_stride.c - one reference a page, page after page.
 *
 * Models column walks of row-major data, stencils with large planes, and the page-stride kernel that
 * lmbench's lat_mem_rd uses to see the TLB. The stride is a page and a line, so that successive references fall
 * into different cache sets; each pass moves on by a line. Every reference needs a new translation, and once
 * the region exceeds the reach of the TLB each of them misses.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define PASSES	     16
#define COMPUTE_STEP 4

static uint64_t place(uint64_t base, uint64_t page, uint64_t pass)
{
	return base + page * K_PAGE + (page + pass) % 64 * 64;
}

static uint64_t value_of(uint64_t seed, uint64_t page, uint64_t pass)
{
	return mix64(seed + page * PASSES + pass);
}

static int run(const struct workload_params *params, const char **why)
{
	uint64_t pages = params->size / K_PAGE, seed = params->seed;
	uint64_t base = region_map(params, pages * K_PAGE);

	for (uint64_t page = 0; page < pages; page++)
		cpu_store64(place(base, page, 0), value_of(seed, page, 0));
	cpu_measure();
	/* Each pass reads what the one before wrote, and writes the next line of the page. */
	for (uint64_t pass = 1; pass <= PASSES / 2; pass++) {
		for (uint64_t page = 0; page < pages; page++) {
			if (cpu_load64(place(base, page, pass - 1)) !=
			    value_of(seed, page, pass - 1))
				return workload_fail(
					why, "stride: a page does not hold what was written");
			cpu_store64(place(base, page, pass), value_of(seed, page, pass));
			cpu_compute(COMPUTE_STEP);
			region_progress((pass - 1) * pages + page, PASSES / 2 * pages);
		}
	}
	return 0;
}

const struct workload workload_stride = {
	.name = "stride",
	.kind = WORKLOAD_MEMORY,
	.models = "column walks of row-major data, one reference a page (lat_mem_rd)",
	.size_unit = "bytes",
	.size_default = (uint64_t)256 << 20,
	.size_quick = (uint64_t)8 << 20,
	.run = run,
};
