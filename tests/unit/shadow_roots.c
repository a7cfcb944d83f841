/* SPDX-License-Identifier: MIT */
/*
 * shadow_roots.c - CR3 switches: what is kept, and what must not be.
 */
#include "unit/shadow_check.h"

#define USER	 ((uint64_t)0x40000000)
#define PAGE(n)	 ((uint64_t)(n) << 12)
#define FREE_GFN 2048

/* A root with the kernel's half of the rig's and one user page. */
static uint64_t process_new(struct rig *rig, uint64_t frame)
{
	uint64_t root = rig_table(rig);

	for (unsigned i = 256; i < 512; i++)
		rig_write(rig, root + i * 8, rig_read(rig, rig->root + i * 8));
	rig_map(rig, root, USER, 1, PAGE(frame) | USER_RW);
	return root;
}

/* Switching among as many processes as there is cache for costs no fault once they ran. */
Test(shadow_roots, switching_rebuilds_nothing)
{
	const struct gn_vm_config config = { 0 };
	uint64_t root[12], faults;
	struct rig rig;

	rig_start(&rig, &config);
	for (unsigned i = 0; i < 12; i++)
		root[i] = process_new(&rig, FREE_GFN + i);
	for (unsigned round = 0; round < 3; round++) {
		faults = rig.faults;
		for (unsigned i = 0; i < 12; i++) {
			rig_cr3(&rig, root[i]);
			CHECK_OK(rig_user_store(&rig, USER, i));
			cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + i));
		}
		cr_assert(round == 0 || rig.faults == faults, "round %u", round);
		CHECK_AUDIT(&rig);
	}
	rig_end(&rig);
}

/* A root's table is freed and becomes another process's, as a root and as data. */
Test(shadow_roots, trap11_freed_root_is_not_found_stale)
{
	const struct gn_vm_config config = { 0 };
	uint64_t first, entry;
	struct rig rig;

	rig_start(&rig, &config);
	first = process_new(&rig, FREE_GFN);
	entry = rig_index(USER, 4) * 8;
	rig_cr3(&rig, first);
	CHECK_OK(rig_user_load(&rig, USER));
	rig_cr3(&rig, rig.root);
	for (unsigned round = 1; round < 10; round++) {
		uint64_t table = rig_read(&rig, first + entry);

		/* The kernel clears it and makes new tables of it ... */
		for (unsigned i = 0; i < 256; i++)
			CHECK_OK(rig_poke(&rig, first + i * 8, 0));
		rig_cr3(&rig, first);
		CHECK_PF(rig_user_load(&rig, USER), X86_PF_U);
		CHECK_AUDIT(&rig);
		rig_cr3(&rig, rig.root);
		CHECK_OK(rig_poke(&rig, first + entry, table));
		CHECK_OK(rig_poke(&rig, rig_entry(&rig, first, USER, 1),
				  PAGE(FREE_GFN + round) | USER_RW));
		rig_cr3(&rig, first);
		CHECK_OK(rig_user_load(&rig, USER));
		cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + round));
		CHECK_AUDIT(&rig);
		rig_cr3(&rig, rig.root);
	}
	/* ... and at last a user's data page of it. */
	rig_map(&rig, rig.root, 2 * USER, 1, first | USER_RW);
	CHECK_OK(rig_user_store(&rig, 2 * USER, 1));
	CHECK_QUIET(rig_user_store(&rig, 2 * USER + 8, 1));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* More roots than the cache holds. */
