/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retire.h - frames on their way out.
 *
 * A vCPU may still use a translation it loaded before a flush was posted; it does so inside an RCU read
 * section and looks for posted flushes when it enters one. So a frame that was unmapped and whose flush was
 * posted is free to reuse after one grace period. Frames wait in a list of the VM; the list is
 * drained when it is long or the pool is empty, at points that depend on the guest's operations only, which
 * keeps frame numbers deterministic.
 */
#ifndef GN_MMU_RETIRE_H
#define GN_MMU_RETIRE_H

#include <gnomon/engine.h>

#include "arena.h"
#include "lock.h"

#define GN_RETIRE_BATCH 256

struct gn_retire {
	struct gn_lock lock;
	pfn_t *list;		/* [lock] */
	size_t count, capacity; /* [lock] */
};

int gn_retire_init(struct gn_vm *vm);
void gn_retire_fini(struct gn_vm *vm);

/* Put a reference to @frame once a grace period has passed. Cannot fail; may be called under the
 * scheme's and the p2m's lock and inside a read section (it never waits there). */
void gn_retire_frame(struct gn_vm *vm, pfn_t frame);
/* Wait for a grace period and put all. Outside read sections and locks. */
void gn_retire_drain(struct gn_vm *vm);
/* gn_retire_drain() if the list is long. Called by the engine at the end of each vCPU report. */
void gn_retire_poll(struct gn_vm *vm);

#endif
