/* SPDX-License-Identifier: MIT */
/*
 * overcommit_vm.c - one VM: a software machine under nested paging, the guest kernel with its balloon driver, the
 * workload `phases`, and what makes it a VM of gnomon-balloond (balloon_vm.h).
 *
 * The VM's own thread runs the guest; a second one tells the bench how it goes, and when the next phase may begin.
 * What only the guest's thread may read (its kernel's statistics, the machine's cycles) it leaves in atomics at its
 * ticks and phases.
 *
 * No frame is shared with anybody, so the memory is anonymous: what leaves page by page costs the guest's thread a
 * fraction of what holes in a memfd do, and others wait for it.
 *
 * At the end of a phase the workload says what the next one lacks, as a server that is about to map memory could:
 * the ask. It has been met when the VM has OVERCOMMIT_GRANT_BYTES more than it had, or all that it asked, taken out
 * of the balloon by its guest. The guest does not wait for it: it begins to allocate, evicts its page cache, and
 * takes pages out of the balloon by itself before it kills anybody (deflate on OOM), which may put the host over its
 * budget for a moment.
 */
#include "overcommit_vm.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <gnomon/balloon.h>
#include <gnomon/soft.h>

#include "balloon_vm.h"
#include "control/clock.h"
#include "workloads/hosted.h"

#define PAGE_BYTES   4096u
#define REPORT_NS    UINT64_C(1000000000)
#define KERNEL_PART  32
#define IDLE_TICK_NS 1000000
#define ADMISSION_MS 20000
#define TELL_MS	     2

/* (c) const after start, (g) the guest's thread only, (t) the telling thread only, (a) atomic. */
struct vm {
	const struct overcommit_setup *setup; /* (c) */
	unsigned index;			      /* (c) */
	int fd;				      /* (c) */
	struct gn_soft *soft;		      /* (c) */
	struct balloon_vm *memory;	      /* (c) */
	sem_t goes_on;
	_Atomic uint64_t refaults, wanted; /* (a) */
	_Atomic uint64_t ask_from, ask_bytes,
		ask_ns; /* (a) ask_bytes is written last and read first */
	_Atomic uint64_t
		met_ns; /* (a) how long the last ask took, until it is told; 0: nothing to tell */
	_Atomic uint64_t asks, asks_unmet, cycles; /* (a) */
	_Atomic int state;			   /* (a) enum overcommit_vm_state */
	_Atomic bool is_over;		   /* (a) the guest's thread has nothing more to say */
	_Atomic uint64_t waits_for;	   /* (a) a phase; 0: none */
	double cycles_before, idle_cycles; /* (g) */
	char why[120];			   /* (g), then (c) once state is DIED */
	struct overcommit_report reported; /* (t) */
	uint64_t reported_ns;		   /* (t) */
};

static uint64_t actual_bytes(const struct vm *vm)
{
	return balloon_vm_actual_bytes(vm->memory);
}

/* ---- The guest's thread ---------------------------------------------------------------------------------------- */

/*
 * Phase 0 warms up, as long as a turn: what was read at the start is to be no younger in the first turn than what was
 * used before is in others. Then rounds of turns, one phase each; then rest.
 */
static bool is_high(const struct vm *vm, unsigned phase)
{
	return phase && phase <= vm->setup->rounds * vm->setup->vms &&
	       (phase - 1) % vm->setup->vms == vm->index;
}

static uint64_t wanted_in(const struct vm *vm, unsigned phase)
{
	const struct overcommit_demand *demand = &vm->setup->demand[vm->index];

	return vm->setup->mem_bytes / KERNEL_PART +
	       (is_high(vm, phase) ? demand->high_bytes : demand->low_bytes);
}

/* Called at the workload's ticks. */
static void publish(void *ctx, double done)
{
	struct vm *vm = ctx;
	struct kernel_stats stats;

	(void)done;
	kernel_stats(&stats);
	atomic_store(&vm->refaults, stats.refaults);
	balloon_vm_note_refaults(vm->memory, stats.refaults_close);
}

static double cycles_of(const struct vm *vm)
{
	struct gn_counters counters;

	gn_soft_counters(vm->soft, &counters);
	return (double)counters.cycles;
}

static void end_ask(struct vm *vm)
{
	if (atomic_exchange(&vm->ask_bytes, 0))
		atomic_fetch_add(&vm->asks_unmet, 1);
	balloon_vm_ask(vm->memory, 0);
}

