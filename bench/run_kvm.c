/* SPDX-License-Identifier: MIT */
/*
 * run_kvm.c - one run on KVM: create the VM, load the guest image, run, read everything out, prove, destroy.
 *
 * Time. The guest stamps the end of its warm-up and its end with its own TSC; the rate of the TSC is measured against the
 * clock over the run (tsc.c). This process sees both moments too, as exits, and the two spans must agree: a TSC
 * that KVM scales for the guest would otherwise be believed. Where they do not, the clock's span is taken, and said.
 * Counters and exit times begin at the end of the warm-up, as everywhere.
 *
 * Repetitions. Times vary, and so may exits (an interrupt's arrival, a page that the CPU walked to early); what the guest
 * did may not: the hash of its table operations and its memory must be equal in all, and it is an error when they are
 * not. Counters, exit times and tables are those of the repetition with the median time.
 */
#include "run_kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/kvm.h>

#include "guest_service.h"
#include "machine_kvm.h"
#include "run_control.h"
#include "save_memory.h"

struct guest {
	const struct run_request *request;
	struct gn_kvm *kvm;
	struct gn_vm *vm;
	struct gn_guest_boot boot;
	struct guest_service service;
	struct balloon_vm *memory;     /* NULL: all of it, always */
	struct gn_share_agent *sharer; /* NULL: it shares nothing */
	struct tsc_stamp begin, end;
};

/* ---- One repetition ----------------------------------------------------------------------------------------- */

static int guest_create(struct guest *g, struct results_run *run)
{
	const struct machine *machine = g->request->machine;
	const struct workload_params *params = g->service.params;
	struct gn_kvm_config config = {
		.vm = { .scheme = g->request->scheme,
			.mem_bytes = machine->mem_bytes,
			.vcpus = machine->vcpus,
			.backing_level = machine->backing_level },
		.time_exits = true,
		.port = guest_service_port,
		.console = guest_service_console,
		.ctx = &g->service,
	};
	char why[512] = "";
	int err;

	if (g->request->sharing)
		run_sharing_prepare(g->request->sharing, &config.vm);
	err = gn_kvm_create(&config, &g->kvm, why, sizeof(why));
	if (err) {
		g->kvm = NULL;
		snprintf(run->failure, sizeof(run->failure), "the VM was not created: %s",
			 why[0] ? why : strerror(-err));
		return err;
	}
	g->vm = gn_kvm_vm(g->kvm);
	g->boot = (struct gn_guest_boot){ .mem_bytes = machine->mem_bytes,
					  .levels = machine->guest_levels,
					  .pcid = machine->pcid,
					  .smep = machine->smep,
					  .smap = machine->smap,
					  .large_pages = machine->large_pages,
					  .kernel_work = machine->kernel_work,
					  .size = params->size,
					  .seed = params->seed,
					  .vcpus = machine->vcpus,
					  .rests = g->request->rest_ms != 0 };
	if (!strncmp(g->request->workload, "trace:", 6)) {
		snprintf(g->boot.workload, sizeof(g->boot.workload), "trace");
	} else {
		snprintf(g->boot.workload, sizeof(g->boot.workload), "%s", g->request->workload);
		snprintf(g->boot.argument, sizeof(g->boot.argument), "%s",
			 params->argument ? params->argument : "");
	}
	if (g->request->control) {
		err = run_control_join(g->request->control, g->vm, run, &g->memory);
		if (err)
			return err;
		gn_kvm_set_mmio(g->kvm, gn_balloon_mmio, balloon_vm_device(g->memory));
		g->boot.balloon_pa = GN_BALLOON_MMIO_GPA;
	}
	if (g->request->sharing) {
		err = run_sharing_join(g->request->sharing, &config.vm, g->vm, run, &g->sharer);
		if (err)
			return err;
		g->service.sharer = g->sharer;
	}
	err = gn_kvm_load(g->kvm, &gn_guest_image, &g->boot);
	if (err)
		snprintf(run->failure, sizeof(run->failure), "the guest was not loaded: %s",
			 gn_kvm_error(g->kvm, 0));
	g->service.vm = g->vm;
	return err;
}

/* What became of it; 0: it ended well. */
static int judge(struct guest *g, enum gn_kvm_stop stop, uint32_t status, struct results_run *run)
{
	char why[sizeof(g->boot.why) + 1];

	snprintf(why, sizeof(why), "%.*s", (int)sizeof(g->boot.why), g->boot.why);
	for (char *at = why; *at; at++)
		if ((unsigned char)*at < ' ' || (unsigned char)*at > '~')
			*at = '?';
	switch (stop) {
	case GN_KVM_STOP_EXIT:
		if (status == GN_GUEST_EXIT_GOOD)
			return 0;
		snprintf(run->failure, sizeof(run->failure), "%s: %s",
			 status == GN_GUEST_EXIT_FAILED ? "self-check failed"
							: "the guest stopped itself",
			 why[0] ? why : "it gave no reason");
		return status == GN_GUEST_EXIT_FAILED ? -EBADMSG : -ECANCELED;
	case GN_KVM_STOP_HALT:
		snprintf(run->failure, sizeof(run->failure),
			 "the guest halted with interrupts off");
		return -ECANCELED;
	case GN_KVM_STOP_SHUTDOWN:
		snprintf(run->failure, sizeof(run->failure), "the guest shut down (triple fault)");
		return -ECANCELED;
	case GN_KVM_STOP_GUEST:
	case GN_KVM_STOP_ASKED:
	case GN_KVM_STOP_ERROR:
		break;
	}
	snprintf(run->failure, sizeof(run->failure), "%s: %.500s",
		 stop == GN_KVM_STOP_ERROR ? "the host failed" : "the guest was stopped",
		 gn_kvm_error(g->kvm, 0));
	return stop == GN_KVM_STOP_ERROR ? -EIO : -ECANCELED;
}

