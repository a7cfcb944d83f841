/* SPDX-License-Identifier: MIT */
/*
 * plot_sharing.c - memory saved, over time and over CPU time: a row a case.
 *
 * Both axes across are logarithmic, for the sides are an order of magnitude apart. The dotted line is what the oracle
 * saves. Of several runs the first is shown.
 */
#include <math.h>

#include "plot.h"
#include "sharing.h"

enum { TOP = 44, BOTTOM = 46, LEFT = 78, RIGHT = 24, GAP = 28, ROW = 210 };

static const struct {
	const char *colour, *glyph;
	int dash;
} styles[SHARING_SIDES] = {
	[SHARING_KSM] = { "#d55e00", "━", 1 },	    [SHARING_EPT] = { "#0072b2", "━", 1 },
	[SHARING_SHADOW] = { "#e69f00", "━", 1 },   [SHARING_KVM] = { "#009e73", "━", 1 },
	[SHARING_TEMPLATE] = { "#cc79a7", "━", 1 }, [SHARING_LIMIT] = { "#8a8a8a", "╍", 2 },
};

/* Blocks of the data file that hold a case's sides; -1: there is no such side. */
struct row {
	const struct sharing_case_result *of;
	int blocks[SHARING_SIDES];
	double least_s, most_s, mib;
};

static void write_points(const struct sharing_run *run, FILE *data)
{
	size_t step = run->point_count / 400 + 1;

	for (size_t i = 0; i < run->point_count; i++)
		if (!(i % step) || i + 1 == run->point_count)
			fprintf(data, "%.5f %.5f %.2f\n", (double)run->points[i].t_s,
				(double)run->points[i].cpu_s, (double)run->points[i].saved_mib);
	fputs("\n\n", data);
}

/* CPU time until @mib were saved: the pictures begin there. */
static double first_gain_s(const struct sharing_run *run, double mib)
{
	size_t i = 0;

	while (i + 1 < run->point_count && (double)run->points[i].saved_mib < mib)
		i++;
	return fmax((double)run->points[i].cpu_s, 1e-3);
}

static struct row write_row_data(const struct sharing_case_result *c, int *block, FILE *data)
{
	struct row row = { .of = c, .least_s = 10, .most_s = 0.1 };

	row.mib = (double)c->oracle.saved_pages * SHARING_PAGE_BYTES / 1048576;
	for (unsigned side = 0; side < SHARING_SIDES; side++) {
		const struct sharing_run *run = &c->runs[side][0];

		row.blocks[side] = -1;
		if (!run->is_there || !run->point_count)
			continue;
		row.blocks[side] = (*block)++;
		write_points(run, data);
		row.least_s = fmin(row.least_s, first_gain_s(run, row.mib / 100));
		row.most_s = fmax(row.most_s, (double)run->points[run->point_count - 1].t_s);
	}
	return row;
}

static void write_panel(const struct row *row, unsigned at, unsigned rows, unsigned column,
			int height, const char *name, FILE *script)
{
	double width = (double)(PLOT_WIDTH - LEFT - RIGHT - GAP) / 2,
	       left = LEFT + column * (width + GAP), top = TOP + at * ROW;
	const char *separator = "";

	fprintf(script,
		"set lmargin at screen %.4f\nset rmargin at screen %.4f\n"
		"set tmargin at screen %.4f\nset bmargin at screen %.4f\n",
		left / PLOT_WIDTH, (left + width) / PLOT_WIDTH, 1 - (top + 22) / height,
		1 - (top + ROW - 26) / height);
	fprintf(script, "set label 1 '%s' at graph 0,1.0 left offset 0,0.7\n",
		column ? "" : plot_label(row->of->of->name).text);
	fprintf(script, "set xlabel '%s' offset 0,0.3\n",
		at + 1 < rows ? ""
		: column      ? "CPU seconds of sharing"
			      : "seconds");
	fprintf(script, "set ylabel '%s' offset 0.5,0\nset format y '%s'\n",
		column ? "" : "MiB saved", column ? "" : "%.0f");
	fprintf(script, "set xrange [%.4g:%.4g]\nset yrange [0:%.1f]\nplot ", row->least_s * 0.7,
		row->most_s * 1.3, row->mib * 1.12 + 1);
	for (unsigned side = 0; side < SHARING_SIDES; side++) {
		if (row->blocks[side] < 0)
			continue;
		fprintf(script,
			"%s'%s.dat' index %d using %u:3 with lines lw 1.8 dt %d lc rgb '%s'",
			separator, name, row->blocks[side], column + 1, styles[side].dash,
			styles[side].colour);
		separator = ", \\\n";
	}
	fprintf(script, "%s%.2f with lines lw 1 dt 3 lc rgb '#000000'\n", separator, row->mib);
}

static bool is_in_any(const struct row *rows, unsigned count, unsigned side)
{
	bool is = false;

	for (unsigned i = 0; i < count; i++)
		is |= rows[i].blocks[side] >= 0;
	return is;
}

bool sharing_plot_write(const struct sharing_results *r, const char *name, FILE *data, FILE *script)
{
	unsigned rows = (unsigned)r->setup.case_count, shown = 0;
	struct row row[SHARING_MAX_CASES];
	struct plot_legend legend;
	int height, block = 0;

	for (unsigned i = 0; i < rows; i++) {
		/* Where nothing can be saved there is nothing to see. */
		if (!r->cases[i].oracle.saved_pages)
			continue;
		row[shown++] = write_row_data(&r->cases[i], &block, data);
	}
	if (!block)
		return false;
	height = (int)shown * ROW + TOP + BOTTOM;
	plot_begin(script, name, height);
	plot_legend_begin(&legend, script, height, 16);
	for (unsigned side = 0; side < SHARING_SIDES; side++)
		if (is_in_any(row, shown, side))
			plot_legend_add(&legend, sharing_side_name((enum sharing_side)side),
					styles[side].colour, styles[side].glyph);
	plot_legend_add(&legend, "what the oracle saves", "#000000", "┄");
	/* Labels of the screen would be drawn by each panel again. */
	fputs("set multiplot\nunset key\nset logscale x\nset ytics nomirror\nset xtics "
	      "nomirror\nset format x '%g'\n",
	      script);
	for (unsigned i = 0; i < shown; i++)
		for (unsigned column = 0; column < 2; column++) {
			write_panel(&row[i], i, shown, column, height, name, script);
			if (!i && !column)
				for (int tag = 1000; tag < legend.tag; tag++)
					fprintf(script, "unset label %d\n", tag);
		}
	fputs("unset multiplot\n", script);
	return true;
}
