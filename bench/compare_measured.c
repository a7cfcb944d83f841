/* SPDX-License-Identifier: MIT */
/*
 * compare_measured.c - what a person reads after `gnomon compare --backend kvm`.
 *
 * There is no native guest on KVM, so a scheme is held against the fastest one of its workload: its time, and by how
 * much it is slower. Then why, for every scheme, since with two or three schemes "best and worst" would leave out
 * nothing: exits, the share of the time the VMM spent in them, the reasons that cost most, and memory for tables.
 */
#include "compare_table.h"

#include <inttypes.h>
#include <string.h>

#include "cli.h"
#include "measured.h"
#include "table.h"

/* Two cells: the time, and a star or how much slower. */
static void print_time_cells(struct table *t, const struct summary *s, size_t w, size_t c)
{
	const struct results_run *run = summary_run(s, w, c);
	bool is_best = summary_is_best(s, w, c);
	char text[32];

	if (!run || (!run->failure[0] && !run->sample_count)) {
		table_cell(t, TABLE_DIM, "-");
		table_cell(t, TABLE_PLAIN, "%s", "");
		return;
	}
	if (run->failure[0]) {
		table_cell(t, TABLE_BAD, "failed");
		table_cell(t, TABLE_PLAIN, "%s", "");
		return;
	}
	table_cell(t, is_best ? TABLE_BEST : TABLE_PLAIN, "%s",
		   summary_format_seconds(run->median_s, text, sizeof(text)));
	table_cell(t, is_best ? TABLE_BEST : TABLE_PLAIN, "%s",
		   is_best ? "*"
			   : summary_format_slower(summary_ratio(s, w, c), text, sizeof(text)));
}

static void print_mean(struct table *t, const struct summary *s, const char *title,
		       const char *group)
{
	if (!(summary_geomean(s, 0, group) > 0))
		return;
	table_cell(t, TABLE_HEAD, "%s", title);
	for (size_t c = 0; c < s->scheme_count; c++) {
		table_cell(t, TABLE_HEAD, "×%.2f", summary_geomean(s, c, group));
		table_cell(t, TABLE_PLAIN, "%s", "");
	}
}

static void print_times(const struct summary *s, FILE *to, bool colour)
{
	unsigned long left = 1;
	const char *group = "";
	struct table t;
	char label[64];

	for (size_t c = 0; c < s->scheme_count && 2 * c + 2 < 8 * sizeof(left); c++)
		left |= 1ul << (2 * c + 2);
	table_init(&t, 2 * (unsigned)s->scheme_count + 1, left);
	table_cell(&t, TABLE_HEAD, "workload");
	for (size_t c = 0; c < s->scheme_count; c++) {
		table_cell(&t, TABLE_HEAD, "%s", s->schemes[c]);
		table_cell(&t, TABLE_PLAIN, "%s", "");
	}
	for (size_t w = 0; w < s->workload_count; w++) {
		if (strcmp(group, summary_group(s, w)) != 0) {
			group = summary_group(s, w);
			table_heading(&t, summary_group_title(group));
		}
		table_cell(&t, TABLE_PLAIN, "  %s",
			   summary_label(s->workloads[w], label, sizeof(label)));
		for (size_t c = 0; c < s->scheme_count; c++)
			print_time_cells(&t, s, w, c);
		if ((w + 1 == s->workload_count || strcmp(group, summary_group(s, w + 1)) != 0) &&
		    s->scheme_count > 1 && summary_group_size(s, group) > 1)
			print_mean(&t, s, "  geometric mean", group);
	}
	if (s->scheme_count > 1 && s->workload_count > 1)
		print_mean(&t, s, "All, geometric mean", NULL);
	table_print(&t, to, colour);
	table_fini(&t);
}

static void print_why_row(struct table *t, const struct results_run *run, const char *label,
			  bool is_best)
{
	char text[160];

	table_cell(t, TABLE_PLAIN, "  %s", label);
	table_cell(t, is_best ? TABLE_BEST : TABLE_PLAIN, "%s", run->scheme);
	table_cell(t, TABLE_PLAIN, "%" PRIu64, run->counters.exits);
	if (measured_exit_share(run) >= 0)
		table_cell(t, TABLE_PLAIN, "%.0f %%", 100 * measured_exit_share(run));
	else
		table_cell(t, TABLE_DIM, "-");
	if (run->has_tables)
		table_cell(t, TABLE_PLAIN, "%.0f", (double)run->table_bytes_peak / 1024);
	else
		table_cell(t, TABLE_DIM, "-");
	table_cell(t, TABLE_PLAIN, "%s",
		   summary_format_seconds(results_whole_median(run), text, sizeof(text)));
	table_cell(t, TABLE_PLAIN, "%s", measured_exits_text(run, text, sizeof(text)));
}

static void print_why(const struct summary *s, FILE *to, bool colour)
{
	static const char *const titles[] = {
		"why", "", "exits", "in VMM", "tables KiB", "whole run", "exits that cost most"
	};
	struct table t;
	char label[64];

	table_init(&t, 7, 1 | 1 << 1 | 1 << 6);
	for (size_t i = 0; i < sizeof(titles) / sizeof(titles[0]); i++)
		table_cell(&t, TABLE_HEAD, "%s", titles[i]);
	for (size_t w = 0; w < s->workload_count; w++) {
		bool is_first = true;

		for (size_t c = 0; c < s->scheme_count; c++) {
			const struct results_run *run = summary_run(s, w, c);

			if (!run || run->failure[0])
				continue;
			print_why_row(&t, run,
				      is_first
					      ? summary_label(s->workloads[w], label, sizeof(label))
					      : "",
				      summary_is_best(s, w, c));
			is_first = false;
		}
	}
	if (t.count > t.columns) {
		fputc('\n', to);
		table_print(&t, to, colour);
		fputs("\nin VMM: share of the measured part between KVM_RUN's return and its next "
		      "call; world switches and what\nKVM does by itself count as the guest's. "
		      "whole "
		      "run: boot and warm-up included, by the wall clock.\n",
		      to);
	}
	table_fini(&t);
}

void compare_measured_print(const struct summary *s, FILE *to, bool colour)
{
	const struct results_run *run = summary_any(s);
	char text[512];

	fprintf(to,
		"Time of the measured part; * the fastest scheme, beside the others how much "
		"slower "
		"they are.\n%s.\n",
		results_label(run, text, sizeof(text)));
	fprintf(to, "Guest: %s; seed %" PRIu64 "%s.\n\n",
		measured_guest_text(run, text, sizeof(text)), run->seed,
		s->results->quick ? ", quick sizes" : "");
	print_times(s, to, colour);
	print_why(s, to, colour);
}
