/* SPDX-License-Identifier: MIT */
/*
 * gate.h - faults install in parallel; a p2m change waits until none is installing.
 *
 * The exclusion a nested table needs is lopsided. Faults are many and independent: they install with
 * compare-and-exchange and disturb nobody. A change of the p2m is rare and must be alone: an entry made
 * from the old p2m must not appear after the change has swept the range. A mutex round both would make
 * every fault of every vCPU pay for the rare case, and queue behind the others.
 *
 * So each vCPU has a slot on a cache line of its own. A fault counts itself in, *then* looks at the
 * p2m's sequence; a change makes the sequence odd, *then* looks at the slots. Whoever is second sees the
 * other: the fault backs off, or the change waits the few instructions until the fault has left.
 *
 *	fault                                   change (p2m lock held)
 *	  F1  slot += 1           (RMW)           C1  sequence = odd
 *	  F2  sequence as before? else leave      C2  slot += 0           (RMW), until it is 0
 *	  F3  install                             C3  sweep
 *	  F4  slot -= 1
 *
 * Both F1 and C2 are read-modify-writes of one variable, so one comes first in its modification
 * order. F1 after C2: F1 acquires what C2 released, hence F2 sees C1. F1 before C2: C2 sees the count
 * and waits for F4, whose release it acquires, hence C3 sees the install. No fence is needed.
 *
 * Inside the gate nothing waits: not for the sequence, not for memory, not for a grace period. The gate
 * also opens an RCU read section, for a table that another fault unlinked may not be reused under us.
 */
#ifndef GN_EPT_GATE_H
#define GN_EPT_GATE_H

#include "mmu/vm.h"

#define GN_EPT_CACHE_LINE_BYTES 64

struct gn_ept_slot {
	uint32_t inside; /* (a) */
	uint8_t pad[GN_EPT_CACHE_LINE_BYTES - sizeof(uint32_t)];
};

/* Enter through @slot with the sequence from gn_p2m_begin_read(). False: the p2m has changed or is
 * changing; start again. */
static inline bool gn_ept_enter(struct gn_vm *vm, struct gn_ept_slot *slot, uint64_t sequence)
{
	gn_rcu_read_lock();
	__atomic_fetch_add(&slot->inside, 1, __ATOMIC_ACQ_REL); /* F1, pairs with C2 */
	if (GN_LIKELY(!gn_p2m_retry(&vm->p2m, sequence)))
		return true;
	__atomic_fetch_sub(&slot->inside, 1, __ATOMIC_RELEASE);
	gn_rcu_read_unlock();
	return false;
}

static inline void gn_ept_leave(struct gn_ept_slot *slot)
{
	__atomic_fetch_sub(&slot->inside, 1, __ATOMIC_RELEASE); /* F4, pairs with C2 */
	gn_rcu_read_unlock();
}

/* With the sequence odd: return once nobody is inside. Not in a read section. */
void gn_ept_drain(struct gn_ept_slot *slots, unsigned slot_count);

#endif
