/* SPDX-License-Identifier: MIT */
/*
 * report_html.c - the page.
 *
 * One file, no scripts, nothing fetched. It follows the reader's light or dark setting: SVG text drawn in
 * black becomes the page's text colour. Every text that came from the result file is escaped.
 */
#include "report.h"

#include <inttypes.h>
#include <string.h>

#include "cli.h"

static const char style[] =
	":root{color-scheme:light "
	"dark;--ink:#1c1c1c;--dim:#666;--line:#ddd;--ground:#fff;--best:#e3f3e6}\n"
	"@media(prefers-color-scheme:dark){:root{--ink:#e4e4e4;--dim:#a0a0a0;--line:#3a3a3a;"
	"--ground:#16181b;--best:#1d3a26}}\n"
	"body{font:16px/1.5 "
	"system-ui,sans-serif;color:var(--ink);background:var(--ground);max-width:62rem;"
	"margin:2rem auto;padding:0 1rem}\n"
	"h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2.4rem}\n"
	".dim,caption{color:var(--dim)}caption{text-align:left;padding-bottom:.4rem}\n"
	".scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
	"\n"
	"th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid "
	"var(--line);white-space:nowrap}\n"
	"th:first-child,td:first-child,dl,.left{text-align:left}td.best{background:var(--best);"
	"font-weight:600}td.failed{color:#d04040}\n"
	"tr.group th{padding-top:.9rem;color:var(--dim);font-weight:500}tr.mean "
	"td{font-weight:600}\n"
	"figure{margin:1rem 0}figure svg{width:100%;height:auto}figcaption{margin-bottom:.4rem}\n"
	"dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem "
	"1rem}dt{color:var(--dim)}dd{margin:0}\n"
	"summary{cursor:pointer;margin-top:1rem}\n";

void report_html_text(const char *text, FILE *to)
{
	for (; *text; text++)
		switch (*text) {
		case '<':
			fputs("&lt;", to);
			break;
		case '>':
			fputs("&gt;", to);
			break;
		case '&':
			fputs("&amp;", to);
			break;
		case '"':
			fputs("&quot;", to);
			break;
		default:
			fputc(*text, to);
		}
}

void report_html_label(const char *workload, FILE *to)
{
	char label[RESULTS_TEXT];

	report_html_text(summary_label(workload, label, sizeof(label)), to);
}

/* An SVG for inlining: from <svg on, black turned into the page's ink. */
void report_html_svg(const char *svg, FILE *to)
{
	static const char *const blacks[] = { "rgb(  0,   0,   0)", "rgb(0,0,0)", "#000000",
					      "\"black\"", "'black'" };
	const char *at = strstr(svg, "<svg");

	while (at && *at) {
		bool replaced = false;

		for (size_t i = 0; i < sizeof(blacks) / sizeof(blacks[0]) && !replaced; i++) {
			size_t length = strlen(blacks[i]);

			if (strncmp(at, blacks[i], length) != 0)
				continue;
			fputs(i >= 3 ? "\"currentColor\"" : "currentColor", to);
			at += length;
			replaced = true;
		}
		if (!replaced)
			fputc(*at++, to);
	}
}

static void write_overhead_cell(const struct summary *s, size_t w, size_t c, FILE *to)
{
	const struct results_run *run = summary_run(s, w, c);
	char text[32];

	if (!run) {
		fputs("<td>-</td>", to);
		return;
	}
	if (run->failure[0]) {
		fputs("<td class=\"failed\" title=\"", to);
		report_html_text(run->failure, to);
		fputs("\">failed</td>", to);
		return;
	}
	fprintf(to, "<td%s title=\"%" PRIu64 " cycles\">",
		summary_is_best(s, w, c) ? " class=\"best\"" : "", run->counters.cycles);
	if (s->has_baseline)
		fputs(summary_format_overhead(summary_ratio(s, w, c), text, sizeof(text)), to);
	else
		fprintf(to, "%.4g", (double)run->counters.cycles / 1e6);
	fputs("</td>", to);
}

static void write_mean_row(const struct summary *s, const char *title, const char *group, FILE *to)
{
	char text[32];

	fprintf(to, "<tr class=\"mean\"><td>%s</td>", title);
	for (size_t c = 0; c < s->scheme_count; c++)
		fprintf(to, "<td%s>%s</td>",
			summary_is_best_mean(s, c, group) ? " class=\"best\"" : "",
			summary_format_overhead(summary_geomean(s, c, group), text, sizeof(text)));
	fputs("</tr>\n", to);
}

