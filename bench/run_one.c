/* SPDX-License-Identifier: MIT */
/*
 * run_one.c - one run: create the machine, boot, run, read everything out, prove, destroy. What differs for real
 * guests is in run_kvm.c.
 *
 * Every run has a machine of its own: nothing of a former run is warm. Repetitions repeat all of it, for
 * the wall time; their counters must be equal to the last digit, and it is an error when they are not.
 *
 * Where the cycles went: the machine counts walks, TLB work, fault delivery and exits. It counts an exit
 * as a whole; the world switch in it is taken as exits times the preset's cost of one, the rest is VMM
 * work. What no cause names is shown as "other", so that the causes always add up to the cycles.
 */
#include "run_one.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "run_control.h"
#include "run_kvm.h"
#include "save_memory.h"
#include "workloads/hosted.h"

const char *run_group_name(enum workload_kind kind)
{
	switch (kind) {
	case WORKLOAD_MEMORY:
		return "memory";
	case WORKLOAD_OS:
		return "os";
	case WORKLOAD_TRACE:
		return "trace";
	}
	return "other";
}

const struct workload *run_find_workload(const char *name, const char **argument)
{
	*argument = strncmp(name, "trace:", 6) == 0 ? name + 6 : NULL;
	return workload_find(name);
}

/* A figure of the preset, 0 when it has none of that key. */
static double preset_figure(const struct gn_cpu_preset *preset, const char *key)
{
	struct gn_preset_figure figure;

	for (unsigned i = 0; gn_cpu_preset_figure(preset, i, &figure); i++)
		if (!strcmp(figure.key, key))
			return figure.value;
	return 0;
}

static void read_causes(const struct machine *machine, const struct gn_soft_stats *stats,
			struct results_run *run)
{
	const struct gn_counters *c = &run->counters;
	double *cause = run->cause_cycles, named = 0;
	/* interp leaves no guest: its accesses are translated where the VMM is. */
	double exits = (double)(c->exits - c->exits_by[GN_EXIT_SOFTWARE]) *
		       preset_figure(machine->cpu, "exit_cycles");

	if (exits > (double)c->exit_cycles)
		exits = (double)c->exit_cycles;
	cause[RESULTS_BASE] = (double)c->cycles_base;
	cause[RESULTS_TLB] = (double)(stats->tlb_cycles + stats->tlb_flush_cycles);
	cause[RESULTS_WALK] = (double)c->walk_cycles;
	cause[RESULTS_EXIT] = exits;
	cause[RESULTS_VMM] = (double)c->exit_cycles - exits;
	cause[RESULTS_GUEST_FAULT] = (double)stats->guest_fault_cycles;
	for (unsigned i = 0; i < RESULTS_OTHER; i++)
		named += cause[i];
	cause[RESULTS_OTHER] = (double)c->cycles > named ? (double)c->cycles - named : 0;
	run->has_causes = true;
}

static void read_machine(const struct run_request *request, struct gn_soft *soft,
			 struct results_run *run)
{
	struct gn_soft_stats stats;
	struct gn_table_usage usage;

	gn_soft_counters(soft, &run->counters);
	for (unsigned i = 0; gn_counter_desc(i); i++)
		run->known |= (uint64_t)1 << i;
	run->exits_known = ((uint64_t)1 << GN_EXIT_REASONS) - 1;
	gn_soft_stats(soft, &stats);
	_Static_assert(RESULTS_WALK_REFS == GN_SOFT_MAX_WALK_REFS + 1, "one slot per count");
	memcpy(run->walk_histogram, stats.walk_refs_histogram, sizeof(run->walk_histogram));
	run->has_histogram = true;
	read_causes(request->machine, &stats, run);
	gn_vm_table_usage(gn_soft_vm(soft), &usage);
	run->table_frame_bytes = usage.frames_bytes;
	run->table_meta_bytes = usage.meta_bytes;
	run->table_bytes = usage.frames_bytes + usage.meta_bytes;
	run->table_bytes_peak = usage.peak_bytes;
	run->has_tables = true;
	run->memory_sum = gn_vm_memory_sum(gn_soft_vm(soft));
	run->has_sum = true;
	if (request->stats)
		*request->stats = stats;
}

static int run_audit(struct gn_soft *soft, struct results_run *run)
{
	struct gn_audit_report report;
	int err = gn_audit(gn_soft_vm(soft), &report);

	if (err == -EBADMSG)
		snprintf(run->failure, sizeof(run->failure),
			 "audit: %llu violations, the first: %.200s",
			 (unsigned long long)report.violations, report.first);
	else if (err)
		snprintf(run->failure, sizeof(run->failure), "audit: %s", strerror(-err));
	return err;
}

static double seconds_between(const struct timespec *a, const struct timespec *b)
{
	return (double)(b->tv_sec - a->tv_sec) + (double)(b->tv_nsec - a->tv_nsec) / 1e9;
}

/* ---- One run ------------------------------------------------------------------------------------------------- */

struct running {
	const struct run_request *request;
	struct balloon_vm *memory; /* NULL: all of it, always */
};

/* At the workload's ticks, on the guest's thread. */
static void on_progress(void *ctx, double done)
{
	const struct running *running = ctx;
	struct kernel_stats stats;

	if (running->memory) {
		kernel_stats(&stats);
		balloon_vm_note_refaults(running->memory, stats.refaults);
	}
	if (running->request->progress)
		running->request->progress(running->request->progress_ctx, done);
}

