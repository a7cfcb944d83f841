/* SPDX-License-Identifier: MIT */
/*
 * shadow_vtlb.c - the virtual TLB behaves as a TLB: filled by faults, emptied by flushes, never watching.
 */
#include "unit/shadow_check.h"

#define USER	 ((uint64_t)0x40000000)
#define PAGE(n)	 ((uint64_t)(n) << 12)
#define FREE_GFN 2048

static const struct gn_vm_config config = { .scheme = "shadow-vtlb" };

Test(shadow_vtlb, stores_to_tables_do_not_trap)
{
	struct rig rig;
	uint64_t entry;

	rig_start(&rig, &config);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	CHECK_OK(rig_user_load(&rig, USER));
	for (unsigned level = 1; level <= 4; level++) {
		entry = rig_entry(&rig, rig.root, USER, level);
		CHECK_OK(rig_load(&rig, RIG_LINEAR + entry));
		CHECK_QUIET(rig_poke(&rig, entry + 8, 0));
	}
	cr_assert_eq(rig.emulated, 0);
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

Test(shadow_vtlb, invlpg_and_cr3)
{
	struct gn_table_usage usage;
	struct rig rig;
	uint64_t pte, faults;

	rig_start(&rig, &config);
	pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	CHECK_OK(rig_user_load(&rig, USER));
	for (unsigned i = 1; i < 5; i++) {
		CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN + i) | USER_RW));
		CHECK_QUIET(rig_user_load(&rig, USER)); /* stale, as a TLB would be */
		rig_invlpg(&rig, USER);
		CHECK_OK(rig_user_load(&rig, USER));
		cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + i));
		CHECK_AUDIT(&rig);
	}
	rig_cr3(&rig, rig.root);
	cr_assert_eq(rig_leaf_level(&rig, USER), 0);
	gn_vm_table_usage(rig.vm, &usage);
	cr_assert_eq(usage.frames_bytes, 4096, "the root alone is left");
	faults = rig.faults;
	CHECK_OK(rig_user_load(&rig, USER));
	cr_assert_eq(rig.faults, faults + 1);
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* INVLPG of one address in a large page is the end of all its pieces. */
Test(shadow_vtlb, invlpg_of_a_large_page_in_pieces)
{
	struct rig rig;
	uint64_t pde;

	rig_start(&rig, &config); /* 4 KiB frames */
	pde = rig_map(&rig, rig.root, USER, 2, ((uint64_t)6 << 20) | USER_RW | LARGE);
	for (unsigned i = 0; i < 8; i++)
		CHECK_OK(rig_user_store(&rig, USER + PAGE(i), 1));
	CHECK_OK(rig_poke(&rig, pde, ((uint64_t)8 << 20) | USER_RW | LARGE));
	rig_invlpg(&rig, USER + PAGE(5));
	for (unsigned i = 0; i < 8; i++) {
		CHECK_OK(rig_user_load(&rig, USER + PAGE(i)));
		cr_assert_eq(rig_gpa(&rig, USER + PAGE(i)), ((uint64_t)8 << 20) + PAGE(i));
	}
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* What the guest changed without a flush, a fault beside it puts right. */
Test(shadow_vtlb, changed_upper_level)
{
	struct rig rig;
	uint64_t pde, other;

	rig_start(&rig, &config);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	pde = rig_entry(&rig, rig.root, USER, 2);
	other = rig_table(&rig);
	rig_write(&rig, other + 8, PAGE(FREE_GFN + 1) | USER_RW);
	CHECK_OK(rig_user_load(&rig, USER));
	CHECK_OK(rig_poke(&rig, pde, other | USER_RW));
	CHECK_OK(rig_user_load(&rig, USER + PAGE(1)));
	cr_assert_eq(rig_gpa(&rig, USER + PAGE(1)), PAGE(FREE_GFN + 1));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}
