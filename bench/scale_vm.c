/* SPDX-License-Identifier: MIT */
/*
 * scale_vm.c - one of many small VMs: a software machine under nested paging, the guest kernel with its balloon driver and the
 * workload `phases`, an agent of gnomon-balloond.
 *
 * It is what Denali's many services are (Whitaker et al., OSDI 2002, section 5): idle nearly always. Every two minutes its
 * working set triples for twelve seconds. VMs take turns, so that at any time a tenth of them is large. An idle guest's timer
 * ticks twice a second. At the end of a phase the workload has read all its pages and found what it wrote, or the VM fails.
 */
#include "scale_fleet.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <gnomon/balloon.h>
#include <gnomon/soft.h>

#include "balloon_vm.h"
#include "workloads/hosted.h"

/* In parts of the workload's size, a quarter of the memory, anonymous and file: an eighth of the memory, or three. */
#define SCHEDULE     "25/25/500,75/75/500x1000000"
#define ADMISSION_MS 60000

enum { TICK_MS = 500, PERIOD_TICKS = 120000 / TICK_MS, LARGE_TICKS = PERIOD_TICKS / 10 };
enum {
	SPREAD = 77
}; /* no factor of the period's: turns of VMs one after the other are far apart */

struct vm {
	const struct scale_vm_config *config;
	struct scale_slot *slot;
	struct balloon_vm *memory;
};

__attribute__((noreturn)) static void fail(const struct vm *vm, const char *what, int err)
{
	snprintf(vm->slot->why, sizeof(vm->slot->why), "%s: %s", what, strerror(-err));
	atomic_store(&vm->slot->state, SCALE_VM_FAILED);
	_exit(1);
}

static void on_progress(void *ctx, double done)
{
	const struct vm *vm = ctx;
	struct kernel_stats stats;

	(void)done;
	kernel_stats(&stats);
	balloon_vm_note_refaults(vm->memory, stats.refaults_close);
}

static void tell(const struct vm *vm, uint64_t operations)
{
	struct balloon_vm_stats stats;

	balloon_vm_stats(vm->memory, &stats);
	atomic_store(&vm->slot->targets, stats.targets);
	atomic_store(&vm->slot->operations, operations);
	atomic_store(&vm->slot->state, SCALE_VM_RUNS);
}

/* Idle until the next phase. The first small one is as long as brings the VM to its turn. */
static void on_phase(void *ctx, unsigned phase, uint64_t operations)
{
	struct vm *vm = ctx;
	const struct timespec tick = { .tv_nsec = TICK_MS * 1000000L };
	unsigned ticks = phase % 2 ? PERIOD_TICKS - LARGE_TICKS : LARGE_TICKS;

	if (!phase)
		ticks = vm->config->index * SPREAD % PERIOD_TICKS;
	on_progress(vm, 0);
	tell(vm, operations);
	while (ticks--) {
		if (atomic_load(&vm->config->shared->is_over)) {
			atomic_store(&vm->slot->state, SCALE_VM_ENDED);
			_exit(0); /* the kernel takes all of it back */
		}
		sys_tick();
		nanosleep(&tick, NULL);
	}
}

static void join_daemon(struct vm *vm, struct gn_soft *soft)
{
	const struct scale_vm_config *c = vm->config;
	char name[16];
	const struct balloon_vm_config config = {
		.socket = c->socket,
		.name = name,
		.mem_bytes = c->mem_bytes,
		.min_bytes = c->min_bytes,
		.shares = 1000,
		.seed = c->seed + c->index,
	};
	int err;

	snprintf(name, sizeof(name), "vm%u", c->index + 1);
	err = balloon_vm_join(soft, &config, ADMISSION_MS, &vm->memory);
	if (err)
		fail(vm, "not admitted", err);
}

void scale_vm_main(const struct scale_vm_config *c)
{
	const struct gn_soft_config config = {
		.vm = { .scheme = "ept", .mem_bytes = c->mem_bytes, .vcpus = 1 },
		.seed = c->seed,
	};
	const struct workload_params params = { .size = c->mem_bytes / 4,
						.seed = c->seed + c->index,
						.mem_bytes = c->mem_bytes,
						.levels = 4,
						.argument = SCHEDULE };
	struct vm vm = { .config = c, .slot = &c->shared->slots[c->index] };
	const struct workload_hosting hosting = { .progress = on_progress,
						  .phase = on_phase,
						  .ctx = &vm,
						  .balloon_pa = GN_BALLOON_MMIO_GPA };
	const char *why = NULL;
	struct gn_soft *soft;
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	err = gn_soft_create(&config, &soft);
	if (err)
		fail(&vm, "the machine was not created", err);
	join_daemon(&vm, soft);
	err = workload_run_hosting(gn_soft_cpu(soft, 0), workload_find("phases"), &params, &hosting,
				   &why);
	fail(&vm, why && *why ? why : "the workload ended", err ? err : -ECANCELED);
}
