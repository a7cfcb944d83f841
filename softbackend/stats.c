/* SPDX-License-Identifier: MIT */
/*
 * stats.c - counters of all CPUs, summed and reset.
 *
 * Both structures are nothing but 64-bit counts, so a sum is a loop.
 */
#include "cpu.h"

#include <string.h>

_Static_assert(sizeof(struct gn_counters) % sizeof(uint64_t) == 0, "counters are 64-bit counts");
_Static_assert(sizeof(struct gn_soft_stats) % sizeof(uint64_t) == 0, "so are the statistics");

static void add(void *sum, const void *part, size_t bytes)
{
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)part;

	for (size_t i = 0; i < bytes / sizeof(uint64_t); i++)
		to[i] += from[i];
}

void gn_soft_counters(struct gn_soft *soft, struct gn_counters *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (unsigned i = 0; i < soft->cpu_count; i++)
		add(sum, soft->cpus[i].counters, sizeof(*sum));
}

void gn_soft_stats(struct gn_soft *soft, struct gn_soft_stats *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (unsigned i = 0; i < soft->cpu_count; i++)
		add(sum, &soft->cpus[i].stats, sizeof(*sum));
}

void gn_soft_counters_reset(struct gn_soft *soft)
{
	for (unsigned i = 0; i < soft->cpu_count; i++) {
		memset(soft->cpus[i].counters, 0, sizeof(*soft->cpus[i].counters));
		memset(&soft->cpus[i].stats, 0, sizeof(soft->cpus[i].stats));
		soft->cpus[i].instruction_rest_q16 = 0;
	}
}
