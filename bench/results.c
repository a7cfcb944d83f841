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

static const char *const paging_names[RESULTS_PAGINGS] = { "unknown", "hardware", "software" };
static const char *const op_names[GN_GUEST_OPS] = { "table_write", "cr3",     "cr",
						    "invlpg",	   "invpcid", "fault" };

const char *results_paging_name(enum results_paging paging)
{
	return paging_names[paging];
}

const char *results_op_name(unsigned op)
{
	return op_names[op];
}

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
	for (size_t i = 0; i < r->run_count; i++) {
		free(r->runs[i].samples_s);
		free(r->runs[i].kvm.whole_s);
	}
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

const struct results_run *results_find(const struct results *r, const char *backend,
				       const char *workload, const char *scheme)
{
	for (size_t i = 0; i < r->run_count; i++) {
		const struct results_run *run = &r->runs[i];

		if (!strcmp(run->backend, backend) && !strcmp(run->workload, workload) &&
		    !strcmp(run->scheme, scheme))
			return run;
	}
	return NULL;
}

const char *results_backend_at(const struct results *r, unsigned i)
{
	for (size_t n = 0; n < r->run_count; n++) {
		bool is_first = true;

		for (size_t m = 0; m < n && is_first; m++)
			is_first = strcmp(r->runs[m].backend, r->runs[n].backend) != 0;
		if (is_first && !i--)
			return r->runs[n].backend;
	}
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

int results_add_whole(struct results_run *run, double seconds)
{
	double *larger =
		realloc(run->kvm.whole_s, (run->kvm.whole_count + 1) * sizeof(*run->kvm.whole_s));

	if (!larger)
		return -ENOMEM;
	run->kvm.whole_s = larger;
	run->kvm.whole_s[run->kvm.whole_count++] = seconds;
	return 0;
}

/* By rank, without sorting: a handful of values. */
double results_whole_median(const struct results_run *run)
{
	const double *values = run->kvm.whole_s;
	size_t count = run->kvm.whole_count, middle = count ? (count - 1) / 2 : 0;

	for (size_t i = 0; i < count; i++) {
		size_t rank = 0;

		for (size_t j = 0; j < count; j++)
			rank += values[j] < values[i] || (values[j] == values[i] && j < i);
		if (rank == middle)
			return values[i];
	}
	return 0;
}

double results_exit_seconds(const struct results_run *run)
{
	double sum = 0;

	for (unsigned i = 0; i < GN_EXIT_REASONS; i++)
		sum += run->kvm.exit_s[i];
	return sum;
}

const char *results_label(const struct results_run *run, char *out, size_t bytes)
{
	const char *module = run->kvm.module[0] ? run->kvm.module : "not known";
	const char *hardware = !strcmp(module, "kvm_intel") ? " (EPT)"
			       : !strcmp(module, "kvm_amd") ? " (NPT)"
							    : "";

	switch (run->kvm.paging) {
	case RESULTS_PAGING_HARDWARE:
		snprintf(out, bytes,
			 "Measured on this host: KVM module %s, hardware nested paging%s, which "
			 "lies under shadow's tables too",
			 module, hardware);
		break;
	case RESULTS_PAGING_SOFTWARE:
		snprintf(
			out, bytes,
			"Measured on this host: KVM module %s, guest tables are shadowed by KVM in "
			"software: none of this is the cost of EPT or NPT",
			module);
		break;
	default:
		snprintf(out, bytes,
			 "Measured on this host: KVM module %s; who walks guest tables here is not "
			 "known: do not take this for the cost of EPT or NPT",
			 module);
	}
	return out;
}

bool results_ratio(const struct results *r, const struct results_run *run, double *ratio)
{
	const struct results_run *native = results_find(r, run->backend, run->workload, "native");

	if (!native || native->failure[0] || run->failure[0] || !native->counters.cycles ||
	    !run->counters.cycles)
		return false;
	*ratio = (double)run->counters.cycles / (double)native->counters.cycles;
	return true;
}
