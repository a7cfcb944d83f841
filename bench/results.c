/* SPDX-License-Identifier: MIT */
/*
 * results.c - the result file in memory.
 *
 * Runs are found by name with a linear search: a comparison has a few hundred. Strings live inside the
 * records, cut at RESULTS_TEXT, so a run can be copied and nothing but its samples needs freeing.
 */
#include "results.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stats.h"

static const char *const cause_names[] = { "base", "tlb",	  "walk", "exit",
					   "vmm",  "guest_fault", "other" };
static const char *const cause_titles[] = {
	"the guest's own work", "TLB look-ups and flushes",	 "page walks", "exits",
	"VMM work in exits",	"faults delivered to the guest", "other"
};

const char *results_cause_name(enum results_cause cause)
{
	return cause_names[cause];
}

const char *results_cause_title(enum results_cause cause)
{
	return cause_titles[cause];
}

void results_init(struct results *r)
{
	memset(r, 0, sizeof(*r));
}

void results_fini(struct results *r)
{
	for (size_t i = 0; i < r->run_count; i++)
		free(r->runs[i].samples_s);
	free(r->runs);
	free(r->points);
	memset(r, 0, sizeof(*r));
}

/* Room for one more element of @size bytes in a growing array; NULL: no memory. */
static void *grow(void **array, size_t count, size_t *capacity, size_t size)
{
	char *at;

	if (count == *capacity) {
		size_t wanted = *capacity ? *capacity * 2 : 16;
		void *larger = realloc(*array, wanted * size);

		if (!larger)
			return NULL;
		*array = larger;
		*capacity = wanted;
	}
	at = (char *)*array + count * size;
	memset(at, 0, size);
	return at;
}

struct results_run *results_add_run(struct results *r)
{
	void *array = r->runs;
	struct results_run *run = grow(&array, r->run_count, &r->run_capacity, sizeof(*run));

	r->runs = array;
	if (run)
		r->run_count++;
	return run;
}

struct results_point *results_add_point(struct results *r)
{
	void *array = r->points;
	struct results_point *point =
		grow(&array, r->point_count, &r->point_capacity, sizeof(*point));

	r->points = array;
	if (point)
		r->point_count++;
	return point;
}

const struct results_run *results_find(const struct results *r, const char *workload,
				       const char *scheme)
{
	for (size_t i = 0; i < r->run_count; i++)
		if (!strcmp(r->runs[i].workload, workload) && !strcmp(r->runs[i].scheme, scheme))
			return &r->runs[i];
	return NULL;
}

int results_add_sample(struct results_run *run, double seconds)
{
	double *larger = realloc(run->samples_s, (run->sample_count + 1) * sizeof(double));
	struct stats_summary summary;
	double *sorted;

	if (!larger)
		return -ENOMEM;
	run->samples_s = larger;
	sorted = malloc((run->sample_count + 1) * sizeof(double));
	if (!sorted)
		return -ENOMEM;
	run->samples_s[run->sample_count++] = seconds;
	memcpy(sorted, run->samples_s, run->sample_count * sizeof(double));
	summary = stats_summarise(sorted, run->sample_count);
	free(sorted);
	run->median_s = summary.median;
	run->ci95_s[0] = summary.low;
	run->ci95_s[1] = summary.high;
	return 0;
}

bool results_ratio(const struct results *r, const struct results_run *run, double *ratio)
{
	const struct results_run *native = results_find(r, run->workload, "native");

	if (!native || native->failure[0] || run->failure[0] || !native->counters.cycles ||
	    !run->counters.cycles)
		return false;
	*ratio = (double)run->counters.cycles / (double)native->counters.cycles;
	return true;
}
