/* SPDX-License-Identifier: MIT */
/*
 * gate.c - the waiting side of the gate; the protocol is told in gate.h.
 *
 * A fault is inside for some tens of nanoseconds unless the host took its CPU away, so spin briefly and
 * then give the CPU up; there is nobody to sleep on.
 */
#include "gate.h"

#include <sched.h>

#define SPINS_BEFORE_YIELD 64

void gn_ept_drain(struct gn_ept_slot *slots, unsigned slot_count)
{
	for (unsigned i = 0; i < slot_count; i++) {
		unsigned spins = 0;

		/* C2, pairs with F1 and F4. */
		while (__atomic_fetch_add(&slots[i].inside, 0, __ATOMIC_ACQ_REL)) {
			if (++spins > SPINS_BEFORE_YIELD)
				sched_yield();
			else
				__builtin_ia32_pause();
		}
	}
}
