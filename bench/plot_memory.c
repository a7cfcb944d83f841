/* SPDX-License-Identifier: MIT */
/*
 * plot_memory.c - what the tables of a scheme cost at their highest: a row a workload, a mark a scheme.
 */
#include "plot.h"

enum { ROW = 24, TOP = 44, BOTTOM = 64 };

static uint64_t peak_bytes(const struct summary *s, size_t w, size_t c)
{
	const struct results_run *run = summary_run(s, w, c);

	return run && run->has_tables ? run->table_bytes_peak : 0;
}

static bool has_tables(const struct summary *s, size_t c)
{
	for (size_t w = 0; w < s->workload_count; w++)
		if (peak_bytes(s, w, c))
			return true;
	return false;
}

static bool write_plot(const struct summary *s, FILE *data, FILE *script)
{
	int height = (int)s->workload_count * ROW + TOP + BOTTOM;
	struct plot_legend legend;
	const char *name = s->is_measured ? "kvm-memory" : "memory";
	size_t block = 0;

	plot_begin(script, name, height);
	fprintf(script,
		"set lmargin at screen 0.20\nset rmargin at screen 0.97\n"
		"set tmargin at screen %.4f\nset bmargin at screen %.4f\n"
		"set logscale x 10\nset yrange [%zu.6:0.4]\nset xtics nomirror\n"
		"set xlabel 'tables and their metadata at their highest, KiB (counted), "
		"logarithmic'\n"
		"unset key\nset ytics nomirror ( \\\n",
		1 - (double)TOP / height, (double)BOTTOM / height, s->workload_count);
	for (size_t w = 0; w < s->workload_count; w++)
		fprintf(script, "%s'%s' %zu", w ? ", \\\n" : "", plot_label(s->workloads[w]).text,
			w + 1);
	fputs(")\n", script);
	plot_legend_begin(&legend, script, height, 20);
	for (size_t c = 0; c < s->scheme_count; c++)
		if (has_tables(s, c))
			plot_legend_add(&legend, plot_label(s->schemes[c]).text,
					plot_style_of(s->schemes[c])->colour,
					plot_style_of(s->schemes[c])->glyph);
	for (size_t c = 0; c < s->scheme_count; c++) {
		if (!has_tables(s, c))
			continue;
		fprintf(data, "# %s: KiB, row\n", plot_label(s->schemes[c]).text);
		for (size_t w = 0; w < s->workload_count; w++)
			if (peak_bytes(s, w, c))
				fprintf(data, "%.3f %.3f\n", (double)peak_bytes(s, w, c) / 1024,
					(double)w + 1 +
						(((double)c + 0.5) / (double)s->scheme_count -
						 0.5) * 0.6);
		fputs("NaN NaN\n\n\n", data);
		fprintf(script,
			"%s'%s.dat' index %zu using 1:2 with points pt %d ps 0.8 lc rgb '%s'",
			block ? ", \\\n" : "plot ", name, block,
			plot_style_of(s->schemes[c])->point, plot_style_of(s->schemes[c])->colour);
		block++;
	}
	fputc('\n', script);
	return block > 0;
}

static void write_sentence(const struct summary *s, FILE *html)
{
	uint64_t most = 0;
	size_t at_w = 0, at_c = 0;
	const struct results_run *run;

	for (size_t w = 0; w < s->workload_count; w++)
		for (size_t c = 0; c < s->scheme_count; c++)
			if (peak_bytes(s, w, c) > most) {
				most = peak_bytes(s, w, c);
				at_w = w;
				at_c = c;
			}
	if (!most)
		return;
	run = summary_run(s, at_w, at_c);
	fputs("The largest tables are those of ", html);
	report_html_text(run->scheme, html);
	fputs(" on ", html);
	report_html_text(plot_label(run->workload).text, html);
	fprintf(html, ": %.0f KiB", (double)most / 1024);
	if (run->mem_bytes)
		fprintf(html, ", %.2f %% of the guest's memory",
			100 * (double)most / (double)run->mem_bytes);
	fputs(". Schemes that keep no tables of their own are not shown.", html);
}

const struct report_plot plot_memory = { "memory", "Memory for tables", false, write_plot,
					 write_sentence };
const struct report_plot plot_kvm_memory = { "kvm-memory", "Memory for tables", true, write_plot,
					     write_sentence };
