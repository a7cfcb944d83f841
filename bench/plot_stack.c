/* SPDX-License-Identifier: MIT */
/*
 * plot_stack.c - stacked bars: a panel a workload, a bar a scheme, parts side by side.
 *
 * Each panel has its own scale: workloads differ by orders of magnitude, and what is compared is the schemes of one. Parts
 * that are nowhere seen are left out of the legend.
 */
#include "plot.h"

enum { COLUMNS = 3, PANEL_HEIGHT = 164, TOP = 58 };

static size_t shown_schemes(const struct plot_stack *stack, const struct summary *s, size_t w)
{
	size_t count = 0;

	for (size_t c = 0; c < s->scheme_count; c++)
		count += stack->is_shown(s, w, c);
	return count;
}

static bool is_part_seen(const struct plot_stack *stack, const struct summary *s, unsigned part)
{
	for (size_t w = 0; w < s->workload_count; w++)
		for (size_t c = 0; c < s->scheme_count; c++)
			if (stack->is_shown(s, w, c) && stack->value(s, w, c, part) > 0)
				return true;
	return false;
}

/* Rows "left right bottom top colour" of a panel; its data block and its plot command. */
static void write_panel(const struct plot_stack *stack, const struct summary *s, size_t w,
			size_t block, FILE *data, FILE *script)
{
	size_t count = shown_schemes(stack, s, w), row = 0;

	fprintf(script,
		"set title '%s' offset 0,-0.6\nset yrange [%zu.6:0.4]\nset ytics nomirror (",
		plot_label(s->workloads[w]).text, count);
	fprintf(data, "# %s: left, right, middle, low, high, colour\n",
		plot_label(s->workloads[w]).text);
	for (size_t c = 0; c < s->scheme_count; c++) {
		double at = 0;

		if (!stack->is_shown(s, w, c))
			continue;
		row++;
		fprintf(script, "%s'%s' %zu", row > 1 ? ", " : "", plot_label(s->schemes[c]).text,
			row);
		for (unsigned i = 0; i < stack->parts; i++) {
			double width = stack->value(s, w, c, i);

			if (width > 0)
				fprintf(data, "%.6f %.6f %zu %.2f %.2f 0x%s\n", at, at + width, row,
					(double)row - 0.36, (double)row + 0.36,
					stack->colours[i] + 1);
			at += width;
		}
	}
	fputs("0 0 0 0 0 0\n\n\n", data);
	fprintf(script,
		")\nplot '%s.dat' index %zu using (($1+$2)/2):3:1:2:4:5:6 with boxxyerror fs "
		"solid 1 "
		"noborder lc rgb variable\n",
		stack->name, block);
}

bool plot_stack_write(const struct plot_stack *stack, const struct summary *s, FILE *data,
		      FILE *script)
{
	size_t panels = 0, rows, block = 0;
	struct plot_legend legend;
	int height;

	for (size_t w = 0; w < s->workload_count; w++)
		panels += shown_schemes(stack, s, w) > 0;
	if (!panels)
		return false;
	rows = (panels + COLUMNS - 1) / COLUMNS;
	height = (int)rows * PANEL_HEIGHT + TOP;
	plot_begin(script, stack->name, height);
	plot_legend_begin(&legend, script, height, 18);
	for (unsigned i = 0; i < stack->parts; i++)
		if (stack->shows_all_parts || is_part_seen(stack, s, i))
			plot_legend_add(&legend, stack->title(i), stack->colours[i], "■");
	fprintf(script, "unset key\nset xrange [0:*]\nset xtics nomirror font ',11'\nset tics "
			"scale 0\nunset grid\nset grid x\n"
			"set multiplot\n");
	for (size_t w = 0; w < s->workload_count; w++) {
		double top, left;

		if (!shown_schemes(stack, s, w))
			continue;
		left = (double)(block % COLUMNS) / COLUMNS;
		top = 1 - (double)(TOP + PANEL_HEIGHT * (int)(block / COLUMNS)) / height;
		fprintf(script,
			"set lmargin at screen %.4f\nset rmargin at screen %.4f\n"
			"set tmargin at screen %.4f\nset bmargin at screen %.4f\n",
			left + 0.095, left + 1.0 / COLUMNS - 0.012, top - 22.0 / height,
			top - (PANEL_HEIGHT - 30.0) / height);
		write_panel(stack, s, w, block, data, script);
		if (!block)
			fputs("do for [i=1000:1100] { unset label i }\n", script);
		block++;
	}
	fputs("unset multiplot\n", script);
	return true;
}
