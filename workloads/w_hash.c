/* SPDX-License-Identifier: MIT */
/*
 * w_hash.c - look-ups in a hash table.
 *
 * Models the probe side of a hash join, a flow table, the index of a cache server: open addressing with
 * linear probing over 64-byte buckets, a quarter full, three look-ups in four succeed. A look-up touches one
 * random line, sometimes the next ones, so TLB reach decides its cost.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define BUCKET_BYTES ((uint64_t)64)
#define FILL	     4 /* one bucket in so many is used */
#define COMPUTE_STEP 10

struct table {
	uint64_t base, mask, seed;
};

static uint64_t key_of(const struct table *t, uint64_t i)
{
	return mix64(t->seed + i) | 1;
}

static uint64_t value_of(uint64_t key)
{
	return mix64(key ^ 0x5851);
}

/* The bucket that holds @key, or the free one where it would go. */
static uint64_t find(const struct table *t, uint64_t key, bool *found)
{
	for (uint64_t b = mix64(key) & t->mask;; b = (b + 1) & t->mask) {
		uint64_t at = t->base + b * BUCKET_BYTES;
		uint64_t there = cpu_load64(at);

		if (there == key || !there) {
			*found = there == key;
			return at;
		}
	}
}

static void insert(const struct table *t, uint64_t key)
{
	bool found;
	uint64_t at = find(t, key, &found);

	cpu_store64(at, key);
	cpu_store64(at + 8, value_of(key));
}

static int run(const struct workload_params *params, const char **why)
{
	uint64_t buckets = (uint64_t)1 << floor_log2(params->size / BUCKET_BYTES);
	uint64_t keys = buckets / FILL, steps = region_steps(params->size);
	struct table t = { .mask = buckets - 1, .seed = params->seed };
	struct rng rng = rng_seeded(params->seed);

	t.base = region_map(params, buckets * BUCKET_BYTES);
	for (uint64_t i = 0; i < keys; i++)
		insert(&t, key_of(&t, i));
	cpu_measure();
	for (uint64_t i = 0; i < steps; i++) {
		bool known = i % 4, found;
		uint64_t key = key_of(&t, rng_below(&rng, keys) + (known ? 0 : keys));
		uint64_t at = find(&t, key, &found);

		cpu_compute(COMPUTE_STEP);
		if (found != known)
			return workload_fail(why,
					     "hash: a key was lost, or found though never put in");
		if (found && cpu_load64(at + 8) != value_of(key))
			return workload_fail(why, "hash: a key has another key's value");
		region_progress(i, steps);
	}
	return 0;
}

const struct workload workload_hash = {
	.name = "hash",
	.kind = WORKLOAD_MEMORY,
	.models = "hash-table look-ups (hash join, flow table)",
	.size_unit = "bytes",
	.size_default = (uint64_t)128 << 20,
	.size_quick = (uint64_t)4 << 20,
	.run = run,
};
