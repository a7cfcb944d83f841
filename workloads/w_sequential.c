/* SPDX-License-Identifier: MIT */
/*
 * w_sequential.c - memory read and written in order.
 *
 * Models array sweeps: STREAM (McCalpin), memcpy, column scans of an analytical database. One reference
 * for each 64-byte line, in three passes: write, read back, write again and read in one pass (update).
 * A page is used for 64 references before the next: the best case of every translation scheme.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define LINE	     ((uint64_t)64)
#define COMPUTE_LINE 12 /* the other seven words of the line, and the loop */

static uint64_t value_of(uint64_t seed, uint64_t line, uint64_t pass)
{
	return mix64(seed ^ line ^ pass << 56);
}

static int run(const struct workload_params *params, const char **why)
{
	uint64_t lines = params->size / LINE, seed = params->seed;
	uint64_t base = region_map(params, lines * LINE);

	for (uint64_t i = 0; i < lines; i++)
		cpu_store64(base + i * LINE, value_of(seed, i, 0));
	cpu_measure();
	for (uint64_t i = 0; i < lines; i++) {
		if (cpu_load64(base + i * LINE) != value_of(seed, i, 0))
			return workload_fail(
				why, "sequential: a line read back is not what was written");
		cpu_compute(COMPUTE_LINE);
		region_progress(i, 2 * lines);
	}
	for (uint64_t i = 0; i < lines; i++) {
		uint64_t old = cpu_load64(base + i * LINE);

		cpu_store64(base + i * LINE, value_of(seed, i, 1));
		cpu_compute(COMPUTE_LINE);
		if (old != value_of(seed, i, 0))
			return workload_fail(why, "sequential: a line changed between two passes");
		region_progress(lines + i, 2 * lines);
	}
	for (uint64_t i = 0; i < lines; i += 64)
		if (cpu_load64(base + i * LINE) != value_of(seed, i, 1))
			return workload_fail(why, "sequential: an updated line was lost");
	return 0;
}

const struct workload workload_sequential = {
	.name = "sequential",
	.kind = WORKLOAD_MEMORY,
	.models = "array sweeps, line by line (STREAM, memcpy, column scans)",
	.size_unit = "bytes",
	.size_default = (uint64_t)64 << 20,
	.size_quick = (uint64_t)2 << 20,
	.run = run,
};
