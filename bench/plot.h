/* SPDX-License-Identifier: MIT */
/*
 * plot.h - what the pictures of a report share: safe labels, colours, the terminal, the legend.
 *
 * Names come from a result file, which may come from anywhere; in a gnuplot script a back-quote runs a
 * command. So a name enters a script only through plot_label(), which leaves letters, digits and a few
 * harmless signs.
 */
#ifndef GN_BENCH_PLOT_H
#define GN_BENCH_PLOT_H

#include <stdio.h>

#include "report.h"

enum { PLOT_WIDTH = 960 };

struct plot_label {
	char text[48];
};
struct plot_label plot_label(const char *name);

/* The same colour and point in every picture. */
struct plot_style {
	const char *scheme, *colour;
	const char *glyph; /* the point's shape as text, for legends */
	int point, dash;   /* gnuplot's pt and dt: npt lies on ept as often as not */
};
const struct plot_style *plot_style_of(const char *scheme);

/* Terminal, output file, common style. */
void plot_begin(FILE *script, const char *name, int height);

/* Legend entries from @y pixels below the top of a picture of @height, in rows. */
struct plot_legend {
	FILE *script;
	int height, y, x, tag;
};
void plot_legend_begin(struct plot_legend *legend, FILE *script, int height, int y);
void plot_legend_add(struct plot_legend *legend, const char *text, const char *colour,
		     const char *glyph);

/* Stacked bars, a panel a workload, a bar a scheme. The plot's files are called @name. */
struct plot_stack {
	const char *name;
	unsigned parts;
	const char *const *colours; /* "#rrggbb", one a part */
	bool shows_all_parts;	    /* in the legend, also those that are nowhere seen */
	const char *(*title)(unsigned part);
	bool (*is_shown)(const struct summary *s, size_t workload, size_t scheme);
	double (*value)(const struct summary *s, size_t workload, size_t scheme, unsigned part);
};
bool plot_stack_write(const struct plot_stack *stack, const struct summary *s, FILE *data,
		      FILE *script);

/* Overheads on a logarithmic axis: anything at or below 0.1 % is drawn there. */
double plot_clamp_percent(double percent);

extern const struct report_plot plot_overhead, plot_cycles, plot_walks, plot_memory, plot_exit_cost,
	plot_tlb_reach;
/* Of measured runs. */
extern const struct report_plot plot_kvm_time, plot_kvm_where, plot_kvm_exits, plot_kvm_memory;

#endif
