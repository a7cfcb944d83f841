/* SPDX-License-Identifier: MIT */
/*
 * sampler.c - guests on the software machine whose working set is known: the estimate must be within four standard errors
 * of it, rise at once, fall slowly, and not count what is ballooned.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <math.h>

#include "balloon/sampler.h"
#include "mmu/arena.h"
#include "unit/soft_guest.h"

#define MIB	((uint64_t)1 << 20)
#define RAM	(32 * MIB)
#define PAGES	(RAM / GN_PAGE_SIZE)
#define SAMPLES 512
#define BASE	((uint64_t)0x40000000)

struct rig {
	struct guest g;
	struct gn_sampler *sampler;
	bool is_started;
	uint64_t first, pages; /* the working set */
};

static void boot(struct gn_soft_cpu *cpu, void *ctx)
{
	struct rig *r = ctx;

	(void)cpu;
	guest_start(&r->g, 0);
}

static void touch(struct gn_soft_cpu *cpu, void *ctx)
{
	struct rig *r = ctx;

	for (uint64_t i = 0; i < r->pages; i++)
		gn_soft_load(cpu, gva(BASE + (r->first + i) * GN_PAGE_SIZE), 8);
}

/* A guest that maps half of its RAM: page i of the mapping is gfn i. */
static void rig_init(struct rig *r, const char *scheme, unsigned backing_level)
{
	const struct gn_soft_config config = { .vm = { .scheme = scheme,
						       .mem_bytes = RAM,
						       .vcpus = 1,
						       .backing_level = backing_level } };
	const struct gn_sampler_config sampler = { .samples = SAMPLES, .seed = 12345 };
	unsigned level = backing_level == 2 ? 2 : 1;

	memset(r, 0, sizeof(*r));
	guest_create(&r->g, &config, 4);
	for (uint64_t at = 0; at < RAM / 2; at += gn_level_pages(level) * GN_PAGE_SIZE)
		guest_map(&r->g, BASE + at, at, level, GUEST_RW);
	cr_assert_eq(gn_soft_run(r->g.cpu, boot, r), 0);
	cr_assert_eq(gn_sampler_new(r->g.vm, &sampler, &r->sampler), 0);
}

static void rig_fini(struct rig *r)
{
	gn_sampler_destroy(r->sampler);
	guest_destroy(&r->g);
}

static void use(struct rig *r, uint64_t first, uint64_t pages)
{
	r->first = first;
	r->pages = pages;
	cr_assert_eq(gn_soft_run(r->g.cpu, touch, r), 0);
}

/* @count periods in each of which the guest uses @pages from @first on. */
static struct gn_working_set periods(struct rig *r, unsigned count, uint64_t first, uint64_t pages)
{
	struct gn_working_set set;

	for (unsigned i = 0; i < count; i++) {
		use(r, first, pages);
		cr_assert_eq(gn_sampler_next_period(r->sampler), 0);
	}
	gn_sampler_estimate(r->sampler, &set);
	return set;
}

static double error_of(double part, double weight)
{
	/* Of an average with that weight in the long run. */
	return sqrt(part * (1 - part) / SAMPLES * weight / (2 - weight));
}

static const char *const schemes[] = { "ept", "npt", "shadow" };
#define SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

Test(sampler, a_steady_working_set)
{
	static const uint64_t sizes[] = { 256, 1024, 3072 };

	for (unsigned s = 0; s < SCHEMES; s++) {
		for (unsigned i = 0; i < 3; i++) {
			double part = (double)sizes[i] / PAGES;
			struct gn_working_set set;
			struct rig r;

			rig_init(&r, schemes[s], 1);
			cr_assert_eq(gn_sampler_next_period(r.sampler), 0);
			set = periods(&r, 40, 0, sizes[i]);
			cr_assert_eq(set.periods, 40);
			cr_assert_eq(set.population_pages, PAGES);
			cr_assert(fabs(set.slow - part) < 4 * error_of(part, 1.0 / 8) + 0.01,
				  "%s: slow %.4f, must be %.4f", schemes[s], set.slow, part);
			cr_assert(fabs(set.fast - part) < 4 * error_of(part, 0.5) + 0.01,
				  "%s: fast %.4f, must be %.4f", schemes[s], set.fast, part);
			cr_assert_geq(set.active_pages, (uint64_t)(set.slow * PAGES));
			cr_assert_geq(set.active_pages, (uint64_t)(set.fast * PAGES));
			rig_fini(&r);
		}
	}
}

Test(sampler, rises_within_a_period_and_falls_slowly)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		struct gn_working_set set;
		struct rig r;

		rig_init(&r, schemes[s], 1);
		cr_assert_eq(gn_sampler_next_period(r.sampler), 0);
		periods(&r, 40, 0, 256);
		/* In the middle of a period, most of the mapped half. */
		use(&r, 0, 3584);
		cr_assert_eq(gn_sampler_look(r.sampler), 0);
		gn_sampler_estimate(r.sampler, &set);
		cr_assert(set.rising > 0.18 && set.slow < 0.08, "%s: rising %.3f, slow %.3f",
			  schemes[s], set.rising, set.slow);
		cr_assert_geq(set.active_pages, (uint64_t)(0.18 * PAGES));
		/* What was seen by a look still counts at the period's end. */
		cr_assert_eq(gn_sampler_next_period(r.sampler), 0);
		gn_sampler_estimate(r.sampler, &set);
		cr_assert(set.fast > 0.18, "%s: fast %.3f", schemes[s], set.fast);
		/* A look at an idle moment takes nothing away. */
		cr_assert_eq(gn_sampler_look(r.sampler), 0);
		cr_assert_eq(gn_sampler_next_period(r.sampler), 0);
		set = periods(&r, 30, 0, 3584);
		cr_assert(set.slow > 0.3, "%s: slow %.3f", schemes[s], set.slow);
		/* Idle: the fast one is gone soon, the slow one holds the estimate up. */
		set = periods(&r, 6, 0, 0);
		cr_assert(set.fast < 0.05 && set.slow > 0.2, "%s: fast %.3f, slow %.3f", schemes[s],
			  set.fast, set.slow);
		cr_assert_eq(set.active_pages,
			     (uint64_t)(set.slow * (double)set.population_pages + 0.5));
		rig_fini(&r);
	}
}

