/* SPDX-License-Identifier: MIT */
/*
 * shadow_rights.c - accessed and dirty, CR0.WP, SMEP, SMAP, keys, NX: what a shadow leaf says.
 */
#include "unit/shadow_check.h"

#define USER	 ((uint64_t)0x40000000)
#define PAGE(n)	 ((uint64_t)(n) << 12)
#define FREE_GFN 2048

Test(shadow_rights, trap06_accessed_and_dirty)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t pte, pde;

	rig_start(&rig, &config);
	pte = rig_map(&rig, rig.root, USER, 1,
		      PAGE(FREE_GFN) | (USER_RW & ~(X86_PTE_A | X86_PTE_D)));
	pde = rig_entry(&rig, rig.root, USER, 2);
	rig_write(&rig, pde, rig_read(&rig, pde) & ~X86_PTE_A);
	CHECK_OK(rig_user_load(&rig, USER));
	cr_assert(rig_read(&rig, pde) & X86_PTE_A);
	cr_assert(rig_read(&rig, pte) & X86_PTE_A);
	cr_assert_not(rig_read(&rig, pte) & X86_PTE_D);
	cr_assert_not(rig_rights(&rig, USER) & GN_W, "a clean entry gives a read-only leaf");
	CHECK_OK(rig_user_store(&rig, USER, 1));
	cr_assert(rig_read(&rig, pte) & X86_PTE_D);
	cr_assert(rig_rights(&rig, USER) & GN_W);
	CHECK_AUDIT(&rig);
	/* A cleared, flushed: the leaf goes, and A comes back at the next use. */
	CHECK_OK(rig_poke(&rig, pte, rig_read(&rig, pte) & ~X86_PTE_A));
	rig_invlpg(&rig, USER);
	cr_assert_eq(rig_leaf_level(&rig, USER), 0);
	CHECK_OK(rig_user_load(&rig, USER));
	cr_assert(rig_read(&rig, pte) & X86_PTE_A);
	CHECK_OK(rig_poke(&rig, pde, rig_read(&rig, pde) & ~X86_PTE_A));
	rig_invlpg(&rig, USER);
	CHECK_OK(rig_user_load(&rig, USER));
	cr_assert(rig_read(&rig, pde) & X86_PTE_A);
	/* D cleared, flushed. */
	CHECK_OK(rig_poke(&rig, pte, rig_read(&rig, pte) & ~X86_PTE_D));
	rig_invlpg(&rig, USER);
	CHECK_OK(rig_user_store(&rig, USER, 1));
	cr_assert(rig_read(&rig, pte) & X86_PTE_D);
	/* Nothing denied sets anything. */
	rig_map(&rig, rig.root, USER + 4096, 1, PAGE(FREE_GFN) | X86_PTE_P | X86_PTE_U);
	CHECK_PF(rig_user_store(&rig, USER + 4096, 1), X86_PF_P | X86_PF_W | X86_PF_U);
	cr_assert_not(rig_read(&rig, pte + 8) & (X86_PTE_A | X86_PTE_D));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

