/* SPDX-License-Identifier: MIT */
/*
 * run.c - `gnomon run`: one workload, one scheme, everything that was counted.
 */
#include "commands.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "emit.h"
#include "machine_kvm.h"
#include "measured.h"
#include "names.h"
#include "progress.h"
#include "run_one.h"
#include "summary.h"
#include "table.h"

enum { NAME_BYTES = 64 };

struct run_options {
	struct machine machine;
	const char *scheme, *workload, *argument, *json;
	uint64_t repeat, size;
	bool audit, quick, full;
	struct balloon_vm_config control; /* .socket NULL: no daemon */
	uint64_t shares, rest_s;
	const char *only_control; /* an option that was given and means nothing without --control */
};

enum {
	OPT_SCHEME = 0x200,
	OPT_WORKLOAD,
	OPT_REPEAT,
	OPT_SIZE,
	OPT_ARGUMENT,
	OPT_AUDIT,
	OPT_QUICK,
	OPT_FULL,
	OPT_JSON,
	OPT_CONTROL,
	OPT_NAME,
	OPT_MIN,
	OPT_MAX,
	OPT_SHARES,
	OPT_REST,
};

static const struct argp_option options[] = {
	{ "scheme", OPT_SCHEME, "NAME", 0, "the scheme, when it is not the first argument", 1 },
	{ "workload", OPT_WORKLOAD, "NAME", 0, "the workload, when it is not the second argument",
	  1 },
	{ "quick", OPT_QUICK, NULL, 0, "the workload's small size", 1 },
	{ "full", OPT_FULL, NULL, 0, "its full size, also where that takes long (kvm)", 1 },
	{ "size", OPT_SIZE, "SIZE", 0,
	  "the workload's size: bytes, or a count (`gnomon list workloads`)", 1 },
	{ "argument", OPT_ARGUMENT, "TEXT", 0,
	  "soft: what the workload takes beside a size (phases: ANON/FILE/OPERATIONS,...xROUNDS)",
	  1 },
	{ "repeat", OPT_REPEAT, "N", 0, "repeat N times; what the guest did must agree (1)", 1 },
	{ "audit", OPT_AUDIT, NULL, 0, "prove every table right at the end", 1 },
	{ "json", OPT_JSON, "FILE", 0, "write a result file of this one run (- is stdout)", 2 },
	{ "control", OPT_CONTROL, "SOCKET", 0,
	  "soft: share memory under the gnomon-balloond that serves this socket", 3 },
	{ "name", OPT_NAME, "NAME", 0, "the VM's name there (its process id)", 3 },
	{ "min", OPT_MIN, "SIZE", 0, "memory reserved for it (a quarter)", 3 },
	{ "max", OPT_MAX, "SIZE", 0, "the most it is given (all)", 3 },
	{ "shares", OPT_SHARES, "N", 0, "its weight against other VMs (1000)", 3 },
	{ "rest", OPT_REST, "SECONDS", 0, "idle after each phase of the workload phases (0)", 3 },
	{ 0 }
};

static const char doc[] = "Run one workload under one scheme and print every counter.\v"
			  "Examples:\n"
			  "  gnomon run ept random\n"
			  "  gnomon run shadow fork-exec --size 200 --audit\n"
			  "  gnomon run ept trace:sqlite.gntrace --cpu sapphire-rapids --json -\n"
			  "  gnomon run ept phases --control /run/gnomon/balloond.sock --min 256M\n"
			  "  gnomon run --backend kvm shadow fork-exec --audit";

static uint64_t parse_pages(const char *option, const char *arg)
{
	uint64_t bytes;

	if (cli_parse_size(arg, &bytes) || !bytes || bytes % GN_PAGE_SIZE)
		cli_fail(EXIT_USAGE, "--%s %s: must be a multiple of 4 KiB, like 256M", option,
			 arg);
	return bytes;
}