static void write_overheads(const struct summary *s, FILE *to)
{
	const char *group = "";

	fprintf(to,
		"<div class=\"scroll\"><table><caption>%s; the cheapest virtualized scheme of a "
		"row "
		"is marked.</caption>\n<tr><th>workload</th>",
		s->has_baseline ? "Overhead over native in % (×N: N times native), modelled cycles"
				: "Million modelled cycles (no native run to compare with)");
	for (size_t c = 0; c < s->scheme_count; c++) {
		fputs("<th>", to);
		report_html_text(s->schemes[c], to);
		fputs("</th>", to);
	}
	fputs("</tr>\n", to);
	for (size_t w = 0; w < s->workload_count; w++) {
		if (strcmp(group, summary_group(s, w)) != 0) {
			group = summary_group(s, w);
			fprintf(to, "<tr class=\"group\"><th colspan=\"%zu\">%s</th></tr>\n",
				s->scheme_count + 1, summary_group_title(group));
		}
		fputs("<tr><td>", to);
		report_html_label(s->workloads[w], to);
		fputs("</td>", to);
		for (size_t c = 0; c < s->scheme_count; c++)
			write_overhead_cell(s, w, c, to);
		fputs("</tr>\n", to);
		if ((w + 1 == s->workload_count || strcmp(group, summary_group(s, w + 1)) != 0) &&
		    s->has_baseline && summary_group_size(s, group) > 1)
			write_mean_row(s, "geometric mean", group, to);
	}
	if (s->has_baseline && s->workload_count > 1)
		write_mean_row(s, "all, geometric mean", NULL, to);
	fputs("</table></div>\n", to);
}

static void write_why_row(const struct results_run *run, FILE *to)
{
	const struct gn_counters *c = &run->counters;
	double accesses = (double)c->accesses;

	fputs("<tr><td>", to);
	report_html_label(run->workload, to);
	fputs("</td><td class=\"left\">", to);
	report_html_text(run->scheme, to);
	fprintf(to,
		"</td><td>%" PRIu64 "</td><td>%.4f</td><td>%.3f</td><td>%.3f</td><td>%" PRIu64
		"</td><td>%" PRIu64 "</td><td>%.0f</td><td>%.1f</td></tr>\n",
		c->accesses, (double)c->walks / accesses, (double)c->walk_refs / accesses,
		1000 * (double)c->exits / accesses, c->guest_faults, c->pt_writes_trapped,
		(double)run->table_bytes_peak / 1024,
		run->median_s > 0 ? accesses / run->median_s / 1e6 : 0);
}

static void write_why(const struct summary *s, FILE *to)
{
	fputs("<details><summary>Why: what each run counted</summary><div class=\"scroll\"><table>"
	      "<caption>Counted, except the last column: accesses the simulator made per second of "
	      "wall "
	      "time (measured on the host below).</caption>\n<tr><th>workload</th><th "
	      "class=\"left\">"
	      "scheme</th><th>accesses</th><th>walks / access</th><th>references / "
	      "access</th><th>exits / "
	      "1000</th><th>guest faults</th><th>table writes trapped</th><th>tables, "
	      "KiB</th><th>M/s"
	      "</th></tr>\n",
	      to);
	for (size_t w = 0; w < s->workload_count; w++)
		for (size_t c = 0; c < s->scheme_count; c++) {
			const struct results_run *run = summary_run(s, w, c);

			if (run && !run->failure[0] && run->counters.accesses)
				write_why_row(run, to);
		}
	fputs("</table></div></details>\n", to);
}

void report_html_term(const char *term, const char *text, FILE *to)
{
	if (!*text)
		return;
	fputs("<dt>", to);
	report_html_text(term, to);
	fputs("</dt><dd>", to);
	report_html_text(text, to);
	fputs("</dd>\n", to);
}

