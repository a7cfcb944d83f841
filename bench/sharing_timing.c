/* SPDX-License-Identifier: MIT */
/*
 * sharing_timing.c - probe: what a guest can learn from the time its first touches take.
 *
 * Half of the touched pages have a like in another VM, half have not. Whoever can tell them apart learns what is in
 * others' memory. Across domains nothing may be learnt, inside one next to nothing in quiet mode; without it sharing shows, as
 * KSM's does. What quiet mode costs: each page that was looked at is copied at its next touch, shared or not.
 *
 * A domain is one of this process's (sharing_rig.h), or of a gnomon-shared whose VMs share through its frames (sharing_agents.h).
 */
#include <errno.h>
#include <math.h>

#include "cli.h"
#include "sharing_agents.h"
#include "sharing_peer.h"
#include "sharing_rig.h"
#include "sharing_touch.h"

#define GROUP	    "what timing tells (0.5: a guess)"
#define GOAL_ACROSS 0.52
#define GOAL_QUIET  0.55
enum { TOUCHES = 100000, PAGES = 131072, QUICK_PAGES = 6144, EXTENT_PAGES = 16 };

struct setting {
	const char *name;
	bool is_daemons, is_apart, is_quiet, is_write;
	enum sharing_promise promise;
	double goal;
};
static const struct setting settings[] = {
	{ "across domains, stores", false, true, false, true, SHARING_AT_MOST, GOAL_ACROSS },
	{ "across domains, loads", false, true, false, false, SHARING_AT_MOST, GOAL_ACROSS },
	{ "one domain, quiet, stores", false, false, true, true, SHARING_AT_MOST, GOAL_QUIET },
	{ "one domain, quiet, loads", false, false, true, false, SHARING_AT_MOST, GOAL_QUIET },
	{ "one domain, stores", false, false, false, true, SHARING_SHOWN, 0 },
	{ "the daemon's, quiet, stores", true, false, true, true, SHARING_AT_MOST, GOAL_QUIET },
	{ "the daemon's, quiet, loads", true, false, true, false, SHARING_AT_MOST, GOAL_QUIET },
	{ "the daemon's, stores", true, false, false, true, SHARING_SHOWN, 0 },
};
enum { SETTINGS = sizeof(settings) / sizeof(settings[0]), QUIET = 2, PLAIN = 4, DAEMONS_QUIET };

struct outcome {
	double accuracy, own_ns, cpu_s_per_gib;
};

/* Of VM 0, when all is shared. */
static int touch(const struct sharing_contents *contents, struct gn_soft_cpu *cpu,
		 const struct setting *setting, struct outcome *out)
{
	struct sharing_touches touches;
	struct sharing_touch_times own;
	int err = sharing_touches_pick(contents, 0, TOUCHES, true, &touches);

	if (err)
		return err;
	err = sharing_touches_soft(&touches, cpu, setting->is_write);
	if (!err)
		err = sharing_touches_tell(&touches, &out->accuracy);
	if (!err)
		err = sharing_touches_times(&touches, false, &own);
	out->own_ns = own.median_ns;
	sharing_touches_fini(&touches);
	return err;
}

static int measure_daemons(const struct setting *setting, const struct sharing_contents *contents,
			   const struct sharing_oracle *oracle, struct outcome *out)
{
	struct sharing_agents agents;
	int err = sharing_agents_init(&agents, contents, "ept", setting->is_quiet);

	if (err)
		return err;
	err = sharing_agents_converge(&agents, oracle);
	if (!err)
		err = touch(contents, gn_soft_cpu(agents.vms[0].soft, 0), setting, out);
	sharing_agents_fini(&agents);
	return err;
}

static int converge(struct sharing_rig *rig, const struct sharing_oracle *oracle,
		    struct outcome *out)
{
	const struct sharing_case_result c = { .oracle = *oracle };
	struct sharing_run run = { 0 };
	int err = sharing_rig_converge(rig, oracle, &run);

	out->cpu_s_per_gib = sharing_cpu_per_gib(&c, &run);
	sharing_run_fini(&run);
	return err;
}

