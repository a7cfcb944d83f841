/* SPDX-License-Identifier: MIT */
/*
 * sharing_results.c - keep what was measured.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "sharing.h"
#include "stats.h"

static const struct {
	const char *name, *scheme, *backend;
} sides[SHARING_SIDES] = {
	[SHARING_KSM] = { "KSM", NULL, NULL },
	[SHARING_EPT] = { "gnomon, ept", "ept", "soft" },
	[SHARING_SHADOW] = { "gnomon, shadow", "shadow", "soft" },
	[SHARING_KVM] = { "gnomon, kvm", "ept", "kvm" },
	[SHARING_TEMPLATE] = { "gnomon, kvm, template", "ept", "kvm" },
	[SHARING_LIMIT] = { "limit", NULL, NULL },
};

const char *sharing_side_name(enum sharing_side side)
{
	return sides[side].name;
}

const char *sharing_side_scheme(enum sharing_side side)
{
	return sides[side].scheme;
}

const char *sharing_side_backend(enum sharing_side side)
{
	return sides[side].backend;
}

int sharing_add_point(struct sharing_run *run, double t_s, double cpu_s, uint64_t saved_pages)
{
	if (run->point_count == run->point_capacity) {
		size_t capacity = run->point_capacity ? run->point_capacity * 2 : 64;
		struct sharing_point *points = realloc(run->points, capacity * sizeof(*points));

		if (!points)
			return -ENOMEM;
		run->points = points;
		run->point_capacity = capacity;
	}
	run->points[run->point_count++] =
		(struct sharing_point){ (float)t_s, (float)cpu_s,
					(float)saved_pages * SHARING_PAGE_BYTES / 1048576 };
	return 0;
}

/* One beyond the last is not kept: the list is long enough for all cases and probes there are. */
void sharing_add_figure(struct sharing_results *r, const char *group, const char *name,
			const char *unit, double value, enum sharing_promise promise, double goal)
{
	struct sharing_figure *figure = &r->figures[r->figure_count];

	if (r->figure_count == SHARING_MAX_FIGURES)
		return;
	r->figure_count++;
	snprintf(figure->group, sizeof(figure->group), "%s", group);
	snprintf(figure->name, sizeof(figure->name), "%s", name);
	snprintf(figure->unit, sizeof(figure->unit), "%s", unit);
	figure->value = value;
	figure->promise = promise;
	figure->goal = goal;
}

void sharing_add_side_figure(struct sharing_results *r, const char *group, enum sharing_side side,
			     const char *name, const char *unit, double value,
			     enum sharing_promise promise, double goal)
{
	char full[96];

	snprintf(full, sizeof(full), "%s: %s", sharing_side_name(side), name);
	sharing_add_figure(r, group, full, unit, value, promise, goal);
}

bool sharing_is_missed(const struct sharing_figure *f)
{
	if (f->promise == SHARING_SHOWN)
		return false;
	return !(f->promise == SHARING_AT_MOST ? f->value <= f->goal : f->value >= f->goal);
}

double sharing_median(const struct sharing_case_result *c, enum sharing_side side,
		      sharing_value_fn *of)
{
	double values[SHARING_MAX_REPEAT];
	size_t count = 0;

	for (unsigned i = 0; i < SHARING_MAX_REPEAT; i++)
		if (c->runs[side][i].is_there)
			values[count++] = of(c, &c->runs[side][i]);
	return count ? stats_summarise(values, count).median : (double)NAN;
}

double sharing_ratio(const struct sharing_case_result *c, enum sharing_side side,
		     enum sharing_side to, sharing_value_fn *of)
{
	double values[SHARING_MAX_REPEAT];
	size_t count = 0;

	for (unsigned i = 0; i < SHARING_MAX_REPEAT; i++)
		if (c->runs[side][i].is_there && c->runs[to][i].is_there)
			values[count++] = of(c, &c->runs[side][i]) / of(c, &c->runs[to][i]);
	return count ? stats_summarise(values, count).median : (double)NAN;
}

double sharing_most(const struct sharing_case_result *c, enum sharing_side side,
		    sharing_value_fn *of)
{
	double most = NAN;

	for (unsigned i = 0; i < SHARING_MAX_REPEAT; i++)
		if (c->runs[side][i].is_there)
			most = fmax(most, of(c, &c->runs[side][i]));
	return most;
}

double sharing_cpu_per_gib(const struct sharing_case_result *c, const struct sharing_run *run)
{
	(void)c;
	return run->reached_pages ? run->cpu_s * 262144 / (double)run->reached_pages
				  : (double)INFINITY;
}

static double part(uint64_t pages, const struct sharing_oracle *oracle)
{
	return oracle->saved_pages ? (double)pages / (double)oracle->saved_pages : (double)NAN;
}

double sharing_first_part(const struct sharing_case_result *c, const struct sharing_run *run)
{
	return part(run->first_pass_pages, &c->oracle);
}

double sharing_last_part(const struct sharing_case_result *c, const struct sharing_run *run)
{
	return part(run->saved_pages, &c->oracle);
}

double sharing_possible_part(const struct sharing_case_result *c, const struct sharing_run *run)
{
	(void)c;
	return run->possible_pages ? (double)run->saved_pages / (double)run->possible_pages
				   : (double)NAN;
}

double sharing_wall(const struct sharing_case_result *c, const struct sharing_run *run)
{
	(void)c;
	return run->reached_pages ? run->wall_s : (double)INFINITY;
}

double sharing_first_pass_cpu(const struct sharing_case_result *c, const struct sharing_run *run)
{
	(void)c;
	return run->first_pass_cpu_s;
}

double sharing_next_pass_cpu(const struct sharing_case_result *c, const struct sharing_run *run)
{
	(void)c;
	return run->next_pass_cpu_s;
}

double sharing_mappings(const struct sharing_case_result *c, const struct sharing_run *run)
{
	(void)c;
	return (double)run->mappings;
}

/* Of what the guest does not leave alone. */
double sharing_walked_part(const struct sharing_case_result *c, const struct sharing_run *run)
{
	uint64_t pages = c->oracle.total_pages - c->oracle.zero_pages;

	return pages ? (double)run->walked_pages / (double)pages : (double)NAN;
}

double sharing_walk_page_us(const struct sharing_case_result *c, const struct sharing_run *run)
{
	(void)c;
	return run->walked_pages ? run->walk_s * 1e6 / (double)run->walked_pages : (double)NAN;
}

double sharing_walk_page_faults(const struct sharing_case_result *c, const struct sharing_run *run)
{
	(void)c;
	return run->walked_pages ? (double)run->walk_faults / (double)run->walked_pages
				 : (double)NAN;
}

double sharing_pass_faults(const struct sharing_case_result *c, const struct sharing_run *run)
{
	(void)c;
	return (double)run->pass_faults;
}

double sharing_walk_part(const struct sharing_case_result *c, const struct sharing_run *run)
{
	return part(run->walk_saved_pages, &c->oracle);
}

void sharing_run_fini(struct sharing_run *run)
{
	free(run->points);
	run->points = NULL;
}

void sharing_results_fini(struct sharing_results *r)
{
	for (size_t i = 0; i < r->setup.case_count; i++)
		for (unsigned side = 0; side < SHARING_SIDES; side++)
			for (unsigned n = 0; n < SHARING_MAX_REPEAT; n++)
				sharing_run_fini(&r->cases[i].runs[side][n]);
}
