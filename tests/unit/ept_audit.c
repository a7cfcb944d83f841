/* SPDX-License-Identifier: MIT */
/*
 * ept_audit.c - an auditor that never complains proves nothing: break the tables in each way it claims to
 * notice, and see that it does.
 */
#include <errno.h>

#include "ept_rig.h"

#define MIB ((uint64_t)1 << 20)

static uint64_t other_frame(struct gn_vm *vm, uint64_t *slot)
{
	(void)vm;
	return *slot + GN_PAGE_SIZE;
}

static uint64_t beyond_the_pool(struct gn_vm *vm, uint64_t *slot)
{
	return *slot + vm->frames->frame_count * GN_PAGE_SIZE;
}

static uint64_t frozen(struct gn_vm *vm, uint64_t *slot)
{
	(void)slot;
	return gn_entry_software(rig_ept(vm)->fmt, 1, GN_SW_FIRST);
}

static uint64_t our_root(struct gn_vm *vm, uint64_t *slot)
{
	return (*slot & ~rig_ept(vm)->fmt->level[1].address) | pfn_to_hpa(rig_ept(vm)->root).v;
}

static uint64_t writable(struct gn_vm *vm, uint64_t *slot)
{
	return *slot | gn_fmt_rights_bits(rig_ept(vm)->fmt, 1, GN_RWXU);
}

struct damage {
	const char *name;
	uint64_t at;
	uint64_t (*entry)(struct gn_vm *vm, uint64_t *slot);
};
static const struct damage damages[] = {
	{ "another frame", 3, other_frame }, { "a frame beyond the pool", 3, beyond_the_pool },
	{ "a frozen leaf", 3, frozen },	     { "our root, mapped", 3, our_root },
	{ "a right too many", 4, writable },
};

Test(ept_audit, notices_each_damage_of_a_leaf)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++)
		for (unsigned d = 0; d < sizeof(damages) / sizeof(damages[0]); d++) {
			struct gn_vm_config config = rig_config(&rig_variants[v], 4 * MIB, 1);
			struct gn_vm *vm = rig_vm(&config);
			struct gn_audit_report report;
			uint64_t *slot, old;

			rig_touch(vm, 3, GN_WRITE);
			rig_touch(vm, 4, GN_WRITE);
			cr_assert_eq(gn_p2m_protect(vm, gfn(4), 1, true), 0);
			rig_touch(vm, 4, GN_READ);
			rig_audit(vm, "before the damage");
			slot = rig_walk(vm, damages[d].at).slot;
			old = *slot;
			*slot = damages[d].entry(vm, slot);
			cr_assert_eq(gn_audit(vm, &report), -EBADMSG, "%s: not noticed",
				     damages[d].name);
			cr_assert_geq(report.violations, 1);
			*slot = old;
			rig_audit(vm, "after the repair");
			gn_vm_destroy(vm);
		}
}

Test(ept_audit, notices_a_leaf_of_what_has_no_frame)
{
	struct gn_vm_config config = rig_config(&rig_variants[0], 4 * MIB, 1);
	struct gn_vm *vm = rig_vm(&config);
	struct gn_audit_report report;
	uint64_t *slot;

	rig_touch(vm, 3, GN_WRITE);
	slot = rig_walk(vm, 3).slot;
	slot[1] = slot[0];
	cr_assert_eq(gn_audit(vm, &report), -EBADMSG);
	slot[1] = 0;
	gn_vm_destroy(vm);
}

