/* SPDX-License-Identifier: MIT */
/*
 * compare.c - `gnomon compare`: the same guest under every scheme.
 *
 * Runs are sequential, each on a fresh machine; the guest's memory at the end must be the same under every
 * scheme, or the comparison has failed and the exit code says so. The table and the files are written
 * in that case too: they show where.
 */
#include "commands.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "compare_table.h"
#include "emit.h"
#include "machine_kvm.h"
#include "names.h"
#include "progress.h"
#include "report.h"
#include "run_one.h"
#include "sensitivity.h"

struct compare {
	struct machine machine;
	const char *schemes, *workloads, *json, *csv, *report;
	uint64_t repeat, size;
	bool audit, quick, full, sensitivity;
};

enum {
	OPT_SCHEMES = 0x200,
	OPT_WORKLOADS,
	OPT_REPEAT,
	OPT_AUDIT,
	OPT_JSON,
	OPT_CSV,
	OPT_REPORT,
	OPT_QUICK,
	OPT_SIZE,
	OPT_SENSITIVITY,
	OPT_FULL,
};

static const struct argp_option options[] = {
	{ "schemes", OPT_SCHEMES, "A,B", 0, "schemes to compare (all that run there)", 1 },
	{ "workloads", OPT_WORKLOADS, "X,Y", 0,
	  "workloads to run: names, memory, os, all, trace:FILE (all)", 1 },
	{ "quick", OPT_QUICK, NULL, 0, "small sizes: seconds instead of minutes", 1 },
	{ "full", OPT_FULL, NULL, 0, "full sizes, also where they take long (kvm)", 1 },
	{ "size", OPT_SIZE, "SIZE", 0, "size of the one workload given, instead of its default",
	  1 },
	{ "repeat", OPT_REPEAT, "N", 0,
	  "repeat each run N times: for the simulator's wall time, or under kvm for the guest's "
	  "(1)",
	  1 },
	{ "audit", OPT_AUDIT, NULL, 0, "prove every table right after each run", 1 },
	{ "json", OPT_JSON, "FILE", 0, "write the result file (- is stdout)", 2 },
	{ "csv", OPT_CSV, "FILE", 0, "write the runs as CSV (- is stdout)", 2 },
	{ "report", OPT_REPORT, "DIR", 0,
	  "write a web page with plots, and the JSON and CSV, into DIR; implies --sensitivity "
	  "(soft)",
	  2 },
	{ "sensitivity", OPT_SENSITIVITY, NULL, 0,
	  "soft: also vary the exit cost and the TLB reach on a few workloads", 2 },
	{ 0 }
};

static const char doc[] =
	"Run workloads under translation schemes and compare what they cost.\v"
	"Examples:\n"
	"  gnomon compare --quick\n"
	"  gnomon compare --schemes native,shadow,ept --workloads random,fork-exec --audit\n"
	"  gnomon compare --cpu zen4 --backing 2m --json zen4.json\n"
	"  gnomon compare --workloads all,trace:sqlite.gntrace --report out\n"
	"  gnomon compare --backend kvm --schemes shadow,ept --repeat 7 --report out\n\n"
	"Exit codes: 0 fine; 1 a self-check, the audit or the comparison of what the guest did "
	"failed; "
	"2 usage; 3 this machine cannot.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct compare *c = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &c->machine;
		return 0;
	case OPT_SCHEMES:
		c->schemes = arg;
		return 0;
	case OPT_WORKLOADS:
		c->workloads = arg;
		return 0;
	case OPT_REPEAT:
		if (cli_parse_count(arg, 1, 1000, &c->repeat))
			cli_fail(EXIT_USAGE, "--repeat %s: must be 1 to 1000", arg);
		return 0;
	case OPT_SIZE:
		if (cli_parse_size(arg, &c->size) || !c->size)
			cli_fail(EXIT_USAGE, "--size %s: must be a size like 64M, or a count", arg);
		return 0;
	case OPT_AUDIT:
		c->audit = true;
		return 0;
	case OPT_QUICK:
		c->quick = true;
		return 0;
	case OPT_FULL:
		c->full = true;
		return 0;
	case OPT_SENSITIVITY:
		c->sensitivity = true;
		return 0;
	case OPT_JSON:
		c->json = arg;
		return 0;
	case OPT_CSV:
		c->csv = arg;
		return 0;
	case OPT_REPORT:
		c->report = arg;
		return 0;
	case ARGP_KEY_ARG:
		cli_fail(EXIT_USAGE,
			 "compare: \"%s\" is not an option; workloads go into --workloads", arg);
	}
	return ARGP_ERR_UNKNOWN;
}

