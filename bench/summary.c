/* SPDX-License-Identifier: MIT */
/*
 * summary.c - the grid.
 *
 * "Best" and "worst" compare modelled cycles or measured seconds, among schemes that virtualize: the baseline is
 * what they are held against. Cycles are exact; seconds are not, so schemes whose intervals overlap are both best
 * (below six samples there is no 95 % interval, and the medians decide).
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

static bool is_of(const struct summary *s, const struct results_run *run)
{
	return !strcmp(run->backend, s->backend);
}

int summary_init(struct summary *s, const struct results *results, const char *backend)
{
	size_t runs = results->run_count;

	memset(s, 0, sizeof(*s));
	s->results = results;
	s->backend = backend;
	s->is_measured = strcmp(backend, "soft") != 0;
	s->workloads = calloc(runs + 1, sizeof(*s->workloads));
	s->schemes = calloc(runs + 1, sizeof(*s->schemes));
	if (!s->workloads || !s->schemes)
		goto fail;
	for (size_t rank = 0; rank <= GROUPS; rank++)
		for (size_t i = 0; i < runs; i++) {
			const struct results_run *run = &results->runs[i];

			if (is_of(s, run) && group_rank(run->group) == rank &&
			    index_of(s->workloads, s->workload_count, run->workload) ==
				    s->workload_count)
				s->workloads[s->workload_count++] = run->workload;
		}
	for (size_t i = 0; i < runs; i++) {
		const struct results_run *run = &results->runs[i];

		if (!is_of(s, run))
			continue;
		if (index_of(s->schemes, s->scheme_count, run->scheme) == s->scheme_count)
			s->schemes[s->scheme_count++] = run->scheme;
		s->has_baseline |= !s->is_measured && !strcmp(run->scheme, "native");
	}
	/* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
	s->grid = calloc(s->workload_count * s->scheme_count + 1, sizeof(*s->grid));
	if (!s->grid)
		goto fail;
	for (size_t i = 0; i < runs; i++) {
		const struct results_run *run = &results->runs[i];
		size_t w = index_of(s->workloads, s->workload_count, run->workload);
		size_t c = index_of(s->schemes, s->scheme_count, run->scheme);

		if (is_of(s, run))
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

const struct results_run *summary_any(const struct summary *s)
{
	for (size_t i = 0; i < s->results->run_count; i++)
		if (is_of(s, &s->results->runs[i]))
			return &s->results->runs[i];
	return NULL;
}

double summary_seconds(const struct summary *s, size_t workload, size_t scheme)
{
	const struct results_run *run = summary_run(s, workload, scheme);

	return run && !run->failure[0] && run->sample_count ? run->median_s : 0;
}

/* The scheme with the least time; -1: none has one. */
static int fastest(const struct summary *s, size_t workload)
{
	int found = -1;

	for (size_t c = 0; c < s->scheme_count; c++) {
		double seconds = summary_seconds(s, workload, c);

		if (seconds > 0 &&
		    (found < 0 || seconds < summary_seconds(s, workload, (size_t)found)))
			found = (int)c;
	}
	return found;
}

double summary_ratio(const struct summary *s, size_t workload, size_t scheme)
{
	const struct results_run *run = summary_run(s, workload, scheme);
	double ratio;

	if (s->is_measured) {
		int least = fastest(s, workload);

		return least < 0 ? 0
				 : summary_seconds(s, workload, scheme) /
					   summary_seconds(s, workload, (size_t)least);
	}
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
	return !s->is_measured && !strcmp(s->schemes[scheme], "native");
}

bool summary_is_demonstration(const struct summary *s, size_t scheme)
{
	return !strcmp(s->schemes[scheme], "interp");
}

/* Cycles or seconds; 0: not known. */
static double cost_of(const struct summary *s, size_t workload, size_t scheme)
{
	const struct results_run *run = summary_run(s, workload, scheme);

	if (s->is_measured)
		return summary_seconds(s, workload, scheme);
	return run && !run->failure[0] ? (double)run->counters.cycles : 0;
}

static int extreme(const struct summary *s, size_t workload, int sign, bool demonstrations)
{
	int found = -1;

	for (size_t i = 0; i < s->scheme_count; i++) {
		double cost = cost_of(s, workload, i);

		if (summary_is_baseline(s, i) || !(cost > 0) ||
		    (summary_is_demonstration(s, i) && !demonstrations))
			continue;
		if (found < 0 || sign * cost > sign * cost_of(s, workload, (size_t)found))
			found = (int)i;
	}
	return found;
}

/* The fastest, or not to be told from it. */
static bool is_fastest(const struct summary *s, size_t workload, size_t scheme)
{
	const struct results_run *run = summary_run(s, workload, scheme), *best;
	int least = fastest(s, workload);

	if (least < 0 || !(summary_seconds(s, workload, scheme) > 0))
		return false;
	best = summary_run(s, workload, (size_t)least);
	return run->median_s <= best->median_s ||
	       (run->sample_count >= STATS_MIN_INTERVAL &&
		best->sample_count >= STATS_MIN_INTERVAL && run->ci95_s[0] <= best->ci95_s[1]);
}

/* Equal to the fewest cycles as printed: what looks like a tie is one. */
bool summary_is_best(const struct summary *s, size_t workload, size_t scheme)
{
	int least = extreme(s, workload, -1, true);
	char ours[32], theirs[32];

	if (s->is_measured)
		return is_fastest(s, workload, scheme);
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

const char *summary_format_slower(double ratio, char *out, size_t bytes)
{
	double percent = (ratio - 1) * 100;

	if (!(percent >= 0.05))
		snprintf(out, bytes, "%s", "");
	else if (ratio >= 2)
		snprintf(out, bytes, ratio < 10 ? "×%.1f" : "×%.0f", ratio);
	else
		snprintf(out, bytes, percent < 9.95 ? "+%.1f %%" : "+%.0f %%", percent);
	return out;
}

const char *summary_format_seconds(double seconds, char *out, size_t bytes)
{
	static const char *const units[] = { "s", "ms", "us", "ns" };
	unsigned unit = 0;

	while (unit < 3 && seconds < 0.9995) {
		seconds *= 1000;
		unit++;
	}
	snprintf(out, bytes, "%.*f %s",
		 seconds < 9.995   ? 2
		 : seconds < 99.95 ? 1
				   : 0,
		 seconds, units[unit]);
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
