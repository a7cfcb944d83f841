/* SPDX-License-Identifier: MIT */
/*
 * hostile.c - guests that mean harm.
 *
 * Each episode makes a guest out of dice (hostile_guest.h). It runs for a few exits, and whatever it does must end as an
 * answered fault or as a stop with a reason. What is checked:
 *
 *   - the VMM lives, and each episode ends in time (a watchdog asks it to stop; a hang is a failure);
 *   - the auditor: no table of ours names a frame outside the VM, or grants what guest and p2m do not;
 *   - frames of the pool that are not the guest's keep their contents.
 *
 * One VM serves many episodes, so that what one of them breaks is met by the next.
 *
 * Usage: hostile [SEED [EPISODES [SCHEME]]]
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <gnomon/kvm.h>
#include <gnomon/schemes.h>

#include "kvm/hostile_guest.h"

enum {
	CANARIES = 8,
	EXITS = 24, /* an episode */
	AUDIT_EVERY = 512,
	HANG_TURNS = 5000, /* of the watchdog, a millisecond or more each */
};

static struct gn_kvm_host host;

/* ---- An episode -------------------------------------------------------------------------------------- */

struct rig {
	struct hostile_guest guest;
	struct gn_pool pool;
	hpa_t canary[CANARIES];
	uint64_t stops[GN_KVM_STOP_ERROR + 1], violations, errors, hangs;
	char first[600];
};

static void complain(struct rig *r, uint64_t episode, const char *what)
{
	if (!r->first[0])
		snprintf(r->first, sizeof(r->first), "episode %" PRIu64 ": %s", episode, what);
}

static bool canaries_live(struct rig *r)
{
	for (unsigned i = 0; i < CANARIES; i++) {
		const uint64_t *words =
			(const uint64_t *)(const void *)((uint8_t *)r->pool.base + r->canary[i].v);

		for (unsigned w = 0; w < 512; w++)
			if (words[w] != (0xca9a50000000u | i << 12 | w))
				return false;
	}
	return true;
}

static void check(struct rig *r, uint64_t episode)
{
	struct gn_audit_report report;
	int err = gn_audit(gn_kvm_vm(r->guest.kvm), &report);

	if (err) {
		r->violations++;
		complain(r, episode, err == -EBADMSG ? report.first : strerror(-err));
	}
	if (!canaries_live(r)) {
		r->violations++;
		complain(r, episode, "a frame that is not the guest's was written");
	}
}

/* ---- The watchdog -------------------------------------------------------------------------------------- */

/* Asks a guest that runs without exits to stop; a VMM that does not come back at all is the failure looked for. It is told
 * by the watchdog's own turns: a machine that is busy elsewhere gives neither of them any time. */