/* Better now than after minutes of work. */
static void check_writable(const char *option, const char *path)
{
	char *copy, *slash;

	if (!path || !strcmp(path, "-"))
		return;
	copy = strdup(path);
	if (!copy)
		cli_fail(EXIT_CANNOT, "out of memory");
	slash = strrchr(copy, '/');
	if (slash)
		slash[slash == copy] = '\0';
	if (access(slash ? copy : ".", W_OK | X_OK))
		cli_fail(EXIT_USAGE, "--%s %s: the directory cannot be written: %s", option, path,
			 strerror(errno));
	free(copy);
}

static void check_options(const struct compare *c, size_t workloads)
{
	if (c->size && workloads != 1)
		cli_fail(EXIT_USAGE, "--size needs exactly one workload in --workloads");
	if (c->sensitivity && c->machine.backend == MACHINE_KVM)
		cli_fail(EXIT_USAGE, "--sensitivity varies figures of a CPU model; kvm has none");
	if (c->json && c->csv && !strcmp(c->json, "-") && !strcmp(c->csv, "-"))
		cli_fail(EXIT_USAGE, "--json and --csv cannot both go to stdout");
	check_writable("json", c->json);
	check_writable("csv", c->csv);
	if (c->report) {
		int err = emit_make_directory(c->report);

		if (err)
			cli_fail(EXIT_USAGE, "--report %s: %s", c->report, strerror(-err));
		report_check_tools();
	}
}

/* Run everything. Returns whether all runs ended well. */
static bool run_all(const struct compare *c, const struct cli_list *schemes,
		    const struct cli_list *workloads, struct results *r)
{
	struct progress progress;
	bool fine = true;

	progress_begin(&progress, schemes->count * workloads->count);
	for (size_t w = 0; w < workloads->count; w++)
		for (size_t s = 0; s < schemes->count; s++) {
			struct results_run *run = results_add_run(r);
			struct run_request request = {
				.machine = &c->machine,
				.scheme = schemes->items[s],
				.workload = workloads->items[w],
				.size = c->size,
				.quick = c->quick,
				.audit = c->audit,
				.repeat = (unsigned)c->repeat,
				.progress = progress_part,
				.progress_ctx = &progress,
			};
			char what[128];

			if (!run)
				cli_fail(EXIT_CANNOT, "out of memory");
			snprintf(what, sizeof(what), "%.60s under %.30s", request.workload,
				 request.scheme);
			progress_step(&progress, what);
			if (run_one(&request, run)) {
				progress_end(&progress);
				cli_warn("%s: %s", what, run->failure);
				fine = false;
			}
		}
	progress_end(&progress);
	return fine;
}

/* The same guest code makes the same operations on its tables, whatever carries them out. */
static bool check_operations(const struct results_run *first, const struct results_run *run)
{
	if (!first->kvm.has_ops || !run->kvm.has_ops || first->kvm.ops.hash == run->kvm.ops.hash)
		return true;
	cli_warn("%s: the guest's table operations differ: %016" PRIx64 " under %s, %016" PRIx64
		 " under %s",
		 run->workload, first->kvm.ops.hash, first->scheme, run->kvm.ops.hash, run->scheme);
	for (unsigned i = 0; i < GN_GUEST_OPS; i++)
		if (first->kvm.ops.count[i] != run->kvm.ops.count[i])
			cli_warn("  %s: %" PRIu64 " and %" PRIu64, results_op_name(i),
				 first->kvm.ops.count[i], run->kvm.ops.count[i]);
	return false;
}