static void parse_control(struct run_options *o, int key, const char *arg)
{
	struct balloon_vm_config *c = &o->control;

	switch (key) {
	case OPT_CONTROL:
		c->socket = arg;
		return;
	case OPT_NAME:
		o->only_control = "name";
		c->name = arg;
		if (!*arg || strlen(arg) >= NAME_BYTES)
			cli_fail(EXIT_USAGE, "--name \"%s\": must have 1 to %d characters", arg,
				 NAME_BYTES - 1);
		return;
	case OPT_MIN:
		o->only_control = "min";
		c->min_bytes = parse_pages("min", arg);
		return;
	case OPT_MAX:
		o->only_control = "max";
		c->max_bytes = parse_pages("max", arg);
		return;
	case OPT_SHARES:
		o->only_control = "shares";
		if (cli_parse_count(arg, 1, 1000000, &o->shares))
			cli_fail(EXIT_USAGE, "--shares %s: must be 1 to 1000000", arg);
		return;
	case OPT_REST:
		o->only_control = "rest";
		if (cli_parse_count(arg, 0, 86400, &o->rest_s))
			cli_fail(EXIT_USAGE, "--rest %s: must be 0 to 86400", arg);
		return;
	}
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct run_options *o = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &o->machine;
		return 0;
	case OPT_SCHEME:
		o->scheme = arg;
		return 0;
	case OPT_WORKLOAD:
		o->workload = arg;
		return 0;
	case OPT_REPEAT:
		if (cli_parse_count(arg, 1, 1000, &o->repeat))
			cli_fail(EXIT_USAGE, "--repeat %s: must be 1 to 1000", arg);
		return 0;
	case OPT_SIZE:
		if (cli_parse_size(arg, &o->size) || !o->size)
			cli_fail(EXIT_USAGE, "--size %s: must be a size like 64M, or a count", arg);
		return 0;
	case OPT_ARGUMENT:
		o->argument = arg;
		return 0;
	case OPT_AUDIT:
		o->audit = true;
		return 0;
	case OPT_QUICK:
		o->quick = true;
		return 0;
	case OPT_FULL:
		o->full = true;
		return 0;
	case OPT_JSON:
		o->json = arg;
		return 0;
	case OPT_CONTROL:
	case OPT_NAME:
	case OPT_MIN:
	case OPT_MAX:
	case OPT_SHARES:
	case OPT_REST:
		parse_control(o, key, arg);
		return 0;
	case ARGP_KEY_ARG:
		if (!o->scheme)
			o->scheme = arg;
		else if (!o->workload)
			o->workload = arg;
		else
			cli_fail(EXIT_USAGE, "run: \"%s\" is one argument too many", arg);
		return 0;
	case ARGP_KEY_END:
		if (!o->scheme || !o->workload)
			cli_fail(EXIT_USAGE,
				 "run needs a scheme and a workload, like `gnomon run ept random`");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static void row(struct table *t, const char *name, uint64_t value, const char *what)
{
	table_cell(t, TABLE_PLAIN, "%s", name);
	table_cell(t, TABLE_PLAIN, "%" PRIu64, value);
	table_cell(t, TABLE_DIM, "%s", what);
}

static void print_counters(struct table *t, const struct results_run *run)
{
	const struct gn_counter_desc *desc;
	char text[32];

	for (unsigned i = 0; (desc = gn_counter_desc(i)); i++) {
		uint64_t value;

		if (!(run->known >> i & 1))
			continue;
		memcpy(&value, (const char *)&run->counters + desc->offset, sizeof(value));
		row(t, desc->name, value, desc->what);
	}
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++)
		if (run->counters.exits_by[i]) {
			table_cell(t, TABLE_PLAIN, "exits_by.%s",
				   gn_exit_reason_name((enum gn_exit_reason)i));
			table_cell(t, TABLE_PLAIN, "%" PRIu64, run->counters.exits_by[i]);
			table_cell(t, TABLE_DIM, "%s%s",
				   run->kvm.has_exit_time
					   ? summary_format_seconds(run->kvm.exit_s[i], text,
								    sizeof(text))
					   : "",
				   run->kvm.has_exit_time ? " in the VMM" : "");
		}
}

static void print_tables(struct table *t, const struct results_run *run)
{
	row(t, "table_bytes", run->table_bytes, "tables of the scheme now: frames and metadata");
	row(t, "table_bytes_peak", run->table_bytes_peak, "at their highest");
}