/* The driver moved the balloon: has the ask been met? */
static void watch_ask(void *ctx)
{
	struct vm *vm = ctx;
	uint64_t bytes = atomic_load(&vm->ask_bytes), from = atomic_load(&vm->ask_from);
	uint64_t met = bytes < OVERCOMMIT_GRANT_BYTES ? bytes : OVERCOMMIT_GRANT_BYTES;

	if (!bytes || actual_bytes(vm) + PAGE_BYTES <= from + met)
		return;
	atomic_store(&vm->met_ns, gn_now_ns() - atomic_load(&vm->ask_ns));
	atomic_store(&vm->ask_bytes, 0);
	balloon_vm_ask(vm->memory, 0);
}

static void begin_phase(struct vm *vm, unsigned phase)
{
	uint64_t wanted = wanted_in(vm, phase), has = actual_bytes(vm);

	atomic_store(&vm->wanted, wanted);
	if (!is_high(vm, phase) || wanted <= has)
		return;
	atomic_fetch_add(&vm->asks, 1);
	atomic_store(&vm->ask_from, has);
	atomic_store(&vm->ask_ns, gn_now_ns());
	atomic_store(&vm->ask_bytes, wanted - has);
	balloon_vm_ask(vm->memory, wanted);
}

/* The guest idles until all VMs are where this one is: its timer ticks, and its driver answers the device. */
static void wait_for_all(struct vm *vm, unsigned phase)
{
	const struct timespec tick = { 0, IDLE_TICK_NS };
	double before = cycles_of(vm);

	atomic_store(&vm->waits_for, phase);
	while (sem_trywait(&vm->goes_on)) {
		sys_tick();
		publish(vm, 0);
		nanosleep(&tick, NULL);
	}
	atomic_store(&vm->waits_for, 0);
	vm->idle_cycles += cycles_of(vm) - before;
}

static void on_phase_end(void *ctx, unsigned phase, uint64_t operations)
{
	struct vm *vm = ctx;
	unsigned last = vm->setup->rounds * vm->setup->vms;

	(void)operations;
	publish(vm, 0);
	end_ask(vm);
	if (phase == last) {
		atomic_store(&vm->cycles,
			     (uint64_t)(cycles_of(vm) - vm->idle_cycles - vm->cycles_before));
		atomic_store(&vm->state, OVERCOMMIT_VM_RESTS);
	}
	if (phase <= last)
		wait_for_all(vm, phase + 1);
	if (!phase) {
		vm->cycles_before = cycles_of(vm) - vm->idle_cycles;
		atomic_store(&vm->state, OVERCOMMIT_VM_RUNS);
	}
	begin_phase(vm, phase + 1);
}

/* The workload's size is half of the memory: the file. Phases are in per cent of it, half anonymous, half file. */
static char *make_schedule(const struct vm *vm)
{
	const struct overcommit_setup *setup = vm->setup;
	const struct overcommit_demand *demand = &setup->demand[vm->index];
	unsigned low = (unsigned)(100 * demand->low_bytes / setup->mem_bytes),
		 high = (unsigned)(100 * demand->high_bytes / setup->mem_bytes);
	char *text = NULL;
	size_t bytes;
	FILE *to = open_memstream(&text, &bytes);

	if (!to)
		return NULL;
	fprintf(to, "%u/%u/%llu", low, low, (unsigned long long)setup->turn_operations);
	for (unsigned phase = 1; phase <= setup->rounds * setup->vms; phase++) {
		unsigned percent = is_high(vm, phase) ? high : low;

		fprintf(to, ",%u/%u/%llu", percent, percent,
			(unsigned long long)setup->turn_operations);
	}
	fprintf(to, ",%u/%u/%llu", low, low, (unsigned long long)setup->rest_operations);
	if (fclose(to)) {
		free(text);
		return NULL;
	}
	return text;
}

static void run_guest(struct vm *vm)
{
	char *schedule = make_schedule(vm);
	const struct workload_params params = { .size = vm->setup->mem_bytes / 2,
						.seed = vm->setup->seed + vm->index,
						.mem_bytes = vm->setup->mem_bytes,
						.levels = 4,
						.argument = schedule };
	const struct workload_hosting hosting = { .progress = publish,
						  .phase = on_phase_end,
						  .ctx = vm,
						  .balloon_pa = GN_BALLOON_MMIO_GPA };
	const char *why = NULL;
	int err = schedule ? workload_run_hosting(gn_soft_cpu(vm->soft, 0), workload_find("phases"),
						  &params, &hosting, &why)
			   : -ENOMEM;

	end_ask(vm);
	if (err)
		snprintf(vm->why, sizeof(vm->why), "%s", why && *why ? why : strerror(-err));
	atomic_store(&vm->state, err ? OVERCOMMIT_VM_DIED : OVERCOMMIT_VM_ENDED);
	atomic_store(&vm->is_over, true);
	free(schedule);
}

