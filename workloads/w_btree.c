/* SPDX-License-Identifier: MIT */
/*
 * w_btree.c - look-ups in a B+-tree.
 *
 * Models the index of a database (LMDB, InnoDB): nodes of one 4 KiB page, inner nodes of up to 254 keys
 * with binary search, leaves of 31 records of 128 bytes, built in bulk. One look-up in sixteen goes on to
 * scan the next records, as YCSB's workload E does. The upper levels stay in the TLB, the leaves do not.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define FANOUT	      254
#define LEAF_RECORDS  31
#define RECORD_BYTES  128
#define SCAN_RECORDS  16
#define LEVELS_MAX    8
#define KEY_GAP	      ((uint64_t)1 << 20)
#define COMPUTE_LEVEL 20
/* Inner node: word 0 count, then from byte 16 pairs of (lowest key, child). */
#define PAIR(node, i) ((node) + 16 + (uint64_t)(i)*16)
/* Leaf: word 0 count, word 1 next leaf, then records of (key, value, ...). */
#define RECORD(leaf, i) ((leaf) + ((uint64_t)(i) + 1) * RECORD_BYTES)

struct tree {
	uint64_t seed, root, records;
	unsigned levels; /* inner ones */
};

static uint64_t key_of(const struct tree *t, uint64_t i)
{
	return (i + 1) * KEY_GAP + mix64(t->seed ^ i) % KEY_GAP;
}

static uint64_t value_of(uint64_t key)
{
	return mix64(key ^ 0xb7ee);
}

static void build_leaves(struct tree *t, uint64_t base, uint64_t leaves)
{
	for (uint64_t l = 0; l < leaves; l++) {
		uint64_t leaf = base + l * K_PAGE;

		cpu_store64(leaf, LEAF_RECORDS);
		cpu_store64(leaf + 8, l + 1 < leaves ? leaf + K_PAGE : 0);
		for (unsigned i = 0; i < LEAF_RECORDS; i++) {
			uint64_t key = key_of(t, l * LEAF_RECORDS + i);

			cpu_store64(RECORD(leaf, i), key);
			cpu_store64(RECORD(leaf, i) + 8, value_of(key));
		}
	}
	t->records = leaves * LEAF_RECORDS;
}

/* One inner level over @count nodes from @below, each covering @span records. The nodes made. */
static uint64_t build_level(struct tree *t, uint64_t below, uint64_t count, uint64_t span,
			    uint64_t at)
{
	uint64_t made = 0;

	for (uint64_t first = 0; first < count; first += FANOUT, made++) {
		uint64_t node = at + made * K_PAGE;
		uint64_t pairs = count - first < FANOUT ? count - first : FANOUT;

		cpu_store64(node, pairs);
		for (uint64_t i = 0; i < pairs; i++) {
			cpu_store64(PAIR(node, i), key_of(t, (first + i) * span));
			cpu_store64(PAIR(node, i) + 8, below + (first + i) * K_PAGE);
		}
	}
	return made;
}

static void build(struct tree *t, uint64_t base, uint64_t leaves)
{
	uint64_t below = base, count = leaves, span = LEAF_RECORDS;

	build_leaves(t, base, leaves);
	while (count > 1) {
		uint64_t at = below + count * K_PAGE;

		count = build_level(t, below, count, span, at);
		below = at;
		span *= FANOUT;
		t->levels++;
	}
	t->root = below;
}

/* The last entry of a node, @stride apart from @first, whose key is <= @key. */
static uint64_t search(uint64_t first, uint64_t stride, uint64_t count, uint64_t key)
{
	uint64_t low = 0, high = count;

	while (high - low > 1) {
		uint64_t middle = (low + high) / 2;

		if (cpu_load64(first + middle * stride) <= key)
			low = middle;
		else
			high = middle;
	}
	cpu_compute(COMPUTE_LEVEL);
	return low;
}

static int look_up(const struct tree *t, uint64_t i, bool scan, const char **why)
{
	uint64_t node = t->root, key = key_of(t, i), at;
	uint64_t left = scan ? SCAN_RECORDS : 1;

	for (unsigned l = 0; l < t->levels; l++)
		node = cpu_load64(PAIR(node, search(PAIR(node, 0), 16, cpu_load64(node), key)) + 8);
	at = search(RECORD(node, 0), RECORD_BYTES, cpu_load64(node), key);
	for (; left && i < t->records; left--, i++) {
		if (cpu_load64(RECORD(node, at)) != key_of(t, i))
			return workload_fail(why, "btree: a key is not where the search led");
		if (cpu_load64(RECORD(node, at) + 8) != value_of(key_of(t, i)))
			return workload_fail(why, "btree: a record holds another record's value");
		if (++at == LEAF_RECORDS) {
			node = cpu_load64(node + 8);
			at = 0;
		}
	}
	return 0;
}

static int run(const struct workload_params *params, const char **why)
{
	uint64_t leaves = params->size / K_PAGE, steps = region_steps(params->size) / 4;
	struct tree t = { .seed = params->seed };
	struct rng rng = rng_seeded(params->seed);

	if (!leaves)
		leaves = 1;
	/* Inner levels: 1/254 of the leaves, and so on; LEVELS_MAX more for the odd node of each. */
	build(&t, region_map(params, (leaves + leaves / (FANOUT - 1) + LEVELS_MAX) * K_PAGE),
	      leaves);
	cpu_measure();
	for (uint64_t i = 0; i < steps; i++) {
		if (look_up(&t, rng_below(&rng, t.records), i % 16 == 0, why))
			return -1;
		region_progress(i, steps);
	}
	return 0;
}

const struct workload workload_btree = {
	.name = "btree",
	.kind = WORKLOAD_MEMORY,
	.models = "B+-tree look-ups and short scans (LMDB, InnoDB, YCSB-E)",
	.size_unit = "bytes",
	.size_default = (uint64_t)64 << 20,
	.size_quick = (uint64_t)2 << 20,
	.run = run,
};
