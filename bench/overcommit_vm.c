/* SPDX-License-Identifier: MIT */
/*
 * overcommit_vm.c - one VM: a software machine under nested paging, the guest kernel with its balloon driver, the
 * workload `phases`, and an agent.
 *
 * The VM's own thread runs the guest. The agent's thread takes targets to the balloon device at once, estimates the
 * working set by sampling accessed bits in periods of 2 s, and reports.
 * What only the guest's thread may read (its kernel's statistics, the machine's cycles) it leaves in atomics at its
 * ticks and phases.
 *
 * At the end of a phase the workload says what the next one lacks, as a server that is about to map memory could:
 * the ask. It has been met when the VM has OVERCOMMIT_GRANT_BYTES more than it had, or all that it asked. The guest
 * does not wait for it: it begins to allocate, evicts its page cache, and takes pages out of the balloon by
 * itself before it kills anybody (deflate on OOM), which may put the host over its budget for a moment.
 */
#include "overcommit_vm.h"

#include <errno.h>
#include <math.h>
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

#include "balloon/sampler.h"
#include "workloads/hosted.h"

#define PAGE_BYTES	4096u
#define SAMPLE_NS	UINT64_C(2000000000)
#define REPORT_NS	UINT64_C(1000000000)
#define MOVED_NS	UINT64_C(5000000)
#define MOVED_BYTES	((uint64_t)4 << 20)
#define SAMPLES		1024 /* an error of 1.6 % */
#define KERNEL_PART	32
#define WARM_OPERATIONS 20000
#define IDLE_TICK_NS	1000000
#define LOW_FACTOR	3 /* a VM whose turn it is has pages to read first */

/* (c) const after start, (g) the guest's thread only, (t) the agent's thread only, (a) atomic. */
struct vm {
	const struct overcommit_setup *setup; /* (c) */
	unsigned index;			      /* (c) */
	int fd;				      /* (c) */
	struct gn_soft *soft;		      /* (c) */
	struct gn_balloon *balloon;	      /* (c) */
	sem_t goes_on;
	_Atomic uint64_t refaults, free_bytes, available_bytes, relieved, wanted; /* (a) */
	_Atomic uint64_t ask_from, ask_bytes,
		ask_ns; /* (a) ask_bytes is written last and read first */
	_Atomic uint64_t asks, asks_unmet, cycles; /* (a) */
	_Atomic int state;			   /* (a) enum overcommit_vm_state */
	_Atomic bool is_over;		     /* (a) the guest's thread has nothing more to say */
	_Atomic uint64_t waits_for;	     /* (a) a phase; 0: none */
	double cycles_before, idle_cycles;   /* (g) */
	char why[120];			     /* (g), then (c) once state is DIED */
	struct gn_sampler *sampler;	     /* (t) */
	uint64_t active_bytes, recent_bytes; /* (t) */
	uint64_t sampled_ns, reported_ns, reported_actual, reported_ask, reported_wait; /* (t) */
	double met_ms;									/* (t) */
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t actual_bytes(const struct vm *vm)
{
	return vm->setup->mem_bytes - gn_balloon_actual_pages(vm->balloon) * PAGE_BYTES;
}

/* ---- The guest's thread ---------------------------------------------------------------------------------------- */

/* Phase 0 warms up; then rounds of turns, one phase each; then rest. */
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
	atomic_store(&vm->relieved, stats.balloon_relieved);
	atomic_store(&vm->free_bytes, stats.frames_free * PAGE_BYTES);
	atomic_store(&vm->available_bytes, (stats.frames_free + stats.cache_pages) * PAGE_BYTES);
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
}