/* An idle guest: its timer ticks, and its driver answers the device. */
static void on_phase(void *ctx, unsigned phase, uint64_t operations)
{
	const struct running *running = ctx;

	(void)phase, (void)operations;
	for (unsigned ms = 0; ms < running->request->rest_ms; ms += RUN_IDLE_TICK_MS) {
		sys_tick();
		run_idle();
	}
}

/* One repetition; @run's counters are overwritten, a time sample is added. */
static int run_once(const struct run_request *request, const struct workload *workload,
		    const struct workload_params *params, struct results_run *run)
{
	const struct machine *machine = request->machine;
	struct gn_soft_config config = {
		.vm = { .scheme = request->scheme,
			.mem_bytes = machine->mem_bytes,
			.vcpus = machine->vcpus,
			.backing_level = machine->backing_level,
			.nested_levels = machine->nested_levels },
		.cpu = machine->cpu,
		.seed = machine->seed,
	};
	struct running running = { .request = request };
	const struct workload_hosting hosting = {
		.progress = on_progress,
		.phase = on_phase,
		.ctx = &running,
		.balloon_pa = request->control ? GN_BALLOON_MMIO_GPA : 0,
		.dirty_ram = run_sharing_is_dirty(request->sharing)
	};
	struct gn_share_agent *sharer = NULL;
	struct timespec begin, end;
	const char *why = NULL;
	struct gn_soft *soft;
	int err;

	if (request->sharing)
		run_sharing_prepare(request->sharing, &config.vm);
	err = gn_soft_create(&config, &soft);
	if (err) {
		snprintf(run->failure, sizeof(run->failure), "the machine was not created: %s",
			 strerror(-err));
		return err;
	}
	if (request->control) {
		err = run_control_join(request->control, gn_soft_vm(soft), run, &running.memory);
		if (err)
			goto out;
		gn_soft_set_mmio(soft, gn_balloon_mmio, balloon_vm_device(running.memory));
	}
	if (request->sharing) {
		err = run_sharing_join(request->sharing, &config.vm, gn_soft_vm(soft), run,
				       &sharer);
		if (err)
			goto out;
		gn_soft_set_hypercalls(soft, run_sharing_hypercall, sharer);
	}
	clock_gettime(CLOCK_MONOTONIC, &begin);
	err = workload_run_hosting(gn_soft_cpu(soft, 0), workload, params, &hosting, &why);
	clock_gettime(CLOCK_MONOTONIC, &end);
	if (err) {
		snprintf(run->failure, sizeof(run->failure), "%s%.250s",
			 err == -EBADMSG     ? "self-check failed: "
			 : err == -ECANCELED ? "the guest was stopped: "
					     : "",
			 why && *why ? why : strerror(-err));
		goto out;
	}
	if (sharer)
		gn_share_agent_stop(sharer);
	read_machine(request, soft, run);
	if (results_add_sample(run, seconds_between(&begin, &end)))
		err = -ENOMEM;
	else if (request->audit)
		err = run_audit(soft, run);
	if (!err && request->image)
		err = save_memory(gn_soft_vm(soft), request->image, run);
	if (running.memory && request->memory)
		balloon_vm_stats(running.memory, request->memory);
	if (sharer && request->shared)
		gn_share_agent_get_stats(sharer, request->shared);
out:
	gn_share_agent_destroy(sharer);
	balloon_vm_destroy(running.memory);
	gn_soft_destroy(soft);
	return err;
}

static int run_soft(const struct run_request *request, const struct workload *workload,
		    const struct workload_params *params, struct results_run *run)
{
	struct gn_counters first = { 0 };
	uint64_t first_sum = 0;
	int err = 0;

	for (unsigned i = 0; i < request->repeat && !err; i++) {
		err = run_once(request, workload, params, run);
		if (!err && i &&
		    (memcmp(&first, &run->counters, sizeof(first)) != 0 ||
		     first_sum != run->memory_sum)) {
			snprintf(run->failure, sizeof(run->failure),
				 "repetition %u counted differently from the first", i + 1);
			err = -EBADMSG;
		}
		first = run->counters;
		first_sum = run->memory_sum;
	}
	return err;
}

int run_one(const struct run_request *request, struct results_run *run)
{
	const struct machine *machine = request->machine;
	const char *argument;
	const struct workload *workload = run_find_workload(request->workload, &argument);
	struct workload_params params = {
		.size = request->size,
		.seed = machine->seed,
		.mem_bytes = machine->mem_bytes,
		.large_pages = machine->large_pages,
		.pcid = machine->pcid,
		.levels = machine->guest_levels,
		.argument = argument ? argument : request->argument,
	};

	if (!workload)
		return -ENOENT;
	if (!params.size)
		params.size = request->quick ? workload->size_quick : workload->size_default;
	snprintf(run->backend, sizeof(run->backend), "%s", machine_backend_name(machine));
	snprintf(run->scheme, sizeof(run->scheme), "%s", request->scheme);
	snprintf(run->workload, sizeof(run->workload), "%s", request->workload);
	snprintf(run->group, sizeof(run->group), "%s", run_group_name(workload->kind));
	run->seed = machine->seed;
	run->vcpus = machine->vcpus;
	run->mem_bytes = machine->mem_bytes;
	run->params = (struct results_params){ params.size,	      machine->large_pages,
					       machine->pcid,	      machine->backing_level,
					       machine->guest_levels, machine->nested_levels };
	if (machine->backend == MACHINE_KVM)
		return run_kvm(request, &params, run);
	snprintf(run->cpu, sizeof(run->cpu), "%s", gn_cpu_preset_name(machine->cpu));
	return run_soft(request, workload, &params, run);
}
