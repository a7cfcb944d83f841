/* SPDX-License-Identifier: MIT */
/*
 * micro_soft.c - how fast the software machine is.
 *
 * soft_hit: a stream of words over 32 pages, again and again: all hit the first-level TLB, most the line before.
 * soft_scattered: the same pages in random order, so that nearly every reference is another page and another
 * line. The limit of both is the plain loop over the same batch with one load each.
 * soft_random_ept: references uniformly random over 1 GiB in 4 KiB pages under ept, TLBs, walk caches, nested
 * TLB and data caches modelled. Its limit is the host itself making random loads over 1 GiB; the peer is the
 * closest published simulator of two-dimensional walks.
 */
#include "micro.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "guest_tables.h"

enum { HIT_PAGES = 32, HIT_REFS = 1 << 14, HIT_ROUNDS = 64, RANDOM_REFS = 1 << 18 };
static const uint64_t area_bytes = (uint64_t)16 << 20;
static const gva_t first_va = { 0x100000000000 };

struct soft_context {
	struct gn_soft *soft;
	struct guest_tables tables;
	struct gn_soft_ref *refs;
	size_t ref_count;
	unsigned rounds;
	bool is_stream; /* ascending words instead of random ones */
	uint8_t *host;	/* what the limit loads from: as large as the guest's data */
	uint64_t data_bytes, elapsed_ns;
};

static void soft_teardown(void *context)
{
	struct soft_context *c = context;

	if (c->soft)
		gn_soft_destroy(c->soft);
	if (c->host)
		munmap(c->host, c->data_bytes);
	free(c->refs);
	free(c);
}

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* Guest: enable paging, touch every page once. */
static void guest_boot(struct gn_soft_cpu *cpu, void *context)
{
	struct soft_context *c = context;

	guest_tables_load_soft(&c->tables, cpu);
	for (uint64_t at = 0; at < c->data_bytes; at += GN_PAGE_SIZE) {
		const struct gn_soft_ref ref = { .va = first_va.v + at, .kind = GN_READ };

		gn_soft_refs(cpu, &ref, 1);
	}
}

static void guest_stream(struct gn_soft_cpu *cpu, void *context)
{
	struct soft_context *c = context;
	uint64_t begin = micro_now_ns();

	for (unsigned round = 0; round < c->rounds; round++)
		gn_soft_refs(cpu, c->refs, c->ref_count);
	c->elapsed_ns = micro_now_ns() - begin;
}

static int soft_prepare(struct soft_context *c)
{
	struct gn_soft_config config = {
		.vm = { .scheme = "ept", .mem_bytes = area_bytes + c->data_bytes, .vcpus = 1 },
		.seed = 1,
	};
	uint64_t state = 1;
	int err = gn_soft_create(&config, &c->soft);

	if (err)
		return err;
	c->refs = calloc(c->ref_count, sizeof(*c->refs));
	c->host = mmap(NULL, c->data_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	if (c->host == MAP_FAILED)
		c->host = NULL;
	if (!c->refs || !c->host)
		return -ENOMEM;
	for (uint64_t at = 0; at < c->data_bytes; at += GN_PAGE_SIZE)
		c->host[at] = 1;
	for (size_t i = 0; i < c->ref_count; i++)
		c->refs[i] =
			(struct gn_soft_ref){ .va = first_va.v +
						    ((c->is_stream ? i * 8 : next_random(&state)) &
						     (c->data_bytes - 1) & ~7ull),
					      .kind = GN_READ };
	err = guest_tables_init(&c->tables, gn_soft_vm(c->soft), 4, gpa(0), area_bytes);
	if (!err)
		err = guest_tables_map(&c->tables, first_va, gpa(area_bytes), 1,
				       c->data_bytes >> GN_PAGE_SHIFT);
	if (!err)
		err = gn_soft_run(gn_soft_cpu(c->soft, 0), guest_boot, c);
	return err;
}

static void *soft_setup(uint64_t data_bytes, size_t ref_count, unsigned rounds, bool is_stream,
			char *why, size_t why_bytes)
{
	struct soft_context *c = calloc(1, sizeof(*c));
	int err = -ENOMEM;

	if (c) {
		c->data_bytes = data_bytes;
		c->ref_count = ref_count;
		c->rounds = rounds;
		c->is_stream = is_stream;
		err = soft_prepare(c);
	}
	if (!err)
		return c;
	snprintf(why, why_bytes, "setting up the machine: %s%s%s", strerror(-err),
		 err == -ECANCELED ? ": " : "",
		 err == -ECANCELED ? gn_soft_stop_reason(gn_soft_cpu(c->soft, 0)) : "");
	if (c)
		soft_teardown(c);
	return NULL;
}

static void *setup_hit(char *why, size_t why_bytes)
{
	return soft_setup(HIT_PAGES * GN_PAGE_SIZE, HIT_REFS, HIT_ROUNDS, true, why, why_bytes);
}

static void *setup_scattered(char *why, size_t why_bytes)
{
	return soft_setup(HIT_PAGES * GN_PAGE_SIZE, HIT_REFS, HIT_ROUNDS, false, why, why_bytes);
}

static void *setup_random(char *why, size_t why_bytes)
{
	return soft_setup((uint64_t)1 << 30, RANDOM_REFS, 1, false, why, why_bytes);
}

static double millions_per_s(const struct soft_context *c, uint64_t ns)
{
	return (double)c->ref_count * c->rounds * 1e3 / (double)(ns ? ns : 1);
}

static double sample_soft(void *context)
{
	struct soft_context *c = context;

	if (gn_soft_run(gn_soft_cpu(c->soft, 0), guest_stream, c))
		return 0;
	return millions_per_s(c, c->elapsed_ns);
}

static double sample_plain(void *context)
{
	struct soft_context *c = context;
	uint64_t sum = 0, begin = micro_now_ns();

	for (unsigned round = 0; round < c->rounds; round++) {
		for (size_t i = 0; i < c->ref_count; i++)
			sum += *(const volatile uint64_t *)(c->host + (c->refs[i].va - first_va.v));
	}
	micro_use(sum);
	return millions_per_s(c, micro_now_ns() - begin);
}

const struct micro micro_soft_hit = {
	"soft_hit",
	"M/s",
	"a simulated stream that hits the first TLB",
	true,
	100,
	setup_hit,
	soft_teardown,
	{ "soft machine", sample_soft, 0 },
	{ "plain loads of the same references", sample_plain, 0 },
	{ NULL, NULL, 0 },
	MICRO_ABSOLUTE,
	false,
};

const struct micro micro_soft_scattered = {
	"soft_scattered",
	"M/s",
	"simulated references in random order that hit the first TLB",
	true,
	0,
	setup_scattered,
	soft_teardown,
	{ "soft machine", sample_soft, 0 },
	{ "plain loads of the same references", sample_plain, 0 },
	{ NULL, NULL, 0 },
	MICRO_ABSOLUTE,
	false,
};

/* Peer: the DMT artifact (a DynamoRIO simulator of two-dimensional walks), uniform random over 1 GiB, measured
 * by this project on a 2-core Zen 4 machine; it models no nested TLB and no shadow paging. */
const struct micro micro_soft_random_ept = {
	"soft_random_ept",
	"M/s",
	"simulated references uniformly random over 1 GiB, ept",
	true,
	10,
	setup_random,
	soft_teardown,
	{ "soft machine", sample_soft, 0 },
	{ "plain random loads over 1 GiB", sample_plain, 0 },
	{ "DMT artifact, recorded, not rerun", NULL, 0.33 },
	MICRO_ABSOLUTE,
	false,
};
