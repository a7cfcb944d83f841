/* SPDX-License-Identifier: MIT */
/*
 * region.h - what memory workloads need around their data: a region of it, and a number of steps.
 */
#ifndef GN_WORKLOADS_REGION_H
#define GN_WORKLOADS_REGION_H

#include "cpu.h"
#include "kernel.h"
#include "workload.h"

/* Memory that has long been there: mapped and populated, in large pages if the guest uses them. */
static inline uint64_t region_map(const struct workload_params *params, uint64_t bytes)
{
	uint64_t unit = params->large_pages ? K_LARGE_PAGE : K_PAGE;
	uint64_t va =
		sys_mmap(0, (bytes + unit - 1) & ~(unit - 1), K_READ | K_WRITE, K_MAP_POPULATE);

	if (!va)
		cpu_panic("guest: mmap of the workload's data failed");
	return va;
}

/* The measured part grows with the data: one step for each 256 bytes. */
static inline uint64_t region_steps(uint64_t bytes)
{
	return bytes / 256 > 1024 ? bytes / 256 : 1024;
}

static inline void region_progress(uint64_t step, uint64_t steps)
{
	if (!(step & 0xfff))
		kernel_tick(step, steps);
}

#endif