Test(shadow_rights, trap07_cr0_wp_off)
{
	static const uint64_t cr4[] = { 0, X86_CR4_SMEP, X86_CR4_SMAP, X86_CR4_PKE,
					X86_CR4_SMEP | X86_CR4_SMAP };

	for (size_t i = 0; i < sizeof(cr4) / sizeof(cr4[0]); i++) {
		const bool emulates = cr4[i] & (X86_CR4_SMAP | X86_CR4_PKE);
		const struct gn_vm_config config = { 0 };
		const struct gn_access write = {
			.va = gva(USER), .kind = GN_WRITE, .size = 8, .ac = true
		};
		struct rig rig;

		rig_create(&rig, &config);
		rig_linear(&rig, rig.root, 1);
		rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RO);
		rig_map(&rig, rig.root, USER + 4096, 1, PAGE(FREE_GFN) | (KERNEL_RW & ~X86_PTE_W));
		rig_mode(rig.vcpu, rig.root, 0, X86_CR4_PGE | cr4[i]);
		for (unsigned round = 0; round < 3; round++) {
			struct rig_result r;

			CHECK_OK(rig_user_load(&rig, USER));
			r = rig_run(&rig, rig.vcpu, &write, round);
			cr_assert_eq(r.end, RIG_OK, "case %zu: %d", i, r.end);
			cr_assert_eq(rig.emulated, emulates ? round + 1 : 0, "case %zu", i);
			CHECK_AUDIT(&rig);
			if (!emulates) {
				cr_assert_eq(rig_rights(&rig, USER) & (GN_U | GN_W), GN_W);
				cr_assert_eq(!(rig_rights(&rig, USER) & GN_X),
					     !!(cr4[i] & X86_CR4_SMEP));
			}
			if (cr4[i] & X86_CR4_SMEP)
				CHECK_PF(rig_fetch(&rig, USER, false), X86_PF_P | X86_PF_I);
			else
				CHECK_OK(rig_fetch(&rig, USER, false));
			CHECK_OK(rig_fetch(&rig, USER, true));
			CHECK_PF(rig_user_store(&rig, USER, 1), X86_PF_P | X86_PF_W | X86_PF_U);
			cr_assert_eq(rig_user_load(&rig, USER).value, round);
			CHECK_OK(rig_store(&rig, USER + 4096, round));
			CHECK_AUDIT(&rig);
		}
		rig_end(&rig);
	}
}

/* CR0.WP and back: other roles, no leak between them. */
Test(shadow_rights, trap07_wp_is_part_of_the_role)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;

	rig_start(&rig, &config);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RO);
	for (unsigned round = 0; round < 3; round++) {
		bool gp;

		CHECK_PF(rig_store(&rig, USER, 1), X86_PF_P | X86_PF_W);
		cr_assert_eq(gn_vcpu_write_cr0(rig.vcpu, X86_CR0_PE | X86_CR0_PG, &gp), 0);
		CHECK_OK(rig_store(&rig, USER, 1));
		cr_assert_eq(gn_vcpu_write_cr0(rig.vcpu, X86_CR0_PE | X86_CR0_PG | X86_CR0_WP, &gp),
			     0);
		CHECK_AUDIT(&rig);
	}
	rig_end(&rig);
}

