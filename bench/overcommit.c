/* SPDX-License-Identifier: MIT */
/*
 * overcommit.c - `gnomon overcommit`: what a policy of dividing memory does to VMs.
 *
 * The static oracle is run first and always: it is what the others are held against.
 */
#include "overcommit.h"

#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "commands.h"
#include "emit.h"
#include "progress.h"
#include "report.h"

enum {
	OPT_POLICIES = 0x300,
	OPT_VMS,
	OPT_MEM,
	OPT_OVERCOMMIT,
	OPT_SECONDS,
	OPT_REST,
	OPT_SEED,
	OPT_OPERATIONS,
	OPT_TAU,
	OPT_SIMULATE,
	OPT_QUICK,
	OPT_JSON,
	OPT_REPORT
};

enum { OPERATIONS_PER_PAGE = 48 };

struct overcommit_options {
	struct overcommit_setup setup;
	struct cli_list policies;
	const char *json, *report;
	bool has_kind, simulate, quick;
	double phases_s, rest_s; /* 0: by default */
};

static const struct argp_option options[] = {
	{ "policies", OPT_POLICIES, "A,B", 0, "which (all: esx,static,mom,ksmtuned)", 0 },
	{ "vms", OPT_VMS, "N", 0, "how many VMs (4)", 0 },
	{ "mem", OPT_MEM, "SIZE", 0, "memory of each (modelled 1G, real 512M)", 0 },
	{ "overcommit", OPT_OVERCOMMIT, "X", 0, "memory of all VMs over the budget (2.0)", 0 },
	{ "seconds", OPT_SECONDS, "N", 0, "modelled: time with phases (5 rounds of turns)", 0 },
	{ "rest", OPT_REST, "N", 0, "modelled: time at rest, after the phases (240)", 0 },
	{ "seed", OPT_SEED, "N", 0, "for sizes and errors of estimates (1)", 0 },
	{ "operations", OPT_OPERATIONS, "N", 0, "real VMs: of a turn (48 a page of memory)", 0 },
	{ "tau", OPT_TAU, "T", 0, "idle memory tax of esx (0.75)", 0 },
	{ "simulate", OPT_SIMULATE, NULL, 0,
	  "modelled VMs instead of real ones: seconds, not minutes", 0 },
	{ "quick", OPT_QUICK, NULL, 0, "one round of turns, a short rest", 0 },
	{ "json", OPT_JSON, "FILE", 0, "write the results (- is stdout)", 0 },
	{ "report", OPT_REPORT, "DIR", 0, "write a web page with plots", 0 },
	{ 0 }
};

static const char doc[] =
	"Run VMs whose working sets move on less memory than they have, under each policy.\v"
	"Kinds: balloon; sharing and scale, which have options of their own: gnomon overcommit "
	"sharing --help.\n\n"
	"Examples:\n"
	"  gnomon overcommit balloon --simulate\n"
	"  gnomon overcommit balloon --quick --policies esx\n"
	"  gnomon overcommit balloon --simulate --policies esx,mom --report out\n\n"
	"Exit code 1 when a reservation was broken, or the model handed out more than there is.";

static const char *policy_name(unsigned i)
{
	const struct gn_policy_ops *ops = gn_policy_at(i);

	return ops ? ops->name : NULL;
}