/* By this process's clock. */
static double clock_seconds(const struct guest *g)
{
	return (double)(g->service.end.ns - g->service.begin.ns) / 1e9;
}

/* Seconds of the measured part. */
static double measured_seconds(const struct guest *g)
{
	double clock = clock_seconds(g), tsc;

	if (!g->boot.tsc_measure || g->boot.tsc_end < g->boot.tsc_measure)
		return clock;
	tsc = (double)(g->boot.tsc_end - g->boot.tsc_measure) / tsc_hz(g->begin);
	/* The clock's span holds the guest's and two halves of exits more. */
	if (tsc <= clock * 1.02 + 1e-4 && tsc >= clock * 0.98 - 1e-3)
		return tsc;
	cli_warn("%s under %s: the guest's TSC counted %.6f s where the clock saw %.6f s; the "
		 "clock is "
		 "taken",
		 g->request->workload, g->request->scheme, tsc, clock);
	return clock;
}

static int read_guest(struct guest *g, struct results_run *run)
{
	const struct guest_service *service = &g->service;
	const struct gn_table_usage *tables = &service->tables;

	run->counters = service->counters;
	run->counters.exits = 0;
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++) {
		run->counters.exits_by[i] = service->stats.exits_by[i];
		run->counters.exits += service->stats.exits_by[i];
		run->kvm.exit_s[i] = (double)service->stats.ns_by[i] / 1e9;
	}
	run->kvm.has_exit_time = true;
	run->kvm.exit_of_s = clock_seconds(g);
	run->kvm.ops = g->boot.ops;
	run->kvm.has_ops = true;
	run->table_frame_bytes = tables->frames_bytes;
	run->table_meta_bytes = tables->meta_bytes;
	run->table_bytes = tables->frames_bytes + tables->meta_bytes;
	run->table_bytes_peak = tables->peak_bytes;
	run->has_tables = true;
	/* The image itself is other bytes on another build; the guest's memory is what lies beyond. */
	run->memory_sum = gn_vm_memory_sum_range(g->vm, gpa_to_gfn(gpa(g->boot.reserved_bytes)),
						 (g->boot.mem_bytes - g->boot.reserved_bytes) >>
							 GN_PAGE_SHIFT);
	run->has_sum = true;
	if (results_add_sample(run, measured_seconds(g)) ||
	    results_add_whole(run, (double)(g->end.ns - g->begin.ns) / 1e9)) {
		snprintf(run->failure, sizeof(run->failure), "out of memory");
		return -ENOMEM;
	}
	return 0;
}

struct proof {
	struct gn_vm *vm;
	struct results_run *run;
};

/* Called while every vCPU is outside guest and engine. */
static int audit(void *ctx)
{
	const struct proof *proof = ctx;
	struct results_run *run = proof->run;
	struct gn_audit_report report;
	int err = gn_audit(proof->vm, &report);

	if (err == -EBADMSG)
		snprintf(run->failure, sizeof(run->failure),
			 "audit: %llu violations, the first: %.200s",
			 (unsigned long long)report.violations, report.first);
	else if (err)
		snprintf(run->failure, sizeof(run->failure), "audit: %s", strerror(-err));
	return err;
}

static int run_once(const struct run_request *request, const struct workload_params *params,
		    struct results_run *run)
{
	struct guest g = { .request = request,
			   .service = { .params = params, .rest_ms = request->rest_ms },
			   .begin = tsc_now() };
	enum gn_kvm_stop stop;
	struct guest_watcher watcher;
	uint32_t status = 0;
	int err = guest_create(&g, run);

