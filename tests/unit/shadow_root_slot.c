/* SPDX-License-Identifier: MIT */
/*
 * shadow_root_slot.c - the backend's own entry in every root, and what the auditor says of it and of views.
 */
#include "unit/shadow_view_rig.h"

#define SLOT   480
#define SLOT_4 ((uint64_t)0xfffff00000000000)
#define SLOT_5 ((uint64_t)0xffe0000000000000)

struct slot_rig {
	struct rig rig;
	struct gn_root_slot slot;
	hpa_t table;
};

/* As a backend does it: no tables yet, the slot, then the scheme. */
static void slot_start(struct slot_rig *r, unsigned scheme, bool deprivileged)
{
	struct gn_vm_config config = views_config(scheme);

	config.deprivileged = deprivileged;
	config.scheme = "interp";
	config.scheme_table_limit_bytes = PAGE(24);
	rig_create(&r->rig, &config);
	rig_linear(&r->rig, r->rig.root, 1);
	cr_assert_eq(gn_vm_pool_alloc(r->rig.vm, &r->table), 0);
	r->slot = (struct gn_root_slot){ .index = SLOT,
					 .entry4 = r->table.v | X86_PTE_P | X86_PTE_W | X86_PTE_A,
					 .entry5 = r->table.v | X86_PTE_P | X86_PTE_A };
	cr_assert_eq(gn_vm_set_root_slot(r->rig.vm, &r->slot), 0);
	cr_assert_eq(gn_vm_switch_scheme(r->rig.vm, schemes[scheme]), 0);
}

static void slot_end(struct slot_rig *r)
{
	CHECK_AUDIT(&r->rig);
	cr_assert_eq(gn_vm_switch_scheme(r->rig.vm, "interp"), 0);
	gn_vm_pool_free(r->rig.vm, r->table);
	rig_end(&r->rig);
}

static void check_slot(struct slot_rig *r)
{
	const struct gn_hw *hw = gn_vcpu_hw(r->rig.vcpu);
	const uint64_t *root = gn_frames_at(r->rig.vm->frames, hw->root);

	cr_assert_eq(root[SLOT], hw->fmt->levels == 5 ? r->slot.entry5 : r->slot.entry4);
	CHECK_AUDIT(&r->rig);
}

Test(shadow_root_slot, reserved_slot_is_in_every_root)
{
	for (unsigned s = 0; s < SCHEMES; s++)
		for (unsigned deprivileged = 0; deprivileged < 2; deprivileged++) {
			struct slot_rig r;
			uint64_t other, five;
			bool gp;

			slot_start(&r, s, deprivileged);
			check_slot(&r); /* paging off */
			rig_mode(r.rig.vcpu, r.rig.root, X86_CR0_WP, X86_CR4_SMAP);
			other = rig_table(&r.rig);
			rig_write(&r.rig, other + rig_index(RIG_LINEAR, 4) * 8,
				  rig_read(&r.rig, r.rig.root + rig_index(RIG_LINEAR, 4) * 8));
			for (unsigned i = 0; i < 40; i++) {
				privilege(&r.rig, i % 3 == 0, i % 3 == 1);
				check_slot(&r);
				rig_cr3(&r.rig, i & 1 ? other : r.rig.root);
				check_slot(&r);
				CHECK_OK(rig_load(&r.rig, RIG_LINEAR + PAGE(i * 40)));
				rig_invlpg(&r.rig, SLOT_4);
				/* A guest's store to that entry of its own, tracked. */
				CHECK_OK(rig_poke(&r.rig, r.rig.root + SLOT * 8,
						  i & 4 ? USER_RW : 0));
				check_slot(&r);
				if (i == 30) /* its table changes frames: zapped */
					cr_assert_eq(gn_p2m_move(r.rig.vm,
								 gpa_to_gfn(gpa(r.rig.root)), 1),
						     0);
				check_slot(&r);
			}
			/* Five levels. */
			five = rig_table(&r.rig);
			rig_write(&r.rig, five + rig_index(RIG_LINEAR, 5) * 8,
				  r.rig.root | USER_RW);
			cr_assert(!gn_vcpu_write_cr0(r.rig.vcpu, X86_CR0_PE, &gp) && !gp);
			check_slot(&r);
			rig_mode(r.rig.vcpu, five, X86_CR0_WP, X86_CR4_LA57);
			for (unsigned i = 0; i < 4; i++) {
				privilege(&r.rig, i & 1, false);
				check_slot(&r);
				rig_invlpg(&r.rig, SLOT_5);
				CHECK_OK(rig_load(&r.rig, RIG_LINEAR));
				check_slot(&r);
			}
			slot_end(&r);
		}
}

