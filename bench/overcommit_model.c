/* SPDX-License-Identifier: MIT */
/*
 * overcommit_model.c - a policy over modelled guests: the daemon, the messages, and the book-keeping.
 *
 * Time goes in steps of 1 ms. The daemon runs a round each second and, 1 ms after it, on an event: a guest asks;
 * or memory arrives while somebody waits for it, at most every 5 ms. A target reaches the guest's driver 5 ms
 * after it was told (message 1 ms, the driver's poll 4 ms); until then the old one is what the guest goes by,
 * and what the policy is told as the guest's size where it is the larger.
 *
 * A guest asks at a phase change for what its new working set lacks, once, and the ask stands until it has
 * been met or the phase is over. The wait that counts is until the guest *has* 256 MiB more (or all that it
 * asked, if less), not until it was promised. Working sets are estimated with an error of 3 %, from the seed.
 * Guests are honest and prompt here; hostile and late ones are the business of tests/model/policy_invariants.c.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "overcommit_guest.h"

#define STEP_S	       1e-3
#define ROUND_STEPS    1000
#define EVENT_GAP      5 /* steps between rounds on events */
#define TELL_STEPS     5 /* from a target told to the guest's driver */
#define ESTIMATE_ERROR 0.03
#define REST_BEGINS_S  60 /* after the last phase: what it left behind has settled */
#define NS_PER_STEP    UINT64_C(1000000)
#define MIB	       1048576.0
#define PAGE_BYTES     4096.0

struct ask {
	bool stands, is_met;
	double at_s, from_bytes, bytes; /* wants `bytes` beyond `from_bytes` */
};

struct model_vm {
	struct overcommit_guest guest;
	uint64_t told;	    /* by the daemon */
	uint64_t told_step; /* when */
	uint64_t known;	    /* by the guest's driver */
	struct ask ask;
	double refaults_before, refaults_per_s;
	struct overcommit_turns turns;
};

struct model {
	const struct overcommit_setup *setup;
	struct overcommit_run *run;
	struct gn_policy *policy;
	struct gn_policy_vm vms[OVERCOMMIT_MAX_VMS];
	struct gn_policy_decision decisions[OVERCOMMIT_MAX_VMS];
	struct model_vm vm[OVERCOMMIT_MAX_VMS];
	uint64_t step, last_round;
	uint64_t random;
	bool event, somebody_waits;
};

static double now_s(const struct model *m)
{
	return (double)m->step * STEP_S;
}

/* xorshift64*: -1..1. */
static double noise(struct model *m)
{
	m->random ^= m->random >> 12;
	m->random ^= m->random << 25;
	m->random ^= m->random >> 27;
	return (double)(m->random * UINT64_C(0x2545f4914f6cdd1d) >> 11) * 0x1p-52 - 1;
}

static void report(struct model *m, unsigned index)
{
	struct model_vm *vm = &m->vm[index];
	struct gn_policy_vm *p = &m->vms[index];
	const struct overcommit_guest *guest = &vm->guest;
	double error = 1 + ESTIMATE_ERROR * noise(m);
	double active = fmax(guest->fast, guest->slow) * error;
	uint64_t has = (uint64_t)guest->actual, can_have = vm->known > vm->told ? vm->known : 0;

	p->actual_bytes = has > can_have ? has : can_have;
	p->target_bytes = vm->told;
	p->active_bytes = (uint64_t)fmin(active, guest->actual);
	p->recent_bytes = (uint64_t)fmin(guest->fast * error, guest->actual);
	p->guest_free_bytes = (uint64_t)overcommit_guest_free(guest);
	p->guest_available_bytes =
		(uint64_t)(overcommit_guest_free(guest) + guest->stale + guest->resident);
	p->refaults_per_s = vm->refaults_per_s;
	p->asks_bytes = vm->ask.stands ? (uint64_t)fmax(vm->ask.from_bytes + vm->ask.bytes -
								(double)p->actual_bytes,
							0)
				       : 0;
}

static int run_round(struct model *m)
{
	const struct gn_policy_host host = { .budget_bytes = m->setup->budget_bytes };
	struct timespec before, after;
	double us;
	int err;

	for (unsigned i = 0; i < m->setup->vms; i++)
		report(m, i);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
	err = gn_policy_round(m->policy, (m->step + 1) * NS_PER_STEP, &host, m->vms, m->setup->vms,
			      m->decisions);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
	us = (double)(after.tv_sec - before.tv_sec) * 1e6 +
	     (double)(after.tv_nsec - before.tv_nsec) / 1e3;
	m->run->round_us_worst = fmax(m->run->round_us_worst, us);
	m->run->rounds++;
	m->somebody_waits = false;
	for (unsigned i = 0; i < m->setup->vms && !err; i++) {
		struct model_vm *vm = &m->vm[i];
		uint64_t old = vm->told;

		m->somebody_waits |= m->decisions[i].reason == GN_POLICY_WAITING;
		if (m->decisions[i].target_bytes == old)
			continue;
		vm->told = m->decisions[i].target_bytes;
		vm->told_step = m->step;
		overcommit_turns_note(&vm->turns, now_s(m), old, vm->told,
				      now_s(m) > m->setup->phases_s + REST_BEGINS_S);
	}
	m->last_round = m->step;
	m->event = false;
	return err;
}

