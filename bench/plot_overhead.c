/* SPDX-License-Identifier: MIT */
/*
 * plot_overhead.c - overhead over native: one row a workload, one mark a scheme, on a logarithmic axis,
 * since a few per cent and a hundred times must both be readable.
 *
 * Marks of a row are set a little apart vertically, so that equal schemes do not hide each other.
 */
#include "plot.h"

#include <string.h>

enum { ROW = 24, TOP = 44, BOTTOM = 64 };

/* Rows from the top, with a gap between groups. */
static double row_of(const struct summary *s, size_t workload)
{
	double row = 1;

	for (size_t w = 1; w <= workload; w++)
		row += strcmp(summary_group(s, w), summary_group(s, w - 1)) != 0 ? 1.6 : 1;
	return row;
}

static bool write_plot(const struct summary *s, FILE *data, FILE *script)
{
	double rows = s->workload_count ? row_of(s, s->workload_count - 1) : 0;
	int height = (int)(rows * ROW) + TOP + BOTTOM;
	struct plot_legend legend;
	bool any = false;
	size_t block = 0;

	plot_begin(script, "overhead", height);
	fprintf(script,
		"set lmargin at screen 0.20\nset rmargin at screen 0.97\n"
		"set tmargin at screen %.4f\nset bmargin at screen %.4f\n"
		"set logscale x 10\nset xrange [0.08:*]\nset yrange [%.2f:0.4]\n"
		"set xtics nomirror ('≤0.1 %%%%' 0.1, '1 %%%%' 1, '10 %%%%' 10, '100 %%%%' 100, "
		"'×11' 1000, "
		"'×101' 10000, '×1001' 100000)\n"
		"set xlabel 'overhead over native (modelled cycles), logarithmic'\n"
		"unset key\nset ytics nomirror ( \\\n",
		1 - (double)TOP / height, (double)BOTTOM / height, rows + 0.6);
	for (size_t w = 0; w < s->workload_count; w++)
		fprintf(script, "%s'%s' %.2f", w ? ", \\\n" : "", plot_label(s->workloads[w]).text,
			row_of(s, w));
	fputs(")\n", script);
	plot_legend_begin(&legend, script, height, 20);
	for (size_t c = 0; c < s->scheme_count; c++)
		if (!summary_is_baseline(s, c))
			plot_legend_add(&legend, plot_label(s->schemes[c]).text,
					plot_style_of(s->schemes[c])->colour,
					plot_style_of(s->schemes[c])->glyph);
	fputs("plot ", script);
	for (size_t c = 0; c < s->scheme_count; c++) {
		if (summary_is_baseline(s, c))
			continue;
		fprintf(data, "# %s: overhead in %%, row\n", plot_label(s->schemes[c]).text);
		for (size_t w = 0; w < s->workload_count; w++) {
			double ratio = summary_ratio(s, w, c);
			double nudge = ((double)c + 0.5) / (double)s->scheme_count - 0.5;

			if (!(ratio > 0))
				continue;
			fprintf(data, "%.4f %.3f\n", plot_clamp_percent((ratio - 1) * 100),
				row_of(s, w) + nudge * 0.6);
			any = true;
		}
		fputs("NaN NaN\n\n\n", data);
		fprintf(script,
			"%s'overhead.dat' index %zu using 1:2 with points pt %d ps 0.8 lc rgb '%s'",
			block ? ", \\\n" : "", block, plot_style_of(s->schemes[c])->point,
			plot_style_of(s->schemes[c])->colour);
		block++;
	}
	fputc('\n', script);
	return any;
}

/* The scheme with the greatest mean, demonstrations aside; -1: none. */
static int worst_mean(const struct summary *s, const char *group)
{
	int worst = -1;

	for (size_t c = 0; c < s->scheme_count; c++)
		if (!summary_is_baseline(s, c) && !summary_is_demonstration(s, c) &&
		    (worst < 0 ||
		     summary_geomean(s, c, group) > summary_geomean(s, (size_t)worst, group)))
			worst = (int)c;
	return worst;
}

static void write_overhead(double ratio, FILE *html)
{
	char text[32];

	summary_format_overhead(ratio, text, sizeof(text));
	fprintf(html, "%s%s", text, ratio >= 11 ? "" : " %");
}

static void write_group_sentence(const struct summary *s, const char *group, FILE *html)
{
	int worst = worst_mean(s, group);
	double least = 0;

	fprintf(html, "%s: least with ", summary_group_title(group));
	for (size_t c = 0; c < s->scheme_count; c++) {
		if (!summary_is_best_mean(s, c, group))
			continue;
		fputs(least > 0 ? " and " : "", html);
		report_html_text(s->schemes[c], html);
		least = summary_geomean(s, c, group);
	}
	fputs(", ", html);
	write_overhead(least, html);
	if (worst >= 0 && !summary_is_best_mean(s, (size_t)worst, group)) {
		fputs("; most with ", html);
		report_html_text(s->schemes[worst], html);
		fputs(", ", html);
		write_overhead(summary_geomean(s, (size_t)worst, group), html);
	}
	fputs(". ", html);
}

static void write_sentence(const struct summary *s, FILE *html)
{
	const char *group = "";

	fputs("Geometric means over native. ", html);
	for (size_t w = 0; w < s->workload_count; w++) {
		if (!strcmp(group, summary_group(s, w)))
			continue;
		group = summary_group(s, w);
		if (summary_geomean(s, 0, group) > 0)
			write_group_sentence(s, group, html);
	}
}

const struct report_plot plot_overhead = { "overhead", "Overhead by workload", false, write_plot,
					   write_sentence };