/* ---- The telling thread ------------------------------------------------------------------------------------------- */

static void fill_report(struct vm *vm, struct overcommit_report *r)
{
	*r = (struct overcommit_report){
		.state = (enum overcommit_vm_state)atomic_load(&vm->state),
		.target_bytes = balloon_vm_target_bytes(vm->memory),
		.actual_bytes = actual_bytes(vm),
		.wanted_bytes = atomic_load(&vm->wanted),
		.waits_for = atomic_load(&vm->waits_for),
		.refaults = atomic_load(&vm->refaults),
		.refaults_per_s = balloon_vm_refaults_per_s(vm->memory),
		.asks = atomic_load(&vm->asks),
		.asks_unmet = atomic_load(&vm->asks_unmet),
		.cycles = (double)atomic_load(&vm->cycles),
		.met_ms = (double)atomic_load(&vm->met_ns) / 1e6,
	};
	if (r->state == OVERCOMMIT_VM_DIED)
		memcpy(r->why, vm->why, sizeof(r->why));
}

static void report(struct vm *vm, const struct overcommit_report *r, uint64_t now)
{
	if (send(vm->fd, r, sizeof(*r), MSG_NOSIGNAL) != (ssize_t)sizeof(*r))
		_exit(1); /* the bench is gone */
	if (r->met_ms > 0)
		atomic_store(&vm->met_ns, 0);
	vm->reported = *r;
	vm->reported_ns = now;
}

static void obey(struct vm *vm)
{
	struct overcommit_order order;
	ssize_t got;

	while ((got = recv(vm->fd, &order, sizeof(order), MSG_DONTWAIT)) == (ssize_t)sizeof(order))
		sem_post(&vm->goes_on);
	if (!got)
		_exit(1);
}

static bool is_news(const struct vm *vm, const struct overcommit_report *r, uint64_t now)
{
	return now - vm->reported_ns >= REPORT_NS || r->met_ms > 0 ||
	       r->target_bytes != vm->reported.target_bytes ||
	       r->waits_for != vm->reported.waits_for || r->state != vm->reported.state;
}

static void *tell_bench(void *ctx)
{
	struct vm *vm = ctx;
	struct pollfd fd = { .fd = vm->fd, .events = POLLIN };
	struct overcommit_report r;

	while (!atomic_load(&vm->is_over)) {
		uint64_t now;

		poll(&fd, 1, TELL_MS);
		obey(vm);
		now = gn_now_ns();
		fill_report(vm, &r);
		if (is_news(vm, &r, now))
			report(vm, &r, now);
	}
	fill_report(vm, &r);
	report(vm, &r, gn_now_ns());
	return NULL;
}

/* False: the daemon does not have it. */
static bool join_daemon(struct vm *vm, const struct overcommit_vm_config *c)
{
	const struct overcommit_setup *setup = c->setup;
	char name[16];
	const struct balloon_vm_config config = {
		.socket = c->socket,
		.name = name,
		.mem_bytes = setup->mem_bytes,
		.min_bytes = setup->min_bytes,
		.boot_bytes = c->boot_bytes,
		.shares = c->shares,
		.seed = setup->seed + c->index,
		.changed = watch_ask,
		.ctx = vm,
	};

	snprintf(name, sizeof(name), "vm%u", c->index + 1);
	return !balloon_vm_join(vm->soft, &config, ADMISSION_MS, &vm->memory);
}

void overcommit_vm_main(const struct overcommit_vm_config *c)
{
	const struct overcommit_setup *setup = c->setup;
	const struct gn_soft_config config = {
		.vm = { .scheme = "ept",
			.mem_bytes = setup->mem_bytes,
			.pool = GN_POOL_ANONYMOUS,
			.vcpus = 1 },
		.seed = setup->seed,
	};
	struct vm vm = { .setup = setup, .index = c->index, .fd = c->fd };
	pthread_t teller;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	atomic_store(&vm.wanted, wanted_in(&vm, 0));
	if (sem_init(&vm.goes_on, 0, 0) || gn_soft_create(&config, &vm.soft) ||
	    !join_daemon(&vm, c) || pthread_create(&teller, NULL, tell_bench, &vm))
		_exit(1);
	run_guest(&vm);
	pthread_join(teller, NULL);
	_exit(0); /* the kernel takes all of it back */
}
