/* SPDX-License-Identifier: MIT */
/*
 * w_kv.c - a key-value store under skewed load.
 *
 * Models an in-memory store (memcached, Redis) under YCSB workload B: records of 1 KiB, keys by Zipf with
 * exponent 0.99, popular ones scattered over the store, 95 % reads, 5 % updates (Cooper et al., SoCC 2010). An
 * operation goes through a hash index of 16-byte entries to a record and touches four lines of it. Record
 * words follow from key and version, so each read is checked; version 0 is the zeros of fresh memory.
 */
#include "list.h"
#include "region.h"
#include "rng.h"
#include "zipf.h"

#define RECORD_BYTES   ((uint64_t)1024)
#define INDEX_BYTES    16
#define WORDS	       4
#define UPDATE_PERCENT 5
#define COMPUTE_STEP   60 /* parse the request, hash the key, build the answer */

struct store {
	uint64_t records, count, index, mask, seed;
	unsigned bits;
};

static uint64_t key_of(const struct store *s, uint64_t i)
{
	return mix64(s->seed + i) | 1;
}

static uint64_t word_of(uint64_t key, uint64_t version, unsigned word)
{
	return version ? mix64(key ^ version << 32 ^ word) : 0;
}

/* The index entry of @key, or the free one where it would go. */
static uint64_t find(const struct store *s, uint64_t key)
{
	for (uint64_t slot = mix64(key) & s->mask;; slot = (slot + 1) & s->mask) {
		uint64_t there = cpu_load64(s->index + slot * INDEX_BYTES);

		if (!there || there == key)
			return s->index + slot * INDEX_BYTES;
	}
}

static void load(const struct store *s)
{
	for (uint64_t i = 0; i < s->count; i++) {
		uint64_t key = key_of(s, i), entry = find(s, key);

		cpu_store64(entry, key);
		cpu_store64(entry + 8, s->records + i * RECORD_BYTES);
		cpu_store64(s->records + i * RECORD_BYTES, key);
	}
}

static int operate(const struct store *s, uint64_t i, bool update, const char **why)
{
	uint64_t key = key_of(s, i), entry = find(s, key), at, version;

	if (cpu_load64(entry) != key)
		return workload_fail(why, "kv: the index lost a key");
	at = cpu_load64(entry + 8);
	if (cpu_load64(at) != key)
		return workload_fail(why, "kv: a record has another key");
	version = cpu_load64(at + 8);
	cpu_compute(COMPUTE_STEP);
	for (unsigned w = 1; w <= WORDS; w++) {
		if (cpu_load64(at + w * 192) != word_of(key, version, w))
			return workload_fail(why,
					     "kv: a record's words are not those of its version");
		if (update)
			cpu_store64(at + w * 192, word_of(key, version + 1, w));
	}
	if (update)
		cpu_store64(at + 8, version + 1);
	return 0;
}

static int run(const struct workload_params *params, const char **why)
{
	struct store s = { .seed = params->seed };
	struct rng rng = rng_seeded(params->seed);
	uint64_t steps = region_steps(params->size) / 4;
	struct zipf zipf;

	s.bits = floor_log2(params->size / RECORD_BYTES | 4);
	s.count = (uint64_t)1 << s.bits;
	s.mask = 2 * s.count - 1;
	s.records = region_map(params, s.count * RECORD_BYTES);
	s.index = region_map(params, 2 * s.count * INDEX_BYTES);
	zipf_init(&zipf, s.count);
	load(&s);
	cpu_measure();
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t rank = zipf_rank(&zipf, &rng);
		bool update = rng_below(&rng, 100) < UPDATE_PERCENT;

		if (operate(&s, permute(rank, s.bits, params->seed), update, why))
			return -1;
		region_progress(i, steps);
	}
	return 0;
}

const struct workload workload_kv = {
	.name = "kv",
	.kind = WORKLOAD_MEMORY,
	.models = "key-value store, Zipf keys, 95 % reads (YCSB-B on Redis, memcached)",
	.size_unit = "bytes",
	.size_default = (uint64_t)256 << 20,
	.size_quick = (uint64_t)4 << 20,
	.run = run,
};
