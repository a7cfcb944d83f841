/* SPDX-License-Identifier: MIT */
/*
 * plot_overcommit.c - memory over time: a row of panels a policy, a panel a VM.
 *
 * In each panel the working set is the grey ground, what the VM has a solid line, what it was told a dashed one,
 * and refaults stand as bars from below, on an axis of their own at the right.
 */
#include <math.h>

#include "overcommit.h"
#include "plot.h"

enum { TOP = 52, BOTTOM = 46, LEFT = 64, RIGHT = 60, GAP = 8, MOST_VMS = 6 };
enum { ROW_OF_MANY = 130, ROW_OF_ONE = 190 };

#define COLOUR_WORKING "#b8b8b8"
#define COLOUR_ACTUAL  "#0072b2"
#define COLOUR_TARGET  "#e69f00"
#define COLOUR_FAULTS  "#d55e00"

/* One policy: VMs under each other. Several: a row each, VMs side by side. */
struct grid {
	unsigned columns, rows, row_height;
	int height;
	bool is_one;
	double time_s, mib, faults;
};

static struct grid make_grid(const struct overcommit_results *r, size_t first, size_t count)
{
	unsigned vms = r->setup.vms < MOST_VMS ? r->setup.vms : MOST_VMS;
	struct grid g = { .is_one = count == 1 };

	g.columns = g.is_one ? 1 : vms;
	g.rows = g.is_one ? vms : (unsigned)count;
	g.row_height = g.is_one ? ROW_OF_ONE : ROW_OF_MANY;
	g.height = (int)(g.rows * g.row_height) + TOP + BOTTOM;
	g.time_s = r->setup.phases_s + r->setup.rest_s;
	g.mib = (double)r->setup.mem_bytes / 1048576;
	g.faults = 100;
	for (size_t n = first; n < first + count; n++)
		for (unsigned v = 0; v < vms; v++)
			for (size_t i = 0; i < r->runs[n].vms[v].sample_count; i++)
				g.faults = fmax(g.faults,
						(double)r->runs[n].vms[v].samples[i].faults_per_s);
	return g;
}

static void write_data(const struct overcommit_vm *vm, FILE *data)
{
	for (size_t i = 0; i < vm->sample_count; i++) {
		const struct overcommit_sample *s = &vm->samples[i];

		fprintf(data, "%.1f %.1f %.1f %.1f %.1f\n", (double)s->t_s, (double)s->target_mib,
			(double)s->actual_mib, (double)s->working_mib, (double)s->faults_per_s);
	}
	if (!vm->sample_count)
		fputs("NaN NaN NaN NaN NaN\n", data);
	fputs("\n\n", data);
}

static void write_panel(const struct grid *g, unsigned row, unsigned column, size_t block,
			const char *name, const char *title, FILE *script)
{
	double width =
		(double)(PLOT_WIDTH - LEFT - RIGHT - GAP * (int)(g->columns - 1)) / g->columns;
	double left = LEFT + column * (width + GAP), top = TOP + row * g->row_height;
	bool is_bottom = row + 1 == g->rows, is_left = !column, is_right = column + 1 == g->columns;

	fprintf(script,
		"set lmargin at screen %.4f\nset rmargin at screen %.4f\n"
		"set tmargin at screen %.4f\nset bmargin at screen %.4f\n",
		left / PLOT_WIDTH, (left + width) / PLOT_WIDTH, 1 - (top + 14) / g->height,
		1 - (top + g->row_height - 8) / g->height);
	fprintf(script, "set label 1 '%s' at graph 0.01,1.0 left offset 0,0.6\n",
		g->is_one || !row || is_left ? title : "");
	fprintf(script, "set format x '%s'\nset format y '%s'\nset format y2 '%s'\n",
		is_bottom ? "%.0f" : "", is_left ? "%.0f" : "", is_right ? "%.0s%c" : "");
	fprintf(script, "set xlabel '%s' offset 0,0.4\n",
		is_bottom && column == g->columns / 2 ? "seconds" : "");
	fprintf(script,
		"plot '%s.dat' index %zu using 1:4 axes x1y1 with filledcurves y1=0 fs solid 0.55 "
		"noborder lc rgb '" COLOUR_WORKING "', \\\n"
		"'' index %zu using 1:5 axes x1y2 with impulses lw 1 lc rgb '" COLOUR_FAULTS
		"', \\\n"
		"'' index %zu using 1:3 axes x1y1 with lines lw 1.6 lc rgb '" COLOUR_ACTUAL
		"', \\\n"
		"'' index %zu using 1:2 axes x1y1 with lines lw 1.2 dt 2 lc rgb '" COLOUR_TARGET
		"'\n",
		name, block, block, block, block);
}

/* A step near @seconds that people count in. */
static double tic_step(double seconds)
{
	static const double steps[] = { 5, 10, 20, 30, 60, 120, 240, 300, 600 };
	size_t i = 0;

	while (i + 1 < sizeof(steps) / sizeof(steps[0]) && steps[i] < seconds)
		i++;
	return seconds > steps[i] ? ceil(seconds / 600) * 600 : steps[i];
}

bool overcommit_plot_write(const struct overcommit_results *r, size_t first_run, size_t run_count,
			   const char *name, FILE *data, FILE *script)
{
	struct grid g = make_grid(r, first_run, run_count);
	struct plot_legend legend;
	size_t block = 0;

	plot_begin(script, name, g.height);
	plot_legend_begin(&legend, script, g.height, 16);
	plot_legend_add(&legend, "working set (with the kernel)", COLOUR_WORKING, "■");
	plot_legend_add(&legend, "what the VM has, MiB", COLOUR_ACTUAL, "━");
	plot_legend_add(&legend, "what it was told", COLOUR_TARGET, "╍");
	plot_legend_add(&legend, "refaults a second (right)", COLOUR_FAULTS, "❘");
	/* Labels of the screen would be drawn by each panel again. */
	fprintf(script,
		"set multiplot\nunset key\nset ytics nomirror\nset y2tics nomirror\nset xtics "
		"nomirror\n"
		"set xrange [0:%.0f]\nset yrange [0:%.0f]\nset y2range [0:%.0f]\nset ytics %.0f\n"
		"set y2tics %.3g\nset xtics %.0f\n",
		g.time_s * 1.03 + 1, g.mib * 1.05, g.faults * 1.6, fmax(round(g.mib / 4), 1),
		g.faults, tic_step(g.time_s / (g.is_one ? 10 : 3)));
	for (size_t n = 0; n < run_count; n++)
		for (unsigned v = 0; v < (g.is_one ? g.rows : g.columns); v++) {
			const struct overcommit_run *run = &r->runs[first_run + n];
			char title[96];

			snprintf(title, sizeof(title), "%s, VM %u", plot_label(run->policy).text,
				 v + 1);
			write_data(&run->vms[v], data);
			write_panel(&g, g.is_one ? v : (unsigned)n, g.is_one ? 0 : v, block, name,
				    title, script);
			if (!block++)
				for (int tag = 1000; tag < legend.tag; tag++)
					fprintf(script, "unset label %d\n", tag);
		}
	fputs("unset multiplot\n", script);
	return block > 0;
}