struct watchdog {
	struct gn_kvm *kvm;
	_Atomic(uint64_t) began_ns; /* 0: nothing runs */
	_Atomic(bool) ends, hung;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *watch(void *arg)
{
	struct watchdog *w = arg;
	uint64_t seen = 0, turns = 0;

	while (!atomic_load(&w->ends)) {
		uint64_t began = atomic_load(&w->began_ns);

		turns = began == seen ? turns + 1 : 0;
		seen = began;
		if (began && now_ns() > began + 2000000)
			gn_kvm_stop(w->kvm);
		if (began && turns > HANG_TURNS)
			atomic_store(&w->hung, true);
		usleep(1000);
	}
	return NULL;
}

/* ---- All episodes of a scheme -------------------------------------------------------------------------- */

static int rig_init(struct rig *r, const char *scheme)
{
	const struct gn_kvm_config config = {
		.vm = { .scheme = scheme, .mem_bytes = RAM_BYTES, .vcpus = 1 },
		.max_exits = EXITS,
	};
	char why[512] = "";
	int err;

	memset(r, 0, sizeof(*r));
	err = gn_kvm_create(&config, &r->guest.kvm, why, sizeof(why));
	if (err) {
		printf("creating a VM under %s: %s\n", scheme, why);
		return err;
	}
	gn_vm_pool(gn_kvm_vm(r->guest.kvm), &r->pool);
	for (unsigned i = 0; i < CANARIES && !err; i++) {
		uint64_t *words;

		err = gn_vm_pool_alloc(gn_kvm_vm(r->guest.kvm), &r->canary[i]);
		words = (uint64_t *)(void *)((uint8_t *)r->pool.base + r->canary[i].v);
		for (unsigned w = 0; w < 512 && !err; w++)
			words[w] = 0xca9a50000000u | i << 12 | w;
	}
	if (!err)
		err = reset_tables(&r->guest);
	return err ? err : write_descriptors(&r->guest);
}

static void rig_fini(struct rig *r)
{
	for (unsigned i = 0; i < CANARIES; i++)
		gn_vm_pool_free(gn_kvm_vm(r->guest.kvm), r->canary[i]);
	gn_kvm_destroy(r->guest.kvm);
}

static void run_episode(struct rig *r, struct watchdog *w, uint64_t episode)
{
	enum gn_kvm_stop stop;
	uint32_t status = 0;
	int err = hostile_guest_renew(&r->guest);

	if (err) {
		r->errors++;
		complain(r, episode, strerror(-err));
		return;
	}
	atomic_store(&w->began_ns, now_ns());
	stop = gn_kvm_run(r->guest.kvm, 0, &status);
	atomic_store(&w->began_ns, 0);
	r->stops[stop]++;
	if (stop == GN_KVM_STOP_ERROR) {
		r->errors++;
		complain(r, episode, gn_kvm_error(r->guest.kvm, 0));
	}
	if (stop == GN_KVM_STOP_GUEST && !*gn_kvm_error(r->guest.kvm, 0)) {
		r->errors++;
		complain(r, episode, "a guest was stopped without a reason");
	}
	if (atomic_exchange(&w->hung, false)) {
		r->hangs++;
		complain(r, episode, "the VMM did not come back for seconds");
	}
	if (episode % AUDIT_EVERY == 0)
		check(r, episode);
}

/* QEMU itself ends when a guest at CPL 0 does certain things to its emulated CPU (kvmbackend/trial.c says which): no fault of
 * ours, but an end of the test. */
static bool shuns_ltr(const char *scheme)
{
	return host.null_tss_loads && !strcmp(scheme, "ept");
}

static bool shuns_mov_dr(const char *scheme)
{
	return host.breakpoints_lost && !strcmp(host.hypervisor, "TCGTCGTCGTCG") &&
	       !strcmp(scheme, "ept");
}

/* True: nothing was found. */
static bool run_scheme(const char *scheme, uint64_t seed, uint64_t episodes)
{
	struct rig r;
	struct watchdog w = { 0 };
	pthread_t thread;

	rng_state = seed;
	if (rig_init(&r, scheme))
		return false;
	r.guest.shuns_ltr = shuns_ltr(scheme);
	r.guest.shuns_mov_dr = shuns_mov_dr(scheme);
	w.kvm = r.guest.kvm;
	if (pthread_create(&thread, NULL, watch, &w)) {
		rig_fini(&r);
		return false;
	}
	for (uint64_t i = 1; i <= episodes && !r.first[0]; i++)
		run_episode(&r, &w, i);
	check(&r, episodes);
	atomic_store(&w.ends, true);
	pthread_join(thread, NULL);
	printf("%-12s %" PRIu64 " episodes, seed %" PRIu64 ": exit %" PRIu64 ", halt %" PRIu64
	       ", shutdown %" PRIu64 ", stopped guest %" PRIu64 ", budget or time %" PRIu64
	       "; %" PRIu64 " states refused\n",
	       scheme, episodes, seed, r.stops[GN_KVM_STOP_EXIT], r.stops[GN_KVM_STOP_HALT],
	       r.stops[GN_KVM_STOP_SHUTDOWN], r.stops[GN_KVM_STOP_GUEST],
	       r.stops[GN_KVM_STOP_ASKED], r.guest.refused);
	if (r.guest.left_out)
		printf("SKIPPED: %s:%s%s in %" PRIu64
		       " places: they would end the emulator below this "
		       "machine (gnomon host)\n",
		       scheme, r.guest.shuns_ltr ? " LTR" : "",
		       r.guest.shuns_mov_dr ? " MOV to DR" : "", r.guest.left_out);
	if (r.first[0])
		printf("%s: %s\n", scheme, r.first);
	rig_fini(&r);
	return !r.violations && !r.errors && !r.hangs && !r.first[0];
}

static uint64_t scaled(uint64_t n)
{
	const char *text = getenv("GN_TEST_SCALE");
	uint64_t percent = text ? strtoull(text, NULL, 10) : 100;

	return n * percent / 100 + 1;
}

int main(int argc, char **argv)
{
	enum { PLANS = 3 };
	static const struct {
		const char *scheme;
		uint64_t episodes;
	} plan[PLANS] = { { "shadow", 50000 }, { "shadow-vtlb", 25000 }, { "ept", 50000 } };
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	unsigned passed = 0, failed = 0, skipped = 0;
	pid_t child[PLANS];

	setvbuf(stdout, NULL, _IOLBF, 0);
	gn_kvm_probe(&host, true);
	if (!host.usable) {
		printf("SKIPPED: hostile guests need /dev/kvm: %s\n", host.why);
		printf("0 passed, 0 failed, 3 skipped\n");
		return 0;
	}
	if (gn_schemes_register_all()) {
		printf("0 passed, 1 failed\n");
		return 1;
	}
	/* A process each: they share nothing, and most of their time is the host's. */
	for (unsigned i = 0; i < PLANS; i++) {
		uint64_t episodes =
			argc > 2 ? strtoull(argv[2], NULL, 0) : scaled(plan[i].episodes);

		child[i] = -1;
		if (argc > 3 && strcmp(argv[3], plan[i].scheme) != 0)
			continue;
		child[i] = fork();
		if (!child[i])
			_exit(run_scheme(plan[i].scheme, seed + i, episodes) ? 0 : 1);
		failed += child[i] < 0;
		skipped += shuns_ltr(plan[i].scheme) + shuns_mov_dr(plan[i].scheme);
	}
	for (unsigned i = 0; i < PLANS; i++) {
		int status = 1;

		if (child[i] <= 0)
			continue;
		if (waitpid(child[i], &status, 0) == child[i] && !status)
			passed++;
		else
			failed++;
	}
	printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
	return failed != 0;
}
