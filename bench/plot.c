/* SPDX-License-Identifier: MIT */
/*
 * plot.c - the shared parts of pictures, and the list of them.
 *
 * Colours are those of Okabe and Ito (Color Universal Design, 2008), which stay apart for colour-blind
 * readers and on white and dark grounds alike. Text and lines are drawn in black, which the web page turns
 * into the colour of its own text.
 */
#include "plot.h"

#include <string.h>

static const struct report_plot *const plots[] = {
	&plot_overhead,	 &plot_cycles,	 &plot_walks,	  &plot_memory,	   &plot_exit_cost,
	&plot_tlb_reach, &plot_kvm_time, &plot_kvm_where, &plot_kvm_exits, &plot_kvm_memory,
};

const struct report_plot *report_plot_at(unsigned index)
{
	return index < sizeof(plots) / sizeof(plots[0]) ? plots[index] : NULL;
}

struct plot_label plot_label(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789 _.:+-()";
	struct plot_label label;

	summary_label(name, label.text, sizeof(label.text));
	for (char *at = label.text; *at; at++)
		if (!strchr(allowed, *at))
			*at = '_';
	return label;
}

static const struct plot_style styles[] = {
	{ "native", "#8a8a8a", "×", 2, 1 },
	{ "shadow", "#e69f00", "●", 7, 1 },
	{ "shadow-vtlb", "#d55e00", "▲", 9, 1 },
	{ "ept", "#0072b2", "■", 5, 1 },
	{ "npt", "#56b4e9", "◆", 13, 2 },
	{ "interp", "#cc79a7", "▼", 11, 1 },
	{ "pv", "#009e73", "●", 7, 1 },
	{ "agile", "#b8a800", "▲", 9, 1 },
	/* others, by the hash of their name */
	{ "", "#009e73", "◆", 13, 1 },
	{ "", "#b8a800", "■", 5, 1 },
};
#define STYLES (sizeof(styles) / sizeof(styles[0]))

const struct plot_style *plot_style_of(const char *scheme)
{
	unsigned hash = 5381;

	for (size_t i = 0; i < STYLES - 2; i++)
		if (!strcmp(styles[i].scheme, scheme))
			return &styles[i];
	for (; *scheme; scheme++)
		hash = hash * 33 + (unsigned char)*scheme;
	return &styles[STYLES - 2 + (hash & 1)];
}

void plot_begin(FILE *script, const char *name, int height)
{
	fprintf(script,
		"set terminal svg noenhanced size %d,%d dynamic font 'sans-serif,13'\n"
		"set output '%s.svg'\n"
		"set encoding utf8\n"
		"set border lc rgb '#000000' lw 0.6\n"
		"set grid lc rgb '#a0a0a0' lw 0.4 dt 3\n"
		"set tics scale 0.5\n",
		PLOT_WIDTH, height, name);
}

/* Legends are drawn as text, entry after entry; widths are guessed from the number of letters. */
void plot_legend_begin(struct plot_legend *legend, FILE *script, int height, int y)
{
	*legend = (struct plot_legend){ script, height, y, 24, 1000 };
}

void plot_legend_add(struct plot_legend *legend, const char *text, const char *colour,
		     const char *glyph)
{
	int width = 34 + 7 * (int)strlen(text);
	double y;

	if (legend->x + width > PLOT_WIDTH) {
		legend->x = 24;
		legend->y += 20;
	}
	y = 1 - (double)legend->y / legend->height;
	fprintf(legend->script, "set label %d '%s' at screen %.4f,%.4f left tc rgb '%s'\n",
		legend->tag++, glyph, (double)legend->x / PLOT_WIDTH, y, colour);
	/* Double quotes: the text is ours or has been through plot_label(). */
	fprintf(legend->script, "set label %d \"%s\" at screen %.4f,%.4f left\n", legend->tag++,
		text, (double)(legend->x + 16) / PLOT_WIDTH, y);
	legend->x += width;
}

double plot_clamp_percent(double percent)
{
	return percent > 0.1 ? percent : 0.1;
}
