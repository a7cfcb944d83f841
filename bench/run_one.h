/* SPDX-License-Identifier: MIT */
/*
 * run_one.h - one workload under one scheme on a fresh machine of the backend chosen.
 */
#ifndef GN_BENCH_RUN_ONE_H
#define GN_BENCH_RUN_ONE_H

#include "balloon_vm.h"
#include "emit.h"
#include "machine.h"
#include "results.h"
#include "run_sharing.h"
#include "workloads/workload.h"

struct run_request {
	const struct machine *machine;
	const char *scheme;
	const char *workload; /* as asked: "random", "trace:FILE" */
	const char *argument; /* of the workload, or NULL */
	uint64_t size;	      /* 0: the workload's default (or its quick size) */
	bool quick, audit;
	unsigned repeat; /* >= 1; counters of all must agree (kvm: what the guest did) */
	void (*progress)(void *ctx, double done);
	void *progress_ctx;
	struct gn_soft_stats *stats; /* soft: filled in when not NULL */
	/* Be a VM of a gnomon-balloond; NULL: of none. How that went, filled in. */
	const struct balloon_vm_config *control;
	struct balloon_vm_stats *memory;
	/* Be a VM of a gnomon-shared; NULL: of none. How that went, filled in. */
	const struct run_sharing *sharing;
	struct gn_share_agent_stats *shared;
	const struct emit *image; /* for the guest's memory at the end (save_memory.h), or NULL */
	unsigned rest_ms;	  /* the guest idles so long after each phase of its workload */
};

/* Fill @run. 0: it ran. -EBADMSG: a self-check, the audit or determinism failed; other -errno: it could not
 * run or was stopped. On failure run->failure tells why, in one line. */
int run_one(const struct run_request *request, struct results_run *run);

/* The workload a name asks for; "trace:FILE" gives its argument too. NULL: unknown. */
const struct workload *run_find_workload(const char *name, const char **argument);
const char *run_group_name(enum workload_kind kind);

#endif
