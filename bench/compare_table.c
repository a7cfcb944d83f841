/* SPDX-License-Identifier: MIT */
/*
 * compare_table.c - what a person reads after `gnomon compare`.
 *
 * First what it costs: overhead over native, one row a workload, the cheapest virtualized scheme marked
 * with a star. Then why: for the best and the worst scheme the three things a scheme spends: references of
 * page walks, exits, and memory for tables.
 */
#include "compare_table.h"

#include <string.h>

#include "cli.h"
#include "table.h"

static void print_overhead_cell(struct table *t, const struct summary *s, size_t w, size_t c)
{
	const struct results_run *run = summary_run(s, w, c);
	char text[32];

	if (!run) {
		table_cell(t, TABLE_DIM, "- ");
		return;
	}
	if (run->failure[0]) {
		table_cell(t, TABLE_BAD, "failed ");
		return;
	}
	if (!s->has_baseline) {
		snprintf(text, sizeof(text), "%.4g", (double)run->counters.cycles / 1e6);
		table_cell(t, summary_is_best(s, w, c) ? TABLE_BEST : TABLE_PLAIN, "%s%s", text,
			   summary_is_best(s, w, c) ? "*" : " ");
		return;
	}
	summary_format_overhead(summary_ratio(s, w, c), text, sizeof(text));
	if (summary_is_best(s, w, c))
		table_cell(t, TABLE_BEST, "%s*", text);
	else
		table_cell(t, summary_is_baseline(s, c) ? TABLE_DIM : TABLE_PLAIN, "%s ", text);
}

static void print_geomean(struct table *t, const struct summary *s, const char *title,
			  const char *group)
{
	char text[32];

	if (!(summary_geomean(s, 0, group) > 0))
		return;
	table_cell(t, TABLE_HEAD, "%s", title);
	for (size_t c = 0; c < s->scheme_count; c++) {
		bool is_best = summary_is_best_mean(s, c, group);

		summary_format_overhead(summary_geomean(s, c, group), text, sizeof(text));
		table_cell(t, is_best ? TABLE_BEST : TABLE_HEAD, "%s%s", text, is_best ? "*" : " ");
	}
}

static void print_overheads(const struct summary *s, FILE *to, bool colour)
{
	const char *group = "";
	struct table t;
	char label[64];

	table_init(&t, (unsigned)s->scheme_count + 1, 1);
	table_cell(&t, TABLE_HEAD, "%s", "workload");
	for (size_t c = 0; c < s->scheme_count; c++)
		table_cell(&t, TABLE_HEAD, "%s ", s->schemes[c]);
	for (size_t w = 0; w < s->workload_count; w++) {
		if (strcmp(group, summary_group(s, w)) != 0) {
			group = summary_group(s, w);
			table_heading(&t, summary_group_title(group));
		}
		table_cell(&t, TABLE_PLAIN, "  %s",
			   summary_label(s->workloads[w], label, sizeof(label)));
		for (size_t c = 0; c < s->scheme_count; c++)
			print_overhead_cell(&t, s, w, c);
		if ((w + 1 == s->workload_count || strcmp(group, summary_group(s, w + 1)) != 0) &&
		    s->has_baseline && summary_group_size(s, group) > 1)
			print_geomean(&t, s, "  geometric mean", group);
	}
	if (s->has_baseline && s->workload_count > 1)
		print_geomean(&t, s, "All, geometric mean", NULL);
	table_print(&t, to, colour);
	table_fini(&t);
}

static void print_why_side(struct table *t, const struct results_run *run, bool best)
{
	const struct gn_counters *c = run ? &run->counters : NULL;

	if (!run || !c->accesses) {
		for (int i = 0; i < 4; i++)
			table_cell(t, TABLE_DIM, "-");
		return;
	}
	table_cell(t, best ? TABLE_BEST : TABLE_PLAIN, "%s", run->scheme);
	table_cell(t, TABLE_PLAIN, "%.3f", (double)c->walk_refs / (double)c->accesses);
	table_cell(t, TABLE_PLAIN, "%.3f", 1000 * (double)c->exits / (double)c->accesses);
	table_cell(t, TABLE_PLAIN, "%.0f", (double)run->table_bytes_peak / 1024);
}

static void print_why(const struct summary *s, FILE *to, bool colour)
{
	static const char *const titles[] = { "refs/access", "exits/1k", "tables KiB" };
	struct table t;
	char label[64];

	table_init(&t, 9, 1 | 1 << 1 | 1 << 5);
	table_cell(&t, TABLE_HEAD, "why");
	for (int side = 0; side < 2; side++) {
		table_cell(&t, TABLE_HEAD, "%s", side ? "worst" : "best");
		for (int i = 0; i < 3; i++)
			table_cell(&t, TABLE_HEAD, "%s", titles[i]);
	}
	for (size_t w = 0; w < s->workload_count; w++) {
		int best = summary_best(s, w), worst = summary_worst(s, w);

		if (best < 0 || best == worst)
			continue;
		table_cell(&t, TABLE_PLAIN, "  %s",
			   summary_label(s->workloads[w], label, sizeof(label)));
		print_why_side(&t, summary_run(s, w, (size_t)best), true);
		print_why_side(&t, summary_run(s, w, (size_t)worst), false);
	}
	if (t.count > t.columns) {
		fputc('\n', to);
		table_print(&t, to, colour);
	}
	table_fini(&t);
}

void compare_table_print(const struct summary *s, FILE *to, bool colour)
{
	const struct results_run *run = summary_any(s);
	char mem[32];

	if (!run)
		return;
	if (s->is_measured) {
		compare_measured_print(s, to, colour);
		return;
	}
	if (s->has_baseline)
		fprintf(to, "Overhead over native in %% (×N: N times native); * the cheapest "
			    "virtualized "
			    "scheme.\n");
	else
		fprintf(to,
			"Million cycles (no native run to compare with); * the cheapest scheme.\n");
	fprintf(to,
		"Cycles are modelled (preset %s), references, exits and bytes are counted. "
		"%s guest, seed %llu%s.\n\n",
		run->cpu, cli_format_bytes(run->mem_bytes, mem, sizeof(mem)),
		(unsigned long long)run->seed, s->results->quick ? ", quick sizes" : "");
	print_overheads(s, to, colour);
	print_why(s, to, colour);
}