/* Of a real guest. */
static void print_measured(const struct results_run *run, FILE *to, bool colour)
{
	char text[512], whole[32], share[32] = "an unknown part";
	struct table t;

	fprintf(to, "%s under %s. %s.\n", run->workload, run->scheme,
		results_label(run, text, sizeof(text)));
	fprintf(to, "Guest: %s.\n\n", measured_guest_text(run, text, sizeof(text)));
	table_init(&t, 3, 1 | 1 << 2);
	print_counters(&t, run);
	print_tables(&t, run);
	for (unsigned i = 0; i < GN_GUEST_OPS; i++) {
		table_cell(&t, TABLE_PLAIN, "guest_ops.%s", results_op_name(i));
		table_cell(&t, TABLE_PLAIN, "%" PRIu64, run->kvm.ops.count[i]);
		table_cell(&t, TABLE_DIM, "%s", i ? "" : "what the guest did, from its entry on");
	}
	table_print(&t, to, colour);
	table_fini(&t);
	if (measured_exit_share(run) >= 0)
		snprintf(share, sizeof(share), "%.1f %%", 100 * measured_exit_share(run));
	fprintf(to,
		"\nmemory_sum %016" PRIx64 ", ops_hash %016" PRIx64
		"\n%s measured (%s of it in the "
		"VMM), the whole run %s\n",
		run->memory_sum, run->kvm.ops.hash,
		summary_format_seconds(run->median_s, text, sizeof(text)), share,
		summary_format_seconds(results_whole_median(run), whole, sizeof(whole)));
}

static void print_run(const struct results_run *run, const struct gn_soft_stats *stats, FILE *to,
		      bool colour)
{
	struct table t;

	fprintf(to, "%s under %s: cycles modelled (preset %s), the rest counted.\n\n",
		run->workload, run->scheme, run->cpu);
	table_init(&t, 3, 1 | 1 << 2);
	print_counters(&t, run);
	print_tables(&t, run);
	row(&t, "l2_tlb_hits", stats->l2_tlb_hits, "");
	row(&t, "l2_tlb_misses", stats->l2_tlb_misses, "");
	row(&t, "pwc_hits", stats->pwc_hits, "page-walk caches");
	row(&t, "nested_tlb_hits", stats->nested_tlb_hits, "");
	row(&t, "nested_tlb_misses", stats->nested_tlb_misses, "");
	for (unsigned i = 0; i < 4; i++) {
		static const char *const served[] = { "walk_refs.l1", "walk_refs.l2",
						      "walk_refs.l3", "walk_refs.memory" };

		row(&t, served[i], stats->cache_refs[i], "references served there");
	}
	for (unsigned i = 0; i < RESULTS_CAUSES; i++) {
		table_cell(&t, TABLE_PLAIN, "cycles.%s", results_cause_name((enum results_cause)i));
		table_cell(&t, TABLE_PLAIN, "%.0f", run->cause_cycles[i]);
		table_cell(&t, TABLE_DIM, "%s", results_cause_title((enum results_cause)i));
	}
	table_print(&t, to, colour);
	table_fini(&t);
	fprintf(to,
		"\nmemory_sum %016" PRIx64 "; simulated in %.2f s (%.1f M accesses/s, measured)\n",
		run->memory_sum, run->median_s,
		run->median_s > 0 ? (double)run->counters.accesses / run->median_s / 1e6 : 0);
}

/* What being a VM of a daemon came to. */
static void print_memory(const struct balloon_vm_stats *m, FILE *to)
{
	char has[32], target[32];

	fprintf(to,
		"balloon: %s at the end, told to have %s; %" PRIu64 " targets, %" PRIu64
		" times memory taken back in need, %" PRIu64 " touches\n",
		cli_format_bytes(m->actual_bytes, has, sizeof(has)),
		cli_format_bytes(m->target_bytes, target, sizeof(target)), m->targets, m->reliefs,
		m->touches);
	if (m->reclaims)
		fprintf(to,
			"balloon: late %" PRIu64 " times, and the host side had nothing to take\n",
			m->reclaims);
}

static void write_json(const char *path, const struct results *r)
{
	struct emit e;
	int err = emit_open(&e, path);

	if (!err) {
		err = results_write_json(r, e.file);
		if (err)
			emit_abort(&e);
		else
			err = emit_commit(&e);
	}
	if (err)
		cli_fail(EXIT_CANNOT, "--json %s: %s", path, strerror(-err));
}

