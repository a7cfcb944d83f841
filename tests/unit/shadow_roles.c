/* SPDX-License-Identifier: MIT */
/*
 * shadow_roles.c - the key of a shadow page is gfn and the whole role.
 */
#include <criterion/criterion.h>

#include "unit/shadow_rig.h"
#include "unit/shadow_check.h"

#define USER ((uint64_t)0x40000000)

/* One gfn is now a table, now the first page of a 2 MiB page, under one PDE. */
Test(shadow_roles, trap01_role_key_pde_toggle)
{
	const struct gn_vm_config config = { .backing_level = 2 };
	const uint64_t block = (uint64_t)4 << 20; /* its first page is the table */
	struct rig rig;
	uint64_t pde;

	rig_start(&rig, &config);
	pde = rig_entry(&rig, rig.root, USER, 2);
	for (unsigned i = 0; i < 4; i++)
		rig_write(&rig, block + i * 8, (block + (i + 1) * 4096) | USER_RW);
	for (unsigned round = 0; round < 40; round++) {
		unsigned i = round % 4;

		CHECK_OK(rig_poke(&rig, pde, block | USER_RW));
		rig_invlpg(&rig, USER + i * 4096);
		CHECK_OK(rig_user_load(&rig, USER + i * 4096));
		cr_assert_eq(rig_gpa(&rig, USER + i * 4096), block + (i + 1) * 4096);
		CHECK_AUDIT(&rig);
		CHECK_OK(rig_poke(&rig, pde, block | USER_RW | LARGE));
		rig_invlpg(&rig, USER + i * 4096);
		CHECK_OK(rig_user_load(&rig, USER + i * 4096));
		cr_assert_eq(rig_gpa(&rig, USER + i * 4096), block + i * 4096);
		CHECK_AUDIT(&rig);
	}
	rig_end(&rig);
}

/* Two PUD entries share a PMD table with different rights: each way has its own. */
Test(shadow_roles, trap02_shared_pmd_with_different_rights)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t pmd;

	rig_start(&rig, &config);
	rig_map(&rig, rig.root, USER, 1, 0x5000 | USER_RW);
	pmd = rig_read(&rig, rig_entry(&rig, rig.root, USER, 3)) & X86_PTE_ADDR;
	rig_map(&rig, rig.root, 2 * USER, 3, pmd | USER_RO);
	rig_map(&rig, rig.root, 3 * USER, 3, pmd | KERNEL_RW);
	for (unsigned round = 0; round < 2; round++) {
		CHECK_OK(rig_user_store(&rig, USER, 1));
		CHECK_PF(rig_user_store(&rig, 2 * USER, 1), X86_PF_P | X86_PF_W | X86_PF_U);
		CHECK_OK(rig_user_load(&rig, 2 * USER));
		CHECK_PF(rig_user_load(&rig, 3 * USER), X86_PF_P | X86_PF_U);
		CHECK_OK(rig_store(&rig, 3 * USER, 2));
		CHECK_AUDIT(&rig);
	}
	rig_end(&rig);
}

/* Two large PDEs of one frame with different rights must not share their pieces. */
Test(shadow_roles, trap02_large_pdes_of_one_frame_share_no_pieces)
{
	static const struct {
		const char *name;
		uint64_t second;
		bool writable;
	} cases[] = {
		{ "read-only", USER_RO | LARGE, false },
		{ "kernel", KERNEL_RW | LARGE, false },
		{ "no-execute", USER_RW | LARGE | X86_PTE_NX, true },
		{ "clean", USER_RW | LARGE | 0, true },
		{ "global", USER_RW | LARGE | X86_PTE_G, true },
		{ "key", USER_RW | LARGE | (uint64_t)3 << X86_PTE_PKEY_SHIFT, true },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct gn_vm_config config = { 0 }; /* 4 KiB frames: always split */
		const uint64_t second = USER + ((uint64_t)2 << 20), at = (uint64_t)6 << 20;
		struct rig rig;

		rig_start(&rig, &config);
		rig_map(&rig, rig.root, USER, 2, at | USER_RW | LARGE);
		rig_map(&rig, rig.root, second, 2, at | cases[i].second);
		for (unsigned round = 0; round < 3; round++) {
			struct rig_result r;

			CHECK_OK(rig_user_store(&rig, USER, round));
			r = rig_user_store(&rig, second, round);
			cr_assert_eq(r.end, cases[i].writable ? RIG_OK : RIG_PF, "%s: %d",
				     cases[i].name, r.end);
			r = rig_user_load(&rig, USER);
			cr_assert(r.end == RIG_OK && (round == 0 || r.faults == 0),
				  "%s: the first mapping is gone", cases[i].name);
			CHECK_AUDIT(&rig);
		}
		rig_end(&rig);
	}
}

