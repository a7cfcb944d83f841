/* SPDX-License-Identifier: MIT */
/*
 * plot_kvm.c - pictures of measured runs: time by workload and scheme, where the time goes, exits by reason.
 *
 * "The guest" in the second is everything inside KVM_RUN: the guest's own instructions, world switches, and what KVM does
 * without asking us (on a host that shadows in software, filling its own tables). Only the VMM's part of an exit
 * can be timed from where we stand.
 */
#include "plot.h"

#include <string.h>

enum { ROW = 24, TOP = 44, BOTTOM = 64 };

/* ---- Time ------------------------------------------------------------------------------------------ */

static bool write_time(const struct summary *s, FILE *data, FILE *script)
{
	int height = (int)s->workload_count * ROW + TOP + BOTTOM;
	struct plot_legend legend;
	bool any = false;

	plot_begin(script, "kvm-time", height);
	fprintf(script,
		"set lmargin at screen 0.20\nset rmargin at screen 0.97\n"
		"set tmargin at screen %.4f\nset bmargin at screen %.4f\n"
		"set logscale x 10\nset yrange [%zu.6:0.4]\nset xtics nomirror format '%%g'\n"
		"set xlabel 'milliseconds of the measured part, logarithmic'\n"
		"unset key\nset ytics nomirror ( \\\n",
		1 - (double)TOP / height, (double)BOTTOM / height, s->workload_count);
	for (size_t w = 0; w < s->workload_count; w++)
		fprintf(script, "%s'%s' %zu", w ? ", \\\n" : "", plot_label(s->workloads[w]).text,
			w + 1);
	fputs(")\n", script);
	plot_legend_begin(&legend, script, height, 20);
	for (size_t c = 0; c < s->scheme_count; c++)
		plot_legend_add(&legend, plot_label(s->schemes[c]).text,
				plot_style_of(s->schemes[c])->colour,
				plot_style_of(s->schemes[c])->glyph);
	for (size_t c = 0; c < s->scheme_count; c++) {
		double nudge = ((double)c + 0.5) / (double)s->scheme_count - 0.5;

		fprintf(data, "# %s: median, low, high in ms, row\n",
			plot_label(s->schemes[c]).text);
		for (size_t w = 0; w < s->workload_count; w++) {
			const struct results_run *run = summary_run(s, w, c);

			if (!(summary_seconds(s, w, c) > 0))
				continue;
			fprintf(data, "%.6f %.6f %.6f %.3f\n", run->median_s * 1e3,
				run->ci95_s[0] * 1e3, run->ci95_s[1] * 1e3,
				(double)w + 1 + nudge * 0.6);
			any = true;
		}
		fputs("NaN NaN NaN NaN\n\n\n", data);
		fprintf(script,
			"%s'kvm-time.dat' index %zu using 1:4:2:3 with xerrorbars pt %d ps 0.8 lc "
			"rgb "
			"'%s'",
			c ? ", \\\n" : "plot ", c, plot_style_of(s->schemes[c])->point,
			plot_style_of(s->schemes[c])->colour);
	}
	fputc('\n', script);
	return any;
}

static void time_sentence(const struct summary *s, FILE *html)
{
	fputs("Medians; bars are 95 % intervals (the range, below six samples).", html);
	for (size_t c = 0; c < s->scheme_count && s->scheme_count > 1; c++) {
		if (!(summary_geomean(s, c, NULL) > 0))
			continue;
		fputc(' ', html);
		report_html_text(s->schemes[c], html);
		fprintf(html, " takes on average ×%.2f of the fastest scheme's time%s",
			summary_geomean(s, c, NULL), c + 1 < s->scheme_count ? ";" : ".");
	}
}

const struct report_plot plot_kvm_time = { "kvm-time", "Time by workload and scheme", true,
					   write_time, time_sentence };

/* ---- Stacks: where the time goes, exits ------------------------------------------------------------ */