Test(shadow_rights, trap08_smap_and_implicit_accesses)
{
	const struct gn_vm_config config = { 0 };
	struct gn_access a = { .va = gva(USER), .kind = GN_READ, .size = 8 };
	struct rig rig;

	rig_create(&rig, &config);
	rig_linear(&rig, rig.root, 1);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	rig_mode(rig.vcpu, rig.root, X86_CR0_WP, X86_CR4_SMAP | X86_CR4_SMEP);
	for (unsigned warm = 0; warm < 2; warm++) {
		a.implicit = a.ac = a.user = false;
		CHECK_PF(rig_run(&rig, rig.vcpu, &a, 0), X86_PF_P);
		a.ac = true;
		CHECK_OK(rig_run(&rig, rig.vcpu, &a, 0));
		a.implicit = true;
		CHECK_PF(rig_run(&rig, rig.vcpu, &a, 0), X86_PF_P);
		a.user = true;
		CHECK_PF(rig_run(&rig, rig.vcpu, &a, 0), X86_PF_P);
		CHECK_OK(rig_user_load(&rig, USER));
		CHECK_PF(rig_fetch(&rig, USER, false), X86_PF_P | X86_PF_I);
	}
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

Test(shadow_rights, protection_keys)
{
	const uint64_t key = (uint64_t)5 << X86_PTE_PKEY_SHIFT;
	const struct gn_vm_config config = { 0 };
	struct rig rig;

	rig_create(&rig, &config);
	rig_linear(&rig, rig.root, 1);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW | key);
	rig_map(&rig, rig.root, USER + ((uint64_t)2 << 20), 2,
		((uint64_t)4 << 20) | USER_RW | LARGE | key);
	rig_mode(rig.vcpu, rig.root, X86_CR0_WP, X86_CR4_PKE);
	for (unsigned large = 0; large < 2; large++) {
		uint64_t va = USER + large * ((uint64_t)2 << 20);

		gn_vcpu_write_pkru(rig.vcpu, 0);
		CHECK_OK(rig_user_store(&rig, va, 1));
		gn_vcpu_write_pkru(rig.vcpu, 2u << 10);
		CHECK_PF(rig_user_store(&rig, va, 1), X86_PF_P | X86_PF_W | X86_PF_U | X86_PF_PK);
		CHECK_OK(rig_user_load(&rig, va));
		gn_vcpu_write_pkru(rig.vcpu, 1u << 10);
		CHECK_PF(rig_user_load(&rig, va), X86_PF_P | X86_PF_U | X86_PF_PK);
		CHECK_OK(rig_fetch(&rig, va, true));
	}
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* Under CR0.WP=0 a key's write-disable does not bind the kernel; the hardware, with WP=1, would hold it. */
Test(shadow_rights, key_write_disable_without_wp)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;

	rig_create(&rig, &config);
	rig_map(&rig, rig.root, USER, 1,
		PAGE(FREE_GFN) | USER_RW | (uint64_t)5 << X86_PTE_PKEY_SHIFT);
	rig_mode(rig.vcpu, rig.root, 0, X86_CR4_PKE);
	gn_vcpu_write_pkru(rig.vcpu, 2u << 10);
	CHECK_OK(rig_store(&rig, USER, 42));
	cr_assert_eq(rig.emulated, 1);
	cr_assert_eq(rig_user_load(&rig, USER).value, 42);
	CHECK_PF(rig_user_store(&rig, USER, 1), X86_PF_P | X86_PF_W | X86_PF_U | X86_PF_PK);
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

Test(shadow_rights, global_pages_survive_a_cr3_load)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;

	rig_start(&rig, &config);
	CHECK_OK(rig_load(&rig, RIG_LINEAR + 0x5000));
	rig_cr3(&rig, rig.root);
	cr_assert(rig.tlb[0].slot[(RIG_LINEAR + 0x5000) >> 12 & 63].valid);
	rig_end(&rig);
}

/* With NXE off, bit 63 is reserved: a large entry that gets it by a trapped store faults from then on. */
Test(shadow_rights, nx_is_reserved_in_a_resync_too)
{
	for (unsigned level = 1; level <= 2; level++) {
		const struct gn_vm_config config = { .backing_level = 2 };
		const uint64_t bits = PAGE(512) | USER_RW | (level > 1 ? LARGE : 0);
		uint64_t entry;
		struct rig rig;
		bool gp;

		rig_start(&rig, &config);
		rig_map(&rig, rig.root, USER, level, bits);
		entry = rig_entry(&rig, rig.root, USER, level);
		cr_assert_eq(gn_vcpu_write_cr0(rig.vcpu, X86_CR0_PE, &gp), 0);
		cr_assert_eq(gn_vcpu_write_efer(rig.vcpu, X86_EFER_LME, &gp), 0);
		cr_assert_eq(gn_vcpu_write_cr0(rig.vcpu, X86_CR0_PE | X86_CR0_PG | X86_CR0_WP, &gp),
			     0);
		CHECK_OK(rig_user_load(&rig, USER));
		CHECK_OK(rig_store(&rig, RIG_LINEAR + entry, bits | X86_PTE_A | X86_PTE_NX));
		rig_invlpg(&rig, USER);
		CHECK_PF(rig_user_load(&rig, USER), X86_PF_P | X86_PF_U | X86_PF_RSVD);
		CHECK_AUDIT(&rig);
		rig_end(&rig);
	}
}
