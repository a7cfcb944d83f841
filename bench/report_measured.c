/* SPDX-License-Identifier: MIT */
/*
 * report_measured.c - the tables and the words of a report's section on real guests.
 *
 * The same numbers as on the terminal (compare_measured.c). What only a model knows (walks, references, causes of
 * cycles) is not in it, not even as empty columns.
 */
#include "report.h"

#include <inttypes.h>
#include <string.h>

#include "measured.h"

static void write_time_cell(const struct summary *s, size_t w, size_t c, FILE *to)
{
	const struct results_run *run = summary_run(s, w, c);
	char text[32];

	if (!run || (!run->failure[0] && !run->sample_count)) {
		fputs("<td>-</td>", to);
		return;
	}
	if (run->failure[0]) {
		fputs("<td class=\"failed\" title=\"", to);
		report_html_text(run->failure, to);
		fputs("\">failed</td>", to);
		return;
	}
	fprintf(to, "<td%s title=\"%zu samples, %.6f to %.6f s\">%s",
		summary_is_best(s, w, c) ? " class=\"best\"" : "", run->sample_count,
		run->ci95_s[0], run->ci95_s[1],
		summary_format_seconds(run->median_s, text, sizeof(text)));
	if (!summary_is_best(s, w, c))
		fprintf(to, " <span class=\"dim\">%s</span>",
			summary_format_slower(summary_ratio(s, w, c), text, sizeof(text)));
	fputs("</td>", to);
}

static void write_mean_row(const struct summary *s, const char *title, const char *group, FILE *to)
{
	if (!(summary_geomean(s, 0, group) > 0))
		return;
	fprintf(to, "<tr class=\"mean\"><td>%s</td>", title);
	for (size_t c = 0; c < s->scheme_count; c++)
		fprintf(to, "<td>×%.2f</td>", summary_geomean(s, c, group));
	fputs("</tr>\n", to);
}

static void write_times(const struct summary *s, FILE *to)
{
	const char *group = "";

	fputs("<div class=\"scroll\"><table><caption>Time of the measured part; the fastest scheme "
	      "of a row is marked (more than one where their 95 % intervals overlap), beside the "
	      "others how much slower they are.</caption>\n<tr><th>workload</th>",
	      to);
	for (size_t c = 0; c < s->scheme_count; c++) {
		fputs("<th>", to);
		report_html_text(s->schemes[c], to);
		fputs("</th>", to);
	}
	fputs("</tr>\n", to);
	for (size_t w = 0; w < s->workload_count; w++) {
		if (strcmp(group, summary_group(s, w)) != 0) {
			group = summary_group(s, w);
			fprintf(to, "<tr class=\"group\"><th colspan=\"%zu\">%s</th></tr>\n",
				s->scheme_count + 1, summary_group_title(group));
		}
		fputs("<tr><td>", to);
		report_html_label(s->workloads[w], to);
		fputs("</td>", to);
		for (size_t c = 0; c < s->scheme_count; c++)
			write_time_cell(s, w, c, to);
		fputs("</tr>\n", to);
		if ((w + 1 == s->workload_count || strcmp(group, summary_group(s, w + 1)) != 0) &&
		    s->scheme_count > 1 && summary_group_size(s, group) > 1)
			write_mean_row(s, "geometric mean", group, to);
	}
	if (s->scheme_count > 1 && s->workload_count > 1)
		write_mean_row(s, "all, geometric mean", NULL, to);
	fputs("</table></div>\n", to);
}

static void write_why_row(const struct results_run *run, FILE *to)
{
	const struct gn_counters *c = &run->counters;
	char text[160];

	fputs("<tr><td>", to);
	report_html_label(run->workload, to);
	fputs("</td><td class=\"left\">", to);
	report_html_text(run->scheme, to);
	fprintf(to, "</td><td>%" PRIu64 "</td><td>", c->exits);
	if (measured_exit_share(run) >= 0)
		fprintf(to, "%.1f %%", 100 * measured_exit_share(run));
	fprintf(to, "</td><td>%" PRIu64 "</td><td>%" PRIu64 "</td><td>%.0f</td><td>%s</td>",
		c->guest_faults, c->pt_writes_trapped, (double)run->table_bytes_peak / 1024,
		summary_format_seconds(results_whole_median(run), text, sizeof(text)));
	fputs("<td class=\"left\">", to);
	report_html_text(measured_exits_text(run, text, sizeof(text)), to);
	fputs("</td></tr>\n", to);
}

static void write_why(const struct summary *s, FILE *to)
{
	fputs("<details><summary>Why: what each run counted</summary><div class=\"scroll\"><table>"
	      "<caption>Counted: exits, faults, table writes, bytes. Measured: the rest. \"In the "
	      "VMM\" is the share of the measured part between KVM_RUN's return and its next call; "
	      "world switches are not in it.</caption>\n<tr><th>workload</th><th "
	      "class=\"left\">scheme</th><th>exits</th><th>in the VMM</th><th>guest "
	      "faults</th><th>table writes trapped</th><th>tables, KiB</th><th>whole run</th><th "
	      "class=\"left\">exits that cost most</th></tr>\n",
	      to);
	for (size_t w = 0; w < s->workload_count; w++)
		for (size_t c = 0; c < s->scheme_count; c++) {
			const struct results_run *run = summary_run(s, w, c);

			if (run && !run->failure[0])
				write_why_row(run, to);
		}
	fputs("</table></div></details>\n", to);
}

void report_measured_tables(const struct summary *s, FILE *to)
{
	write_times(s, to);
	write_why(s, to);
}

void report_measured_origin(const struct summary *s, FILE *to)
{
	const struct results *r = s->results;
	const struct results_run *run = summary_any(s);
	const struct host_field *field;
	char text[512], guest[256];

	fputs("<h2>Where the numbers come from</h2>\n<p><b>Measured</b>: times, by the guest's own "
	      "time-stamp counter between the end of its warm-up and its end, on the host below. "
	      "<b>Counted</b>: exits, faults and bytes of the same part. ",
	      to);
	report_html_text(results_label(run, text, sizeof(text)), to);
	fputs(".</p>\n<dl>\n", to);
	report_html_term("command", r->command, to);
	report_html_term("backend", run->backend, to);
	snprintf(text, sizeof(text), "%s, %u vCPU, seed %" PRIu64 "%s",
		 measured_guest_text(run, guest, sizeof(guest)), run->vcpus, run->seed,
		 r->quick ? ", quick sizes" : "");
	report_html_term("guest", text, to);
	for (unsigned i = 0; (field = host_field(i)); i++)
		report_html_term(field->title, (const char *)&r->host + field->offset, to);
	fputs("</dl>\n", to);
}
