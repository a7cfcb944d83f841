/* SPDX-License-Identifier: MIT */
/*
 * ept_gate.c - faults and p2m changes keep out of each other's way: the interleavings that threads hit once
 * in a million, made by hand.
 */
#include <pthread.h>
#include <unistd.h>

#include "ept_rig.h"

#define MIB ((uint64_t)1 << 20)

static struct gn_vm *small_vm(unsigned backing_level)
{
	struct gn_vm_config config = rig_config(&rig_variants[0], 8 * MIB, backing_level);

	return rig_vm(&config);
}

/* A fault looked at the p2m, the p2m changed, the fault goes on. */
Test(ept_gate, a_fault_older_than_a_change_is_sent_back)
{
	struct gn_vm *vm = small_vm(1);
	struct gn_ept *ept = rig_ept(vm);
	uint64_t sequence;

	rig_touch(vm, 3, GN_WRITE);
	sequence = gn_p2m_begin_read(&vm->p2m);
	cr_assert(gn_ept_enter(vm, &ept->slots[0], sequence));
	gn_ept_leave(&ept->slots[0]);
	cr_assert_eq(gn_p2m_discard(vm, gfn(3), 1), 0);
	cr_assert_not(gn_ept_enter(vm, &ept->slots[0], sequence));
	cr_assert_eq(ept->slots[0].inside, 0, "and it is out");
	cr_assert_not(gn_rcu_is_reading());
	gn_vm_destroy(vm);
}

struct changer {
	struct gn_vm *vm;
	int done; /* atomic */
};

static void *discard_three(void *arg)
{
	struct changer *c = (struct changer *)arg;

	gn_p2m_discard(c->vm, gfn(3), 1);
	__atomic_store_n(&c->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* A fault is inside, a change begins: it waits, and sweeps what the fault installs. */
Test(ept_gate, a_change_waits_for_a_fault_that_is_inside)
{
	struct gn_vm *vm = small_vm(1);
	struct gn_ept *ept = rig_ept(vm);
	struct changer c = { .vm = vm };
	struct gn_ept_spare spare = { .full = false };
	uint64_t sequence;
	p2m_word_t word;
	pthread_t thread;

	rig_touch(vm, 4, GN_WRITE); /* tables */
	cr_assert_eq(gn_p2m_populate(vm, gfn(3), 1), 0);
	sequence = gn_p2m_begin_read(&vm->p2m);
	word = gn_p2m_get(&vm->p2m, gfn(3));
	cr_assert(gn_ept_enter(vm, &ept->slots[1], sequence));
	pthread_create(&thread, NULL, discard_three, &c);
	while (!gn_p2m_retry(&vm->p2m, sequence))
		usleep(100);
	usleep(20000);
	cr_assert_not(__atomic_load_n(&c.done, __ATOMIC_ACQUIRE));
	cr_assert_eq(gn_ept_map(vm, ept, gfn(3), word, GN_R | GN_W, &spare), GN_EPT_DONE);
	cr_assert(rig_maps(vm, 3, GN_RWX));
	gn_ept_leave(&ept->slots[1]);
	pthread_join(thread, NULL);
	cr_assert_eq(rig_walk(vm, 3).end, GN_WALK_ABSENT);
	rig_audit(vm, "after the change");
	gn_vm_destroy(vm);
}

/* Another vCPU faults in the middle of a collapse: at the moment the flush is posted. */
static struct gn_ept_spare intruder_spare;
static enum gn_ept_step intruder_step;
static uint64_t *old_child;
static bool intruder_filled_old_child;

static void intrude(struct gn_vm *vm)
{
	struct gn_ept *ept = rig_ept(vm);
	p2m_word_t word = gn_p2m_get(&vm->p2m, gfn(700));
	uint64_t absent = 0;
	bool must_flush;

	intruder_step = gn_ept_map(vm, ept, gfn(700), word, GN_R | GN_W, &intruder_spare);
	/* One that had reached the old table before it was unlinked. */
	intruder_filled_old_child = gn_entry_cmpxchg(
		vm, ept->fmt, 1, &old_child[700 - 512], &absent,
		gn_fmt_leaf(ept->fmt, 1, gn_p2m_word_pfn(word), GN_RWXU), &must_flush);
}

Test(ept_gate, a_fault_in_the_middle_of_a_collapse_starts_again)
{
	struct gn_vm *vm = small_vm(2);

	/* A table of small leaves, of which 700 is absent, where one large leaf could be. */
	rig_touch(vm, 512, GN_WRITE);
	cr_assert_eq(gn_dirty_start(vm), 0);
	rig_touch(vm, 600, GN_WRITE);
	rig_range(vm, 700, 701, GN_RANGE_ZAP);
	gn_dirty_stop(vm);
	old_child =
		(uint64_t *)((uintptr_t)rig_walk(vm, 600).slot & ~(uintptr_t)(GN_PAGE_SIZE - 1));
	cr_assert_eq(old_child[700 - 512], 0);
	rig_on_flush = intrude;
	cr_assert_eq(rig_touch(vm, 601, GN_WRITE), GN_FIX_RETRY);
	rig_on_flush = NULL;
	cr_assert_eq(intruder_step, GN_EPT_BUSY);
	cr_assert_not(intruder_filled_old_child);
	cr_assert_eq(rig_walk(vm, 700).level, 2);
	rig_audit(vm, "after the collapse");
	gn_vm_destroy(vm);
}

/* Two faults need the same table: the second finds the first one's. */
Test(ept_gate, a_lost_race_keeps_the_spare_and_a_stale_one_is_cleaned)
{
	struct gn_vm *vm = small_vm(2);
	struct gn_ept *ept = rig_ept(vm);
	struct gn_ept_spare spare = { .full = false };
	uint64_t *slot, entry;

	rig_touch(vm, 512, GN_WRITE);
	slot = rig_walk(vm, 512).slot;
	entry = *slot;
	cr_assert_eq(gn_ept_spare_fill(vm, &spare), 0);
	cr_assert_eq(gn_ept_spare_fill(vm, &spare), 0, "a no-op");
	/* The split loses; its spare is full of leaves now. */
	cr_assert_eq(gn_ept_split(vm, ept, 2, slot, entry ^ ept->fmt->level[2].accessed, &spare),
		     GN_EPT_BUSY);
	cr_assert(spare.full);
	/* The same spare becomes an ordinary table. */
	cr_assert_eq(gn_dirty_start(vm), 0);
	cr_assert_eq(gn_p2m_populate(vm, gfn(1024), 1), 0);
	cr_assert_eq(gn_ept_map(vm, ept, gfn(1024), gn_p2m_get(&vm->p2m, gfn(1024)), GN_R, &spare),
		     GN_EPT_DONE);
	cr_assert_not(spare.full);
	cr_assert_eq(rig_walk(vm, 1025).end, GN_WALK_ABSENT);
	rig_audit(vm, "after reuse of a spare");
	gn_vm_destroy(vm);
}

Test(ept_gate, a_spare_nobody_needed_is_given_back)
{
	struct gn_vm *vm = small_vm(1);
	struct gn_ept_spare spare = { .full = false };
	uint64_t tables = rig_tables(vm);

	cr_assert_eq(gn_ept_spare_fill(vm, &spare), 0);
	cr_assert_eq(rig_tables(vm), tables + 1);
	gn_ept_spare_drop(vm, &spare);
	gn_ept_spare_drop(vm, &spare);
	cr_assert_eq(rig_tables(vm), tables);
	gn_vm_destroy(vm);
}
