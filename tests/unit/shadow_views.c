/* SPDX-License-Identifier: MIT */
/*
 * shadow_views.c - deprivileged guests: privilege as a choice of roots. What the leaves say, which root is in
 * force, and the accesses that the VMM makes for the guest.
 */
#include "unit/shadow_view_rig.h"

/* ---- What the leaves say ----------------------------------------------------------------------------------- */

/* All that a leaf can depend on, times all that can touch it, against the guest's own tables. */
static void check_matrix(struct rig *rig)
{
	for (unsigned page = 0; page < 8; page++)
		for (unsigned privileges = 0; privileges < 4; privileges++)
			for (unsigned kind = GN_READ; kind <= GN_FETCH; kind++) {
				struct gn_access a = { .va = gva(USER + PAGE(page)),
						       .kind = (uint8_t)kind,
						       .size = 8,
						       .user = privileges & 1,
						       .ac = privileges & 2 };
				uint32_t code;
				gpa_t at = gpa(0);
				bool allowed = gn_vcpu_translate(rig->vcpu, &a, &at, &code);

				for (unsigned twice = 0; twice < 2; twice++) {
					struct rig_result r = rig_run(rig, rig->vcpu, &a, 1);

					cr_assert(allowed ? r.end == RIG_OK
							  : r.end == RIG_PF && r.error_code == code,
						  "page %u kind %u privilege %u: end %d code %#x, "
						  "must be %#x",
						  page, kind, privileges, r.end, r.error_code,
						  code);
				}
			}
}

Test(shadow_views, every_access_of_every_privilege)
{
	for (unsigned s = 0; s < SCHEMES; s++)
		for (unsigned mode = 0; mode < 16; mode++) {
			const struct gn_vm_config config = views_config(s);
			struct rig rig;
			bool gp;

			rig_create(&rig, &config);
			rig_linear(&rig, rig.root, 1);
			for (unsigned i = 0; i < 8; i++)
				rig_map(&rig, rig.root, USER + PAGE(i), 1,
					PAGE(FREE_GFN + i) | KERNEL_RO | X86_PTE_G |
						(i & 1 ? X86_PTE_W : 0) | (i & 2 ? X86_PTE_U : 0) |
						(i & 4 && mode & 8 ? X86_PTE_NX : 0));
			rig_mode(rig.vcpu, rig.root, mode & 1 ? X86_CR0_WP : 0,
				 X86_CR4_PGE | (mode & 2 ? X86_CR4_SMEP : 0) |
					 (mode & 4 ? X86_CR4_SMAP : 0));
			if (!(mode & 8)) {
				gn_vcpu_write_efer(rig.vcpu, X86_EFER_LME, &gp);
				cr_assert_not(gp);
			}
			check_matrix(&rig);
			CHECK_AUDIT(&rig);
			rig_end(&rig);
		}
}

Test(shadow_views, rights_of_leaves)
{
	struct rig rig;

	views_start(&rig, 0);
	cr4(&rig, X86_CR4_SMEP);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	rig_map(&rig, rig.root, USER + PAGE(1), 1, PAGE(FREE_GFN + 1) | KERNEL_RW | X86_PTE_G);
	rig_map(&rig, rig.root, USER + PAGE(2), 1,
		PAGE(FREE_GFN + 2) | (USER_RW & ~(uint64_t)X86_PTE_D));
	/* The kernel's view: everything it may use is a user page. */
	CHECK_OK(rig_load(&rig, USER));
	CHECK_OK(rig_load(&rig, USER + PAGE(1)));
	CHECK_OK(rig_load(&rig, USER + PAGE(2)));
	cr_assert_eq(rig_rights(&rig, USER), GN_R | GN_W | GN_U, "SMEP");
	cr_assert_eq(rig_rights(&rig, USER + PAGE(1)), GN_RWXU);
	cr_assert_eq(rig_rights(&rig, USER + PAGE(2)), GN_R | GN_U, "D is clear");
	CHECK_OK(rig_store(&rig, USER + PAGE(2), 1));
	cr_assert_eq(rig_rights(&rig, USER + PAGE(2)), GN_R | GN_W | GN_U);
	/* The user's. */
	CHECK_OK(rig_user_load(&rig, USER));
	CHECK_PF(rig_user_load(&rig, USER + PAGE(1)), X86_PF_P | X86_PF_U);
	cr_assert_eq(rig_rights(&rig, USER), GN_RWXU);
	cr_assert_eq(rig_leaf_level(&rig, USER + PAGE(1)), 0);
	CHECK_AUDIT(&rig);
	/* Under SMAP the kernel has no user pages, but with AC. */
	cr4(&rig, X86_CR4_SMAP);
	CHECK_PF(rig_load(&rig, USER), X86_PF_P);
	cr_assert_eq(rig_leaf_level(&rig, USER), 0);
	CHECK_OK(kernel(&rig, GN_READ, USER, true));
	cr_assert_eq(rig_rights(&rig, USER), GN_RWXU, "no SMEP now");
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* CR0.WP=0: W for the kernel where D is set, at no cost for the user. */
Test(shadow_views, no_write_protection)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		const struct gn_vm_config config = views_config(s);
		struct rig rig;

		rig_create(&rig, &config);
		rig_linear(&rig, rig.root, 1);
		rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RO);
		rig_mode(rig.vcpu, rig.root, 0, 0);
		CHECK_OK(rig_user_load(&rig, USER));
		CHECK_OK(rig_load(&rig, USER));
		cr_assert_eq(rig_rights(&rig, USER), GN_R | GN_X | GN_U, "D is clear");
		CHECK_OK(rig_store(&rig, USER, 3));
		cr_assert_eq(rig_rights(&rig, USER), GN_RWXU);
		cr_assert(rig_read(&rig, rig_entry(&rig, rig.root, USER, 1)) & X86_PTE_D);
		CHECK_OK(rig_user_load(&rig, USER));
		CHECK_PF(rig_user_store(&rig, USER, 4), X86_PF_P | X86_PF_W | X86_PF_U);
		for (unsigned i = 0; i < 3; i++) {
			CHECK_OK(rig_store(&rig, USER, i));
			CHECK_OK(rig_user_load(&rig, USER));
		}
		rig.no_tlb = true;
		CHECK_QUIET(rig_store(&rig, USER, 5));
		CHECK_QUIET(rig_user_load(&rig, USER));
		cr_assert_eq(rig.emulated, 0);
		CHECK_AUDIT(&rig);
		rig_end(&rig);
	}
}