static void complete_control(struct run_options *o, char *name, size_t name_bytes)
{
	struct balloon_vm_config *c = &o->control;

	if (!c->socket && o->only_control)
		cli_fail(EXIT_USAGE, "--%s: goes with --control only", o->only_control);
	if (!c->socket)
		return;
	if (o->machine.backend != MACHINE_SOFT)
		cli_fail(EXIT_USAGE, "--control: goes with --backend soft only");
	if (o->repeat > 1)
		cli_fail(EXIT_USAGE, "--control: the daemon decides how a run goes; --repeat does "
				     "not go with it");
	c->scheme = o->scheme;
	c->mem_bytes = o->machine.mem_bytes;
	c->seed = o->machine.seed;
	c->shares = (uint32_t)o->shares;
	if (!c->min_bytes)
		c->min_bytes = c->mem_bytes / 4 / GN_PAGE_SIZE * GN_PAGE_SIZE;
	if (!c->max_bytes)
		c->max_bytes = c->mem_bytes;
	if (c->min_bytes > c->max_bytes || c->max_bytes > c->mem_bytes)
		cli_fail(EXIT_USAGE, "--min, --max: must be in order, and within the memory");
	if (!c->name) {
		snprintf(name, name_bytes, "%d", (int)getpid());
		c->name = name;
	}
}

int run_command(int argc, char **argv)
{
	static const struct argp_child children[] = {
		{ &machine_argp, 0, "Machine and guest:", 10 }, { 0 }
	};
	static const struct argp argp = { options, parse, "SCHEME WORKLOAD", doc, children,
					  NULL,	   NULL };
	struct run_options o = { .repeat = 1, .shares = 1000 };
	struct balloon_vm_stats memory = { 0 };
	char name[NAME_BYTES];
	struct gn_soft_stats stats;
	struct progress progress;
	struct run_request request;
	struct results_run *run;
	struct results r;
	int err;

	machine_init(&o.machine);
	results_init(&r);
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	names_check_scheme(o.scheme, o.machine.backend);
	names_check_workload(o.workload);
	if (o.machine.backend == MACHINE_KVM)
		machine_kvm_agree(&o.machine, &(struct cli_list){ (char **)&o.scheme, 1 });
	if (o.argument && o.machine.backend != MACHINE_SOFT)
		cli_fail(EXIT_USAGE, "--argument: goes with --backend soft only");
	complete_control(&o, name, sizeof(name));
	o.quick = machine_choose_quick(&o.machine, o.quick, o.full, o.size);
	host_probe(&r.host);
	r.quick = o.quick;
	run = results_add_run(&r);
	if (!run)
		cli_fail(EXIT_CANNOT, "out of memory");
	request = (struct run_request){ .machine = &o.machine,
					.scheme = o.scheme,
					.workload = o.workload,
					.argument = o.argument,
					.size = o.size,
					.quick = o.quick,
					.audit = o.audit,
					.repeat = (unsigned)o.repeat,
					.progress = progress_part,
					.progress_ctx = &progress,
					.stats = &stats,
					.control = o.control.socket ? &o.control : NULL,
					.memory = &memory,
					.rest_ms = (unsigned)o.rest_s * 1000 };
	progress_begin(&progress, 1);
	progress_step(&progress, o.workload);
	err = run_one(&request, run);
	progress_end(&progress);
	if (err)
		cli_warn("%s under %s: %s", o.workload, o.scheme, run->failure);
	else if (o.json && !strcmp(o.json, "-"))
		; /* stdout is the file's */
	else if (o.machine.backend == MACHINE_KVM)
		print_measured(run, stdout, cli_may_colour(STDOUT_FILENO));
	else
		print_run(run, &stats, stdout, cli_may_colour(STDOUT_FILENO));
	if (!err && o.control.socket && !(o.json && !strcmp(o.json, "-")))
		print_memory(&memory, stdout);
	if (o.json)
		write_json(o.json, &r);
	results_fini(&r);
	machine_fini(&o.machine);
	if (err == -ETIMEDOUT)
		return EXIT_CANNOT; /* the daemon did not admit it */
	return err ? EXIT_MISMATCH : EXIT_FINE;
}