static int measure(const struct setting *setting, const struct sharing_contents *contents,
		   const struct sharing_oracle *oracle, struct outcome *out)
{
	const struct sharing_rig_config config = { .contents = contents,
						   .scheme = "ept",
						   .is_apart = setting->is_apart,
						   .quiet = setting->is_quiet,
						   /* In quiet mode each touch needs a frame. */
						   .reserve_pages = TOUCHES };
	struct sharing_rig rig;
	int err = sharing_rig_init(&rig, &config);

	if (err)
		return err;
	err = converge(&rig, oracle, out);
	if (!err)
		err = touch(contents, sharing_rig_cpu(&rig, 0), setting, out);
	sharing_rig_fini(&rig);
	return err;
}

/* One without a daemon here could not be had. */
static int measure_setting(struct sharing_results *r, const struct setting *setting,
			   const struct sharing_contents *contents,
			   const struct sharing_oracle *oracle, struct outcome *out)
{
	int err;

	*out = (struct outcome){ NAN, NAN, NAN };
	err = setting->is_daemons ? measure_daemons(setting, contents, oracle, out)
				  : measure(setting, contents, oracle, out);
	if (err == -ECHILD && setting->is_daemons) {
		cli_warn("probe timing: %s: no gnomon-shared beside this program or on the path",
			 setting->name);
		err = 0;
	}
	if (!err)
		sharing_add_figure(r, GROUP, setting->name, "", out->accuracy, setting->promise,
				   setting->goal);
	return err;
}

static int measure_ksm(struct sharing_results *r, struct sharing_ksm *ksm,
		       const struct sharing_contents *contents, const struct sharing_oracle *oracle)
{
	struct sharing_touches touches = { .items = NULL };
	struct sharing_peer peer;
	double accuracy = NAN;
	int err = sharing_peer_init_converged(&peer, ksm, contents, oracle);

	sharing_ksm_stop(ksm);
	if (err)
		return err;
	err = sharing_touches_pick(contents, 0, TOUCHES, true, &touches);
	if (!err) {
		sharing_touches_native(&touches, peer.memory[0], true);
		err = sharing_touches_tell(&touches, &accuracy);
	}
	if (!err)
		sharing_add_figure(r, GROUP, "KSM, stores", "", accuracy, SHARING_SHOWN, 0);
	sharing_touches_fini(&touches);
	sharing_peer_fini(&peer);
	return err;
}

/* Extents of either kind by the toss of a coin: as many of each, and as densely touched. */
static uint64_t number_of(const void *ctx, unsigned vm, uint64_t page)
{
	uint64_t random = page / EXTENT_PAGES;

	(void)ctx;
	return sharing_random(&random) & 1 ? sharing_common_number(page)
					   : sharing_own_number(vm, page);
}

static int run_probe(struct sharing_results *r, struct sharing_ksm *ksm)
{
	struct outcome outcomes[SETTINGS];
	struct sharing_contents contents;
	struct sharing_oracle oracle;
	int err = sharing_contents_init_by(&contents, 2, r->setup.quick ? QUICK_PAGES : PAGES,
					   r->setup.seed, number_of, NULL);

	if (err)
		return err;
	err = sharing_contents_oracle(&contents, &oracle);
	if (!err && ksm)
		err = measure_ksm(r, ksm, &contents, &oracle);
	for (size_t i = 0; i < SETTINGS && !err; i++)
		err = measure_setting(r, &settings[i], &contents, &oracle, &outcomes[i]);
	sharing_contents_fini(&contents);
	if (err)
		return err;
	sharing_add_figure(r, GROUP, "quiet: CPU per GiB over that of the plain mode", "x",
			   outcomes[QUIET].cpu_s_per_gib / outcomes[PLAIN].cpu_s_per_gib,
			   SHARING_SHOWN, 0);
	sharing_add_figure(r, GROUP, "quiet: first store to a page of one's own", "ns",
			   outcomes[QUIET].own_ns, SHARING_SHOWN, 0);
	sharing_add_figure(r, GROUP, "plain: first store to a page of one's own", "ns",
			   outcomes[PLAIN].own_ns, SHARING_SHOWN, 0);
	sharing_add_figure(r, GROUP, "the daemon's, quiet: first store to a page of one's own",
			   "ns", outcomes[DAEMONS_QUIET].own_ns, SHARING_SHOWN, 0);
	return 0;
}

const struct sharing_probe sharing_probe_timing = {
	"timing",
	"what a guest learns from the time its touches take",
	run_probe,
};
