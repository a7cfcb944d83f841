/* SPDX-License-Identifier: MIT */
/*
 * w_chase.c - a chain of dependent loads.
 *
 * Models linked lists and the latency tests built on them (lmbench lat_mem_rd with a random chain, the
 * pointer-chase kernels of MCF in SPEC CPU): one node for each 256 bytes, on a random line of its block, linked
 * in a random order into one cycle. Nothing can be overlapped with a walk, so each miss is paid in full.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define NODE_BYTES   ((uint64_t)256)
#define COMPUTE_STEP 2

struct chain {
	uint64_t base, key;
	unsigned bits;
};

/* The kth node of the cycle. */
static uint64_t node_at(const struct chain *c, uint64_t k)
{
	uint64_t block = permute(k & (((uint64_t)1 << c->bits) - 1), c->bits, c->key);

	return c->base + block * NODE_BYTES + mix64(block) % 4 * 64;
}

static int run(const struct workload_params *params, const char **why)
{
	struct chain c = { .bits = floor_log2(params->size / NODE_BYTES), .key = params->seed };
	uint64_t nodes = (uint64_t)1 << c.bits, at;

	c.base = region_map(params, nodes * NODE_BYTES);
	for (uint64_t k = 0; k < nodes; k++)
		cpu_store64(node_at(&c, k), node_at(&c, k + 1));
	cpu_measure();
	at = node_at(&c, 0);
	for (uint64_t k = 1; k <= nodes; k++) {
		at = cpu_load64(at);
		cpu_compute(COMPUTE_STEP);
		if (at != node_at(&c, k))
			return workload_fail(why, "chase: a node does not lead to its successor");
		region_progress(k, nodes);
	}
	return 0;
}

const struct workload workload_chase = {
	.name = "chase",
	.kind = WORKLOAD_MEMORY,
	.models = "pointer chase through a random cycle (lat_mem_rd, mcf)",
	.size_unit = "bytes",
	.size_default = (uint64_t)256 << 20,
	.size_quick = (uint64_t)4 << 20,
	.run = run,
};