static void write_origin(const struct summary *s, FILE *to)
{
	const struct results *r = s->results;
	const struct results_run *run = summary_any(s);
	const struct host_field *field;
	char text[256], mem[32];

	fputs("<h2>Where the numbers come from</h2>\n<p><b>Counted</b>: references, walks, exits, "
	      "faults and "
	      "bytes are exact for the modelled machine. <b>Modelled</b>: cycles follow from the "
	      "counts and "
	      "the figures of the CPU preset (<code>gnomon list cpus --verbose</code> shows each "
	      "with its "
	      "source). <b>Measured</b>: only the simulator's own speed, on this host. Nothing "
	      "here was "
	      "measured on hardware nested paging.</p>\n<dl>\n",
	      to);
	report_html_term("command", r->command, to);
	report_html_term("backend", run->backend, to);
	report_html_term("CPU preset", run->cpu, to);
	snprintf(text, sizeof(text), "%s, %u vCPU, seed %" PRIu64 "%s",
		 cli_format_bytes(run->mem_bytes, mem, sizeof(mem)), run->vcpus, run->seed,
		 r->quick ? ", quick sizes" : "");
	report_html_term("guest", text, to);
	snprintf(text, sizeof(text),
		 "guest tables of %u levels%s, PCID %s; host frames of %s; nested tables of %u "
		 "levels",
		 run->params.guest_levels, run->params.large_pages ? ", 2 MiB user pages" : "",
		 run->params.pcid ? "on" : "off",
		 run->params.backing_level == 3	  ? "1 GiB"
		 : run->params.backing_level == 2 ? "2 MiB"
						  : "4 KiB",
		 run->params.nested_levels);
	report_html_term("paging", text, to);
	for (unsigned i = 0; (field = host_field(i)); i++)
		report_html_term(field->title, (const char *)&r->host + field->offset, to);
	fputs("</dl>\n", to);
}

static void write_figures(const struct summary *s, char *const *svg, FILE *to)
{
	const struct report_plot *plot;

	for (unsigned i = 0; (plot = report_plot_at(i)); i++) {
		if (!svg[i])
			continue;
		fprintf(to, "<h2>%s</h2>\n<figure><figcaption>", plot->title);
		plot->sentence(s, to);
		fputs("</figcaption>\n", to);
		report_html_svg(svg[i], to);
		fputs("</figure>\n", to);
	}
}

static void write_modelled(const struct report_section *section, FILE *to)
{
	const struct summary *s = &section->summary;

	fprintf(to,
		"<h1>%zu translation schemes on %zu workloads</h1>\n<p class=\"dim\">Cycles are "
		"modelled "
		"(preset ",
		s->scheme_count, s->workload_count);
	report_html_text(summary_any(s)->cpu, to);
	fputs("); references, exits and bytes are counted. Numbers: <a "
	      "href=\"results.json\">results.json</a>, "
	      "<a href=\"results.csv\">results.csv</a>; plot data and scripts in <a "
	      "href=\"plots/\">plots/</a>."
	      "</p>\n",
	      to);
	write_overheads(s, to);
	write_why(s, to);
	write_figures(s, section->svg, to);
	write_origin(s, to);
}

static void write_measured(const struct report_section *section, FILE *to)
{
	const struct summary *s = &section->summary;
	char label[512];

	fprintf(to,
		"<h1>%zu translation schemes on %zu workloads, real guests</h1>\n<p "
		"class=\"dim\">",
		s->scheme_count, s->workload_count);
	report_html_text(results_label(summary_any(s), label, sizeof(label)), to);
	fputs(". Numbers: <a href=\"results.json\">results.json</a>, <a "
	      "href=\"results.csv\">results.csv</a>; plot data and scripts in <a "
	      "href=\"plots/\">plots/</a>.</p>\n",
	      to);
	report_measured_tables(s, to);
	write_figures(s, section->svg, to);
	report_measured_origin(s, to);
}

void report_html_begin(const char *title, FILE *to)
{
	fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
	      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>",
	      to);
	report_html_text(title, to);
	fprintf(to, "</title>\n<style>\n%s</style></head><body>\n", style);
}

void report_html_end(FILE *to)
{
	fputs("</body></html>\n", to);
}

void report_html_write(const struct report_section *sections, size_t count, FILE *to)
{
	const struct summary *s = &sections[0].summary;
	char title[96];

	snprintf(title, sizeof(title), "Gnomon: %zu schemes on %zu workloads", s->scheme_count,
		 s->workload_count);
	report_html_begin(title, to);
	if (count > 1)
		fprintf(to,
			"<p><b>%zu backends, a section each.</b> Modelled cycles and measured "
			"times "
			"are different things and are not held against each other.</p>\n",
			count);
	for (size_t i = 0; i < count; i++)
		if (sections[i].summary.is_measured)
			write_measured(&sections[i], to);
		else
			write_modelled(&sections[i], to);
	report_html_end(to);
}
