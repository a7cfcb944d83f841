/* SPDX-License-Identifier: MIT */
/*
 * plot_cycles.c - where the cycles go: a panel a workload, a bar a scheme, stacked by cause, in units of
 * the native run.
 *
 * interp is left out: at a hundred times native it would flatten the rest.
 */
#include "plot.h"

#include <string.h>

static const char *const cause_colours[RESULTS_CAUSES] = {
	"#b0b0b0", "#56b4e9", "#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7",
};

static bool is_shown(const struct summary *s, size_t w, size_t c)
{
	const struct results_run *run = summary_run(s, w, c);

	return run && run->has_causes && !summary_is_demonstration(s, c) &&
	       summary_ratio(s, w, c) > 0;
}

static double cause_width(const struct summary *s, size_t w, size_t c, unsigned cause)
{
	const struct results_run *run = summary_run(s, w, c);
	double unit = summary_ratio(s, w, c) / (double)run->counters.cycles;

	return run->cause_cycles[cause] * unit;
}

static const char *cause_title(unsigned cause)
{
	return results_cause_title((enum results_cause)cause);
}

static const struct plot_stack stack = {
	"cycles", RESULTS_CAUSES, cause_colours, true, cause_title, is_shown, cause_width,
};

static bool write_plot(const struct summary *s, FILE *data, FILE *script)
{
	return plot_stack_write(&stack, s, data, script);
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
	native = results_find(s->results, worst->backend, worst->workload, "native");
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

const struct report_plot plot_cycles = { "cycles", "Where the cycles go", false, write_plot,
					 write_sentence };
