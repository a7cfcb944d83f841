/* SPDX-License-Identifier: MIT */
/*
 * overcommit_measure.c - a policy over real VMs: processes, messages, and the book-keeping.
 *
 * The bench is the daemon here: a loop that hears the VMs' reports, runs a round each second and at once when a VM asks
 * or memory arrives for which somebody waits (at most every 5 ms), and tells targets. Each VM makes the same operations
 * under every policy, at its own pace; a turn begins when all have ended the last one, and who is early idles.
 *
 * What is measured: waits and rounds by the wall clock, on a machine that all VMs share. A VM's slowdown is in
 * the software machine's cycles, which count the guest's disk reads and faults: they do not depend on how busy the
 * host is. The run with all memory that they are held against is made first.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "overcommit_vm.h"

#define ROUND_S	    1.0
#define EVENT_GAP_S 0.005
#define SAMPLE_S    1.0
#define SETTLE_S    20.0 /* of the rest, before turns count */
#define SILENCE_S   60.0 /* a VM that says nothing for so long is stuck */
#define MIB	    1048576.0

struct guest {
	pid_t pid;
	int fd;
	bool is_there; /* reported at least once */
	struct overcommit_report last;
	uint64_t told;
	double heard_s, rate_s, refaults_per_s;
	uint64_t rate_refaults;
	struct overcommit_turns turns;
};

