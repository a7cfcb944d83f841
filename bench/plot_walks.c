/* SPDX-License-Identifier: MIT */
/*
 * plot_walks.c - how many page-table entries a hardware walk reads, over all workloads: a strip a scheme.
 */
#include "plot.h"

enum { STRIP = 96, TOP = 20, BOTTOM = 56 };

struct walk_sum {
	uint64_t histogram[RESULTS_WALK_REFS];
	double walks, refs;
	unsigned most;
};

static bool sum_scheme(const struct summary *s, size_t scheme, struct walk_sum *sum)
{
	*sum = (struct walk_sum){ .walks = 0 };
	for (size_t w = 0; w < s->workload_count; w++) {
		const struct results_run *run = summary_run(s, w, scheme);

		for (unsigned i = 0; run && run->has_histogram && i < RESULTS_WALK_REFS; i++) {
			sum->histogram[i] += run->walk_histogram[i];
			sum->walks += (double)run->walk_histogram[i];
			sum->refs += (double)run->walk_histogram[i] * i;
			if (run->walk_histogram[i] && i > sum->most)
				sum->most = i;
		}
	}
	return sum->walks > 0;
}

static bool write_plot(const struct summary *s, FILE *data, FILE *script)
{
	size_t strips = 0, block = 0;
	struct walk_sum sum;
	unsigned most = 4;
	int height;

	for (size_t c = 0; c < s->scheme_count; c++)
		if (sum_scheme(s, c, &sum)) {
			strips++;
			if (sum.most > most)
				most = sum.most;
		}
	if (!strips)
		return false;
	height = (int)strips * STRIP + TOP + BOTTOM;
	plot_begin(script, "walks", height);
	fprintf(script,
		"unset key\nset xrange [-0.7:%u.7]\nset yrange [0:100]\nset ytics nomirror (0, 50, "
		"'100 %%%%' 100)\nset style fill solid 0.9\nset boxwidth 0.7\nset multiplot\n"
		"set lmargin at screen 0.14\nset rmargin at screen 0.97\n",
		most);
	for (size_t c = 0; c < s->scheme_count; c++) {
		double top;
		bool last = block + 1 == strips;

		if (!sum_scheme(s, c, &sum))
			continue;
		fprintf(data, "# %s: references, %% of walks, walks\n",
			plot_label(s->schemes[c]).text);
		for (unsigned i = 0; i <= most; i++)
			fprintf(data, "%u %.5f %llu\n", i,
				100 * (double)sum.histogram[i] / sum.walks,
				(unsigned long long)sum.histogram[i]);
		fputs("\n\n", data);
		top = 1 - (double)(TOP + STRIP * (int)block) / height;
		fprintf(script,
			"set tmargin at screen %.4f\nset bmargin at screen %.4f\n"
			"set ylabel '%s' rotate by 0 offset -1,0\nset xtics nomirror 1 format "
			"'%s'\n%s"
			"set label 1 'mean %.2f' at graph 0.98,0.82 right\n"
			"plot 'walks.dat' index %zu using 1:2 with boxes lc rgb '%s'\n",
			top, top - (STRIP - 14.0) / height, plot_label(s->schemes[c]).text,
			last ? "%g" : "",
			last ? "set xlabel 'entries read by one hardware walk (counted)'\n" : "",
			sum.refs / sum.walks, block, plot_style_of(s->schemes[c])->colour);
		block++;
	}
	fputs("unset multiplot\n", script);
	return true;
}

static void write_sentence(const struct summary *s, FILE *html)
{
	struct walk_sum sum;
	bool first = true;

	fputs("A walk reads on average ", html);
	for (size_t c = 0; c < s->scheme_count; c++) {
		if (!sum_scheme(s, c, &sum))
			continue;
		fprintf(html, "%s%.2f entries under ", first ? "" : ", ", sum.refs / sum.walks);
		report_html_text(s->schemes[c], html);
		fprintf(html, " (at most %u)", sum.most);
		first = false;
	}
	fputs("; walk caches cut what the closed form (4 and 24) would give.", html);
}

const struct report_plot plot_walks = { "walks", "References of page walks", false, write_plot,
					write_sentence };
