/* SPDX-License-Identifier: MIT */
/*
 * sharing_tax.c - probe: what a guest loses while its memory is scanned, ours and KSM's.
 *
 * One guest runs without a pause; scanning is on and off in turns of some ten milliseconds, until everything has been
 * scanned. Turns, so that a slow moment of the machine is in both.
 */
#include <stdio.h>
#include <time.h>

#include "sharing_peer.h"
#include "sharing_rig.h"

#define GROUP	  "guest tax while scanning"
#define BYTES	  ((uint64_t)2 << 30)
#define QUICK	  ((uint64_t)64 << 20)
#define TURN_NS	  20000000
#define GOAL_LOSS 1.0  /* per cent */
#define GOAL_P99  1.05 /* over that without scanning */
enum { TURNS = 400, QUICK_TURNS = 20 };

static unsigned turns_of(const struct sharing_results *r)
{
	return r->setup.quick ? QUICK_TURNS : TURNS;
}

static void rest(void)
{
	nanosleep(&(struct timespec){ 0, TURN_NS }, NULL);
}

static void add(struct sharing_results *r, enum sharing_side side, struct sharing_guest *guest)
{
	bool is_ours = side != SHARING_KSM;
	struct sharing_guest_figures off, on;
	char name[64];

	sharing_guest_figures(guest, SHARING_SCANNER_OFF, &off);
	sharing_guest_figures(guest, SHARING_SCANNER_ON, &on);
	snprintf(name, sizeof(name), "%s: throughput lost", sharing_side_name(side));
	sharing_add_figure(r, GROUP, name, "%", 100 * (1 - on.per_cpu_s / off.per_cpu_s),
			   is_ours ? SHARING_AT_MOST : SHARING_SHOWN, GOAL_LOSS);
	snprintf(name, sizeof(name), "%s: p99 latency over that without", sharing_side_name(side));
	sharing_add_figure(r, GROUP, name, "x", on.p99_ns / off.p99_ns,
			   is_ours ? SHARING_AT_MOST : SHARING_SHOWN, GOAL_P99);
	snprintf(name, sizeof(name), "%s: an operation, median", sharing_side_name(side));
	sharing_add_figure(r, GROUP, name, "ns", off.p50_ns, SHARING_SHOWN, 0);
}

/* Sweeps go on until the turns are over: what was found is merged in the first ones. */
static int take_turns(struct sharing_rig *rig, struct sharing_guest *guest, unsigned turns)
{
	bool done = true;
	int err = 0;

	for (unsigned turn = 0; turn < turns && !err; turn++) {
		sharing_guest_set_phase(guest, SHARING_SCANNER_OFF);
		rest();
		sharing_guest_set_phase(guest, SHARING_SCANNER_ON);
		if (done)
			err = gn_domain_sweep(rig->domains[0]);
		if (!err)
			err = gn_domain_scan(rig->domains[0], TURN_NS, &done);
		if (done)
			rest();
	}
	sharing_guest_set_phase(guest, SHARING_NOT_COUNTED);
	return err;
}

static int tax_own(struct sharing_results *r, const struct sharing_contents *contents,
		   enum sharing_side side)
{
	const struct sharing_rig_config config = { .contents = contents,
						   .scheme = sharing_side_scheme(side) };
	struct sharing_guest *guest = NULL;
	struct sharing_rig rig;
	int err = sharing_rig_init(&rig, &config), failed;

	if (err)
		return err;
	err = sharing_guest_start(&(struct sharing_guest_config){ .contents = contents,
								  .cpu = sharing_rig_cpu(&rig, 0) },
				  &guest);
	if (!err)
		err = take_turns(&rig, guest, turns_of(r));
	failed = sharing_guest_stop(guest);
	if (!err && !failed)
		add(r, side, guest);
	sharing_guest_free(guest);
	sharing_rig_fini(&rig);
	return err ? err : failed;
}

static int tax_ksm(struct sharing_results *r, struct sharing_ksm *ksm,
		   const struct sharing_contents *contents)
{
	struct sharing_guest *guest = NULL;
	struct sharing_peer peer;
	int err = sharing_peer_init(&peer, ksm, contents), failed;

	if (err)
		return err;
	err = sharing_guest_start(
		&(struct sharing_guest_config){ .contents = contents, .memory = peer.memory[0] },
		&guest);
	for (unsigned turn = 0; turn < turns_of(r) && !err; turn++) {
		sharing_guest_set_phase(guest, SHARING_SCANNER_OFF);
		rest();
		err = sharing_ksm_start(ksm);
		sharing_guest_set_phase(guest, SHARING_SCANNER_ON);
		rest();
		sharing_guest_set_phase(guest, SHARING_NOT_COUNTED);
		sharing_ksm_stop(ksm);
	}
	failed = sharing_guest_stop(guest);
	if (!err && !failed)
		add(r, SHARING_KSM, guest);
	sharing_guest_free(guest);
	sharing_peer_fini(&peer);
	return err ? err : failed;
}

static int run_probe(struct sharing_results *r, struct sharing_ksm *ksm)
{
	struct sharing_contents contents;
	struct sharing_oracle oracle;
	int err = sharing_probe_contents(r, BYTES, QUICK, &contents, &oracle);

	if (err)
		return err;
	if (ksm)
		err = tax_ksm(r, ksm, &contents);
	if (!err)
		err = tax_own(r, &contents, SHARING_EPT);
	if (!err)
		err = tax_own(r, &contents, SHARING_SHADOW);
	sharing_contents_fini(&contents);
	return err;
}

const struct sharing_probe sharing_probe_tax = {
	"tax",
	"what a guest loses while it is scanned",
	run_probe,
};