Test(shadow_views, protection_keys_are_not_offered)
{
	struct rig rig;
	bool gp;

	views_start(&rig, 0);
	cr_assert_eq(gn_vcpu_write_cr4(rig.vcpu, X86_CR4_PAE | X86_CR4_PKE, &gp), 0);
	cr_assert(gp);
	/* Their bits in entries mean nothing, nor make they pieces of a large page differ. */
	rig_map(&rig, rig.root, USER, 2,
		PAGE(FREE_GFN) | USER_RW | LARGE | X86_PTE_G | (uint64_t)5 << X86_PTE_PKEY_SHIFT);
	CHECK_OK(rig_user_load(&rig, USER));
	CHECK_OK(rig_load(&rig, USER));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* ---- Which root is in force ----------------------------------------------------------------------------------- */

Test(shadow_views, a_root_per_privilege)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		const struct gn_vm_config config = views_config(s);
		uint64_t off, k, u, ac;
		struct rig rig;
		bool gp;

		rig_create(&rig, &config);
		off = rig.vcpu->hw.root.v;
		CHECK_OK(rig_user_store(&rig, PAGE(FREE_GFN), 1));
		CHECK_OK(rig_store(&rig, PAGE(FREE_GFN), 1));
		cr_assert_eq(rig.vcpu->hw.root.v, off, "without paging all is everyone's");
		rig_linear(&rig, rig.root, 1);
		rig_mode(rig.vcpu, rig.root, X86_CR0_WP, 0);
		k = rig.vcpu->hw.root.v;
		privilege(&rig, false, true);
		cr_assert_eq(rig.vcpu->hw.root.v, k, "AC without SMAP");
		/* Another mode is another root for the kernel. */
		cr_assert(!gn_vcpu_write_cr0(rig.vcpu, X86_CR0_PE | X86_CR0_PG, &gp) && !gp);
		cr_assert(s == 1 || rig.vcpu->hw.root.v != k);
		CHECK_AUDIT(&rig);
		cr_assert(!gn_vcpu_write_cr0(rig.vcpu, X86_CR0_PE | X86_CR0_PG | X86_CR0_WP, &gp) &&
			  !gp);
		cr_assert_eq(rig.vcpu->hw.root.v, k);
		CHECK_AUDIT(&rig);
		privilege(&rig, true, true);
		u = rig.vcpu->hw.root.v;
		cr_assert_neq(u, k);
		privilege(&rig, true, false);
		cr_assert_eq(rig.vcpu->hw.root.v, u);
		cr4(&rig, X86_CR4_SMAP);
		cr_assert(s == 1 || rig.vcpu->hw.root.v == u, "SMAP is nothing to the user");
		privilege(&rig, false, false);
		k = rig.vcpu->hw.root.v;
		privilege(&rig, false, true);
		ac = rig.vcpu->hw.root.v;
		cr_assert_neq(ac, k);
		for (unsigned i = 0; i < 9; i++) {
			privilege(&rig, i % 3 == 0, i % 3 == 1);
			cr_assert_eq(rig.vcpu->hw.root.v, i % 3 == 0 ? u : i % 3 == 1 ? ac : k);
		}
		CHECK_AUDIT(&rig);
		rig_end(&rig);
	}
}