/* What the guest has there is out of its reach; what it has not is its own fault. */
Test(shadow_root_slot, reserved_slot_is_not_the_guests)
{
	for (unsigned s = 0; s < SCHEMES; s++)
		for (unsigned levels = 4; levels <= 5; levels++) {
			const uint64_t va = levels == 4 ? SLOT_4 : SLOT_5;
			struct rig_result result;
			struct slot_rig r;
			uint64_t five;
			bool gp;

			slot_start(&r, s, true);
			if (levels == 5) {
				five = rig_table(&r.rig);
				rig_write(&r.rig, five + rig_index(RIG_LINEAR, 5) * 8,
					  r.rig.root | USER_RW);
				r.rig.root = five;
			}
			rig_mode(r.rig.vcpu, r.rig.root, X86_CR0_WP,
				 levels == 5 ? X86_CR4_LA57 : 0);
			CHECK_PF(rig_user_load(&r.rig, va), X86_PF_U);
			CHECK_PF(rig_load(&r.rig, va), 0);
			rig_map(&r.rig, r.rig.root, va, 1, PAGE(FREE_GFN) | USER_RW);
			rig_map(&r.rig, r.rig.root, va + 4096, 1, PAGE(FREE_GFN) | KERNEL_RW);
			result = rig_user_load(&r.rig, va);
			cr_assert_eq(result.end, RIG_STOP);
			cr_assert_eq(rig_load(&r.rig, va + 4096).end, RIG_STOP);
			CHECK_PF(rig_user_load(&r.rig, va + 4096), X86_PF_P | X86_PF_U);
			check_slot(&r);
			/* A neighbour is reached, and with four levels the same index further down. */
			rig_map(&r.rig, r.rig.root, va + gn_level_bytes(levels), 1,
				PAGE(FREE_GFN) | USER_RW);
			CHECK_OK(rig_user_load(&r.rig, va + gn_level_bytes(levels)));
			rig_map(&r.rig, r.rig.root, (uint64_t)SLOT << gn_level_shift(levels - 1), 1,
				PAGE(FREE_GFN) | USER_RW);
			CHECK_OK(rig_user_load(&r.rig,
					       (uint64_t)SLOT << gn_level_shift(levels - 1)));
			check_slot(&r);
			cr_assert(!gn_vcpu_write_cr0(r.rig.vcpu, X86_CR0_PE, &gp) && !gp);
			slot_end(&r);
		}
}

/* The auditor misses nothing: each lie about a view is found. */
Test(shadow_root_slot, audit_finds_lies)
{
	static const uint64_t flips[] = { X86_PTE_U, X86_PTE_W, X86_PTE_G,
					  (uint64_t)1 << X86_PTE_PKEY_SHIFT };
	struct gn_audit_report report;
	struct slot_rig r;
	struct gn_walk w;
	uint64_t *root;
	uint64_t *leaf;

	slot_start(&r, 0, true);
	rig_mode(r.rig.vcpu, r.rig.root, X86_CR0_WP, 0);
	rig_map(&r.rig, r.rig.root, USER, 1, PAGE(FREE_GFN) | USER_RO);
	CHECK_OK(rig_user_load(&r.rig, USER));
	CHECK_AUDIT(&r.rig);
	rig_walk_now(&r.rig, USER, &w);
	leaf = w.slot;
	for (unsigned i = 0; i < sizeof(flips) / sizeof(flips[0]); i++) {
		*leaf ^= flips[i];
		cr_assert_eq(gn_audit(r.rig.vm, &report), -EBADMSG, "flip %u", i);
		*leaf ^= flips[i];
		CHECK_AUDIT(&r.rig);
	}
	root = gn_frames_at(r.rig.vm->frames, r.rig.vcpu->hw.root);
	root[SLOT] = 0;
	cr_assert_eq(gn_audit(r.rig.vm, &report), -EBADMSG);
	root[SLOT] = r.slot.entry4;
	/* A page the kernel may use and its user may not. */
	rig_map(&r.rig, r.rig.root, USER, 1, PAGE(FREE_GFN) | KERNEL_RW);
	CHECK_OK(rig_load(&r.rig, USER));
	privilege(&r.rig, true, false);
	r.rig.vcpu->view = GN_VIEW_KERNEL;
	cr_assert_eq(gn_audit(r.rig.vm, &report), -EBADMSG, "the root of another view");
	r.rig.vcpu->view = GN_VIEW_USER;
	slot_end(&r);
}
