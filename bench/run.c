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
#include "run_control.h"
#include "run_one.h"
#include "save_memory.h"
#include "summary.h"
#include "table.h"

struct run_options {
	struct machine machine;
	const char *scheme, *workload, *argument, *json, *save_memory;
	uint64_t repeat, size;
	bool audit, quick, full;
	struct run_control control;
	struct run_sharing sharing;
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
	OPT_SAVE_MEMORY,
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
	{ "save-memory", OPT_SAVE_MEMORY, "FILE", 0,
	  "write the guest's memory at the end: what gnomon-shared can have as a template, for "
	  "others to begin with",
	  2 },
	{ 0 }
};

static const char doc[] =
	"Run one workload under one scheme and print every counter.\v"
	"Examples:\n"
	"  gnomon run ept random\n"
	"  gnomon run shadow fork-exec --size 200 --audit\n"
	"  gnomon run ept trace:sqlite.gntrace --cpu sapphire-rapids --json -\n"
	"  gnomon run ept phases --control /run/gnomon/balloond.sock --min 256M\n"
	"  gnomon run ept phases --sharing /run/gnomon/shared.sock --sharing-domain web\n"
	"  gnomon run ept phases --mem 256M --save-memory base.image\n"
	"  gnomon run ept phases --mem 256M --sharing /run/gnomon/shared.sock --template base\n"
	"  gnomon run --backend kvm shadow fork-exec --audit";

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct run_options *o = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &o->machine;
		state->child_inputs[1] = &o->control;
		state->child_inputs[2] = &o->sharing;
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
	case OPT_SAVE_MEMORY:
		if (!*arg || !strcmp(arg, "-"))
			cli_fail(EXIT_USAGE, "--save-memory \"%s\": must be a file", arg);
		o->save_memory = arg;
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

/* Kept if the run went well. */
static void end_image(struct emit *image, const char *path, int err)
{
	if (err) {
		emit_abort(image);
		return;
	}
	err = emit_commit(image);
	if (err)
		cli_fail(EXIT_CANNOT, "--save-memory %s: %s", path, strerror(-err));
}

int run_command(int argc, char **argv)
{
	static const struct argp_child children[] = {
		{ &machine_argp, 0, "Machine and guest:", 10 },
		{ &run_control_argp, 0, "Memory divided among VMs:", 20 },
		{ &run_sharing_argp, 0, "Pages shared with other VMs:", 30 },
		{ 0 }
	};
	static const struct argp argp = { options, parse, "SCHEME WORKLOAD", doc, children,
					  NULL,	   NULL };
	struct run_options o = { .repeat = 1 };
	struct balloon_vm_stats memory = { 0 };
	struct gn_share_agent_stats shared = { 0 };
	struct gn_soft_stats stats;
	struct progress progress;
	struct emit image;
	struct run_request request;
	struct results_run *run;
	struct results r;
	int err;

	machine_init(&o.machine);
	run_control_init(&o.control);
	results_init(&r);
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	names_check_scheme(o.scheme, o.machine.backend);
	names_check_workload(o.workload);
	if (o.machine.backend == MACHINE_KVM)
		machine_kvm_agree(&o.machine, &(struct cli_list){ (char **)&o.scheme, 1 });
	if (o.argument && strlen(o.argument) >= sizeof(((struct gn_guest_boot *)0)->argument))
		cli_fail(EXIT_USAGE, "--argument: must be shorter than %zu characters",
			 sizeof(((struct gn_guest_boot *)0)->argument));
	run_control_complete(&o.control, &o.machine, o.scheme, o.sharing.socket != NULL);
	run_sharing_complete(&o.sharing, &o.machine, o.control.vm.name);
	if ((o.control.vm.socket || o.sharing.socket) && o.repeat > 1)
		cli_fail(EXIT_USAGE, "--control, --sharing: the daemon decides how a run goes; "
				     "--repeat does not go with it");
	if (o.control.vm.socket && o.sharing.template_name)
		cli_fail(EXIT_USAGE,
			 "--control, --template: memory over a template cannot be taken by a "
			 "balloon; choose one");
	if (o.save_memory && o.repeat > 1)
		cli_fail(EXIT_USAGE, "--save-memory: saves one run's memory; --repeat does not go "
				     "with it");
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
					.control = o.control.vm.socket ? &o.control.vm : NULL,
					.memory = &memory,
					.sharing = o.sharing.socket ? &o.sharing : NULL,
					.shared = &shared,
					.image = o.save_memory ? &image : NULL,
					.rest_ms = o.control.rest_ms };
	run_sharing_get_template(&o.sharing, o.machine.mem_bytes);
	err = o.save_memory ? save_memory_open(&image, o.save_memory) : 0;
	if (err)
		cli_fail(EXIT_CANNOT, "--save-memory %s: %s", o.save_memory, strerror(-err));
	progress_begin(&progress, 1);
	progress_step(&progress, o.workload);
	err = run_one(&request, run);
	progress_end(&progress);
	if (o.save_memory)
		end_image(&image, o.save_memory, err);
	if (err)
		cli_warn("%s under %s: %s", o.workload, o.scheme, run->failure);
	else if (o.json && !strcmp(o.json, "-"))
		; /* stdout is the file's */
	else if (o.machine.backend == MACHINE_KVM)
		print_measured(run, stdout, cli_may_colour(STDOUT_FILENO));
	else
		print_run(run, &stats, stdout, cli_may_colour(STDOUT_FILENO));
	if (!err && o.control.vm.socket && !(o.json && !strcmp(o.json, "-")))
		run_control_print(&memory, stdout);
	if (!err && o.sharing.socket && !(o.json && !strcmp(o.json, "-")))
		run_sharing_print(&shared, stdout);
	if (o.json)
		write_json(o.json, &r);
	results_fini(&r);
	run_sharing_fini(&o.sharing);
	machine_fini(&o.machine);
	if (err == -ETIMEDOUT)
		return EXIT_CANNOT; /* the daemon did not admit it */
	return err ? EXIT_MISMATCH : EXIT_FINE;
}