/* One accessed bit for 2 MiB: it must be cleared each period, or an idle guest would look busy for ever. */
Test(sampler, large_leaves)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		struct gn_working_set set;
		struct rig r;

		rig_init(&r, schemes[s], 2);
		use(&r, 0, PAGES / 2);
		cr_assert_eq(gn_sampler_next_period(r.sampler), 0);
		set = periods(&r, 20, 512, 1); /* one page of one block: 1/16 of RAM by its bit */
		cr_assert(set.fast > 0.01 && set.fast < 0.13, "%s: %.3f", schemes[s], set.fast);
		set = periods(&r, 20, 0, 0);
		cr_assert(set.fast < 0.001, "%s: %.3f", schemes[s], set.fast);
		rig_fini(&r);
	}
}

Test(sampler, what_is_ballooned_does_not_count)
{
	struct gn_working_set set;
	struct rig r;

	rig_init(&r, "ept", 1);
	cr_assert_eq(gn_sampler_next_period(r.sampler), 0);
	periods(&r, 10, 0, 1024);
	/* A quarter of RAM goes in the midst of a period, none of it used. */
	cr_assert_eq(gn_p2m_balloon(r.g.vm, gfn(4096), PAGES / 4), 0);
	set = periods(&r, 40, 0, 1024);
	cr_assert_eq(set.population_pages, PAGES * 3 / 4);
	cr_assert(fabs(set.slow - 1024.0 / (PAGES * 0.75)) < 0.03, "%.3f", set.slow);
	cr_assert(fabs((double)set.active_pages - 1024) < 300, "%d", (int)set.active_pages);
	/* All of it, nearly: the sample becomes small or empty, and nothing breaks. */
	cr_assert_eq(gn_p2m_balloon(r.g.vm, gfn(0), 4096), 0);
	cr_assert_eq(gn_sampler_next_period(r.sampler), 0);
	cr_assert_eq(gn_sampler_next_period(r.sampler), 0);
	gn_sampler_estimate(r.sampler, &set);
	cr_assert_eq(set.population_pages, PAGES / 4);
	rig_fini(&r);
}

Test(sampler, nothing_is_known_before_the_first_period)
{
	struct gn_working_set set;
	struct rig r;

	rig_init(&r, "ept", 1);
	gn_sampler_estimate(r.sampler, &set);
	cr_assert_eq(set.periods, 0);
	cr_assert_eq(set.active_pages, PAGES, "memory in use is not taken on a guess");
	cr_assert_eq(gn_sampler_look(r.sampler), 0);
	cr_assert_eq(gn_sampler_next_period(r.sampler), 0);
	cr_assert_eq(gn_sampler_look(r.sampler), 0);
	gn_sampler_estimate(r.sampler, &set);
	cr_assert_eq(set.active_pages, PAGES);
	rig_fini(&r);
}

Test(sampler, a_scheme_without_tables)
{
	struct gn_working_set set;
	struct rig r;

	rig_init(&r, "native", 1);
	cr_assert_eq(gn_sampler_next_period(r.sampler), -EOPNOTSUPP);
	cr_assert_eq(gn_sampler_look(r.sampler), 0, "no period is running");
	gn_sampler_estimate(r.sampler, &set);
	cr_assert_eq(set.active_pages, PAGES);
	/* A scheme switch in mid-period ends it; coming back, it goes on. */
	cr_assert_eq(gn_vm_switch_scheme(r.g.vm, "ept"), 0);
	cr_assert_eq(gn_sampler_next_period(r.sampler), 0);
	periods(&r, 3, 0, 1024);
	cr_assert_eq(gn_vm_switch_scheme(r.g.vm, "native"), 0);
	cr_assert_eq(gn_sampler_next_period(r.sampler), -EOPNOTSUPP);
	gn_sampler_estimate(r.sampler, &set);
	cr_assert_eq(set.periods, 3);
	cr_assert_eq(gn_vm_switch_scheme(r.g.vm, "shadow"), 0);
	cr_assert_eq(gn_sampler_next_period(r.sampler), 0);
	set = periods(&r, 1, 0, 1024);
	cr_assert_eq(set.periods, 4);
	rig_fini(&r);
}

Test(sampler, configuration_and_memory)
{
	static const struct gn_sampler_config bad[] = {
		{ .samples = 65537 },
		{ .slow_weight = 1.5 },
		{ .slow_weight = -0.1 },
		{ .fast_weight = NAN },
	};
	const struct gn_sampler_config fine = { .samples = 0 };
	struct gn_sampler *s = NULL;
	struct rig r;

	rig_init(&r, "ept", 1);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_eq(gn_sampler_new(r.g.vm, &bad[i], &s), -EINVAL, "case %u", i);
	for (uint64_t n = 1; n <= 2; n++) {
		gn_alloc_fail_nth(n);
		cr_assert_eq(gn_sampler_new(r.g.vm, &fine, &s), -ENOMEM);
		cr_assert_null(s);
	}
	gn_alloc_fail_nth(0);
	cr_assert_eq(gn_sampler_new(r.g.vm, &fine, &s), 0);
	gn_sampler_destroy(s);
	gn_sampler_destroy(NULL);
	rig_fini(&r);
}
