/* SPDX-License-Identifier: MIT */
/*
 * soft_walkrefs.c - references of a walk: the closed forms from cold, and the peer's average on random accesses.
 */
#include <criterion/criterion.h>

#include "soft_guest.h"

#define GIB ((uint64_t)1 << 30)

/* A walk of a guest with @g levels and a leaf at @gl, cold. Its references; 0: it didn't come out as one walk. */
static uint64_t cold_walk(const char *scheme, unsigned g, unsigned gl, unsigned h, unsigned hl)
{
	struct gn_soft_config config = { .vm = { .scheme = scheme,
						 .mem_bytes = 2 * GIB,
						 .vcpus = 1,
						 .backing_level = hl,
						 .max_leaf_level = hl,
						 .nested_levels = h },
					 .cpu = gn_cpu_preset_find("textbook") };
	const struct gn_access access = { .va = gva(3 * GIB + 8), .kind = GN_READ, .size = 8 };
	struct gn_soft_outcome out;
	struct gn_soft_stats stats;
	struct gn_counters c;
	struct guest guest;
	uint64_t value;

	guest_create(&guest, &config, g);
	guest_map(&guest, 3 * GIB, 0, gl, GUEST_RW);
	guest_start(&guest, 0);
	cr_assert_eq(gn_soft_probe(guest.cpu, &access, &value, &out), 0);
	cr_assert(!out.faulted && out.gpa.v == 8);
	gn_soft_cold(guest.cpu, true);
	gn_soft_counters_reset(guest.soft);
	cr_assert_eq(gn_soft_probe(guest.cpu, &access, &value, &out), 0);
	c = guest_counters(&guest);
	gn_soft_stats(guest.soft, &stats);
	guest_destroy(&guest);
	cr_assert_eq(c.walks, 1);
	cr_assert_eq(stats.walk_refs_histogram[c.walk_refs], 1);
	cr_assert_eq(c.cycles, c.cycles_base + c.walk_cycles + stats.tlb_cycles);
	return c.walk_refs;
}

Test(soft_walkrefs, closed_forms_from_cold)
{
	static const char *const nested[] = { "ept", "npt" };

	for (unsigned g = 4; g <= 5; g++)
		for (unsigned gl = 1; gl <= 3; gl++) {
			unsigned gr = g - gl + 1;

			cr_assert_eq(cold_walk("native", g, gl, 4, 1), gr, "native %u/%u", g, gl);
			for (unsigned h = 4; h <= 5; h++)
				for (unsigned hl = 1; hl <= 3; hl++)
					for (unsigned s = 0; s < 2; s++) {
						unsigned hr = h - hl + 1;

						cr_assert_eq(cold_walk(nested[s], g, gl, h, hl),
							     (gr + 1) * (hr + 1) - 1,
							     "%s %u/%u on %u/%u", nested[s], g, gl,
							     h, hl);
					}
		}
}

/* With 4 KiB frames every leaf of a shadow table is a 4 KiB one; it walks its own levels. */
Test(soft_walkrefs, shadow_walks_one_dimension)
{
	uint64_t refs = cold_walk("shadow", 4, 1, 4, 1);

	cr_assert(refs >= 4 && refs <= 5, "%lu", (unsigned long)refs);
}

struct stream {
	struct gn_soft_ref *refs;
	size_t count;
};

static void run_stream(struct gn_soft_cpu *cpu, void *ctx)
{
	struct stream *s = ctx;

	gn_soft_refs(cpu, s->refs, s->count);
}

/* Uniform random over 1 GiB, 4 KiB on 4 KiB, walk caches 2/4/32: 4 + 2 x (1 + 15/16). */
Test(soft_walkrefs, dmt_preset_gives_the_peers_average)
{
	struct gn_soft_config config = { .vm = { .scheme = "ept",
						 .mem_bytes = GIB + 16 * 1024 * 1024,
						 .vcpus = 1,
						 .max_leaf_level = 1 },
					 .cpu = gn_cpu_preset_find("dmt") };
	struct stream s = { .count = GIB >> GN_PAGE_SHIFT };
	struct gn_counters c;
	struct guest guest;
	uint64_t seed = 1;
	double average;

	s.refs = calloc(s.count, sizeof(*s.refs));
	cr_assert_not_null(s.refs);
	guest_create(&guest, &config, 4);
	for (uint64_t i = 0; i < s.count; i++) {
		guest_map(&guest, i << GN_PAGE_SHIFT, i << GN_PAGE_SHIFT, 1, GUEST_RW);
		s.refs[i].va = i << GN_PAGE_SHIFT;
	}
	guest_start(&guest, 0);
	cr_assert_eq(gn_soft_run(guest.cpu, run_stream, &s), 0);
	for (uint64_t i = 0; i < s.count; i++)
		s.refs[i].va = guest_random(&seed) % GIB;
	gn_soft_counters_reset(guest.soft);
	cr_assert_eq(gn_soft_run(guest.cpu, run_stream, &s), 0);
	c = guest_counters(&guest);
	average = (double)c.walk_refs / (double)c.walks;
	cr_assert(average > 7.865 && average < 7.885, "%.4f references a walk", average);
	guest_destroy(&guest);
	free(s.refs);
}
