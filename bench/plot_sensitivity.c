/* SPDX-License-Identifier: MIT */
/*
 * plot_sensitivity.c - how overheads move with the cost of an exit and with the reach of the TLB: a panel a
 * workload, a line a scheme.
 *
 * Both axes are logarithmic; the preset's own figure is the dashed vertical line.
 */
#include "plot.h"

#include <math.h>
#include <string.h>

enum { PANEL_HEIGHT = 300, TOP = 44, MAX_NAMES = 16 };

/* The distinct workloads and schemes among the points of one axis. */
struct axis {
	const char *workloads[MAX_NAMES], *schemes[MAX_NAMES];
	size_t workload_count, scheme_count;
	double base, low, high; /* the preset's own figure; the least and the greatest */
};

static void add_name(const char **names, size_t *count, const char *name)
{
	for (size_t i = 0; i < *count; i++)
		if (!strcmp(names[i], name))
			return;
	if (*count < MAX_NAMES)
		names[(*count)++] = name;
}

static bool find_axis(const struct results *r, const char *name, struct axis *axis)
{
	memset(axis, 0, sizeof(*axis));
	for (size_t i = 0; i < r->point_count; i++) {
		const struct results_point *point = &r->points[i];

		if (strcmp(point->axis, name) != 0)
			continue;
		add_name(axis->workloads, &axis->workload_count, point->workload);
		add_name(axis->schemes, &axis->scheme_count, point->scheme);
		if (fabs(point->factor - 1) < 1e-9)
			axis->base = point->value;
		if (!(axis->low > 0) || point->value < axis->low)
			axis->low = point->value;
		if (point->value > axis->high)
			axis->high = point->value;
	}
	return axis->workload_count > 0;
}

/* One block of data; false: no point. */
static bool write_line(const struct results *r, const char *name, const char *workload,
		       const char *scheme, FILE *data)
{
	bool any = false;

	for (size_t i = 0; i < r->point_count; i++) {
		const struct results_point *point = &r->points[i];

		if (strcmp(point->axis, name) != 0 || strcmp(point->workload, workload) != 0 ||
		    strcmp(point->scheme, scheme) != 0 || !(point->value > 0))
			continue;
		fprintf(data, "%.6g %.6g\n", point->value,
			plot_clamp_percent(point->overhead * 100));
		any = true;
	}
	fputs(any ? "\n\n" : "NaN NaN\n\n\n", data);
	return any;
}

static bool write_axis(const struct summary *s, const char *name, const char *label, FILE *data,
		       FILE *script)
{
	struct plot_legend legend;
	struct axis axis;
	size_t block = 0;
	int height;

	if (!find_axis(s->results, name, &axis))
		return false;
	height = PANEL_HEIGHT * (int)((axis.workload_count + 2) / 3) + TOP;
	plot_begin(script, name, height);
	plot_legend_begin(&legend, script, height, 18);
	for (size_t c = 0; c < axis.scheme_count; c++)
		plot_legend_add(&legend, plot_label(axis.schemes[c]).text,
				plot_style_of(axis.schemes[c])->colour,
				plot_style_of(axis.schemes[c])->glyph);
	fputs("unset key\nset logscale xy\nset yrange [0.08:*]\nset xtics nomirror font ',11'\n"
	      "set ytics nomirror ('≤0.1' 0.1, '1' 1, '10' 10, '100' 100, '1,000' 1000, '10,000' "
	      "10000, '100,000' 100000)\nset multiplot\n",
	      script);
	for (size_t w = 0; w < axis.workload_count; w++) {
		double left = (double)(w % 3) / 3;
		double top = 1 - (double)(TOP + PANEL_HEIGHT * (int)(w / 3)) / height;

		fprintf(script,
			"set lmargin at screen %.4f\nset rmargin at screen %.4f\n"
			"set tmargin at screen %.4f\nset bmargin at screen %.4f\n"
			"set title '%s' offset 0,-0.6\nset xlabel '%s'\n%s",
			left + 0.075, left + 1.0 / 3 - 0.012, top - 24.0 / height,
			top - (PANEL_HEIGHT - 68.0) / height, plot_label(axis.workloads[w]).text,
			label, w % 3 ? "unset ylabel\n" : "set ylabel 'overhead over native, %'\n");
		fprintf(script, "set xrange [%.6g:%.6g]\nset xtics (", axis.low * 0.8,
			axis.high * 1.25);
		for (size_t i = 0, n = 0; i < s->results->point_count; i++) {
			const struct results_point *point = &s->results->points[i];

			if (strcmp(point->axis, name) == 0 &&
			    strcmp(point->workload, axis.workloads[w]) == 0 &&
			    strcmp(point->scheme, axis.schemes[0]) == 0 && point->value > 0)
				fprintf(script, "%s'%.0f' %.6g", n++ ? ", " : "", point->value,
					point->value);
		}
		fputs(")\n", script);
		if (axis.base > 0)
			fprintf(script,
				"set arrow 1 from first %.6g, graph 0 to first %.6g, graph 1 "
				"nohead dt 2 lw "
				"0.8 lc rgb '#808080'\n",
				axis.base, axis.base);
		fputs("plot ", script);
		for (size_t c = 0; c < axis.scheme_count; c++) {
			write_line(s->results, name, axis.workloads[w], axis.schemes[c], data);
			fprintf(script,
				"%s'%s.dat' index %zu using 1:2 with linespoints pt %d dt %d ps "
				"0.6 lw 1.6 lc rgb '%s'",
				c ? ", \\\n" : "", name, block++,
				plot_style_of(axis.schemes[c])->point,
				plot_style_of(axis.schemes[c])->dash,
				plot_style_of(axis.schemes[c])->colour);
		}
		fputc('\n', script);
		if (!w)
			fputs("do for [i=1000:1100] { unset label i }\n", script);
	}
	fputs("unset multiplot\n", script);
	return true;
}

