/* SPDX-License-Identifier: MIT */
/*
 * sharing.c - `gnomon overcommit sharing`: the options, and who runs when.
 *
 * The sides of a case take turns within a repetition, so that a slow hour of the machine hits all of them.
 */
#include "sharing.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "commands.h"
#include "emit.h"
#include "progress.h"
#include "report.h"
#include "sharing_touch.h"

enum {
	OPT_CASE = 0x400,
	OPT_PEER,
	OPT_PROBE,
	OPT_MEM,
	OPT_REPEAT,
	OPT_SEED,
	OPT_QUICK,
	OPT_JSON,
	OPT_REPORT
};

struct sharing_options {
	struct sharing_setup setup;
	struct cli_list cases, probes;
	const char *json, *report;
	bool needs_ksm, wants_no_ksm;
};

static const struct argp_option options[] = {
	{ "case", OPT_CASE, "A,B", 0, "which contents (all: mixed,clones,drifted,unique,zero)", 0 },
	{ "peer", OPT_PEER, "ksm|none", 0, "KSM on the same contents (where it can be driven)", 0 },
	{ "probe", OPT_PROBE, "A,B|none", 0,
	  "what else to measure (all: break,tax,steady,fan-out,storm,timing,huge)", 0 },
	{ "mem", OPT_MEM, "SIZE", 0, "memory of all VMs of a case together (4G)", 0 },
	{ "repeat", OPT_REPEAT, "N", 0, "runs of each side (3)", 0 },
	{ "seed", OPT_SEED, "N", 0, "of the contents (1)", 0 },
	{ "quick", OPT_QUICK, NULL, 0, "small: below a minute", 0 },
	{ "json", OPT_JSON, "FILE", 0, "write the results (- is stdout)", 0 },
	{ "report", OPT_REPORT, "DIR", 0, "write a web page with plots", 0 },
	{ 0 }
};

static const char doc[] =
	"Share equal pages of VMs, beside KSM and beside the least it can cost.\v"
	"KSM is the machine's: with root it is switched on for a while, and all its settings are "
	"put back, also "
	"when this command is killed.\n\n"
	"Examples:\n"
	"  gnomon overcommit sharing --quick\n"
	"  gnomon overcommit sharing --case mixed --repeat 20 --peer ksm\n"
	"  gnomon overcommit sharing --report out\n"
	"\n"
	"Exit code 1 when a guest read wrong contents, or more was saved than there is to save.";

static const char *case_name(unsigned i)
{
	const struct sharing_case *of = sharing_case_at(i);

	return of ? of->name : NULL;
}

static const char *probe_name(unsigned i)
{
	const struct sharing_probe *probe = sharing_probe_at(i);

	return probe ? probe->name : NULL;
}