static double parse_real(const char *option, const char *arg, double min, double max)
{
	char *end;
	double value = strtod(arg, &end);

	if (end == arg || *end || !(value >= min) || !(value <= max))
		cli_fail(EXIT_USAGE, "%s %s: must be %g to %g", option, arg, min, max);
	return value;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct overcommit_options *o = state->input;

	switch (key) {
	case OPT_POLICIES:
		cli_parse_names("--policies", arg, policy_name,
				"there are esx, static, mom and ksmtuned", &o->policies);
		return 0;
	case OPT_VMS:
		o->setup.vms = (unsigned)cli_take_count("--vms", arg, 2, OVERCOMMIT_MAX_VMS);
		return 0;
	case OPT_MEM:
		if (cli_parse_size(arg, &o->setup.mem_bytes) || o->setup.mem_bytes < (64u << 20) ||
		    o->setup.mem_bytes > (uint64_t)1 << 40)
			cli_fail(EXIT_USAGE, "--mem %s: must be 64M to 1T", arg);
		return 0;
	case OPT_OVERCOMMIT:
		o->setup.overcommit = parse_real("--overcommit", arg, 1, 4);
		return 0;
	case OPT_SECONDS:
		o->phases_s = (double)cli_take_count("--seconds", arg, 10, 86400);
		return 0;
	case OPT_REST:
		o->rest_s = (double)cli_take_count("--rest", arg, 10, 86400);
		return 0;
	case OPT_SEED:
		o->setup.seed = cli_take_count("--seed", arg, 0, UINT32_MAX);
		return 0;
	case OPT_OPERATIONS:
		o->setup.turn_operations =
			cli_take_count("--operations", arg, 1000, (uint64_t)1 << 40);
		return 0;
	case OPT_TAU:
		o->setup.policy.tau = parse_real("--tau", arg, 0, 0.99);
		return 0;
	case OPT_SIMULATE:
		o->simulate = true;
		return 0;
	case OPT_QUICK:
		o->quick = true;
		return 0;
	case OPT_JSON:
		o->json = arg;
		return 0;
	case OPT_REPORT:
		o->report = arg;
		return 0;
	case ARGP_KEY_ARG:
		if (o->has_kind || strcmp(arg, "balloon") != 0)
			cli_fail(EXIT_USAGE,
				 "overcommit \"%s\": there are balloon, sharing and scale, named "
				 "first",
				 arg);
		o->has_kind = true;
		return 0;
	case ARGP_KEY_END:
		if (!o->has_kind)
			cli_fail(EXIT_USAGE,
				 "overcommit needs a kind, like `gnomon overcommit balloon "
				 "--simulate`");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static struct overcommit_run *next_run(struct overcommit_results *r)
{
	return &r->runs[r->run_count++];
}

static struct overcommit_run *name_oracle(struct overcommit_run *run)
{
	snprintf(run->policy, sizeof(run->policy), "%s", OVERCOMMIT_ORACLE);
	snprintf(run->summary, sizeof(run->summary), "%s",
		 "the best division that never changes, known in advance");
	return run;
}

/* How long real VMs took, for plots and headings. */
static void set_times(struct overcommit_results *r)
{
	double longest = 1;

	for (size_t n = 0; n < r->run_count; n++)
		for (unsigned i = 0; i < r->setup.vms; i++) {
			const struct overcommit_vm *vm = &r->runs[n].vms[i];

			if (vm->sample_count)
				longest = fmax(longest,
					       (double)vm->samples[vm->sample_count - 1].t_s);
		}
	r->setup.phases_s = longest;
	r->setup.rest_s = 0;
}

static void simulate(struct overcommit_results *r, const struct cli_list *policies)
{
	uint32_t shares[OVERCOMMIT_MAX_VMS];
	struct overcommit_run *run;
	struct progress progress;
	int err;

	progress_begin(&progress, policies->count + 2);
	progress_step(&progress, "the best static division");
	err = overcommit_model_oracle(&r->setup, shares);
	progress_step(&progress, OVERCOMMIT_ORACLE);
	if (!err) {
		run = next_run(r);
		err = overcommit_model_run(&r->setup, "static", shares, run);
		name_oracle(run);
	}
	for (size_t i = 0; i < policies->count && !err; i++) {
		progress_step(&progress, policies->items[i]);
		err = overcommit_model_run(&r->setup, policies->items[i], NULL, next_run(r));
	}
	progress_end(&progress);
	if (err)
		cli_fail(EXIT_CANNOT, "the model failed: %s", strerror(-err));
}

/* The run with all memory first: it is what slowdowns are over, and no row of its own. */
static void measure(struct overcommit_results *r, const struct cli_list *policies)
{
	struct overcommit_setup *setup = &r->setup, plenty = *setup;
	double baseline[OVERCOMMIT_MAX_VMS] = { 0 };
	uint32_t shares[OVERCOMMIT_MAX_VMS];
	struct overcommit_results *aside = calloc(1, sizeof(*aside));
	struct progress progress;
	int err;

	if (!aside)
		cli_fail(EXIT_CANNOT, "out of memory");
	progress_begin(&progress, policies->count + 2);
	progress_step(&progress, "with all memory");
	plenty.budget_bytes = plenty.mem_bytes * plenty.vms;
	err = overcommit_measure_run(&plenty, "static", NULL, true, baseline, next_run(aside));
	if (!err)
		err = overcommit_model_oracle(setup, shares);
	progress_step(&progress, OVERCOMMIT_ORACLE);
	if (!err)
		err = overcommit_measure_run(setup, "static", shares, false, baseline, next_run(r));
	name_oracle(&r->runs[0]);
	for (size_t i = 0; i < policies->count && !err; i++) {
		progress_step(&progress, policies->items[i]);
		err = overcommit_measure_run(setup, policies->items[i], NULL, false, baseline,
					     next_run(r));
	}
	progress_end(&progress);
	overcommit_results_fini(aside);
	free(aside);
	if (err)
		cli_fail(EXIT_CANNOT, "the VMs could not be run: %s", strerror(-err));
	set_times(r);
}

static void set_defaults(struct overcommit_options *o)
{
	struct overcommit_setup *setup = &o->setup;
	double turns_s = 20.0 * setup->vms;

	if (!setup->mem_bytes)
		setup->mem_bytes = (uint64_t)(o->simulate ? 1024 : 512) << 20;
	setup->phases_s = o->phases_s > 0 ? o->phases_s : o->quick ? turns_s : 5 * turns_s;
	setup->rest_s = o->rest_s > 0 ? o->rest_s : o->quick ? 120 : 240;
	setup->rounds = o->quick ? 1 : 3;
	/* Dozens for each page of a working set, so that a turn is longer than what it has to read at first. */
	if (!setup->turn_operations)
		setup->turn_operations = setup->mem_bytes / 4096 * OPERATIONS_PER_PAGE;
	setup->rest_operations = setup->turn_operations * (o->quick ? 3 : 12);
	overcommit_setup_demand(setup);
}

int overcommit_command(int argc, char **argv)
{
	static const struct argp argp = { options, parse, "KIND", doc, NULL, NULL, NULL };
	struct overcommit_options o = {
		.setup = { .vms = 4, .mem_bytes = (uint64_t)1 << 30, .overcommit = 2, .seed = 1 }
	};
	struct overcommit_results *r;
	bool fine = true;
	int err;

	if (argc > 1 && !strcmp(argv[1], "sharing"))
		return sharing_command(argc, argv);
	if (argc > 1 && !strcmp(argv[1], "scale"))
		return scale_command(argc, argv);
	r = calloc(1, sizeof(*r));
	if (!r || cli_parse_list("esx,static,mom,ksmtuned", &o.policies))
		cli_fail(EXIT_CANNOT, "out of memory");
	gn_policy_config_init(&o.setup.policy);
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (o.report) {
		report_check_tools();
		err = emit_make_directory(o.report);
		if (err)
			cli_fail(EXIT_USAGE, "--report %s: %s", o.report, strerror(-err));
	}
	set_defaults(&o);
	r->setup = o.setup;
	r->is_measured = !o.simulate;
	if (o.simulate)
		simulate(r, &o.policies);
	else
		measure(r, &o.policies);
	if (!o.json || strcmp(o.json, "-") != 0)
		overcommit_print(r, stdout, cli_may_colour(STDOUT_FILENO));
	if (o.json) {
		err = overcommit_write_json(r, o.json);
		if (err)
			cli_fail(EXIT_CANNOT, "--json %s: %s", o.json, strerror(-err));
	}
	if (o.report) {
		overcommit_report(r, o.report);
		fprintf(stderr, "%s/index.html\n", o.report);
	}
	for (size_t i = 0; i < r->run_count; i++)
		fine &= !r->runs[i].reservations_broken &&
			(r->is_measured || !r->runs[i].over_budget);
	overcommit_results_fini(r);
	free(r);
	cli_list_fini(&o.policies);
	return fine ? EXIT_FINE : EXIT_MISMATCH;
}
