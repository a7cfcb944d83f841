/* SPDX-License-Identifier: MIT */
/*
 * reclaim.h - memory of a VM that does not give any back: what the host side can take without asking.
 *
 * Cold pages of zeros: those the guest has not used since the last time round lose their frames
 * (gn_p2m_discard_zeroes()). It loses nothing, and may have them back by using them, so what the VM may use is what it was.
 *
 * Threads: one at a time for a reclaimer (it may be any that is not inside a guest access). The VM may run meanwhile.
 *
 * Uses up accessed bits, as the sampler does: look there first (gn_sampler_look()), so that it misses nothing.
 */
#ifndef GN_BALLOON_RECLAIM_H
#define GN_BALLOON_RECLAIM_H

#include <gnomon/engine.h>

struct gn_reclaim {
	struct gn_vm *vm;
	gfn_t hand; /* where the next call goes on; 0 to begin with */
};

/* Until @bytes or a little more (less than 2 MiB) have gone back to the host, or it has looked at GN_RECLAIM_LOOK_BYTES or
 * at the whole VM. *freed_bytes: what went, on an error as well. Needs no memory; -errno of the engine's. */
#define GN_RECLAIM_LOOK_BYTES ((uint64_t)256 << 20)
int gn_reclaim_run(struct gn_reclaim *reclaim, uint64_t bytes, uint64_t *freed_bytes);

#endif
