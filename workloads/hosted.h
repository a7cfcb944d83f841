/* SPDX-License-Identifier: MIT */
/*
 * hosted.h - run a workload on the software machine. For tools; guest code never includes it.
 */
#ifndef GN_WORKLOADS_HOSTED_H
#define GN_WORKLOADS_HOSTED_H

#include <gnomon/guest.h>
#include <gnomon/soft.h>

#include "kernel.h"
#include "workload.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Boot the guest kernel on @cpu and run @workload to its end. Counters are reset after the boot, and the
 * progress hook, if any, is called now and then with 0..1.
 * 0; -EBADMSG: a self-check failed; -ECANCELED: the guest was stopped; -errno. *why: a static or machine-owned
 * text on failure. */
int workload_run_hosted(struct gn_soft_cpu *cpu, const struct workload *workload,
			const struct workload_params *params,
			void (*progress)(void *ctx, double done), void *ctx, const char **why);

/* The same with what a tool may want beside it; each may be 0 or NULL. */
struct workload_hosting {
	void (*progress)(void *ctx, double done);
	/* A phase of a workload that has them (phases) ended; @operations: since the start. */
	void (*phase)(void *ctx, unsigned phase, uint64_t operations);
	void *ctx;
	/* The registers of a virtio-balloon device that the tool made and hooked up to the machine: the
	 * guest drives it. free_poison: kernel_config. */
	uint64_t balloon_pa;
	uint32_t free_poison;
	bool dirty_ram;		    /* guest memory is not zeros: kernel_config */
	struct kernel_stats *stats; /* of the guest's kernel, also when it was stopped */
};
int workload_run_hosting(struct gn_soft_cpu *cpu, const struct workload *workload,
			 const struct workload_params *params,
			 const struct workload_hosting *hosting, const char **why);

/* The guest image's twin: the same guest on the software machine, as it would be entered by @boot (layout, levels, CPU
 * features, page size, size, seed), from its entry to its exit. Guest memory from boot->reserved_bytes on ends as the
 * image's does, and boot->ops, result, why are filled in as the image would. @argument: a trace's file, or NULL.
 * Results as of workload_run_hosted(). */
int workload_run_twin(struct gn_soft_cpu *cpu, struct gn_guest_boot *boot, const char *argument);

#ifdef __cplusplus
}
#endif
#endif
