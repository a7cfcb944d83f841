/* SPDX-License-Identifier: MIT */
/*
 * sharing_results.c - figures of `gnomon overcommit sharing`: what counts as missed, and how ratios are taken.
 */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/sharing.h"

static struct sharing_figure figure(double value, enum sharing_promise promise, double goal)
{
	struct sharing_figure f = { .value = value, .promise = promise, .goal = goal };

	return f;
}

Test(sharing_results, what_is_not_known_or_never_came_is_missed)
{
	struct sharing_figure fine[] = { figure(1, SHARING_AT_MOST, 1),
					 figure(1, SHARING_AT_LEAST, 1),
					 figure(NAN, SHARING_SHOWN, 0),
					 figure(9, SHARING_SHOWN, 1) };
	struct sharing_figure missed[] = { figure(1.01, SHARING_AT_MOST, 1),
					   figure(0.99, SHARING_AT_LEAST, 1),
					   figure(NAN, SHARING_AT_MOST, 1),
					   figure(NAN, SHARING_AT_LEAST, 1),
					   figure(INFINITY, SHARING_AT_MOST, 1) };

	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
		cr_assert_not(sharing_is_missed(&fine[i]), "%zu", i);
	for (size_t i = 0; i < sizeof(missed) / sizeof(missed[0]); i++)
		cr_assert(sharing_is_missed(&missed[i]), "%zu", i);
}

/* A run that saved all of 262144 pages: CPU seconds are those per GiB. */
static struct sharing_run run_of(double cpu_s, double wall_s)
{
	return (struct sharing_run){ .is_there = true,
				     .saved_pages = 262144,
				     .first_pass_pages = 131072,
				     .reached_pages = 262144,
				     .cpu_s = cpu_s,
				     .wall_s = wall_s };
}

Test(sharing_results, ratios_are_of_runs_of_the_same_turn)
{
	struct sharing_results *r = calloc(1, sizeof(*r));
	struct sharing_case_result *c = &r->cases[0];
	/* The machine was ten times as slow in the second turn. */
	const double slow[] = { 1, 10, 1 };
	bool has_goal = false;

	r->setup.case_count = 1;
	r->setup.repeat = 3;
	c->of = sharing_case_find("mixed");
	c->oracle = (struct sharing_oracle){ 600000, 0, 337856, 262144 };
	for (unsigned n = 0; n < 3; n++) {
		c->runs[SHARING_KSM][n] = run_of(8 * slow[n], 16 * slow[n]);
		c->runs[SHARING_EPT][n] = run_of(0.5 * slow[n], 1 * slow[n]);
		c->runs[SHARING_LIMIT][n] = run_of(0.25 * slow[n], 1 * slow[n]);
	}
	cr_assert_float_eq(sharing_ratio(c, SHARING_EPT, SHARING_KSM, sharing_cpu_per_gib), 0.0625,
			   1e-9);
	cr_assert_float_eq(sharing_median(c, SHARING_EPT, sharing_cpu_per_gib), 0.5, 1e-9);
	cr_assert_float_eq(sharing_most(c, SHARING_EPT, sharing_wall), 10, 1e-9);
	cr_assert(isnan(sharing_median(c, SHARING_SHADOW, sharing_wall)));
	sharing_compare_sides(r);
	for (size_t i = 0; i < r->figure_count; i++) {
		const struct sharing_figure *f = &r->figures[i];

		cr_assert_str_eq(f->group, "mixed");
		if (strstr(f->name, "CPU per GiB freed over KSM")) {
			has_goal = true;
			cr_assert_not(sharing_is_missed(f));
		}
		if (strstr(f->name, "one pass"))
			cr_assert(sharing_is_missed(f), "half is not 99 %%");
		if (strstr(f->name, "most over median"))
			cr_assert_eq(sharing_is_missed(f), f->promise != SHARING_SHOWN,
				     "tenfold is not 1.3");
	}
	cr_assert(has_goal);
	c->runs[SHARING_EPT][0].reached_pages = 0;
	cr_assert(isinf(sharing_cpu_per_gib(c, &c->runs[SHARING_EPT][0])));
	free(r);
}

Test(sharing_results, points_are_kept_in_order)
{
	struct sharing_run run = { 0 };

	for (unsigned i = 0; i < 1000; i++)
		cr_assert_eq(sharing_add_point(&run, i, i / 2.0, 256 * (uint64_t)i), 0);
	cr_assert_eq(run.point_count, 1000);
	for (unsigned i = 0; i < 1000; i++)
		cr_assert((double)run.points[i].t_s == i && (double)run.points[i].saved_mib == i);
	sharing_run_fini(&run);
}
