/* SPDX-License-Identifier: MIT */
/*
 * plot_cycles.c - where the cycles go: a panel a workload, a bar a scheme, stacked by cause, in units of
 * the native run.
 *
 * Each panel has its own scale. interp is left out: at a hundred times native it would flatten the rest.
 */
#include "plot.h"

#include <string.h>

enum { COLUMNS = 3, PANEL_HEIGHT = 164, TOP = 58 };

static const char *const cause_colours[RESULTS_CAUSES] = {
	"#b0b0b0", "#56b4e9", "#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7",
};

static bool is_shown(const struct summary *s, size_t w, size_t c)
{
	const struct results_run *run = summary_run(s, w, c);

	return run && run->has_causes && !summary_is_demonstration(s, c) &&
	       summary_ratio(s, w, c) > 0;
}

static size_t shown_schemes(const struct summary *s, size_t w)
{
	size_t count = 0;

	for (size_t c = 0; c < s->scheme_count; c++)
		count += is_shown(s, w, c);
	return count;
}

/* Rows "left right bottom top colour" of a panel; its data block and its plot command. */
static void write_panel(const struct summary *s, size_t w, size_t block, FILE *data, FILE *script)
{
	size_t count = shown_schemes(s, w), row = 0;

	fprintf(script,
		"set title '%s' offset 0,-0.6\nset yrange [%zu.6:0.4]\nset ytics nomirror (",
		plot_label(s->workloads[w]).text, count);
	fprintf(data, "# %s: left, right, middle, low, high, colour\n",
		plot_label(s->workloads[w]).text);
	for (size_t c = 0; c < s->scheme_count; c++) {
		const struct results_run *run = summary_run(s, w, c);
		double at = 0, unit;

		if (!is_shown(s, w, c))
			continue;
		unit = summary_ratio(s, w, c) / (double)run->counters.cycles;
		row++;
		fprintf(script, "%s'%s' %zu", row > 1 ? ", " : "", plot_label(s->schemes[c]).text,
			row);
		for (unsigned i = 0; i < RESULTS_CAUSES; i++) {
			double width = run->cause_cycles[i] * unit;

			if (width > 0)
				fprintf(data, "%.6f %.6f %zu %.2f %.2f 0x%s\n", at, at + width, row,
					(double)row - 0.36, (double)row + 0.36,
					cause_colours[i] + 1);
			at += width;
		}
	}
	fputs("0 0 0 0 0 0\n\n\n", data);
	fprintf(script,
		")\nplot 'cycles.dat' index %zu using (($1+$2)/2):3:1:2:4:5:6 with boxxyerror fs "
		"solid 1 "
		"noborder lc rgb variable\n",
		block);
}

static bool write_plot(const struct summary *s, FILE *data, FILE *script)
{
	size_t panels = 0, rows, block = 0;
	struct plot_legend legend;
	int height;

	for (size_t w = 0; w < s->workload_count; w++)
		panels += shown_schemes(s, w) > 0;
	if (!panels)
		return false;
	rows = (panels + COLUMNS - 1) / COLUMNS;
	height = (int)rows * PANEL_HEIGHT + TOP;
	plot_begin(script, "cycles", height);
	plot_legend_begin(&legend, script, height, 18);
	for (unsigned i = 0; i < RESULTS_CAUSES; i++)
		plot_legend_add(&legend, results_cause_title((enum results_cause)i),
				cause_colours[i], "■");
	fprintf(script, "unset key\nset xrange [0:*]\nset xtics nomirror font ',11'\nset tics "
			"scale 0\nunset grid\nset grid x\n"
			"set multiplot\n");
	for (size_t w = 0; w < s->workload_count; w++) {
		double top, left;

		if (!shown_schemes(s, w))
			continue;
		left = (double)(block % COLUMNS) / COLUMNS;
		top = 1 - (double)(TOP + PANEL_HEIGHT * (int)(block / COLUMNS)) / height;
		fprintf(script,
			"set lmargin at screen %.4f\nset rmargin at screen %.4f\n"
			"set tmargin at screen %.4f\nset bmargin at screen %.4f\n",
			left + 0.095, left + 1.0 / COLUMNS - 0.012, top - 22.0 / height,
			top - (PANEL_HEIGHT - 30.0) / height);
		write_panel(s, w, block, data, script);
		if (!block)
			fputs("do for [i=1000:1100] { unset label i }\n", script);
		block++;
	}
	fputs("unset multiplot\n", script);
	return true;
}

static void write_sentence(const struct summary *s, FILE *html)
{
	const struct results_run *worst = NULL, *native;
	double most = 0, extra[RESULTS_CAUSES], total = 0;
	unsigned top = 0;
	char text[32];

	for (size_t w = 0; w < s->workload_count; w++)
		for (size_t c = 0; c < s->scheme_count; c++)
			if (is_shown(s, w, c) && !summary_is_baseline(s, c) &&
			    summary_ratio(s, w, c) > most) {
				most = summary_ratio(s, w, c);
				worst = summary_run(s, w, c);
			}
	fputs("Bars are in units of the native run; interp is left out. ", html);
	if (!worst)
		return;
	native = results_find(s->results, worst->workload, "native");
	for (unsigned i = 0; i < RESULTS_CAUSES; i++) {
		extra[i] = worst->cause_cycles[i] - native->cause_cycles[i];
		if (extra[i] < 0)
			extra[i] = 0;
		total += extra[i];
		if (extra[i] > extra[top])
			top = i;
	}
	if (!(total > 0))
		return;
	summary_format_overhead(most, text, sizeof(text));
	fputs("The largest overhead is that of ", html);
	report_html_text(worst->scheme, html);
	fputs(" on ", html);
	report_html_text(plot_label(worst->workload).text, html);
	fprintf(html, ": %s%s; %.0f %% of what it adds is %s.", text, most >= 11 ? " native" : " %",
		100 * extra[top] / total, results_cause_title((enum results_cause)top));
}

const struct report_plot plot_cycles = { "cycles", "Where the cycles go", write_plot,
					 write_sentence };
