/* SPDX-License-Identifier: MIT */
/*
 * sharing_report.c - the results as a web page: memory saved over time and over CPU time, a table a case, the figures.
 *
 *     DIR/index.html      self-contained: the plots are inside
 *     DIR/sharing.json    the numbers
 *     DIR/plots/          data, gnuplot script and SVG
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "report.h"
#include "sharing.h"

static void write_number(double value, const char *format, FILE *to)
{
	if (isnan(value))
		fputs("<td>-</td>", to);
	else if (isinf(value))
		fputs("<td class=\"failed\">never</td>", to);
	else {
		fputs("<td>", to);
		fprintf(to, format, value);
		fputs("</td>", to);
	}
}

static void write_side(const struct sharing_case_result *c, enum sharing_side side, FILE *to)
{
	bool saves = c->oracle.saved_pages;
	double cpu = sharing_median(c, side, sharing_cpu_per_gib), none = NAN;

	fprintf(to, "<tr><td>%s</td>", sharing_side_name(side));
	write_number(saves ? cpu : none, "%.3f s", to);
	write_number(saves ? sharing_ratio(c, side, SHARING_KSM, sharing_cpu_per_gib) : none,
		     "%.3f×", to);
	write_number(saves ? sharing_ratio(c, side, SHARING_LIMIT, sharing_cpu_per_gib) : none,
		     "%.2f×", to);
	write_number(saves ? sharing_median(c, side, sharing_wall) : none, "%.2f s", to);
	write_number(sharing_median(c, side, sharing_first_part), "%.4f", to);
	write_number(sharing_median(c, side, sharing_last_part), "%.4f", to);
	write_number(sharing_median(c, side, sharing_first_pass_cpu), "%.3f s", to);
	fputs("</tr>\n", to);
}

static void write_case(const struct sharing_case_result *c, FILE *to)
{
	char memory[32], saved[32];

	fprintf(to, "<div class=\"scroll\"><table><caption>%s: ", c->of->name);
	report_html_text(c->of->what, to);
	fprintf(to,
		". %u VMs, %s in all, %s to save.</caption>\n"
		"<tr><th></th><th>CPU per GiB freed</th><th>of KSM</th><th>of limit</th><th>to 99 "
		"%%</th>"
		"<th>saved in one pass</th><th>in the end</th><th>CPU of the first "
		"pass</th></tr>\n",
		c->of->vms,
		cli_format_bytes(c->oracle.total_pages * SHARING_PAGE_BYTES, memory,
				 sizeof(memory)),
		cli_format_bytes(c->oracle.saved_pages * SHARING_PAGE_BYTES, saved, sizeof(saved)));
	for (unsigned side = 0; side < SHARING_SIDES; side++)
		if (c->runs[side][0].is_there)
			write_side(c, (enum sharing_side)side, to);
	fputs("</table></div>\n", to);
}

static void write_figures(const struct sharing_results *r, FILE *to)
{
	fputs("<h2>Figures and goals</h2>\n<div class=\"scroll\"><table>"
	      "<tr><th>of</th><th>figure</th><th>value</th><th>goal</th></tr>\n",
	      to);
	for (size_t i = 0; i < r->figure_count; i++) {
		const struct sharing_figure *f = &r->figures[i];

		fprintf(to, "<tr><td>%s</td><td>%s</td>", f->group, f->name);
		if (isnan(f->value))
			fputs("<td>-</td>", to);
		else
			fprintf(to, "<td%s>%.4g %s</td>",
				sharing_is_missed(f) ? " class=\"failed\"" : "", f->value, f->unit);
		if (f->promise == SHARING_SHOWN)
			fputs("<td></td></tr>\n", to);
		else
			fprintf(to, "<td>%s %.4g%s</td></tr>\n",
				f->promise == SHARING_AT_MOST ? "≤" : "≥", f->goal,
				sharing_is_missed(f) ? ", missed" : "");
	}
	fputs("</table></div>\n", to);
}

static void write_figure(const struct sharing_results *r, const char *plots, FILE *html)
{
	struct report_files files;
	char *svg;

	report_files_open(&files, plots, "sharing");
	if (!sharing_plot_write(r, "sharing", files.data.file, files.script.file)) {
		report_files_abort(&files);
		return;
	}
	svg = report_files_plot(&files);
	if (!svg)
		cli_fail(EXIT_CANNOT, "%s/sharing.svg: gnuplot made nothing", plots);
	fputs("<h2>Memory saved over time and over CPU time</h2>\n<figure>", html);
	report_html_svg(svg, html);
	fputs("</figure>\n", html);
	free(svg);
}

static void write_absence(const char *of, const char *why, FILE *to)
{
	if (!*why)
		return;
	fprintf(to, "<p>Without %s: ", of);
	report_html_text(why, to);
	fputs(".</p>\n", to);
}

static void write_page(const void *results, const char *plots, FILE *html)
{
	const struct sharing_results *r = results;

	report_html_begin("Gnomon: equal pages shared", html);
	fputs("<h1>Equal pages shared</h1>\n<p><b>Measured on this host, guests running; times are "
	      "CPU time of "
	      "the thread that shares, on kvm of all threads but the guest's.</b></p>\n",
	      html);
	write_absence("KSM", r->no_ksm, html);
	write_absence("guests on KVM", r->no_kvm, html);
	write_figure(r, plots, html);
	for (size_t i = 0; i < r->setup.case_count; i++)
		write_case(&r->cases[i], html);
	fputs("<p class=\"dim\">CPU per GiB freed: until 99 % of what can be saved was, for each "
	      "GiB freed by then. "
	      "Limit: hash all, verify duplicates, free; no guest, no protection.</p>\n",
	      html);
	write_figures(r, html);
	report_html_end(html);
}

static int write_json(const void *results, const char *path)
{
	return sharing_write_json(results, path);
}

void sharing_report(const struct sharing_results *r, const char *directory)
{
	static const struct report_folder folder = { "sharing.json", write_json, write_page };

	report_folder_write(&folder, r, directory);
}