/* SMAP turned on while AC is set. */
Test(shadow_views, ac_is_remembered)
{
	struct rig rig;

	views_start(&rig, 0);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	privilege(&rig, false, true);
	cr4(&rig, X86_CR4_SMAP);
	cr_assert_eq(rig.vcpu->view, GN_VIEW_KERNEL_AC);
	CHECK_OK(kernel(&rig, GN_WRITE, USER, true));
	cr_assert_eq(rig.answered + rig.emulated, 0);
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* Not deprivileged: nothing happens. */
Test(shadow_views, other_machines_have_one_view)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t root;

	rig_start(&rig, &config);
	root = rig.vcpu->hw.root.v;
	privilege(&rig, true, false);
	cr_assert_eq(rig.vcpu->view, GN_VIEW_BOTH);
	cr_assert_eq(rig.vcpu->hw.root.v, root);
	rig_end(&rig);
}

/* ---- The VMM's own accesses ------------------------------------------------------------------------------------------ */

Test(shadow_views, accesses_of_another_privilege_are_answered)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		struct gn_access a = { .size = 8, .implicit = true };
		uint64_t pte, faults;
		struct gn_fix fix;
		struct rig rig;
		uint64_t value = PAGE(FREE_GFN + 1) | USER_RW;

		views_start(&rig, s);
		cr4(&rig, X86_CR4_SMAP);
		pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
		CHECK_OK(rig_user_load(&rig, USER));
		faults = rig.vcpu->counters.shadow_faults;
		/* A read at a supervisor page, from the user's view. */
		a.va = gva(RIG_LINEAR + PAGE(FREE_GFN + 7));
		fix = fault(&rig, &a);
		cr_assert_eq(fix.kind, GN_FIX_ACCESS);
		cr_assert_eq(fix.gpa.v, PAGE(FREE_GFN + 7));
		cr_assert_eq(hpa_to_pfn(fix.hpa).v,
			     gn_p2m_word_pfn(gn_p2m_get(&rig.vm->p2m, gfn(FREE_GFN + 7))).v);
		cr_assert_eq(rig_leaf_level(&rig, a.va.v), 0, "nothing was installed");
		/* The guest's own fault is its own fault. */
		a.va = gva(USER);
		fix = fault(&rig, &a);
		cr_assert(fix.kind == GN_FIX_INJECT && fix.error_code == X86_PF_P, "SMAP");
		a.va = gva(2 * USER);
		fix = fault(&rig, &a);
		cr_assert(fix.kind == GN_FIX_INJECT && fix.error_code == 0);
		a.va = gva((uint64_t)1 << 62);
		cr_assert_eq(fault(&rig, &a).kind, GN_FIX_INJECT_GP);
		/* A store that happens to go to a table. */
		a.va = gva(RIG_LINEAR + pte);
		a.kind = GN_WRITE;
		fix = fault(&rig, &a);
		cr_assert(fix.kind == GN_FIX_EMULATE && fix.gpa.v == pte);
		cr_assert_eq(gn_vcpu_store(rig.vcpu, fix.gpa, &value, 8), 0);
		rig_invlpg(&rig, USER);
		/* An explicit one of a privilege that is not in force. */
		a = (struct gn_access){ .va = gva(USER), .size = 8, .ac = true };
		cr_assert_eq(fault(&rig, &a).kind, GN_FIX_ACCESS);
		privilege(&rig, false, false);
		cr_assert_eq(fault(&rig, &a).kind, GN_FIX_ACCESS);
		a.user = true;
		cr_assert_eq(fault(&rig, &a).kind, GN_FIX_ACCESS);
		cr_assert_eq(rig.vcpu->counters.shadow_faults, faults);
		CHECK_OK(rig_user_load(&rig, USER));
		cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + 1));
		CHECK_AUDIT(&rig);
		rig_end(&rig);
	}
}

/* Executable and not readable: no entry says it. */
Test(shadow_views, fetch_under_smap_without_smep)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		struct rig rig;

		views_start(&rig, s);
		cr4(&rig, X86_CR4_SMAP);
		rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
		CHECK_OK(rig_fetch(&rig, USER, false));
		cr_assert_eq(rig.answered, 1);
		CHECK_PF(rig_load(&rig, USER), X86_PF_P);
		cr4(&rig, X86_CR4_SMAP | X86_CR4_SMEP);
		CHECK_PF(rig_fetch(&rig, USER, false), X86_PF_P | X86_PF_I);
		CHECK_AUDIT(&rig);
		rig_end(&rig);
	}
}