Test(ept_audit, notices_a_table_referred_to_twice_and_a_wrong_count)
{
	struct gn_vm_config config = rig_config(&rig_variants[2], 8 * MIB, 1);
	struct gn_vm *vm = rig_vm(&config);
	struct gn_audit_report report;
	struct gn_ept *ept = rig_ept(vm);
	uint64_t *slot;
	pfn_t table;

	rig_touch(vm, 3, GN_WRITE);
	table = ept->root;
	for (unsigned l = ept->fmt->levels; l > 2; l--)
		table = gn_ept_child(ept, l,
				     gn_entry_get(gn_ept_slot_of(vm, ept, table, l, gfn(3))));
	slot = gn_ept_slot_of(vm, ept, table, 2, gfn(3));
	slot[1] = slot[0];
	cr_assert_eq(gn_audit(vm, &report), -EBADMSG);
	slot[1] = 0;
	cr_assert_eq(gn_table_new(vm, &table), 0);
	cr_assert_eq(gn_audit(vm, &report), -EBADMSG, "a lost table");
	gn_table_retire(vm, table);
	rig_audit(vm, "after the repair");
	gn_vm_destroy(vm);
}

Test(ept_audit, notices_a_leaf_larger_than_the_block)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 2);
		struct gn_vm *vm = rig_vm(&config);
		struct gn_audit_report report;
		uint64_t *slot, old;

		rig_touch(vm, 512, GN_WRITE);
		slot = rig_walk(vm, 512).slot;
		old = *slot;
		cr_assert_eq(gn_p2m_protect(vm, gfn(600), 1, true), 0);
		cr_assert_eq(*slot, 0);
		*slot = old;
		cr_assert_eq(gn_audit(vm, &report), -EBADMSG);
		*slot = 0;
		rig_audit(vm, "after the repair");
		gn_vm_destroy(vm);
	}
}

Test(ept_audit, notices_a_write_the_dirty_log_would_miss)
{
	struct gn_vm_config config = rig_config(&rig_variants[0], 4 * MIB, 1);
	struct gn_vm *vm = rig_vm(&config);
	struct gn_audit_report report;
	uint64_t *slot;

	rig_touch(vm, 3, GN_WRITE);
	cr_assert_eq(gn_dirty_start(vm), 0);
	slot = rig_walk(vm, 3).slot;
	*slot |= gn_fmt_rights_bits(rig_ept(vm)->fmt, 1, GN_W);
	cr_assert_eq(gn_audit(vm, &report), -EBADMSG);
	gn_dirty_stop(vm);
	rig_audit(vm, "without a log");
	gn_vm_destroy(vm);
}

Test(ept_audit, notices_a_malformed_entry)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 4 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		struct gn_ept *ept = rig_ept(vm);
		uint64_t reserved = ept->fmt->level[ept->fmt->levels].reserved_table, *slot;
		struct gn_audit_report report;

		rig_touch(vm, 3, GN_WRITE);
		slot = gn_ept_slot_of(vm, ept, ept->root, ept->fmt->levels, gfn(3));
		*slot |= reserved;
		cr_assert_eq(gn_audit(vm, &report), -EBADMSG);
		*slot &= ~reserved;
		rig_audit(vm, "after the repair");
		gn_vm_destroy(vm);
	}
}

Test(ept_audit, notices_a_table_given_to_the_guest)
{
	struct gn_vm_config config = rig_config(&rig_variants[0], 4 * MIB, 1);
	struct gn_vm *vm = rig_vm(&config);
	struct gn_audit_report report;
	p2m_word_t bad = gn_p2m_word(GN_P2M_READONLY, GN_R | GN_X, 1, rig_ept(vm)->root);

	rig_touch(vm, 3, GN_WRITE);
	atomic_store(&vm->p2m.words[7], bad.v);
	cr_assert_eq(gn_audit(vm, &report), -EBADMSG);
	atomic_store(&vm->p2m.words[7], 0);
	rig_audit(vm, "after the repair");
	gn_vm_destroy(vm);
}

Test(ept_audit, without_memory_nothing_is_called_clean)
{
	struct gn_vm_config config = rig_config(&rig_variants[0], 4 * MIB, 1);
	struct gn_vm *vm = rig_vm(&config);
	struct gn_audit_report report;

	for (uint64_t n = 1; n <= 2; n++) {
		gn_alloc_fail_nth(n);
		cr_assert_neq(gn_audit(vm, &report), 0);
		gn_alloc_fail_nth(0);
	}
	rig_audit(vm, "with memory");
	gn_vm_destroy(vm);
}
