/* SPDX-License-Identifier: MIT */
/*
 * scale_fleet.c - start VMs, see which are up and which are dead, end them.
 */
#include "scale_fleet.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/clock.h"

#define POLL_US 20000
#define STUCK_S 60.0 /* without one more VM up */
#define END_S	5.0

enum { BOOTING_PER_CPU = 2 };

int scale_fleet_init(struct scale_fleet *f)
{
	f->count = 0;
	f->shared = mmap(NULL, sizeof(*f->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (f->shared != MAP_FAILED)
		return 0;
	f->shared = NULL;
	return -errno;
}

void scale_fleet_fini(struct scale_fleet *f)
{
	for (unsigned i = 0; i < f->count; i++)
		if (f->pids[i]) {
			kill(f->pids[i], SIGKILL);
			waitpid(f->pids[i], NULL, 0);
		}
	if (f->shared)
		munmap(f->shared, sizeof(*f->shared));
	f->shared = NULL;
}

unsigned scale_fleet_count(const struct scale_fleet *f, enum scale_vm_state state)
{
	unsigned count = 0;

	for (unsigned i = 0; i < f->count; i++)
		count += atomic_load(&f->shared->slots[i].state) == (int)state;
	return count;
}

static int start_vm(struct scale_fleet *f)
{
	const struct scale_vm_config config = { .socket = f->socket,
						.index = f->count,
						.mem_bytes = f->mem_bytes,
						.min_bytes = f->min_bytes,
						.seed = f->seed,
						.shared = f->shared };
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid)
		scale_vm_main(&config);
	if (pid < 0)
		return -errno;
	f->pids[f->count++] = pid;
	return 0;
}

/* A VM that died of something else than itself did not say so. */
static void note_death(struct scale_slot *slot, int status)
{
	const int state = atomic_load(&slot->state);

	if (state == SCALE_VM_ENDED || state == SCALE_VM_FAILED)
		return;
	if (WIFSIGNALED(status))
		snprintf(slot->why, sizeof(slot->why), "killed by signal %d", WTERMSIG(status));
	else
		snprintf(slot->why, sizeof(slot->why), "ended with status %d", WEXITSTATUS(status));
	atomic_store(&slot->state, SCALE_VM_FAILED);
}

/* The daemon's death is left for whoever started it. */
static int note_deaths(struct scale_fleet *f)
{
	siginfo_t dead = { .si_pid = 0 };

	while (!waitid(P_ALL, 0, &dead, WEXITED | WNOHANG | WNOWAIT) && dead.si_pid) {
		unsigned i = 0;
		int status;

		while (i < f->count && f->pids[i] != dead.si_pid)
			i++;
		if (i == f->count)
			return -ECHILD;
		waitpid(dead.si_pid, &status, 0);
		f->pids[i] = 0;
		note_death(&f->shared->slots[i], status);
		dead.si_pid = 0;
	}
	return 0;
}

int scale_fleet_boot(struct scale_fleet *f, unsigned vms, struct progress *progress)
{
	const unsigned most = BOOTING_PER_CPU * (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	unsigned booting = scale_fleet_count(f, SCALE_VM_BOOTS), before = f->count - booting;
	double last_s = gn_now_s();
	int err = 0;

	while (!err && (f->count < vms || booting)) {
		for (; f->count < vms && booting < most && !err; booting++)
			err = start_vm(f);
		usleep(POLL_US);
		if (!err)
			err = note_deaths(f);
		booting = scale_fleet_count(f, SCALE_VM_BOOTS);
		if (f->count - booting != before)
			last_s = gn_now_s();
		before = f->count - booting;
		if (!err && gn_now_s() - last_s > STUCK_S)
			err = -ETIMEDOUT;
		progress_part(progress, (double)before / vms);
	}
	return err;
}

int scale_fleet_pass(struct scale_fleet *f, double seconds, struct progress *progress)
{
	double until_s = gn_now_s() + seconds;
	int err = 0;

	while (!err && gn_now_s() < until_s) {
		usleep(POLL_US);
		err = note_deaths(f);
		progress_part(progress, 1 - (until_s - gn_now_s()) / seconds);
	}
	return err;
}

void scale_fleet_end(struct scale_fleet *f)
{
	double until_s = gn_now_s() + END_S;

	atomic_store(&f->shared->is_over, true);
	while (scale_fleet_count(f, SCALE_VM_RUNS) && gn_now_s() < until_s) {
		usleep(POLL_US);
		(void)note_deaths(f);
	}
}