/* One INVLPG ends all pieces of a large page, also when they live on below another entry. */
Test(shadow_roles, invlpg_ends_all_pieces)
{
	const struct gn_vm_config config = { 0 };
	const uint64_t at = (uint64_t)6 << 20, second = USER + ((uint64_t)2 << 20);
	struct rig rig;
	uint64_t pde;

	rig_start(&rig, &config);
	pde = rig_map(&rig, rig.root, USER, 2, at | USER_RW | LARGE);
	rig_map(&rig, rig.root, second, 2, at | USER_RW | LARGE);
	for (unsigned i = 0; i < 4; i++) {
		CHECK_OK(rig_user_load(&rig, second + i * 4096));
		CHECK_OK(rig_user_store(&rig, USER + i * 4096, i));
	}
	CHECK_OK(rig_poke(&rig, pde, at | USER_RO | LARGE));
	rig_invlpg(&rig, USER);
	for (unsigned i = 0; i < 4; i++) {
		CHECK_PF(rig_user_store(&rig, USER + i * 4096, 1), X86_PF_P | X86_PF_W | X86_PF_U);
		CHECK_QUIET(rig_user_load(&rig, second + i * 4096));
	}
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* A mapping by 2 MiB that holds its own tables is split, and stores through it reach the tables' shadows. */
Test(shadow_roles, trap10_self_mapping_large_page_is_split)
{
	const struct gn_vm_config config = { .backing_level = 2 };
	struct gn_table_usage usage;
	struct rig rig;
	uint64_t pte;

	rig_create(&rig, &config);
	rig_linear(&rig, rig.root, 2);
	rig_mode(rig.vcpu, rig.root, X86_CR0_WP, X86_CR4_PGE);
	pte = rig_map(&rig, rig.root, USER, 1, 0x7000 | USER_RW);
	CHECK_OK(rig_load(&rig, RIG_LINEAR + ((uint64_t)8 << 20)));
	cr_assert_eq(rig_leaf_level(&rig, RIG_LINEAR + ((uint64_t)8 << 20)), 2);
	CHECK_OK(rig_user_load(&rig, USER));
	CHECK_OK(rig_load(&rig, RIG_LINEAR + pte));
	cr_assert_eq(rig_leaf_level(&rig, RIG_LINEAR + pte), 1);
	for (unsigned i = 8; i < 12; i++) {
		CHECK_OK(rig_poke(&rig, pte, (uint64_t)i << 12 | USER_RW));
		rig_invlpg(&rig, USER);
		CHECK_OK(rig_user_load(&rig, USER));
		cr_assert_eq(rig_gpa(&rig, USER), (uint64_t)i << 12);
		CHECK_AUDIT(&rig);
	}
	/* The root too, through itself. */
	CHECK_OK(rig_poke(&rig, rig.root + 5 * 8, 0));
	CHECK_AUDIT(&rig);
	gn_vm_table_usage(rig.vm, &usage);
	cr_assert_gt(usage.frames_bytes, 0);
	rig_end(&rig);
}

/* A root that is its own table at every level (the recursive slot of many kernels). */
Test(shadow_roles, trap10_recursive_slot)
{
	const struct gn_vm_config config = { 0 };
	const uint64_t slot = 510, base = (uint64_t)0xffff000000000000 | slot << 39;
	struct rig rig;
	uint64_t pte, window;

	rig_start(&rig, &config);
	rig_write(&rig, rig.root + slot * 8, rig.root | KERNEL_RW);
	pte = rig_map(&rig, rig.root, USER, 1, 0x7000 | USER_RW);
	window = base | (USER >> 9 & 0x7ffffffff8);
	cr_assert_eq(rig_load(&rig, window).value & X86_PTE_ADDR, 0x7000);
	CHECK_OK(rig_user_load(&rig, USER));
	for (unsigned i = 8; i < 12; i++) {
		CHECK_OK(rig_store(&rig, window, (uint64_t)i << 12 | USER_RW));
		cr_assert_eq(rig_read(&rig, pte) & X86_PTE_ADDR, (uint64_t)i << 12);
		rig_invlpg(&rig, USER);
		CHECK_OK(rig_user_load(&rig, USER));
		cr_assert_eq(rig_gpa(&rig, USER), (uint64_t)i << 12);
		CHECK_AUDIT(&rig);
	}
	/* The slot itself, through itself: the address it stands at is translated by it. */
	window = base | slot << 30 | slot << 21 | slot << 12 | slot * 8;
	CHECK_OK(rig_store(&rig, window, rig.root | KERNEL_RW));
	CHECK_AUDIT(&rig);
	CHECK_OK(rig_store(&rig, window, 0));
	rig_invlpg(&rig, window);
	CHECK_PF(rig_load(&rig, window), 0);
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* A large guest page goes from clean to dirty: its pieces change their role. */
Test(shadow_roles, trap14_large_page_clean_to_dirty)
{
	for (unsigned backing = 1; backing <= 2; backing++) {
		const struct gn_vm_config config = { .backing_level = backing };
		struct rig rig;
		uint64_t pde;

		rig_start(&rig, &config);
		pde = rig_map(&rig, rig.root, USER, 2,
			      ((uint64_t)6 << 20) | (USER_RW & ~X86_PTE_D) | LARGE);
		CHECK_OK(rig_user_load(&rig, USER));
		CHECK_OK(rig_user_load(&rig, USER + 4096));
		cr_assert_not(rig_read(&rig, pde) & X86_PTE_D);
		CHECK_AUDIT(&rig);
		CHECK_OK(rig_user_store(&rig, USER, 1));
		cr_assert(rig_read(&rig, pde) & X86_PTE_D);
		CHECK_OK(rig_user_store(&rig, USER + 4096, 1));
		CHECK_AUDIT(&rig);
		/* And clean again, by one store and one INVLPG for the whole of it. */
		CHECK_OK(rig_poke(&rig, pde, ((uint64_t)6 << 20) | (USER_RW & ~X86_PTE_D) | LARGE));
		rig_invlpg(&rig, USER);
		CHECK_AUDIT(&rig);
		CHECK_OK(rig_user_store(&rig, USER + 4096, 1));
		cr_assert(rig_read(&rig, pde) & X86_PTE_D, "backing %u", backing);
		CHECK_AUDIT(&rig);
		rig_end(&rig);
	}
}

/* Largest leaf: 1 GiB, where guest, frames and configuration agree. */
Test(shadow_roles, leaf_sizes)
{
	for (unsigned max = 1; max <= 3; max++)
		for (unsigned guest = 1; guest <= 3; guest++) {
			const struct gn_vm_config config = { .backing_level = 3,
							     .max_leaf_level = max,
							     .mem_bytes = (uint64_t)2 << 30 };
			const uint64_t at = (uint64_t)1 << 30;
			struct rig rig;

			rig_create(&rig, &config);
			rig_map(&rig, rig.root, USER, guest,
				at | USER_RW | (guest > 1 ? LARGE : 0));
			rig_mode(rig.vcpu, rig.root, X86_CR0_WP, X86_CR4_PGE);
			CHECK_OK(rig_user_store(&rig, USER + 8, 1));
			cr_assert_eq(rig_leaf_level(&rig, USER), max < guest ? max : guest,
				     "max %u guest %u", max, guest);
			rig_end(&rig);
		}
}

/* Paging off, and a guest of five levels. */
Test(shadow_roles, modes)
{
	const struct gn_vm_config config = { .backing_level = 2 };
	struct rig rig;

	rig_create(&rig, &config);
	CHECK_OK(rig_store(&rig, 0x123000, 7));
	CHECK_OK(rig_user_store(&rig, 0x400000, 8));
	cr_assert_eq(rig_load(&rig, 0x123000).value, 7);
	cr_assert_eq(rig_load(&rig, (uint64_t)1 << 40).end, RIG_MMIO);
	CHECK_AUDIT(&rig);
	rig_mode(rig.vcpu, rig.root, X86_CR0_WP, X86_CR4_LA57);
	rig_map(&rig, rig.root, USER, 1, 0x5000 | USER_RW);
	rig_map(&rig, rig.root, (uint64_t)1 << 52, 2, 0x600000 | USER_RW | LARGE);
	cr_assert_eq(rig.vcpu->hw.fmt, &gn_fmt_x86_5);
	CHECK_OK(rig_user_store(&rig, USER, 9));
	CHECK_OK(rig_user_store(&rig, (uint64_t)1 << 52, 9));
	cr_assert_eq(rig_load(&rig, (uint64_t)1 << 60).end, RIG_GP);
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}
