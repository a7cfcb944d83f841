/* SPDX-License-Identifier: MIT */
/*
 * overcommit_measure.c - a policy over real VMs: processes, messages, and the book-keeping.
 *
 * The VMs are gnomon-balloond's, a process of its own per policy (overcommit_daemon.h): who has how much is between
 * it and their agents. The bench keeps the turns, for each VM makes the same operations under every policy, at its own pace;
 * a turn begins when all have ended the last one, and who is early idles. And it hears the VMs say how it went.
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
#include <unistd.h>

#include "control/clock.h"

#include "cli.h"
#include "overcommit_daemon.h"
#include "overcommit_vm.h"

#define SAMPLE_S     1.0
#define SETTLE_S     20.0 /* of the rest, before turns count */
#define SILENCE_S    60.0 /* a VM that says nothing for so long is stuck */
#define POLL_MS	     50
#define EQUAL_SHARES 1000
#define MIB	     1048576.0

struct guest {
	pid_t pid;
	int fd;
	struct overcommit_report last;
	double heard_s;
	struct overcommit_turns turns;
};

struct bench {
	const struct overcommit_setup *setup;
	struct overcommit_run *run;
	struct child_daemon daemon;
	struct guest guests[OVERCOMMIT_MAX_VMS];
	double started_s, rest_s, sample_s; /* 0: not yet */
	uint64_t gone_on;		    /* the last phase that was let begin */
};

static bool is_gone(const struct guest *guest)
{
	return guest->fd < 0;
}

static int spawn(struct bench *b, unsigned index, uint32_t shares)
{
	struct guest *guest = &b->guests[index];
	struct overcommit_vm_config config = {
		.setup = b->setup,
		.index = index,
		.socket = b->daemon.socket,
		.boot_bytes = (b->setup->budget_bytes / b->setup->vms) & ~(uint64_t)4095,
		.shares = shares,
	};
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	fflush(NULL);
	guest->pid = fork();
	if (!guest->pid) {
		for (unsigned i = 0; i < index; i++)
			close(b->guests[i].fd);
		close(pair[0]);
		config.fd = pair[1];
		overcommit_vm_main(&config);
	}
	close(pair[1]);
	guest->fd = pair[0];
	guest->heard_s = gn_now_s();
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

static void hear(struct bench *b, struct guest *guest, const struct overcommit_report *r,
		 double now)
{
	const struct overcommit_report old = guest->last;

	if (r->met_ms > 0 && overcommit_add_wait(b->run, r->met_ms))
		cli_fail(EXIT_CANNOT, "out of memory");
	if (old.target_bytes && r->target_bytes != old.target_bytes)
		overcommit_turns_note(&guest->turns, now, old.target_bytes, r->target_bytes,
				      b->rest_s > 0 && now > b->rest_s + SETTLE_S);
	guest->last = *r;
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

static void take_sample(struct bench *b, double now)
{
	double sum = 0;

	for (unsigned i = 0; i < b->setup->vms; i++) {
		const struct guest *guest = &b->guests[i];
		const struct overcommit_report *r = &guest->last;
		struct overcommit_sample sample = {
			.t_s = (float)(now - b->started_s),
			.target_mib = (float)((double)r->target_bytes / MIB),
			.actual_mib = (float)((double)r->actual_bytes / MIB),
			.working_mib = (float)((double)r->wanted_bytes / MIB),
			.faults_per_s = (float)r->refaults_per_s,
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

static int let_go_on(struct bench *b, double now)
{
	const struct overcommit_order order = { .phase = b->gone_on + 1 };

	for (unsigned i = 0; i < b->setup->vms; i++)
		if (!is_gone(&b->guests[i]) && send(b->guests[i].fd, &order, sizeof(order),
						    MSG_NOSIGNAL) != (ssize_t)sizeof(order))
			return -errno;
	if (!b->gone_on++)
		b->started_s = now;
	return 0;
}

static int serve(struct bench *b)
{
	struct pollfd fds[OVERCOMMIT_MAX_VMS];
	int err = 0;

	while (!err && !all_are(b, OVERCOMMIT_VM_ENDED)) {
		double now;

		for (unsigned i = 0; i < b->setup->vms; i++)
			fds[i] = (struct pollfd){ .fd = b->guests[i].fd, .events = POLLIN };
		if (poll(fds, b->setup->vms, POLL_MS) < 0 && errno != EINTR)
			return -errno;
		now = gn_now_s();
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
	snprintf(run->policy, sizeof(run->policy), "%s", policy);
	snprintf(run->summary, sizeof(run->summary), "%s", ops->summary);
	for (unsigned i = 0; i < setup->vms; i++)
		b->guests[i].fd = -1;
	err = overcommit_daemon_start(&b->daemon, setup, policy);
	if (err)
		cli_warn("%s: gnomon-balloond does not start: %s", policy, strerror(-err));
	for (unsigned i = 0; i < setup->vms && !err; i++)
		err = spawn(b, i, shares ? shares[i] : EQUAL_SHARES);
	if (!err)
		err = serve(b);
	if (!err)
		err = overcommit_daemon_read(&b->daemon, run);
	if (!err)
		conclude(b, is_baseline, baseline_cycles);
	reap(b);
	child_daemon_stop(&b->daemon);
	free(b);
	return err;
}