static void begin_phase(struct vm *vm, unsigned phase)
{
	uint64_t wanted = wanted_in(vm, phase), has = actual_bytes(vm);

	atomic_store(&vm->wanted, wanted);
	if (!is_high(vm, phase) || wanted <= has)
		return;
	atomic_fetch_add(&vm->asks, 1);
	atomic_store(&vm->ask_from, has);
	atomic_store(&vm->ask_ns, now_ns());
	atomic_store(&vm->ask_bytes, wanted - has);
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
	fprintf(to, "%u/%u/%d", low, low, WARM_OPERATIONS);
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

/* ---- The agent's thread ------------------------------------------------------------------------------------------ */

static void sample(struct vm *vm, uint64_t now)
{
	struct gn_working_set set;

	vm->sampled_ns = now;
	if (gn_sampler_next_period(vm->sampler))
		return;
	gn_sampler_estimate(vm->sampler, &set);
	if (!set.periods)
		return;
	vm->active_bytes = set.active_pages * PAGE_BYTES;
	vm->recent_bytes =
		(uint64_t)(fmax(set.fast, set.rising) * (double)set.population_pages) * PAGE_BYTES;
}

static void watch_ask(struct vm *vm, uint64_t now, uint64_t actual)
{
	uint64_t bytes = atomic_load(&vm->ask_bytes), from = atomic_load(&vm->ask_from);
	uint64_t met = bytes < OVERCOMMIT_GRANT_BYTES ? bytes : OVERCOMMIT_GRANT_BYTES;

	/* The guest's thread may end it at the same time: one of the two gets it. */
	if (bytes && actual + PAGE_BYTES > from + met &&
	    atomic_exchange(&vm->ask_bytes, 0) == bytes)
		vm->met_ms = (double)(now - atomic_load(&vm->ask_ns)) / 1e6;
}

static void report(struct vm *vm, uint64_t now, uint64_t actual)
{
	uint64_t ask = atomic_load(&vm->ask_bytes), from = atomic_load(&vm->ask_from);
	struct overcommit_report r = {
		.state = (enum overcommit_vm_state)atomic_load(&vm->state),
		.actual_bytes = actual,
		.active_bytes = vm->active_bytes,
		.recent_bytes = vm->recent_bytes,
		.free_bytes = atomic_load(&vm->free_bytes),
		.available_bytes = atomic_load(&vm->available_bytes),
		.asks_bytes = ask && from + ask > actual ? from + ask - actual : 0,
		.wanted_bytes = atomic_load(&vm->wanted),
		.waits_for = atomic_load(&vm->waits_for),
		.refaults = atomic_load(&vm->refaults),
		.asks = atomic_load(&vm->asks),
		.asks_unmet = atomic_load(&vm->asks_unmet),
		.relieved_pages = atomic_load(&vm->relieved),
		.cycles = (double)atomic_load(&vm->cycles),
		.met_ms = vm->met_ms,
	};

	if (r.state == OVERCOMMIT_VM_DIED)
		memcpy(r.why, vm->why, sizeof(r.why));
	if (send(vm->fd, &r, sizeof(r), MSG_NOSIGNAL) != (ssize_t)sizeof(r))
		_exit(1); /* the bench is gone */
	vm->met_ms = 0;
	vm->reported_ns = now;
	vm->reported_actual = actual;
	vm->reported_ask = ask;
	vm->reported_wait = r.waits_for;
}

static void obey(struct vm *vm)
{
	struct overcommit_order order;
	ssize_t got;

	while ((got = recv(vm->fd, &order, sizeof(order), MSG_DONTWAIT)) ==
	       (ssize_t)sizeof(order)) {
		if (order.target_bytes)
			gn_balloon_set_target(vm->balloon,
					      (vm->setup->mem_bytes - order.target_bytes) /
						      PAGE_BYTES);
		if (order.goes_on)
			sem_post(&vm->goes_on);
	}
	if (!got)
		_exit(1);
}

static bool is_news(const struct vm *vm, uint64_t now, uint64_t actual)
{
	uint64_t moved = actual > vm->reported_actual ? actual - vm->reported_actual
						      : vm->reported_actual - actual;

	return now - vm->reported_ns >= REPORT_NS || vm->met_ms > 0 ||
	       atomic_load(&vm->ask_bytes) != vm->reported_ask ||
	       atomic_load(&vm->waits_for) != vm->reported_wait ||
	       (moved && now - vm->reported_ns >= (moved >= MOVED_BYTES ? MOVED_NS : 4 * MOVED_NS));
}

static void *run_agent(void *ctx)
{
	struct vm *vm = ctx;
	struct pollfd fd = { .fd = vm->fd, .events = POLLIN };

	vm->sampled_ns = now_ns();
	while (!atomic_load(&vm->is_over)) {
		uint64_t now, actual;

		poll(&fd, 1, 1);
		obey(vm);
		now = now_ns();
		actual = actual_bytes(vm);
		watch_ask(vm, now, actual);
		if (now - vm->sampled_ns >= SAMPLE_NS)
			sample(vm, now);
		if (is_news(vm, now, actual))
			report(vm, now, actual);
	}
	report(vm, now_ns(), actual_bytes(vm));
	return NULL;
}

void overcommit_vm_main(const struct overcommit_setup *setup, unsigned index, uint64_t boot_bytes,
			int fd)
{
	const struct gn_soft_config config = {
		.vm = { .scheme = "ept", .mem_bytes = setup->mem_bytes, .vcpus = 1 },
		.seed = setup->seed,
	};
	const struct gn_balloon_config device = { .target_pages = (setup->mem_bytes - boot_bytes) /
								  PAGE_BYTES };
	const struct gn_sampler_config sampling = { .samples = SAMPLES,
						    .seed = setup->seed + index };
	struct vm vm = { .setup = setup,
			 .index = index,
			 .fd = fd,
			 .active_bytes = GN_POLICY_UNKNOWN,
			 .recent_bytes = GN_POLICY_UNKNOWN };
	pthread_t agent;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	atomic_store(&vm.wanted, wanted_in(&vm, 0));
	if (sem_init(&vm.goes_on, 0, 0) || gn_soft_create(&config, &vm.soft) ||
	    gn_balloon_create(gn_soft_vm(vm.soft), &device, &vm.balloon) ||
	    gn_sampler_new(gn_soft_vm(vm.soft), &sampling, &vm.sampler))
		_exit(1);
	gn_soft_set_mmio(vm.soft, gn_balloon_mmio, vm.balloon);
	if (pthread_create(&agent, NULL, run_agent, &vm))
		_exit(1);
	run_guest(&vm);
	pthread_join(agent, NULL);
	_exit(0); /* the kernel takes all of it back */
}
