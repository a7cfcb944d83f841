/* SPDX-License-Identifier: MIT */
/*
 * scale.h - what `gnomon overcommit scale` finds: the cost of one gnomon-balloond with so many VMs.
 */
#ifndef GN_BENCH_SCALE_H
#define GN_BENCH_SCALE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define SCALE_SCHEMA "gnomon.scale/1"
/* What the daemon may cost, with all VMs there. */
#define SCALE_GOAL_CORE_PERCENT 2.0 /* in steady state */
#define SCALE_GOAL_KIB_PER_VM	64.0
#define SCALE_GOAL_ROUND_MS	50.0
enum { SCALE_STEPS = 3 };

/* With so many VMs. */
struct scale_step {
	unsigned vms;
	double boot_s;	     /* until all that came with this step were admitted and had booted */
	double core_percent; /* the daemon's CPU time in the window */
	double kib_per_vm;   /* resident memory of the daemon, beyond what it had without VMs */
	double round_cpu_ms; /* the costliest since the daemon began, in CPU time */
	double round_ms;     /* the longest, preemption included */
	double rounds_per_s;
	double targets_per_s;	 /* told to VMs */
	double operations_per_s; /* of all guests */
	double host_kib_per_vm;	 /* what a VM's process costs, its share of shared pages included */
};

struct scale_results {
	unsigned vms, failed;
	uint64_t mem_bytes, min_bytes, budget_bytes, seed;
	double settle_s, window_s;
	struct scale_step steps[SCALE_STEPS];
	unsigned step_count;
	char first_failure[160];
};

void scale_print(const struct scale_results *r, FILE *to, bool colour);
/* -errno. */
int scale_write_json(const struct scale_results *r, const char *path);

#endif