static void parse_peer(struct sharing_options *o, const char *arg)
{
	o->needs_ksm = !strcmp(arg, "ksm");
	o->wants_no_ksm = !strcmp(arg, "none");
	if (!o->needs_ksm && !o->wants_no_ksm)
		cli_fail(EXIT_USAGE, "--peer %s: there is ksm, or none", arg);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct sharing_options *o = state->input;
	uint64_t count;

	switch (key) {
	case OPT_CASE:
		cli_parse_names("--case", arg, case_name, "see --help", &o->cases);
		return 0;
	case OPT_PEER:
		parse_peer(o, arg);
		return 0;
	case OPT_PROBE:
		if (strcmp(arg, "none") != 0)
			cli_parse_names("--probe", arg, probe_name, "see --help", &o->probes);
		else
			cli_list_fini(&o->probes);
		return 0;
	case OPT_MEM:
		if (cli_parse_size(arg, &o->setup.mem_bytes) || o->setup.mem_bytes < (64u << 20) ||
		    o->setup.mem_bytes > (uint64_t)1 << 40)
			cli_fail(EXIT_USAGE, "--mem %s: must be 64M to 1T", arg);
		return 0;
	case OPT_REPEAT:
		if (cli_parse_count(arg, 1, SHARING_MAX_REPEAT, &count))
			cli_fail(EXIT_USAGE, "--repeat %s: must be 1 to %d", arg,
				 SHARING_MAX_REPEAT);
		o->setup.repeat = (unsigned)count;
		return 0;
	case OPT_SEED:
		if (cli_parse_count(arg, 0, UINT32_MAX, &o->setup.seed))
			cli_fail(EXIT_USAGE, "--seed %s: must be 0 to 4294967295", arg);
		return 0;
	case OPT_QUICK:
		o->setup.quick = true;
		return 0;
	case OPT_JSON:
		o->json = arg;
		return 0;
	case OPT_REPORT:
		o->report = arg;
		return 0;
	case ARGP_KEY_ARG:
		if (state->arg_num || strcmp(arg, "sharing") != 0)
			cli_fail(EXIT_USAGE, "overcommit sharing \"%s\": not understood", arg);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static void set_probes(struct sharing_options *o)
{
	const struct sharing_probe *probe;

	for (unsigned i = 0; (probe = sharing_probe_at(i)); i++)
		for (size_t n = 0; n < o->probes.count; n++)
			if (!strcmp(o->probes.items[n], probe->name))
				o->setup.probes[o->setup.probe_count++] = probe;
}

static void set_defaults(struct sharing_options *o)
{
	struct sharing_setup *setup = &o->setup;

	if (!setup->mem_bytes)
		setup->mem_bytes = setup->quick ? (uint64_t)128 << 20 : (uint64_t)4 << 30;
	if (!setup->repeat)
		setup->repeat = setup->quick ? 1 : 3;
	for (size_t i = 0; i < o->cases.count; i++)
		setup->cases[setup->case_count++] = sharing_case_find(o->cases.items[i]);
	set_probes(o);
}

/* NULL: there is no peer, and the results say why. */
static struct sharing_ksm *take_peer(const struct sharing_options *o, struct sharing_results *r)
{
	struct sharing_ksm *ksm;

	if (o->wants_no_ksm) {
		snprintf(r->no_ksm, sizeof(r->no_ksm), "it was not asked for");
		return NULL;
	}
	ksm = sharing_ksm_take(r->no_ksm, sizeof(r->no_ksm));
	if (!ksm && o->needs_ksm)
		cli_fail(EXIT_CANNOT, "--peer ksm: %s", r->no_ksm);
	return ksm;
}

static int run_side(struct sharing_ksm *ksm, bool is_possible, enum sharing_side side,
		    const struct sharing_contents *contents, const struct sharing_oracle *oracle,
		    struct sharing_run *run)
{
	if (side == SHARING_KVM || side == SHARING_TEMPLATE)
		return is_possible
			       ? sharing_kvm_run(contents, oracle, side == SHARING_TEMPLATE, run)
			       : 0;
	if (sharing_side_scheme(side))
		return sharing_own_run(sharing_side_scheme(side), contents, oracle, run);
	if (side == SHARING_LIMIT)
		return sharing_limit_run(contents, run);
	if (side == SHARING_KSM && ksm)
		return sharing_ksm_run(ksm, contents, oracle, run);
	return 0;
}

/* A side on KVM, in this case. */
static bool is_possible(const struct sharing_results *r, const struct sharing_case_result *c,
			unsigned side)
{
	return side == SHARING_TEMPLATE ? c->of->is_in_place && !r->no_template[0] : !r->no_kvm[0];
}

static void run_case(struct sharing_results *r, struct sharing_ksm *ksm,
		     struct sharing_case_result *c, struct progress *progress)
{
	struct sharing_contents contents;
	char what[96];
	int err = sharing_contents_init(&contents, c->of, r->setup.mem_bytes, r->setup.seed);

	if (!err)
		err = sharing_contents_oracle(&contents, &c->oracle);
	sharing_warm_host(r->setup.mem_bytes);
	for (unsigned n = 0; n < r->setup.repeat; n++)
		for (unsigned side = 0; side < SHARING_SIDES && !err; side++) {
			snprintf(what, sizeof(what), "%s, %s", c->of->name,
				 sharing_side_name((enum sharing_side)side));
			progress_step(progress, what);
			err = run_side(ksm, is_possible(r, c, side), (enum sharing_side)side,
				       &contents, &c->oracle, &c->runs[side][n]);
			if (err == -EBADMSG) {
				cli_warn("%s: a guest read wrong contents", what);
				r->wrong_contents = true;
				err = 0;
			}
		}
	sharing_contents_fini(&contents);
	if (err)
		cli_fail(EXIT_CANNOT, "%s: %s", what, strerror(-err));
}

/* KSM counts for the whole machine; what we and the limit save is ours alone. */
static bool is_sound(const struct sharing_results *r)
{
	for (size_t i = 0; i < r->setup.case_count; i++)
		for (unsigned side = 0; side < SHARING_SIDES; side++)
			for (unsigned n = 0; n < r->setup.repeat; n++)
				if (side != SHARING_KSM && r->cases[i].runs[side][n].saved_pages >
								   r->cases[i].oracle.saved_pages)
					return false;
	return true;
}

static void run_probe(struct sharing_results *r, struct sharing_ksm *ksm,
		      const struct sharing_probe *probe)
{
	int err = probe->run(r, ksm);

	if (err == -EBADMSG) {
		cli_warn("probe %s: memory had wrong contents", probe->name);
		r->wrong_contents = true;
	} else if (err) {
		cli_fail(EXIT_CANNOT, "probe %s: %s", probe->name, strerror(-err));
	}
}

static void measure(struct sharing_results *r, struct sharing_ksm *ksm)
{
	struct progress progress;

	progress_begin(&progress, r->setup.case_count * r->setup.repeat * SHARING_SIDES +
					  r->setup.probe_count);
	for (size_t i = 0; i < r->setup.case_count; i++) {
		r->cases[i].of = r->setup.cases[i];
		run_case(r, ksm, &r->cases[i], &progress);
	}
	sharing_compare_sides(r);
	for (size_t i = 0; i < r->setup.probe_count; i++) {
		progress_step(&progress, r->setup.probes[i]->what);
		run_probe(r, ksm, r->setup.probes[i]);
	}
	progress_end(&progress);
}

static void show(const struct sharing_options *o, const struct sharing_results *r)
{
	int err;

	if (!o->json || strcmp(o->json, "-") != 0)
		sharing_print(r, stdout, cli_may_colour(STDOUT_FILENO));
	if (o->json) {
		err = sharing_write_json(r, o->json);
		if (err)
			cli_fail(EXIT_CANNOT, "--json %s: %s", o->json, strerror(-err));
	}
	if (o->report) {
		sharing_report(r, o->report);
		fprintf(stderr, "%s/index.html\n", o->report);
	}
}

int sharing_command(int argc, char **argv)
{
	static const struct argp argp = { options, parse, "sharing", doc, NULL, NULL, NULL };
	struct sharing_options o = { .setup = { .seed = 1 } };
	struct sharing_results *r = calloc(1, sizeof(*r));
	struct sharing_ksm *ksm;
	bool fine;
	int err;

	if (!r || cli_parse_list("mixed,clones,drifted,unique,zero", &o.cases) ||
	    cli_parse_list("break,tax,steady,fan-out,storm,timing,huge", &o.probes))
		cli_fail(EXIT_CANNOT, "out of memory");
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (o.report) {
		report_check_tools();
		err = emit_make_directory(o.report);
		if (err)
			cli_fail(EXIT_USAGE, "--report %s: %s", o.report, strerror(-err));
	}
	set_defaults(&o);
	r->setup = o.setup;
	ksm = take_peer(&o, r);
	sharing_kvm_is_possible(false, r->no_kvm, sizeof(r->no_kvm));
	sharing_kvm_is_possible(true, r->no_template, sizeof(r->no_template));
	measure(r, ksm);
	err = ksm ? sharing_ksm_give_back(ksm) : 0;
	show(&o, r);
	fine = is_sound(r) && !r->wrong_contents && !err;
	sharing_results_fini(r);
	free(r);
	cli_list_fini(&o.cases);
	cli_list_fini(&o.probes);
	return fine ? EXIT_FINE : EXIT_MISMATCH;
}
