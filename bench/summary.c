/* SPDX-License-Identifier: MIT */
/*
 * summary.c - the grid.
 *
 * "Best" and "worst" compare modelled cycles, among schemes that virtualize: the baseline is what they are
 * measured against.
 */
#include "summary.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stats.h"

static const char *const groups[] = { "memory", "os", "trace" };
static const char *const group_titles[] = { "Memory-bound programs", "Operating-system work",
					    "Recorded programs" };
#define GROUPS (sizeof(groups) / sizeof(groups[0]))

const char *summary_group_title(const char *group)
{
	for (size_t i = 0; i < GROUPS; i++)
		if (!strcmp(group, groups[i]))
			return group_titles[i];
	return "Other";
}

static size_t group_rank(const char *group)
{
	for (size_t i = 0; i < GROUPS; i++)
		if (!strcmp(group, groups[i]))
			return i;
	return GROUPS;
}

/* The place of @name among @count names; @count: it is not there. */
static size_t index_of(const char **names, size_t count, const char *name)
{
	size_t i = 0;

	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): all below count are set */
	while (i < count && strcmp(names[i], name) != 0)
		i++;
	return i;
}

int summary_init(struct summary *s, const struct results *results)
{
	size_t runs = results->run_count;

	memset(s, 0, sizeof(*s));
	s->results = results;
	s->workloads = calloc(runs + 1, sizeof(*s->workloads));
	s->schemes = calloc(runs + 1, sizeof(*s->schemes));
	if (!s->workloads || !s->schemes)
		goto fail;
	for (size_t rank = 0; rank <= GROUPS; rank++)
		for (size_t i = 0; i < runs; i++) {
			const struct results_run *run = &results->runs[i];

			if (group_rank(run->group) == rank &&
			    index_of(s->workloads, s->workload_count, run->workload) ==
				    s->workload_count)
				s->workloads[s->workload_count++] = run->workload;
		}
	for (size_t i = 0; i < runs; i++) {
		const struct results_run *run = &results->runs[i];

		if (index_of(s->schemes, s->scheme_count, run->scheme) == s->scheme_count)
			s->schemes[s->scheme_count++] = run->scheme;
		s->has_baseline |= !strcmp(run->scheme, "native");
	}
	/* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
	s->grid = calloc(s->workload_count * s->scheme_count + 1, sizeof(*s->grid));
	if (!s->grid)
		goto fail;
	for (size_t i = 0; i < runs; i++) {
		const struct results_run *run = &results->runs[i];
		size_t w = index_of(s->workloads, s->workload_count, run->workload);
		size_t c = index_of(s->schemes, s->scheme_count, run->scheme);

		s->grid[w * s->scheme_count + c] = run;
	}
	return 0;
fail:
	summary_fini(s);
	return -ENOMEM;
}

void summary_fini(struct summary *s)
{
	free(s->workloads);
	free(s->schemes);
	free(s->grid);
	memset(s, 0, sizeof(*s));
}

const struct results_run *summary_run(const struct summary *s, size_t workload, size_t scheme)
{
	return s->grid[workload * s->scheme_count + scheme];
}

const char *summary_group(const struct summary *s, size_t workload)
{
	for (size_t i = 0; i < s->scheme_count; i++)
		if (summary_run(s, workload, i))
			return summary_run(s, workload, i)->group;
	return "";
}

double summary_ratio(const struct summary *s, size_t workload, size_t scheme)
{
	const struct results_run *run = summary_run(s, workload, scheme);
	double ratio;

	return run && results_ratio(s->results, run, &ratio) ? ratio : 0;
}

/* Every scheme that ran at all has a ratio for this workload: means compare like with like. */
static bool is_complete(const struct summary *s, size_t workload)
{
	for (size_t i = 0; i < s->scheme_count; i++)
		if (!(summary_ratio(s, workload, i) > 0))
			return false;
	return true;
}

double summary_geomean(const struct summary *s, size_t scheme, const char *group)
{
	struct stats_geomean mean = { 0, 0 };

	for (size_t w = 0; w < s->workload_count; w++)
		if ((!group || !strcmp(summary_group(s, w), group)) && is_complete(s, w))
			stats_geomean_add(&mean, summary_ratio(s, w, scheme));
	return stats_geomean_value(&mean);
}

bool summary_is_best_mean(const struct summary *s, size_t scheme, const char *group)
{
	double ours = summary_geomean(s, scheme, group), least = 0;
	char our_text[32], least_text[32];

	for (size_t c = 0; c < s->scheme_count; c++) {
		double mean = summary_geomean(s, c, group);

		if (!summary_is_baseline(s, c) && mean > 0 && (!(least > 0) || mean < least))
			least = mean;
	}
	return !summary_is_baseline(s, scheme) && ours > 0 &&
	       !strcmp(summary_format_overhead(ours, our_text, sizeof(our_text)),
		       summary_format_overhead(least, least_text, sizeof(least_text)));
}

size_t summary_group_size(const struct summary *s, const char *group)
{
	size_t count = 0;

	for (size_t w = 0; w < s->workload_count; w++)
		count += !strcmp(summary_group(s, w), group);
	return count;
}

bool summary_is_baseline(const struct summary *s, size_t scheme)
{
	return !strcmp(s->schemes[scheme], "native");
}

bool summary_is_demonstration(const struct summary *s, size_t scheme)
{
	return !strcmp(s->schemes[scheme], "interp");
}

static double cycles_of(const struct summary *s, size_t workload, size_t scheme)
{
	const struct results_run *run = summary_run(s, workload, scheme);

	return run && !run->failure[0] ? (double)run->counters.cycles : 0;
}

static int extreme(const struct summary *s, size_t workload, int sign, bool demonstrations)
{
	int found = -1;

	for (size_t i = 0; i < s->scheme_count; i++) {
		double cycles = cycles_of(s, workload, i);

		if (summary_is_baseline(s, i) || !(cycles > 0) ||
		    (summary_is_demonstration(s, i) && !demonstrations))
			continue;
		if (found < 0 || sign * cycles > sign * cycles_of(s, workload, (size_t)found))
			found = (int)i;
	}
	return found;
}

/* Equal to the fewest cycles as printed: what looks like a tie is one. */
bool summary_is_best(const struct summary *s, size_t workload, size_t scheme)
{
	int least = extreme(s, workload, -1, true);
	char ours[32], theirs[32];

	if (least < 0 || summary_is_baseline(s, scheme))
		return false;
	if (!s->has_baseline)
		return least == (int)scheme;
	return !strcmp(
		summary_format_overhead(summary_ratio(s, workload, scheme), ours, sizeof(ours)),
		summary_format_overhead(summary_ratio(s, workload, (size_t)least), theirs,
					sizeof(theirs)));
}

int summary_best(const struct summary *s, size_t workload)
{
	for (size_t c = 0; c < s->scheme_count; c++)
		if (summary_is_best(s, workload, c))
			return (int)c;
	return -1;
}

int summary_worst(const struct summary *s, size_t workload)
{
	int found = extreme(s, workload, 1, false);

	return found < 0 ? extreme(s, workload, 1, true) : found;
}

const char *summary_format_overhead(double ratio, char *out, size_t bytes)
{
	double percent = (ratio - 1) * 100;

	if (!(ratio > 0))
		snprintf(out, bytes, "-");
	else if (ratio >= 11)
		snprintf(out, bytes, "×%.0f", ratio);
	else if (percent < 9.95 && percent > -9.95)
		snprintf(out, bytes, "%.1f", percent > -0.05 && percent < 0 ? 0.0 : percent);
	else
		snprintf(out, bytes, "%.0f", percent);
	return out;
}

const char *summary_label(const char *workload, char *out, size_t bytes)
{
	const char *slash = strrchr(workload, '/');

	if (strncmp(workload, "trace:", 6) == 0 && slash)
		snprintf(out, bytes, "trace:%s", slash + 1);
	else
		snprintf(out, bytes, "%s", workload);
	return out;
}
