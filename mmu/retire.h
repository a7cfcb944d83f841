/* SPDX-License-Identifier: MIT */
/*
 * retire.h - frames on their way out.
 *
 * A vCPU may still use a translation it loaded before a flush was posted; it does so inside an RCU read
 * section and looks for posted flushes when it enters one. So a frame that was unmapped and whose flush was
 * posted is free to reuse after one grace period. Frames wait in a list of the VM; the list is
 * drained when it is long or the pool is empty, at points that depend on the guest's operations only, which
 * keeps frame numbers deterministic. Memory that is given up for good waits there as well, marked as the
 * host's; who gave it up drains at once.
 */
#ifndef GN_MMU_RETIRE_H
#define GN_MMU_RETIRE_H

#include <gnomon/engine.h>

#include "atomics.h"
#include "frames.h"
#include "lock.h"

#define GN_RETIRE_BATCH	     256
#define GN_RETIRE_MERGE_RUNS 1024

struct gn_retire {
	struct gn_lock drain_lock;     /* GN_RANK_DRAIN: one drain at a time */
	struct gn_lock lock;	       /* GN_RANK_RETIRE */
	struct gn_frame_run *list;     /* [lock] */
	struct gn_frame_run *draining; /* [drain_lock] swapped with list by a drain */
	size_t count;		       /* [lock], read without for a hint */
	_Atomic(uint64_t) drains;      /* (a) that have put something; written under drain_lock */
	size_t capacity;	       /* (c) of each list */
};

int gn_retire_init(struct gn_vm *vm);
void gn_retire_fini(struct gn_vm *vm);

/* Put a reference to @frame once a grace period has passed. Cannot fail; may be called under the
 * scheme's and the p2m's lock and inside a read section (it never waits there). */
void gn_retire_frame(struct gn_vm *vm, pfn_t frame);
/* The same for runs of frames, in their order. */
void gn_retire_runs(struct gn_vm *vm, const struct gn_frame_run *runs, size_t count);
/* Before up to GN_RETIRE_MERGE_RUNS references are retired for which nothing was taken out of the pool: with the p2m lock, under
 * which they will be retired, held, and where gn_retire_drain() may be called. */
void gn_retire_make_room(struct gn_vm *vm);
/* Wait for a grace period and put all. When it returns, whatever was retired before the call has been put, if need be by
 * a drain that was under way. Outside read sections; no lock of rank above GN_RANK_P2M held. */
void gn_retire_drain(struct gn_vm *vm);
/* The same, and the wait also if there is nothing to put: the guest, which may notice a wait, learns nothing by it. */
void gn_retire_drain_always(struct gn_vm *vm);

/* For an allocation that may fail while frames wait: take the number of drains *before* it, and if it fails,
 * drain by gn_retire_drain_since(). True: something was put since that number was taken, whoever put it, so the
 * allocation is worth another try. */
uint64_t gn_retire_drains(const struct gn_vm *vm);
bool gn_retire_drain_since(struct gn_vm *vm, uint64_t drains);
/* gn_retire_drain() if the list is long. Called by the engine at the end of each vCPU report. */
void gn_retire_poll(struct gn_vm *vm);

#endif
