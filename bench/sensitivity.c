/* SPDX-License-Identifier: MIT */
/*
 * sensitivity.c - run again with one figure of the CPU model changed.
 *
 * The two figures that decide between shadow and nested paging are what an exit costs (shadow pays it per
 * table change) and how far the TLB reaches (nested paging pays for each miss). Everything else stays, the
 * baseline is run under the changed figure too, and factor 1 is run once for both axes.
 */
#include "sensitivity.h"

#include <math.h>
#include <string.h>

#include "progress.h"
#include "run_one.h"

enum { MAX_WORKLOADS = 3, MAX_SCHEMES = 8 };

static const struct axis {
	const char *name;
	const char *keys
		[4]; /* figures scaled together where they can be; the first is the value shown */
} axes[] = {
	{ "exit_cost", { "exit_cycles" } },
	{ "tlb_reach", { "stlb_entries", "stlb_1g_entries" } },
};
static const double factors[] = { 0.25, 0.5, 1, 2, 4 };
#define AXES	(sizeof(axes) / sizeof(axes[0]))
#define FACTORS (sizeof(factors) / sizeof(factors[0]))

struct study {
	struct results *results;
	const struct machine *machine;
	const char *workloads[MAX_WORKLOADS], *schemes[MAX_SCHEMES];
	uint64_t sizes[MAX_WORKLOADS];
	bool quick;
	size_t workload_count, scheme_count;
	struct progress progress;
	bool fine;
};

/* One that misses the TLB, one that changes tables, one that switches among processes; or, when none of them
 * was asked for, the first that was. */
static void choose_workloads(struct study *study, const struct cli_list *asked)
{
	static const struct {
		const char *name;
		uint64_t size; /* large enough for the TLB, small enough for 45 runs */
	} wanted[MAX_WORKLOADS] = { { "random", (uint64_t)16 << 20 },
				    { "fork-exec", 30 },
				    { "ctx-switch", 8 } };

	for (size_t i = 0; i < MAX_WORKLOADS; i++)
		for (size_t j = 0; j < asked->count; j++)
			if (!strcmp(asked->items[j], wanted[i].name)) {
				study->sizes[study->workload_count] =
					study->quick ? 0 : wanted[i].size;
				study->workloads[study->workload_count++] = asked->items[j];
			}
	for (size_t j = 0; j < asked->count && !study->workload_count; j++)
		if (strncmp(asked->items[j], "trace:", 6) != 0)
			study->workloads[study->workload_count++] = asked->items[j];
}

static void choose_schemes(struct study *study, const struct cli_list *asked)
{
	for (size_t i = 0; i < asked->count && study->scheme_count < MAX_SCHEMES; i++)
		if (strcmp(asked->items[i], "native") != 0 &&
		    strcmp(asked->items[i], "interp") != 0)
			study->schemes[study->scheme_count++] = asked->items[i];
}

static double cycles_of(struct study *study, const struct machine *machine, size_t workload,
			const char *scheme)
{
	const struct run_request request = { .machine = machine,
					     .scheme = scheme,
					     .workload = study->workloads[workload],
					     .size = study->sizes[workload],
					     .quick = true,
					     .repeat = 1 };
	struct results one;
	struct results_run *run;
	double cycles = 0;
	char what[128];

	snprintf(what, sizeof(what), "sensitivity: %.40s under %.30s", study->workloads[workload],
		 scheme);
	progress_step(&study->progress, what);
	results_init(&one);
	run = results_add_run(&one);
	if (!run)
		cli_fail(EXIT_CANNOT, "out of memory");
	if (run_one(&request, run)) {
		progress_end(&study->progress);
		cli_warn("%s: %s", what, run->failure);
		study->fine = false;
	} else {
		cycles = (double)run->counters.cycles;
	}
	results_fini(&one);
	return cycles;
}

static double figure_of(const struct gn_cpu_preset *cpu, const char *key)
{
	struct gn_preset_figure figure;

	for (unsigned i = 0; gn_cpu_preset_figure(cpu, i, &figure); i++)
		if (!strcmp(figure.key, key))
			return figure.value;
	return 0;
}

/* The preset with an axis scaled; NULL: it has no such figures, or the value is out of its range. */
static struct gn_cpu_preset *scaled_preset(const struct gn_cpu_preset *base,
					   const struct axis *axis, double factor)
{
	struct gn_cpu_preset *preset = NULL;

	for (size_t i = 0; i < 4 && axis->keys[i]; i++) {
		struct gn_cpu_preset *next;
		double value = round(figure_of(base, axis->keys[i]) * factor);

		if (!(value > 0))
			continue;
		if (gn_cpu_preset_vary(preset ? preset : base, axis->keys[i], value, &next)) {
			if (!i)
				return NULL;
			continue;
		}
		if (preset)
			gn_cpu_preset_free(preset);
		preset = next;
	}
	return preset;
}

static void add_points(struct study *study, const struct axis *axis, double factor,
		       const struct machine *machine)
{
	for (size_t w = 0; w < study->workload_count; w++) {
		double native = cycles_of(study, machine, w, "native");

		for (size_t s = 0; s < study->scheme_count; s++) {
			double cycles = cycles_of(study, machine, w, study->schemes[s]);
			struct results_point *point;

			if (!(native > 0) || !(cycles > 0))
				continue;
			point = results_add_point(study->results);
			if (!point)
				cli_fail(EXIT_CANNOT, "out of memory");
			snprintf(point->axis, sizeof(point->axis), "%s", axis->name);
			snprintf(point->scheme, sizeof(point->scheme), "%s", study->schemes[s]);
			snprintf(point->workload, sizeof(point->workload), "%s",
				 study->workloads[w]);
			point->factor = factor;
			point->value = figure_of(machine->cpu, axis->keys[0]);
			point->overhead = cycles / native - 1;
		}
	}
}

/* The points of factor 1 hold for every axis: copy those of the first under the others' names. */
static void copy_base_points(struct study *study, const struct axis *axis, size_t end)
{
	for (size_t i = 0; i < end; i++) {
		struct results_point copy = study->results->points[i], *point;

		if (copy.factor != 1 || strcmp(copy.axis, axes[0].name) != 0)
			continue;
		point = results_add_point(study->results);
		if (!point)
			cli_fail(EXIT_CANNOT, "out of memory");
		*point = copy;
		snprintf(point->axis, sizeof(point->axis), "%s", axis->name);
		point->value = figure_of(study->machine->cpu, axis->keys[0]);
	}
}

bool sensitivity_run(struct results *r, const struct machine *machine,
		     const struct cli_list *schemes, const struct cli_list *workloads)
{
	struct study study = { .results = r, .machine = machine, .quick = r->quick, .fine = true };

	choose_workloads(&study, workloads);
	choose_schemes(&study, schemes);
	if (!study.workload_count || !study.scheme_count)
		return true;
	progress_begin(&study.progress,
		       (AXES * FACTORS - 1) * study.workload_count * (study.scheme_count + 1));
	for (size_t a = 0; a < AXES; a++)
		for (size_t f = 0; f < FACTORS; f++) {
			struct gn_cpu_preset *preset;
			struct machine changed = *machine;

			if (a && factors[f] == 1) {
				copy_base_points(&study, &axes[a], r->point_count);
				continue;
			}
			preset = scaled_preset(machine->cpu, &axes[a], factors[f]);
			if (!preset)
				continue;
			changed.cpu = preset;
			changed.own_cpu = NULL;
			add_points(&study, &axes[a], factors[f], &changed);
			gn_cpu_preset_free(preset);
		}
	progress_end(&study.progress);
	return study.fine;
}
