/* SPDX-License-Identifier: MIT */
/*
 * scale_fleet.h - many small VMs, a process each.
 *
 * Each VM has a slot in memory that it shares with the bench: there it says how far it is. It owns its slot; the bench
 * only reads it, but for the death of a VM that had no time to say so, and tells all at once when to end.
 */
#ifndef GN_BENCH_SCALE_FLEET_H
#define GN_BENCH_SCALE_FLEET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "mmu/atomics.h"
#include "progress.h"

enum { SCALE_MAX_VMS = 4000 };

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

struct scale_fleet {
	const char *socket; /* of the daemon */
	uint64_t mem_bytes, min_bytes, seed;
	struct scale_shared *shared;
	pid_t pids[SCALE_MAX_VMS]; /* 0: dead */
	unsigned count;		   /* that were started */
};

/* -errno; fini it in any case. The fields before .shared are the caller's. */
int scale_fleet_init(struct scale_fleet *fleet);
/* Kill those that are left. */
void scale_fleet_fini(struct scale_fleet *fleet);
/* Until there are @vms, and each is up or has failed; a few at a time. -ETIMEDOUT: for long none came up; -ECHILD: another
 * child of ours ended, which can only be the daemon; -errno: they cannot be started. */
int scale_fleet_boot(struct scale_fleet *fleet, unsigned vms, struct progress *progress);
/* So long nothing but what they do. -ECHILD. */
int scale_fleet_pass(struct scale_fleet *fleet, double seconds, struct progress *progress);
/* Let all end at their next tick, and wait for it, not for long. */
void scale_fleet_end(struct scale_fleet *fleet);
unsigned scale_fleet_count(const struct scale_fleet *fleet, enum scale_vm_state state);

#endif