/* The guest cannot tell which scheme it ran under: what it did and its memory at the end are the same. */
static bool check_guests(const struct results *r)
{
	bool fine = true;

	for (size_t i = 0; i < r->run_count; i++) {
		const struct results_run *run = &r->runs[i], *first = NULL;

		for (size_t j = 0; j < i && !first; j++)
			if (!strcmp(r->runs[j].workload, run->workload) && r->runs[j].has_sum)
				first = &r->runs[j];
		if (!first || !run->has_sum)
			continue;
		fine &= check_operations(first, run);
		if (first->memory_sum == run->memory_sum)
			continue;
		cli_warn("%s: guest memory differs: %016" PRIx64 " under %s, %016" PRIx64
			 " under %s",
			 run->workload, first->memory_sum, first->scheme, run->memory_sum,
			 run->scheme);
		fine = false;
	}
	return fine;
}

static void write_file(const char *option, const char *path,
		       int (*write)(const struct results *r, FILE *to), const struct results *r)
{
	struct emit e;
	int err = emit_open(&e, path);

	if (!err) {
		err = write(r, e.file);
		if (err)
			emit_abort(&e);
		else
			err = emit_commit(&e);
	}
	if (err)
		cli_fail(EXIT_CANNOT, "--%s %s: %s", option, path, strerror(-err));
}

static void print_table(const struct results *r)
{
	struct summary summary;

	if (summary_init(&summary, r, r->runs[0].backend))
		cli_fail(EXIT_CANNOT, "out of memory");
	compare_table_print(&summary, stdout, cli_may_colour(STDOUT_FILENO));
	summary_fini(&summary);
}

static void keep_command(int argc, char **argv, char *out, size_t bytes)
{
	size_t used = 0;

	out[0] = '\0';
	for (int i = 0; i < argc && used < bytes; i++) {
		int length = snprintf(out + used, bytes - used, "%s%s", i ? " " : "", argv[i]);

		used += length > 0 ? (size_t)length : 0;
	}
	for (char *at = out; *at; at++)
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			*at = '?';
}

int compare_command(int argc, char **argv)
{
	static const struct argp_child children[] = {
		{ &machine_argp, 0, "Machine and guest:", 10 }, { 0 }
	};
	static const struct argp argp = { options, parse, NULL, doc, children, NULL, NULL };
	struct compare c = { .repeat = 1 };
	struct cli_list schemes, workloads;
	struct results r;
	bool fine;

	machine_init(&c.machine);
	results_init(&r);
	keep_command(argc, argv, r.command, sizeof(r.command));
	argp_parse(&argp, argc, argv, 0, NULL, &c);
	names_schemes(c.schemes, c.machine.backend, &schemes);
	names_workloads(c.workloads, &workloads);
	check_options(&c, workloads.count);

	if (c.machine.backend == MACHINE_KVM)
		machine_kvm_agree(&c.machine, &schemes);
	c.quick = machine_choose_quick(&c.machine, c.quick, c.full, c.size);
	host_probe(&r.host);
	r.quick = c.quick;
	fine = run_all(&c, &schemes, &workloads, &r);
	fine &= check_guests(&r);
	if (c.sensitivity || (c.report && c.machine.backend == MACHINE_SOFT))
		fine &= sensitivity_run(&r, &c.machine, &schemes, &workloads);
	if (!(c.json && !strcmp(c.json, "-")) && !(c.csv && !strcmp(c.csv, "-")))
		print_table(&r);
	if (c.json)
		write_file("json", c.json, results_write_json, &r);
	if (c.csv)
		write_file("csv", c.csv, results_write_csv, &r);
	if (c.report) {
		report_write(&r, c.report);
		fflush(stdout); /* where both are one file */
		fprintf(stderr, "report: %s/index.html\n", c.report);
	}
	results_fini(&r);
	cli_list_fini(&schemes);
	cli_list_fini(&workloads);
	machine_fini(&c.machine);
	return fine ? EXIT_FINE : EXIT_MISMATCH;
}