struct bench {
	const struct overcommit_setup *setup;
	struct overcommit_run *run;
	struct gn_policy *policy;
	struct guest guests[OVERCOMMIT_MAX_VMS];
	struct gn_policy_vm vms[OVERCOMMIT_MAX_VMS];
	struct gn_policy_decision decisions[OVERCOMMIT_MAX_VMS];
	double began_s, started_s, rest_s, round_s, sample_s; /* 0: not yet */
	uint64_t gone_on; /* the last phase that was let begin */
	bool event, somebody_waits;
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool is_gone(const struct guest *guest)
{
	return guest->fd < 0;
}

static int spawn(struct bench *b, unsigned index, uint64_t boot_bytes)
{
	struct guest *guest = &b->guests[index];
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	fflush(NULL);
	guest->pid = fork();
	if (!guest->pid) {
		for (unsigned i = 0; i < index; i++)
			close(b->guests[i].fd);
		close(pair[0]);
		overcommit_vm_main(b->setup, index, boot_bytes, pair[1]);
	}
	close(pair[1]);
	guest->fd = pair[0];
	guest->told = boot_bytes;
	guest->heard_s = guest->rate_s = now_s();
	return guest->pid < 0 ? -EAGAIN : 0;
}

/* Only ever the processes this bench started. */
static void reap(struct bench *b)
{
	for (unsigned i = 0; i < b->setup->vms; i++) {
		struct guest *guest = &b->guests[i];

		if (guest->fd >= 0)
			close(guest->fd);
		guest->fd = -1;
		if (guest->pid <= 0)
			continue;
		kill(guest->pid, SIGKILL);
		while (waitpid(guest->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
}

static int order(const struct guest *guest, uint64_t target_bytes, bool goes_on)
{
	const struct overcommit_order o = { target_bytes, goes_on };

	return send(guest->fd, &o, sizeof(o), MSG_NOSIGNAL) == (ssize_t)sizeof(o) ? 0 : -errno;
}

static void hear(struct bench *b, struct guest *guest, const struct overcommit_report *r,
		 double now)
{
	const struct overcommit_report old = guest->last;

	if (r->met_ms > 0 && overcommit_add_wait(b->run, r->met_ms))
		cli_fail(EXIT_CANNOT, "out of memory");
	if (r->asks_bytes && !old.asks_bytes)
		b->event = true;
	if (r->actual_bytes < old.actual_bytes && b->somebody_waits)
		b->event = true;
	if (now - guest->rate_s >= 0.5) {
		guest->refaults_per_s =
			(double)(r->refaults - guest->rate_refaults) / (now - guest->rate_s);
		guest->rate_refaults = r->refaults;
		guest->rate_s = now;
	}
	guest->last = *r;
	guest->is_there = true;
	guest->heard_s = now;
}

/* 0, or -EIO: a VM's process ended without a last word. */
static int listen_to(struct bench *b, unsigned index, double now)
{
	struct guest *guest = &b->guests[index];
	struct overcommit_report r;
	ssize_t got;

	while ((got = recv(guest->fd, &r, sizeof(r), MSG_DONTWAIT)) == (ssize_t)sizeof(r))
		hear(b, guest, &r, now);
	if (got < 0 && errno == EAGAIN)
		return 0;
	close(guest->fd);
	guest->fd = -1;
	if (guest->last.state == OVERCOMMIT_VM_DIED)
		cli_warn("%s: VM %u died: %s", b->run->policy, index + 1, guest->last.why);
	return guest->last.state >= OVERCOMMIT_VM_ENDED ? 0 : -EIO;
}

static size_t gather(struct bench *b, unsigned *of)
{
	size_t count = 0;

	for (unsigned i = 0; i < b->setup->vms; i++) {
		const struct guest *guest = &b->guests[i];
		const struct overcommit_report *r = &guest->last;

		if (is_gone(guest) || !guest->is_there)
			continue;
		b->vms[i].actual_bytes = r->actual_bytes;
		b->vms[i].target_bytes = guest->told;
		b->vms[i].active_bytes = r->active_bytes;
		b->vms[i].recent_bytes = r->recent_bytes;
		b->vms[i].guest_free_bytes = r->free_bytes;
		b->vms[i].guest_available_bytes = r->available_bytes;
		b->vms[i].refaults_per_s = guest->refaults_per_s;
		b->vms[i].asks_bytes = r->asks_bytes;
		of[count++] = i;
	}
	return count;
}

static int run_round(struct bench *b, double now)
{
	const struct gn_policy_host host = { .budget_bytes = b->setup->budget_bytes,
					     .free_bytes = GN_POLICY_UNKNOWN };
	struct gn_policy_vm vms[OVERCOMMIT_MAX_VMS];
	unsigned of[OVERCOMMIT_MAX_VMS];
	size_t count = gather(b, of);
	double before = now_s();
	int err;

	for (size_t i = 0; i < count; i++)
		vms[i] = b->vms[of[i]];
	err = gn_policy_round(b->policy, (uint64_t)((now - b->began_s) * 1e9) + 1, &host, vms,
			      count, b->decisions);
	b->run->round_us_worst = fmax(b->run->round_us_worst, (now_s() - before) * 1e6);
	b->run->rounds++;
	b->somebody_waits = false;
	for (size_t i = 0; i < count && !err; i++) {
		struct guest *guest = &b->guests[of[i]];
		uint64_t old = guest->told;

		b->somebody_waits |= b->decisions[i].reason == GN_POLICY_WAITING;
		guest->told = b->decisions[i].target_bytes;
		if (guest->told == old)
			continue;
		overcommit_turns_note(&guest->turns, now, old, guest->told,
				      b->rest_s > 0 && now > b->rest_s + SETTLE_S);
		if (order(guest, guest->told, false))
			b->event = true; /* it ends; the next round is without it */
	}
	b->round_s = now;
	b->event = false;
	return err;
}

static void take_sample(struct bench *b, double now)
{
	double sum = 0;

	for (unsigned i = 0; i < b->setup->vms; i++) {
		const struct guest *guest = &b->guests[i];
		const struct overcommit_report *r = &guest->last;
		struct overcommit_sample sample = {
			.t_s = (float)(now - b->started_s),
			.target_mib = (float)((double)guest->told / MIB),
			.actual_mib = (float)((double)r->actual_bytes / MIB),
			.working_mib = (float)((double)r->wanted_bytes / MIB),
			.faults_per_s = (float)guest->refaults_per_s,
		};

		if (is_gone(guest))
			continue;
		if (overcommit_add_sample(&b->run->vms[i], &sample))
			cli_fail(EXIT_CANNOT, "out of memory");
		sum += (double)r->actual_bytes;
		b->run->reservations_broken += r->actual_bytes < b->setup->min_bytes;
	}
	b->run->over_budget += sum > (double)b->setup->budget_bytes + 4096;
	b->sample_s = now;
}

/* All VMs are in a state or past it. */
static bool all_are(const struct bench *b, enum overcommit_vm_state state)
{
	for (unsigned i = 0; i < b->setup->vms; i++)
		if (b->guests[i].last.state < state)
			return false;
	return true;
}

/* Does every VM that runs wait for the next phase? */
static bool all_wait(const struct bench *b)
{
	bool any = false;

	for (unsigned i = 0; i < b->setup->vms; i++) {
		if (is_gone(&b->guests[i]))
			continue;
		if (b->guests[i].last.waits_for != b->gone_on + 1)
			return false;
		any = true;
	}
	return any;
}

/* Until every VM has been heard, nobody knows what is left of the budget. */
static bool all_are_there(const struct bench *b)
{
	for (unsigned i = 0; i < b->setup->vms; i++)
		if (!b->guests[i].is_there)
			return false;
	return true;
}

static int let_go_on(struct bench *b, double now)
{
	int err = 0;

	for (unsigned i = 0; i < b->setup->vms && !err; i++)
		if (!is_gone(&b->guests[i]))
			err = order(&b->guests[i], 0, true);
	if (!b->gone_on++)
		b->started_s = now;
	return err;
}

static int serve(struct bench *b)
{
	struct pollfd fds[OVERCOMMIT_MAX_VMS];
	int err = 0;

	while (!err && !all_are(b, OVERCOMMIT_VM_ENDED)) {
		double now;

		for (unsigned i = 0; i < b->setup->vms; i++)
			fds[i] = (struct pollfd){ .fd = b->guests[i].fd, .events = POLLIN };
		if (poll(fds, b->setup->vms, b->event ? 1 : 50) < 0 && errno != EINTR)
			return -errno;
		now = now_s();
		for (unsigned i = 0; i < b->setup->vms && !err; i++) {
			if (fds[i].revents)
				err = listen_to(b, i, now);
			if (!err && !is_gone(&b->guests[i]) &&
			    now - b->guests[i].heard_s > SILENCE_S)
				err = -ETIMEDOUT;
		}
		if (!err && all_wait(b))
			err = let_go_on(b, now);
		if (!(b->rest_s > 0) && all_are(b, OVERCOMMIT_VM_RESTS))
			b->rest_s = now;
		if (!err && all_are_there(b) &&
		    (now - b->round_s >= ROUND_S || (b->event && now - b->round_s >= EVENT_GAP_S)))
			err = run_round(b, now);
		if (b->started_s > 0 && now - b->sample_s >= SAMPLE_S)
			take_sample(b, now);
	}
	return err;
}

static void conclude(struct bench *b, bool is_baseline, double *baseline_cycles)
{
	for (unsigned i = 0; i < b->setup->vms; i++) {
		const struct overcommit_report *r = &b->guests[i].last;
		struct overcommit_vm *vm = &b->run->vms[i];

		if (is_baseline)
			baseline_cycles[i] = r->cycles;
		vm->slowdown = r->cycles > 0 && baseline_cycles[i] > 0
				       ? r->cycles / baseline_cycles[i]
				       : INFINITY;
		vm->refaults = r->refaults;
		vm->oom_kills = r->state == OVERCOMMIT_VM_DIED;
		vm->turns_per_minute = overcommit_turns_most(&b->guests[i].turns);
		b->run->asks += r->asks;
		b->run->asks_unmet += r->asks_unmet;
	}
}

int overcommit_measure_run(const struct overcommit_setup *setup, const char *policy,
			   const uint32_t *shares, bool is_baseline, double *baseline_cycles,
			   struct overcommit_run *run)
{
	const struct gn_policy_ops *ops = gn_policy_find(policy);
	struct bench *b = calloc(1, sizeof(*b));
	int err;

	if (!b)
		return -ENOMEM;
	b->setup = setup;
	b->run = run;
	b->began_s = now_s();
	snprintf(run->policy, sizeof(run->policy), "%s", policy);
	snprintf(run->summary, sizeof(run->summary), "%s", ops->summary);
	for (unsigned i = 0; i < setup->vms; i++) {
		b->guests[i].fd = -1;
		b->vms[i] = (struct gn_policy_vm){ .id = i + 1,
						   .name = "soft",
						   .mem_bytes = setup->mem_bytes,
						   .min_bytes = setup->min_bytes,
						   .max_bytes = setup->mem_bytes,
						   .shares = shares ? shares[i] : 1000,
						   .claims_trusted = true };
	}
	err = gn_policy_create(ops, &setup->policy, &b->policy);
	for (unsigned i = 0; i < setup->vms && !err; i++)
		err = spawn(b, i, (setup->budget_bytes / setup->vms) & ~(uint64_t)4095);
	if (!err)
		err = serve(b);
	if (!err)
		conclude(b, is_baseline, baseline_cycles);
	reap(b);
	gn_policy_destroy(b->policy);
	free(b);
	return err;
}