static int follow_ask(struct model *m, struct model_vm *vm, bool was_high)
{
	const struct overcommit_guest *guest = &vm->guest;
	struct ask *ask = &vm->ask;
	double lack = overcommit_guest_lack(guest), met;

	if (ask->stands && guest->is_high != was_high) {
		if (!ask->is_met)
			m->run->asks_unmet++;
		ask->stands = false;
	}
	if (!ask->stands && guest->is_high && !was_high && lack > 0) {
		*ask = (struct ask){
			.stands = true, .at_s = now_s(m), .from_bytes = guest->actual, .bytes = lack
		};
		m->run->asks++;
		m->event = true;
	}
	if (!ask->stands)
		return 0;
	met = fmin(ask->bytes, (double)OVERCOMMIT_GRANT_BYTES);
	if (!ask->is_met && guest->actual > ask->from_bytes + met - PAGE_BYTES) {
		ask->is_met = true;
		if (overcommit_add_wait(m->run, (now_s(m) - ask->at_s + STEP_S) * 1e3))
			return -ENOMEM;
	}
	if (ask->is_met && guest->actual > ask->from_bytes + ask->bytes - PAGE_BYTES)
		ask->stands = false;
	return 0;
}

static int step_vm(struct model *m, struct model_vm *vm)
{
	bool was_high = vm->guest.is_high;
	double before = vm->guest.actual;

	if (vm->known != vm->told && m->step >= vm->told_step + TELL_STEPS) {
		vm->known = vm->told;
		vm->guest.target = (double)vm->known;
	}
	overcommit_guest_step(&vm->guest, now_s(m), STEP_S);
	if (vm->guest.actual < before && m->somebody_waits)
		m->event = true;
	return follow_ask(m, vm, was_high);
}

/* Each second: what the plots show, what must hold, and rates of the last second. */
static int take_sample(struct model *m)
{
	double sum = 0;

	for (unsigned i = 0; i < m->setup->vms; i++) {
		struct model_vm *vm = &m->vm[i];
		const struct overcommit_guest *guest = &vm->guest;
		struct overcommit_sample sample = { .t_s = (float)now_s(m),
						    .target_mib = (float)((double)vm->told / MIB),
						    .actual_mib = (float)(guest->actual / MIB) };

		vm->refaults_per_s = guest->refaults - vm->refaults_before;
		vm->refaults_before = guest->refaults;
		sample.working_mib = (float)((guest->kernel + guest->wanted) / MIB);
		sample.faults_per_s = (float)vm->refaults_per_s;
		if (overcommit_add_sample(&m->run->vms[i], &sample))
			return -ENOMEM;
		sum += guest->actual;
		m->run->reservations_broken += guest->actual < (double)m->setup->min_bytes - 1;
	}
	m->run->over_budget += sum > (double)m->setup->budget_bytes + PAGE_BYTES;
	return 0;
}

/* The work the VM would have done with all of its memory. */
static double unconstrained_work(const struct overcommit_setup *setup, unsigned index)
{
	struct overcommit_guest guest;

	overcommit_guest_init(&guest, &setup->demand[index], (double)setup->mem_bytes,
			      (double)setup->mem_bytes);
	for (uint64_t step = 0; (double)step * STEP_S < setup->phases_s; step++)
		overcommit_guest_step(&guest, (double)step * STEP_S, STEP_S);
	return guest.work;
}

static int run_model(struct model *m)
{
	const struct overcommit_setup *setup = m->setup;
	uint64_t phases_end = (uint64_t)(setup->phases_s / STEP_S),
		 end = phases_end + (uint64_t)(setup->rest_s / STEP_S);
	int err = 0;

	for (m->step = 0; m->step < end && !err; m->step++) {
		for (unsigned i = 0; i < setup->vms && !err; i++)
			err = step_vm(m, &m->vm[i]);
		if (!err && m->step % ROUND_STEPS == 0)
			err = take_sample(m);
		if (!err && (m->step % ROUND_STEPS == 0 ||
			     (m->event && m->step >= m->last_round + EVENT_GAP)))
			err = run_round(m);
		for (unsigned i = 0; i < setup->vms && m->step + 1 == phases_end; i++)
			m->run->vms[i].slowdown =
				unconstrained_work(setup, i) / fmax(m->vm[i].guest.work, 1e-9);
	}
	for (unsigned i = 0; i < setup->vms; i++) {
		m->run->vms[i].refaults = (uint64_t)m->vm[i].guest.refaults;
		m->run->vms[i].oom_kills = m->vm[i].guest.oom_kills;
		m->run->vms[i].turns_per_minute = overcommit_turns_most(&m->vm[i].turns);
	}
	return err;
}

int overcommit_model_run(const struct overcommit_setup *setup, const char *policy,
			 const uint32_t *shares, struct overcommit_run *run)
{
	const struct gn_policy_ops *ops = gn_policy_find(policy);
	struct model *m = calloc(1, sizeof(*m));
	double part = (double)setup->budget_bytes / setup->vms;
	int err = -ENOMEM;

	if (!m)
		return err;
	m->setup = setup;
	m->run = run;
	m->random = setup->seed * 2 + 1;
	snprintf(run->policy, sizeof(run->policy), "%s", policy);
	snprintf(run->summary, sizeof(run->summary), "%s", ops->summary);
	err = gn_policy_create(ops, &setup->policy, &m->policy);
	if (err)
		goto out;
	for (unsigned i = 0; i < setup->vms; i++) {
		overcommit_guest_init(&m->vm[i].guest, &setup->demand[i], (double)setup->mem_bytes,
				      part);
		m->vm[i].told = m->vm[i].known = (uint64_t)part;
		m->vms[i] = (struct gn_policy_vm){ .id = i + 1,
						   .name = "model",
						   .mem_bytes = setup->mem_bytes,
						   .min_bytes = setup->min_bytes,
						   .max_bytes = setup->mem_bytes,
						   .shares = shares ? shares[i] : 1000,
						   .claims_trusted = true };
	}
	err = run_model(m);
	gn_policy_destroy(m->policy);
out:
	free(m);
	return err;
}
