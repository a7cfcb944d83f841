/* SPDX-License-Identifier: MIT */
/*
 * list.c - `gnomon list schemes|workloads|backends|cpus`.
 */
#include "commands.h"

#include <argp.h>
#include <string.h>
#include <unistd.h>

#include <gnomon/soft.h>

#include "cli.h"
#include "machine_kvm.h"
#include "names.h"
#include "run_one.h"
#include "table.h"

struct list_options {
	const char *what;
	bool verbose;
};

static const struct argp_option options[] = {
	{ "verbose", 'v', NULL, 0, "cpus: every figure, its source, and which are estimates", 0 },
	{ 0 }
};

static const char doc[] = "List what can be chosen.\v"
			  "Examples:\n"
			  "  gnomon list schemes\n"
			  "  gnomon list cpus --verbose";

static void list_schemes(struct table *t)
{
	const struct gn_scheme_ops *ops;

	for (unsigned i = 0; (ops = gn_scheme_at(i)); i++) {
		table_cell(t, TABLE_HEAD, "%s", gn_scheme_name(ops));
		table_cell(t, TABLE_DIM, "%s",
			   names_why_not_kvm(gn_scheme_name(ops)) ? "soft" : "soft, kvm");
		table_cell(t, TABLE_PLAIN, "%s", gn_scheme_summary(ops));
	}
}

static void format_size(const struct workload *w, uint64_t size, char *out, size_t bytes)
{
	if (!strcmp(w->size_unit, "bytes"))
		cli_format_bytes(size, out, bytes);
	else
		snprintf(out, bytes, "%llu %.32s", (unsigned long long)size, w->size_unit);
}

static void list_workloads(struct table *t)
{
	const struct workload *w;
	char full[64], quick[64];

	for (unsigned i = 0; (w = workload_at(i)); i++) {
		format_size(w, w->size_default, full, sizeof(full));
		format_size(w, w->size_quick, quick, sizeof(quick));
		table_cell(t, TABLE_HEAD, "%s", w->kind == WORKLOAD_TRACE ? "trace:FILE" : w->name);
		table_cell(t, TABLE_DIM, "%s", run_group_name(w->kind));
		table_cell(t, TABLE_PLAIN, "%s", w->models);
		if (w->kind == WORKLOAD_TRACE)
			table_cell(t, TABLE_DIM, "%s", "");
		else
			table_cell(t, TABLE_DIM, "%s; quick %s", full, quick);
	}
}

static void list_backends(struct table *t)
{
	const struct gn_kvm_host *host = machine_kvm_host(false);

	table_cell(t, TABLE_HEAD, "soft");
	table_cell(
		t, TABLE_PLAIN,
		"a model CPU: counts are exact, cycles are modelled from a preset; can run here");
	table_cell(t, TABLE_HEAD, "kvm");
	if (host->usable)
		table_cell(t, TABLE_PLAIN,
			   "real guests on /dev/kvm, times are measured; can run here (%s: %s)",
			   host->module[0] ? host->module : "module not known",
			   machine_kvm_summary(host));
	else
		table_cell(t, TABLE_PLAIN,
			   "real guests on /dev/kvm, times are measured; cannot run here: %s",
			   host->why);
}

static void list_figures(struct table *t, const struct gn_cpu_preset *cpu)
{
	struct gn_preset_figure figure;

	for (unsigned i = 0; gn_cpu_preset_figure(cpu, i, &figure); i++) {
		table_cell(t, TABLE_PLAIN, "  %s", figure.key);
		table_cell(t, TABLE_PLAIN, "%g %c", figure.value, figure.estimate ? '~' : ' ');
		table_cell(t, TABLE_DIM, "%s", figure.source ? figure.source : "");
	}
}

static void list_cpus(struct table *t, bool verbose)
{
	const struct gn_cpu_preset *cpu;

	char line[256];

	for (unsigned i = 0; (cpu = gn_cpu_preset_at(i)); i++) {
		if (verbose) {
			snprintf(line, sizeof(line), "%s  %s", gn_cpu_preset_name(cpu),
				 gn_cpu_preset_summary(cpu));
			table_heading(t, line);
			list_figures(t, cpu);
			continue;
		}
		table_cell(t, TABLE_HEAD, "%s", gn_cpu_preset_name(cpu));
		table_cell(t, TABLE_PLAIN, "%s", gn_cpu_preset_summary(cpu));
	}
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct list_options *o = state->input;

	switch (key) {
	case 'v':
		o->verbose = true;
		return 0;
	case ARGP_KEY_ARG:
		if (o->what)
			cli_fail(EXIT_USAGE, "list: \"%s\" is one argument too many", arg);
		o->what = arg;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const char *const lists[] = { "schemes", "workloads", "backends", "cpus", NULL };

static const char *list_name(unsigned i)
{
	return i < 4 ? lists[i] : NULL;
}

int list_command(int argc, char **argv)
{
	static const struct argp argp = { options, parse, "schemes|workloads|backends|cpus",
					  doc,	   NULL,  NULL,
					  NULL };
	struct list_options o = { NULL, false };
	struct table t;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (!o.what)
		cli_fail(EXIT_USAGE, "list what? schemes, workloads, backends or cpus");
	if (!strcmp(o.what, "cpus") && o.verbose)
		table_init(&t, 3, 1 | 1 << 2);
	else
		table_init(&t,
			   !strcmp(o.what, "workloads") ? 4
			   : !strcmp(o.what, "schemes") ? 3
							: 2,
			   ~0ul);
	if (!strcmp(o.what, "schemes"))
		list_schemes(&t);
	else if (!strcmp(o.what, "workloads"))
		list_workloads(&t);
	else if (!strcmp(o.what, "backends"))
		list_backends(&t);
	else if (!strcmp(o.what, "cpus"))
		list_cpus(&t, o.verbose);
	else {
		const char *near = cli_nearest(o.what, list_name);

		if (near)
			cli_fail(EXIT_USAGE, "no list of \"%s\"; did you mean \"%s\"?", o.what,
				 near);
		cli_fail(EXIT_USAGE,
			 "no list of \"%s\"; there are schemes, workloads, backends, cpus", o.what);
	}
	table_print(&t, stdout, cli_may_colour(STDOUT_FILENO));
	if (!strcmp(o.what, "cpus") && o.verbose)
		puts("\n~ marks an estimate.");
	table_fini(&t);
	return EXIT_FINE;
}
