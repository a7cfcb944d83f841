/* SPDX-License-Identifier: MIT */
/*
 * scale.h - what `gnomon overcommit scale` runs: many small VMs under one gnomon-balloond, a process each.
 *
 * Each VM has a slot in memory that it shares with the bench: there it says how far it is. It owns its slot; the bench
 * only reads it, and tells all at once when to end.
 */
#ifndef GN_BENCH_SCALE_H
#define GN_BENCH_SCALE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "mmu/atomics.h"

#define SCALE_SCHEMA "gnomon.scale/1"
/* What the daemon may cost, with all VMs there. */
#define SCALE_GOAL_CORE_PERCENT 2.0 /* in steady state */
#define SCALE_GOAL_KIB_PER_VM	64.0
#define SCALE_GOAL_ROUND_MS	50.0
enum { SCALE_MAX_VMS = 4000, SCALE_STEPS = 3 };

enum scale_vm_state { SCALE_VM_BOOTS, SCALE_VM_RUNS, SCALE_VM_ENDED, SCALE_VM_FAILED };

struct scale_slot {
	_Atomic(int) state;	      /* (a) enum scale_vm_state */
	_Atomic(uint64_t) operations; /* (a) each checked, as of the last phase */
	_Atomic(uint64_t) targets;    /* (a) told by the daemon */
	char why[120];		      /* written before state is FAILED */
};

struct scale_shared {
	_Atomic(bool) is_over; /* (a) VMs end at their next tick */
	struct scale_slot slots[SCALE_MAX_VMS];
};

struct scale_vm_config {
	const char *socket;
	unsigned index;
	uint64_t mem_bytes, min_bytes, seed;
	struct scale_shared *shared;
};
/* Forked: become that VM. Does not return. */
__attribute__((noreturn)) void scale_vm_main(const struct scale_vm_config *config);

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
