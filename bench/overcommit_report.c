/* SPDX-License-Identifier: MIT */
/*
 * overcommit_report.c - the results as a web page: the table, memory over time of all policies side by side,
 * then each policy by itself.
 *
 *     DIR/index.html         self-contained: the plots are inside
 *     DIR/overcommit.json    the numbers
 *     DIR/plots/             per picture its data, its gnuplot script and the SVG
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "overcommit.h"
#include "plot.h"
#include "report.h"

static void write_wait(const struct overcommit_run *run, double quantile, FILE *to)
{
	double ms = overcommit_wait_ms(run, quantile);

	if (isnan(ms))
		fputs("<td>no asks</td>", to);
	else if (isinf(ms))
		fputs("<td class=\"failed\">never</td>", to);
	else
		fprintf(to, "<td%s>%.0f ms</td>",
			ms <= OVERCOMMIT_GOAL_GRANT_MS ? "" : " class=\"failed\"", ms);
}

static void write_count(double count, double goal, FILE *to)
{
	fprintf(to, "<td%s>%.0f</td>", count <= goal ? "" : " class=\"failed\"", count);
}

static void write_row(const struct overcommit_results *r, const struct overcommit_run *run,
		      FILE *to)
{
	double against = overcommit_against_oracle(r, run);

	fputs("<tr><td title=\"", to);
	report_html_text(run->summary, to);
	fputs("\">", to);
	report_html_text(run->policy, to);
	fprintf(to, "</td><td>%.3f×</td>", overcommit_worst_slowdown(r, run));
	if (against > 0)
		fprintf(to, "<td%s>%.3f×</td>",
			against <= OVERCOMMIT_GOAL_SLOWDOWN ? "" : " class=\"failed\"", against);
	else
		fputs("<td>-</td>", to);
	write_wait(run, 0.5, to);
	write_wait(run, 0.99, to);
	fprintf(to, "<td>%" PRIu64 "/%" PRIu64 "</td>", run->asks - run->asks_unmet, run->asks);
	write_count(overcommit_oom_kills(r, run), 0, to);
	write_count((double)run->reservations_broken, 0, to);
	write_count((double)run->over_budget, 0, to);
	write_count(overcommit_turns(r, run), OVERCOMMIT_GOAL_TURNS, to);
	fprintf(to, "<td>%.2f M</td></tr>\n", (double)overcommit_refaults(r, run) / 1e6);
}

static void write_table(const struct overcommit_results *r, FILE *to)
{
	char about[160];

	fprintf(to,
		"<div class=\"scroll\"><table><caption>%s; red misses the goal set for "
		"esx.</caption>\n",
		overcommit_describe(r, about, sizeof(about)));
	fputs("<tr><th>policy</th><th>worst VM</th><th>of oracle</th><th>grant p50</th><th>grant "
	      "p99</th>"
	      "<th>asks met</th><th>OOM kills</th><th>reservations broken</th><th>over budget</th>"
	      "<th>turns/min</th><th>refaults</th></tr>\n",
	      to);
	for (size_t i = 0; i < r->run_count; i++)
		write_row(r, &r->runs[i], to);
	fputs("</table></div>\n<p class=\"dim\">Worst VM: its time over the time with all of its "
	      "memory. "
	      "Oracle: the best division that never changes, known in advance. Grant: from an ask "
	      "until the "
	      "VM has 256 MiB more, or all that it asked. Turns: changes of direction of a target "
	      "at rest, "
	      "the most in a minute.</p>\n",
	      to);
}

/* Data, script, SVG; then the picture into the page. */
static void write_figure(const struct overcommit_results *r, size_t first, size_t count,
			 const char *name, const char *plots, FILE *html)
{
	struct report_files files;
	char *svg;

	report_files_open(&files, plots, name);
	overcommit_plot_write(r, first, count, name, files.data.file, files.script.file);
	svg = report_files_plot(&files);
	if (!svg)
		cli_fail(EXIT_CANNOT, "%s/%s.svg: gnuplot made nothing", plots, name);
	fputs("<figure>", html);
	report_html_svg(svg, html);
	fputs("</figure>\n", html);
	free(svg);
}

static void write_page(const void *results, const char *plots, FILE *html)
{
	const struct overcommit_results *r = results;
	char name[64];

	report_html_begin("Gnomon: memory overcommitted by ballooning", html);
	fputs("<h1>Memory overcommitted by ballooning</h1>\n<p><b>", html);
	report_html_text(overcommit_label(r), html);
	fputs(".</b></p>\n", html);
	write_table(r, html);
	fputs("<h2>Memory over time</h2>\n", html);
	write_figure(r, 0, r->run_count, "overcommit", plots, html);
	for (size_t i = 0; i < r->run_count; i++) {
		fputs("<h2>", html);
		report_html_text(r->runs[i].policy, html);
		fputs("</h2>\n<p>", html);
		report_html_text(r->runs[i].summary, html);
		fputs(".</p>\n", html);
		snprintf(name, sizeof(name), "overcommit-%.40s", r->runs[i].policy);
		write_figure(r, i, 1, name, plots, html);
	}
	report_html_end(html);
}

static int write_json(const void *results, const char *path)
{
	return overcommit_write_json(results, path);
}

void overcommit_report(const struct overcommit_results *r, const char *directory)
{
	static const struct report_folder folder = { "overcommit.json", write_json, write_page };

	report_folder_write(&folder, r, directory);
}