	if (err)
		goto out;
	guest_watcher_begin(&watcher, g.vm, g.memory, request->progress, request->progress_ctx);
	stop = gn_kvm_run(g.kvm, 0, &status);
	g.end = tsc_now();
	guest_watcher_end(&watcher);
	if (g.sharer)
		gn_share_agent_stop(g.sharer);
	err = gn_vm_read(g.vm, gpa(GN_GUEST_BOOT_PA), &g.boot, sizeof(g.boot));
	if (!err)
		err = judge(&g, stop, status, run);
	else
		snprintf(run->failure, sizeof(run->failure), "the boot page cannot be read: %s",
			 strerror(-err));
	if (!err && !(g.service.has_begun && g.service.has_ended)) {
		snprintf(run->failure, sizeof(run->failure),
			 "the guest did not say where its measured part begins and ends");
		err = -ECANCELED;
	}
	if (!err)
		err = read_guest(&g, run);
	if (!err && request->audit)
		err = gn_kvm_pause(g.kvm, audit, &(struct proof){ g.vm, run });
	if (!err && request->image)
		err = save_memory(g.vm, request->image, run);
	if (err && !run->failure[0])
		snprintf(run->failure, sizeof(run->failure), "%s", strerror(-err));
	if (g.memory && request->memory)
		balloon_vm_stats(g.memory, request->memory);
	if (g.sharer && request->shared)
		gn_share_agent_get_stats(g.sharer, request->shared);
out:
	gn_share_agent_destroy(g.sharer);
	balloon_vm_destroy(g.memory);
	if (g.kvm)
		gn_kvm_destroy(g.kvm);
	guest_service_fini(&g.service);
	return err;
}

/* ---- Repetitions ---------------------------------------------------------------------------------------------- */

/* What a repetition counted, until the median is known. */
struct repetition {
	struct gn_counters counters;
	double exit_s[GN_EXIT_REASONS], exit_of_s;
	uint64_t table_bytes, table_bytes_peak, table_frame_bytes, table_meta_bytes;
};

static void keep(struct repetition *rep, const struct results_run *run)
{
	rep->counters = run->counters;
	memcpy(rep->exit_s, run->kvm.exit_s, sizeof(rep->exit_s));
	rep->exit_of_s = run->kvm.exit_of_s;
	rep->table_bytes = run->table_bytes;
	rep->table_bytes_peak = run->table_bytes_peak;
	rep->table_frame_bytes = run->table_frame_bytes;
	rep->table_meta_bytes = run->table_meta_bytes;
}

static void take(const struct repetition *rep, struct results_run *run)
{
	run->counters = rep->counters;
	memcpy(run->kvm.exit_s, rep->exit_s, sizeof(rep->exit_s));
	run->kvm.exit_of_s = rep->exit_of_s;
	run->table_bytes = rep->table_bytes;
	run->table_bytes_peak = rep->table_bytes_peak;
	run->table_frame_bytes = rep->table_frame_bytes;
	run->table_meta_bytes = rep->table_meta_bytes;
}

/* The repetition with the median time, the lower of two. */
static size_t median_of(const struct results_run *run)
{
	size_t best = 0;

	for (size_t i = 0; i < run->sample_count; i++)
		if (run->samples_s[i] <= run->median_s &&
		    (run->samples_s[best] > run->median_s ||
		     run->samples_s[i] > run->samples_s[best]))
			best = i;
	return best;
}

/* The counters that real hardware tells; the others stay unknown. */
static uint64_t known_counters(void)
{
	static const char *const names[] = { "guest_faults",	  "shadow_faults", "nested_faults",
					     "pt_writes_trapped", "exits",	   "flushes" };
	const struct gn_counter_desc *desc;
	uint64_t known = 0;

	for (unsigned i = 0; (desc = gn_counter_desc(i)); i++)
		for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
			if (!strcmp(desc->name, names[n]))
				known |= (uint64_t)1 << i;
	return known;
}

static void describe_host(const struct machine *machine, struct results_run *run)
{
	const struct gn_kvm_host *host = machine_kvm_host(true);

	run->kvm.is_present = true;
	snprintf(run->kvm.module, sizeof(run->kvm.module), "%s", host->module);
	run->kvm.paging = host->paging == GN_KVM_PAGING_HARDWARE   ? RESULTS_PAGING_HARDWARE
			  : host->paging == GN_KVM_PAGING_SOFTWARE ? RESULTS_PAGING_SOFTWARE
								   : RESULTS_PAGING_UNKNOWN;
	run->kvm.smep = machine->smep;
	run->kvm.smap = machine->smap;
}

int run_kvm(const struct run_request *request, const struct workload_params *params,
	    struct results_run *run)
{
	struct repetition *reps = calloc(request->repeat, sizeof(*reps));
	uint64_t first_sum = 0, first_hash = 0;
	int err = reps ? 0 : -ENOMEM;

	describe_host(request->machine, run);
	if (err)
		snprintf(run->failure, sizeof(run->failure), "out of memory");
	for (unsigned i = 0; i < request->repeat && !err; i++) {
		err = run_once(request, params, run);
		if (!err && i &&
		    (first_sum != run->memory_sum || first_hash != run->kvm.ops.hash)) {
			snprintf(run->failure, sizeof(run->failure),
				 "repetition %u: the guest did something else than in the first "
				 "(%s)",
				 i + 1,
				 first_hash != run->kvm.ops.hash ? "table operations" : "memory");
			err = -EBADMSG;
		}
		first_sum = run->memory_sum;
		first_hash = run->kvm.ops.hash;
		keep(&reps[i], run);
	}
	if (!err) {
		take(&reps[median_of(run)], run);
		run->known = known_counters();
		run->exits_known = ((uint64_t)1 << GN_EXIT_REASONS) - 1;
	}
	free(reps);
	return err;
}
