/* SPDX-License-Identifier: MIT */
/*
 * shadow_view_life.c - views whose tables die, memory that is short, schemes exchanged under a deprivileged guest.
 */
#include "unit/shadow_view_rig.h"

/* The table that is the root goes elsewhere while one view of it is in force and the others are remembered. */
Test(shadow_view_life, remembered_roots_may_die)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		struct gn_vm_config config = views_config(s);
		struct rig rig;

		config.vcpus = 2;
		rig_start(&rig, &config);
		rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
		rig_mode(gn_vm_vcpu(rig.vm, 1), rig.root, X86_CR0_WP, X86_CR4_PGE);
		for (unsigned i = 0; i < 24; i++) {
			CHECK_OK(rig_user_load(&rig, USER));
			CHECK_OK(rig_load_on(&rig, gn_vm_vcpu(rig.vm, 1), USER, i & 4));
			CHECK_OK(rig_load(&rig, USER));
			privilege(&rig, i & 1, false);
			cr_assert_eq(gn_p2m_move(rig.vm, gpa_to_gfn(gpa(rig.root)), 1), 0);
			CHECK_AUDIT(&rig);
			if (i & 2)
				rig_cr3(&rig, rig.root);
			privilege(&rig, i & 8, false);
			CHECK_AUDIT(&rig);
		}
		rig_end(&rig);
	}
}

Test(shadow_view_life, budget)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		struct gn_vm_config config = views_config(s);
		struct rig rig;

		config.scheme_table_limit_bytes = PAGE(9);
		rig_start(&rig, &config);
		cr4(&rig, X86_CR4_SMAP);
		for (unsigned i = 0; i < 12; i++)
			rig_map(&rig, rig.root, i * USER, 1, PAGE(FREE_GFN + i) | USER_RW);
		for (unsigned n = 0; n < 200; n++) {
			uint64_t i = n * 7 % 12;

			CHECK_OK(rig_user_store(&rig, i * USER, n));
			CHECK_OK(kernel(&rig, GN_READ, i * USER, true));
			CHECK_OK(rig_load(&rig, RIG_LINEAR + PAGE(i * 90)));
			if (n % 10 == 0)
				CHECK_AUDIT(&rig);
		}
		rig_end(&rig);
	}
}

/* -ENOMEM: the privilege and the root are what they were, and the guest goes on. One failed allocation is made good by
 * giving up old pages; a budget that holds one root only is not. */
Test(shadow_view_life, allocation_failures)
{
	for (unsigned s = 0; s < SCHEMES; s++)
		for (uint64_t nth = 0; nth < 5; nth++) {
			bool is_short = nth == 0, gp;
			uint64_t root;
			struct rig rig;
			int err;

			views_start(&rig, s);
			cr4(&rig,
			    X86_CR4_SMAP); /* a third view, for without paging the user's was in force */
			rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | KERNEL_RW);
			CHECK_OK(rig_load(&rig, USER));
			root = rig.vcpu->hw.root.v;
			rig.vm->config.scheme_table_limit_bytes = is_short ? GN_PAGE_SIZE : 0;
			gn_alloc_fail_nth(nth);
			err = gn_vcpu_set_privilege(rig.vcpu, false, true);
			gn_alloc_fail_nth(0);
			cr_assert(err == -ENOMEM || (!err && !is_short));
			CHECK_AUDIT(&rig);
			cr_assert_eq(rig.vcpu->view, err ? GN_VIEW_KERNEL : GN_VIEW_KERNEL_AC);
			cr_assert_eq(rig.vcpu->hw.root.v == root, err != 0);
			if (is_short) { /* nor does a CR3 load that fails forget anything */
				cr_assert(s == 1 ||
					  gn_vcpu_write_cr3(rig.vcpu, PAGE(900), &gp) == -ENOMEM);
				cr_assert_eq(rig.vcpu->hw.root.v, root);
				CHECK_AUDIT(&rig);
			}
			rig.vm->config.scheme_table_limit_bytes = 0;
			CHECK_OK(rig_load(&rig, USER));
			CHECK_OK(kernel(&rig, GN_READ, USER, true));
			CHECK_PF(rig_user_load(&rig, USER), X86_PF_P | X86_PF_U);
			CHECK_AUDIT(&rig);
			rig_end(&rig);
		}
}

/* Every allocation of the way down may fail, in each view. */
Test(shadow_view_life, allocation_failures_of_faults)
{
	for (unsigned s = 0; s < SCHEMES; s++)
		for (unsigned user = 0; user < 2; user++)
			for (uint64_t nth = 1; nth < 16; nth++) {
				struct rig_result r;
				struct rig rig;

				views_start(&rig, s);
				rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
				gn_alloc_fail_nth(nth);
				r = rig_store_on(&rig, rig.vcpu, USER, 1, user);
				gn_alloc_fail_nth(0);
				cr_assert(r.end == RIG_OK ||
					  (r.end == RIG_ERROR && r.err == -ENOMEM));
				CHECK_AUDIT(&rig);
				CHECK_OK(rig_store_on(&rig, rig.vcpu, USER, 1, user));
				CHECK_OK(rig_store_on(&rig, rig.vcpu, USER, 1, !user));
				CHECK_AUDIT(&rig);
				rig_end(&rig);
			}
}

/* The scheme of a running guest is exchanged in either privilege. */
Test(shadow_view_life, live_switch)
{
	static const char *const tour[] = { "shadow", "interp", "shadow-vtlb", "shadow",
					    "interp", "shadow", "shadow-vtlb" };
	struct rig rig;

	views_start(&rig, 0);
	cr4(&rig, X86_CR4_SMAP);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	for (unsigned i = 0; i < 14; i++) {
		bool is_interp = i % 7 == 1 || i % 7 == 4;
		enum gn_view view = rig.vcpu->view;

		cr_assert_eq(gn_vm_switch_scheme(rig.vm, tour[i % 7]), 0);
		cr_assert_eq(rig.vcpu->view, view);
		CHECK_AUDIT(&rig);
		if (is_interp) {
			privilege(&rig, !(i & 2), false);
			continue;
		}
		if (view == GN_VIEW_USER)
			CHECK_OK(rig_user_load(&rig, USER));
		else
			CHECK_PF(rig_load(&rig, USER), X86_PF_P);
		CHECK_OK(rig_load(&rig, RIG_LINEAR));
		CHECK_OK(rig_user_store(&rig, USER, i));
		CHECK_AUDIT(&rig);
		privilege(&rig, i & 1, i & 2);
	}
	rig_end(&rig);
}
