/* SPDX-License-Identifier: MIT */
/*
 * sharing_table.c - the results for people: a table a case, then the figures with their goals.
 */
#include <math.h>
#include <string.h>

#include "cli.h"
#include "sharing.h"
#include "table.h"

static void number_cell(struct table *t, const char *format, double value)
{
	char text[32];

	if (isnan(value)) {
		table_cell(t, TABLE_DIM, "-");
	} else if (isinf(value)) {
		table_cell(t, TABLE_BAD, "never");
	} else {
		snprintf(text, sizeof(text), format, value);
		table_cell(t, TABLE_PLAIN, "%s", text);
	}
}

static void print_side(struct table *t, const struct sharing_case_result *c, enum sharing_side side)
{
	bool saves = c->oracle.saved_pages;
	double cpu = sharing_median(c, side, sharing_cpu_per_gib);

	table_cell(t, TABLE_HEAD, "%s", sharing_side_name(side));
	number_cell(t, "%.3f s", saves ? cpu : (double)NAN);
	number_cell(t, "%.3fx",
		    saves ? sharing_ratio(c, side, SHARING_KSM, sharing_cpu_per_gib) : (double)NAN);
	number_cell(t, "%.2fx",
		    saves ? sharing_ratio(c, side, SHARING_LIMIT, sharing_cpu_per_gib)
			  : (double)NAN);
	number_cell(t, "%.2f s", saves ? sharing_median(c, side, sharing_wall) : (double)NAN);
	number_cell(t, "%.4f", sharing_median(c, side, sharing_first_part));
	number_cell(t, "%.4f", sharing_median(c, side, sharing_last_part));
	number_cell(t, "%.3f s", sharing_median(c, side, sharing_first_pass_cpu));
	number_cell(t, "%.4f s",
		    sharing_side_scheme(side) ? sharing_median(c, side, sharing_next_pass_cpu)
					      : (double)NAN);
}

static void print_case(const struct sharing_case_result *c, FILE *to, bool colour)
{
	static const char *const heads[] = { "",	   "CPU per GiB", "of KSM",
					     "of limit",   "to 99 %",	  "one pass",
					     "in the end", "pass CPU",	  "next pass" };
	char memory[32], saved[32];
	struct table t;

	fprintf(to, "\n%s: %s. %u VMs, %s in all, %s to save.\n", c->of->name, c->of->what,
		c->of->vms,
		cli_format_bytes(c->oracle.total_pages * SHARING_PAGE_BYTES, memory,
				 sizeof(memory)),
		cli_format_bytes(c->oracle.saved_pages * SHARING_PAGE_BYTES, saved, sizeof(saved)));
	table_init(&t, sizeof(heads) / sizeof(heads[0]), 1);
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
		table_cell(&t, TABLE_HEAD, "%s", heads[i]);
	for (unsigned side = 0; side < SHARING_SIDES; side++)
		if (c->runs[side][0].is_there)
			print_side(&t, c, (enum sharing_side)side);
	table_print(&t, to, colour);
	table_fini(&t);
}

static void print_figure(struct table *t, const struct sharing_figure *f)
{
	enum table_style style = sharing_is_missed(f) ? TABLE_BAD : TABLE_PLAIN;

	table_cell(t, TABLE_PLAIN, "%s", f->name);
	if (isnan(f->value))
		table_cell(t, TABLE_DIM, "-");
	else
		table_cell(t, style, "%.4g%s%s", f->value, *f->unit && *f->unit != 'x' ? " " : "",
			   f->unit);
	if (f->promise == SHARING_SHOWN)
		table_cell(t, TABLE_DIM, "%s", "");
	else
		table_cell(t, TABLE_DIM, "%s %.4g",
			   f->promise == SHARING_AT_MOST ? "<=" : ">=", f->goal);
	table_cell(t, style, "%s", sharing_is_missed(f) ? "MISSED" : "");
}

static void print_figures(const struct sharing_results *r, FILE *to, bool colour)
{
	struct table t;

	table_init(&t, 4, 1);
	for (size_t i = 0; i < r->figure_count; i++) {
		const struct sharing_figure *f = &r->figures[i];

		if (!i || strcmp(f->group, r->figures[i - 1].group) != 0)
			table_heading(&t, f->group);
		print_figure(&t, f);
	}
	table_print(&t, to, colour);
	table_fini(&t);
}

void sharing_print(const struct sharing_results *r, FILE *to, bool colour)
{
	fputs("Measured on this host, guests running; times of the thread that shares, on kvm of "
	      "all "
	      "threads but the guest's.\n",
	      to);
	if (r->no_ksm[0])
		fprintf(to, "Without KSM: %s.\n", r->no_ksm);
	if (r->no_kvm[0])
		fprintf(to, "Without guests on KVM: %s.\n", r->no_kvm);
	if (r->no_template[0] && !r->no_kvm[0])
		fprintf(to, "Without guests over a template: %s.\n", r->no_template);
	for (size_t i = 0; i < r->setup.case_count; i++)
		print_case(&r->cases[i], to, colour);
	fputs("\nCPU per GiB: CPU seconds until 99 % of what can be saved was, for each GiB freed "
	      "by then.\n"
	      "one pass, in the end: parts of what can be saved. limit: hash all, verify "
	      "duplicates, free; "
	      "no guest, no protection.\n",
	      to);
	if (r->figure_count) {
		fputs("\n", to);
		print_figures(r, to, colour);
	}
}