Test(shadow_roots, more_roots_than_cached)
{
	const struct gn_vm_config config = { 0 };
	uint64_t root[40];
	struct rig rig;

	rig_start(&rig, &config);
	for (unsigned i = 0; i < 40; i++)
		root[i] = process_new(&rig, FREE_GFN + i);
	for (unsigned n = 0; n < 200; n++) {
		unsigned i = n * 17 % 40;

		rig_cr3(&rig, root[i]);
		CHECK_OK(rig_user_store(&rig, USER, i));
		cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + i));
	}
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* The table of the root in force is taken away by the p2m: a dead root, loaded anew by the next fault. */
Test(shadow_roots, dead_root)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t root;

	rig_start(&rig, &config);
	root = process_new(&rig, FREE_GFN);
	rig_cr3(&rig, root);
	CHECK_OK(rig_user_load(&rig, USER));
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(gn_p2m_move(rig.vm, gpa_to_gfn(gpa(root)), 1), 0);
		CHECK_AUDIT(&rig);
		CHECK_OK(rig_user_load(&rig, USER));
		CHECK_AUDIT(&rig);
	}
	cr_assert_eq(gn_p2m_balloon(rig.vm, gpa_to_gfn(gpa(root)), 1), 0);
	CHECK_AUDIT(&rig);
	cr_assert_eq(rig_user_load(&rig, USER).end, RIG_STOP);
	CHECK_AUDIT(&rig);
	rig_cr3(&rig, rig.root);
	CHECK_OK(rig_load(&rig, RIG_LINEAR));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* CR3 may name anything: beyond RAM there is no table. */
Test(shadow_roots, root_outside_ram)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;

	rig_start(&rig, &config);
	rig_cr3(&rig, (uint64_t)1 << 40);
	cr_assert_eq(rig_user_load(&rig, USER).end, RIG_STOP);
	CHECK_AUDIT(&rig);
	rig_cr3(&rig, PAGE(FREE_GFN + 7)); /* RAM without a frame: zeros */
	CHECK_PF(rig_user_load(&rig, USER), X86_PF_U);
	CHECK_AUDIT(&rig);
	rig_cr3(&rig, rig.root);
	CHECK_OK(rig_load(&rig, RIG_LINEAR));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* With PCIDs a switch may keep translations; what is loaded is fresh all the same. */
Test(shadow_roots, pcid_noflush)
{
	const struct gn_vm_config config = { 0 };
	uint64_t first, second, pte;
	struct rig rig;

	rig_start(&rig, &config);
	first = process_new(&rig, FREE_GFN);
	second = process_new(&rig, FREE_GFN + 1);
	rig_mode(rig.vcpu, rig.root, X86_CR0_WP, X86_CR4_PGE | X86_CR4_PCIDE);
	pte = rig_entry(&rig, first, USER, 1);
	rig_cr3(&rig, first | 1);
	cr_assert_eq(rig.vcpu->hw.pcid, 1);
	CHECK_OK(rig_user_store(&rig, USER, 1));
	rig_cr3(&rig, second | 2 | X86_CR3_NOFLUSH);
	CHECK_OK(rig_user_store(&rig, USER, 2));
	cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + 1));
	rig_cr3(&rig, first | 1 | X86_CR3_NOFLUSH);
	CHECK_QUIET(rig_user_load(&rig, USER));
	rig_cr3(&rig, second | 2 | X86_CR3_NOFLUSH);
	CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN + 5) | USER_RW));
	bool gp;
	gn_vcpu_invpcid(rig.vcpu, X86_INVPCID_SINGLE, 1, gva(0), &gp);
	cr_assert_not(gp);
	rig_cr3(&rig, first | 1 | X86_CR3_NOFLUSH);
	CHECK_OK(rig_user_load(&rig, USER));
	cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + 5));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* Between schemes and back, tables and all. */
Test(shadow_roots, scheme_switch)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;

	rig_start(&rig, &config);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	for (unsigned i = 0; i < 6; i++) {
		CHECK_OK(rig_user_store(&rig, USER, i));
		cr_assert_eq(gn_vm_switch_scheme(rig.vm, i % 2 ? "shadow" : "shadow-vtlb"), 0);
		cr_assert_eq(rig_user_load(&rig, USER).value, i);
		CHECK_AUDIT(&rig);
	}
	rig_end(&rig);
}