/* The guest, then enum gn_exit_reason. */
static const char *const colours[] = {
	"#c4c4c4", "#e69f00", "#d55e00", "#0072b2", "#cc79a7", "#009e73", "#56b4e9",
	"#b8a800", "#4d4d4d", "#7a3b9a", "#8c5a2b", "#666666", "#2f8f83",
};
_Static_assert(sizeof(colours) / sizeof(colours[0]) == GN_EXIT_REASONS + 1, "one a part");

static const char *reason_title(unsigned reason)
{
	return gn_exit_reason_name((enum gn_exit_reason)reason);
}

/* The guest comes first in a bar, the reasons follow. */
static const char *where_title(unsigned part)
{
	return part ? reason_title(part - 1) : "the guest, and KVM for it";
}

static bool where_is_shown(const struct summary *s, size_t w, size_t c)
{
	const struct results_run *run = summary_run(s, w, c);

	return run && run->kvm.has_exit_time && summary_ratio(s, w, c) > 0;
}

/* In units of the fastest scheme's time. */
static double where_value(const struct summary *s, size_t w, size_t c, unsigned part)
{
	const struct results_run *run = summary_run(s, w, c);
	double unit = summary_ratio(s, w, c) / run->median_s, guest;

	if (part)
		return run->kvm.exit_s[part - 1] * unit;
	guest = run->kvm.exit_of_s - results_exit_seconds(run);
	return guest > 0 ? guest * unit : 0;
}

static const struct plot_stack where = {
	"kvm-where", GN_EXIT_REASONS + 1, colours, false, where_title, where_is_shown, where_value,
};

static bool write_where(const struct summary *s, FILE *data, FILE *script)
{
	return plot_stack_write(&where, s, data, script);
}

static void where_sentence(const struct summary *s, FILE *html)
{
	double most = 0;
	size_t at_w = 0, at_c = 0;

	for (size_t w = 0; w < s->workload_count; w++)
		for (size_t c = 0; c < s->scheme_count; c++) {
			const struct results_run *run = summary_run(s, w, c);

			if (where_is_shown(s, w, c) && run->kvm.exit_of_s > 0 &&
			    results_exit_seconds(run) / run->kvm.exit_of_s > most) {
				most = results_exit_seconds(run) / run->kvm.exit_of_s;
				at_w = w;
				at_c = c;
			}
		}
	fputs("In units of the fastest scheme's time. Exits are timed from KVM_RUN's return to its "
	      "next "
	      "call; world switches are in the guest's part.",
	      html);
	if (!(most > 0))
		return;
	fputs(" The VMM works hardest for ", html);
	report_html_text(s->schemes[at_c], html);
	fputs(" on ", html);
	report_html_text(plot_label(s->workloads[at_w]).text, html);
	fprintf(html, ": %.0f %% of the time.", 100 * most);
}

const struct report_plot plot_kvm_where = { "kvm-where", "Where the time goes", true, write_where,
					    where_sentence };

static bool exits_is_shown(const struct summary *s, size_t w, size_t c)
{
	const struct results_run *run = summary_run(s, w, c);

	return run && !run->failure[0] && run->exits_known && run->counters.exits;
}

static double exits_value(const struct summary *s, size_t w, size_t c, unsigned part)
{
	return (double)summary_run(s, w, c)->counters.exits_by[part];
}

static const struct plot_stack exits = {
	"kvm-exits", GN_EXIT_REASONS, colours + 1, false, reason_title, exits_is_shown, exits_value,
};

static bool write_exits(const struct summary *s, FILE *data, FILE *script)
{
	return plot_stack_write(&exits, s, data, script);
}

static void exits_sentence(const struct summary *s, FILE *html)
{
	fputs("Counted in the measured part.", html);
	for (size_t c = 0; c < s->scheme_count; c++) {
		uint64_t sum = 0;

		for (size_t w = 0; w < s->workload_count; w++)
			if (exits_is_shown(s, w, c))
				sum += summary_run(s, w, c)->counters.exits;
		fputc(' ', html);
		report_html_text(s->schemes[c], html);
		fprintf(html, ": %llu in all%s", (unsigned long long)sum,
			c + 1 < s->scheme_count ? ";" : ".");
	}
}

const struct report_plot plot_kvm_exits = { "kvm-exits", "Exits by reason", true, write_exits,
					    exits_sentence };
