/* SPDX-License-Identifier: MIT */
/*
 * repro_dmt.c - the walk-cache model of the DMT artifact, uniform random over 1 GiB.
 *
 * 4 KiB guest pages on 4 KiB host pages, walk caches of 2, 4 and 32 entries (PML4E, PDPTE, PDE) for guest
 * and host, no nested TLB, and its rule that the host walk of the datum itself never uses the walk caches:
 * 7.875 references a walk (= 4 + 2 x 1.9375). The artifact itself prints 16.734, because it counts a hit on
 * the entry it used last as a miss.
 */
#include "repro.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "guest_tables.h"

static const double expected = 7.875;
static const uint64_t data_bytes = (uint64_t)1 << 30, area_bytes = (uint64_t)16 << 20;
static const gva_t first_va = { 0x100000000000 };
enum { REFS = 1 << 20 };

struct guest_context {
	struct guest_tables tables;
	struct gn_soft *soft;
	struct gn_soft_ref *refs;
};

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Every page once, so that no fault is left; then warm caches; then the counted stream. */
static void guest_main(struct gn_soft_cpu *cpu, void *context)
{
	struct guest_context *c = context;

	guest_tables_load_soft(&c->tables, cpu);
	for (uint64_t at = 0; at < data_bytes; at += GN_PAGE_SIZE) {
		const struct gn_soft_ref ref = { .va = first_va.v + at, .kind = GN_READ };

		gn_soft_refs(cpu, &ref, 1);
	}
	gn_soft_refs(cpu, c->refs, REFS / 8);
	gn_soft_counters_reset(c->soft);
	gn_soft_refs(cpu, c->refs, REFS);
}

static int prepare(struct guest_context *c, const struct gn_cpu_preset *cpu)
{
	const struct gn_soft_config config = {
		.vm = { .scheme = "ept", .mem_bytes = area_bytes + data_bytes, .vcpus = 1 },
		.cpu = cpu,
		.seed = 1,
	};
	uint64_t state = 88172645463325252u;
	int err = gn_soft_create(&config, &c->soft);

	if (err)
		return err;
	c->refs = calloc(REFS, sizeof(*c->refs));
	if (!c->refs)
		return -ENOMEM;
	for (size_t i = 0; i < REFS; i++)
		c->refs[i] = (struct gn_soft_ref){ .va = first_va.v + (next_random(&state) &
								       (data_bytes - 1) & ~7ull),
						   .kind = GN_READ };
	err = guest_tables_init(&c->tables, gn_soft_vm(c->soft), 4, gpa(0), area_bytes);
	if (!err)
		err = guest_tables_map(&c->tables, first_va, gpa(area_bytes), 1,
				       data_bytes >> GN_PAGE_SHIFT);
	return err;
}

static int run(bool colour)
{
	const struct gn_cpu_preset *cpu = gn_cpu_preset_find("dmt");
	struct guest_context c = { .soft = NULL };
	struct gn_counters counters = { 0 };
	double refs;
	int err;

	(void)colour;
	if (!cpu)
		return -ENOENT;
	err = prepare(&c, cpu);
	if (!err)
		err = gn_soft_run(gn_soft_cpu(c.soft, 0), guest_main, &c);
	if (c.soft) {
		gn_soft_counters(c.soft, &counters);
		gn_soft_destroy(c.soft);
	}
	free(c.refs);
	if (err)
		return err;
	if (!counters.walks)
		return -EIO;
	refs = (double)counters.walk_refs / (double)counters.walks;
	printf("ours %.4f references a walk (counted, preset dmt, %llu walks); closed form %.3f; "
	       "the "
	       "artifact's own program prints 16.734\n",
	       refs, (unsigned long long)counters.walks, expected);
	/* Random input: the closed form is the mean of the distribution, not a count. */
	return fabs(refs - expected) > 0.01;
}

const struct repro repro_dmt = {
	"dmt",
	"uniform random over 1 GiB, 4 KiB pages on 4 KiB frames, the DMT artifact's walk caches",
	run
};