static const struct results_point *find_point(const struct results *r,
					      const struct results_point *like, bool last)
{
	const struct results_point *found = NULL;

	for (size_t i = 0; i < r->point_count; i++) {
		const struct results_point *point = &r->points[i];

		if (strcmp(point->axis, like->axis) == 0 &&
		    strcmp(point->workload, like->workload) == 0 &&
		    strcmp(point->scheme, like->scheme) == 0 &&
		    (!found || (last ? point->value > found->value : point->value < found->value)))
			found = point;
	}
	return found;
}

/* The line that moves most, from its first point to its last. */
static void write_axis_sentence(const struct summary *s, const char *name, const char *what,
				FILE *html)
{
	const struct results *r = s->results;
	const struct results_point *from = NULL, *to = NULL;
	double most = 0;

	for (size_t i = 0; i < r->point_count; i++) {
		const struct results_point *low, *high;
		double span;

		if (strcmp(r->points[i].axis, name) != 0)
			continue;
		low = find_point(r, &r->points[i], false);
		high = find_point(r, &r->points[i], true);
		span = fabs(log((1 + high->overhead) / (1 + low->overhead)));
		if (isfinite(span) && span > most) {
			most = span;
			from = low;
			to = high;
		}
	}
	if (!from) {
		fprintf(html, "No overhead moves with %s.", what);
		return;
	}
	fprintf(html, "Most sensitive to %s: ", what);
	report_html_text(from->scheme, html);
	fputs(" on ", html);
	report_html_text(plot_label(from->workload).text, html);
	fprintf(html, ", whose overhead goes from %.1f %% to %.1f %% between %.0f and %.0f. ",
		from->overhead * 100, to->overhead * 100, from->value, to->value);
	fputs("The dashed line is the preset's own figure; moderate sizes.", html);
}

static bool write_exit_cost(const struct summary *s, FILE *data, FILE *script)
{
	return write_axis(s, "exit_cost", "cycles of one exit", data, script);
}

static bool write_tlb_reach(const struct summary *s, FILE *data, FILE *script)
{
	return write_axis(s, "tlb_reach", "entries of the second-level TLB", data, script);
}

static void exit_cost_sentence(const struct summary *s, FILE *html)
{
	write_axis_sentence(s, "exit_cost", "the cost of an exit (cycles)", html);
}

static void tlb_reach_sentence(const struct summary *s, FILE *html)
{
	write_axis_sentence(s, "tlb_reach", "the reach of the second-level TLB (entries)", html);
}

const struct report_plot plot_exit_cost = { "exit_cost", "Sensitivity to the cost of an exit",
					    false, write_exit_cost, exit_cost_sentence };
const struct report_plot plot_tlb_reach = { "tlb_reach", "Sensitivity to TLB reach", false,
					    write_tlb_reach, tlb_reach_sentence };
