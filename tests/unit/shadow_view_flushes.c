/* SPDX-License-Identifier: MIT */
/*
 * shadow_view_flushes.c - the guest's stores and flushes, made in one view, as the others see them.
 */
#include "unit/shadow_view_rig.h"

/* The case that views are all about: the kernel changes a table that is out of sync, invalidates in its own view, and
 * returns to a user who had the page. */
Test(shadow_view_flushes, invlpg_reaches_every_view)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		uint64_t pte;
		struct rig rig;

		views_start(&rig, s);
		cr4(&rig, X86_CR4_SMAP);
		rig.no_tlb = true; /* what counts is the tables */
		pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
		for (unsigned i = 1; i <= 4; i++) {
			CHECK_OK(rig_user_load(&rig, USER));
			CHECK_OK(kernel(&rig, GN_READ, USER, true));
			CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN + i) | USER_RW));
			if (i > 1)
				CHECK_QUIET(rig_poke(&rig, pte, PAGE(FREE_GFN + i) | USER_RW));
			rig_invlpg(&rig, USER);
			CHECK_OK(rig_user_load(&rig, USER));
			cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + i));
			CHECK_OK(kernel(&rig, GN_READ, USER, true));
			cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + i));
			CHECK_AUDIT(&rig);
		}
		/* A page taken away, and its user bit. */
		CHECK_OK(rig_poke(&rig, pte, 0));
		rig_invlpg(&rig, USER);
		CHECK_PF(rig_user_load(&rig, USER), X86_PF_U);
		CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN) | USER_RW));
		CHECK_OK(rig_user_load(&rig, USER));
		CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN) | KERNEL_RW));
		rig_invlpg(&rig, USER);
		CHECK_PF(rig_user_load(&rig, USER), X86_PF_P | X86_PF_U);
		CHECK_OK(rig_load(&rig, USER));
		CHECK_AUDIT(&rig);
		rig_end(&rig);
	}
}

enum flush { RELOAD, OTHER_AND_BACK, ALL_CONTEXTS, ONE_CONTEXT, PGE, FLUSHES };

static void flush_wide(struct rig *rig, enum flush how, uint64_t other)
{
	uint64_t cr3 = gn_vcpu_regs(rig->vcpu)->cr3, bits = gn_vcpu_regs(rig->vcpu)->cr4;
	bool gp = false;

	switch (how) {
	case RELOAD:
		rig_cr3(rig, cr3);
		break;
	case OTHER_AND_BACK:
		rig_cr3(rig, other | (bits & X86_CR4_PCIDE ? 2 | X86_CR3_NOFLUSH : 0));
		rig_cr3(rig, cr3);
		break;
	case ALL_CONTEXTS:
		gn_vcpu_invpcid(rig->vcpu, X86_INVPCID_ALL_GLOBAL, 0, gva(0), &gp);
		break;
	case ONE_CONTEXT:
		gn_vcpu_invpcid(rig->vcpu, X86_INVPCID_SINGLE, cr3 & X86_CR3_PCID_MASK, gva(0),
				&gp);
		break;
	default:
		cr_assert(!gn_vcpu_write_cr4(rig->vcpu, bits ^ X86_CR4_PGE, &gp) && !gp);
		cr_assert(!gn_vcpu_write_cr4(rig->vcpu, bits, &gp) && !gp);
		break;
	}
	cr_assert_not(gp);
}

Test(shadow_view_flushes, wider_flushes_reach_every_view)
{
	for (unsigned s = 0; s < SCHEMES; s++)
		for (unsigned how = 0; how < 2 * FLUSHES; how++) {
			uint64_t pte, other;
			struct rig rig;

			views_start(&rig, s);
			rig.no_tlb = true;
			other = rig_table(&rig);
			rig_write(&rig, other + rig_index(RIG_LINEAR, 4) * 8,
				  rig_read(&rig, rig.root + rig_index(RIG_LINEAR, 4) * 8));
			if (how >= FLUSHES)
				cr4(&rig, X86_CR4_PCIDE);
			pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
			for (unsigned i = 1; i <= 4; i++) {
				CHECK_OK(rig_user_load(&rig, USER));
				CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN + i) | USER_RW));
				flush_wide(&rig, (enum flush)(how % FLUSHES), other);
				CHECK_OK(rig_user_load(&rig, USER));
				cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + i), "flush %u",
					     how);
				CHECK_AUDIT(&rig);
			}
			rig_end(&rig);
		}
}

/* A flush made while another CR3 is in force, of a root none of whose views is: each is resynced when it is loaded. */
Test(shadow_view_flushes, flushes_missed_under_another_cr3)
{
	uint64_t pte, other, linear;
	struct rig rig;

	views_start(&rig, 0);
	rig.no_tlb = true;
	cr4(&rig, X86_CR4_PCIDE);
	other = rig_table(&rig);
	linear = rig_read(&rig, rig.root + rig_index(RIG_LINEAR, 4) * 8);
	rig_write(&rig, other + rig_index(RIG_LINEAR, 4) * 8, linear);
	pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW | X86_PTE_G);
	for (unsigned i = 1; i <= 4; i++) {
		CHECK_OK(rig_user_load(&rig, USER));
		CHECK_OK(rig_load(&rig, USER));
		rig_cr3(&rig, other | 1 | X86_CR3_NOFLUSH);
		CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN + i) | USER_RW | X86_PTE_G));
		rig_invlpg(&rig, USER); /* it is global */
		rig_cr3(&rig, rig.root | X86_CR3_NOFLUSH);
		CHECK_OK(rig_user_load(&rig, USER));
		cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + i));
		CHECK_OK(rig_load(&rig, USER));
		cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + i));
		CHECK_AUDIT(&rig);
	}
	rig_end(&rig);
}

/* One table under two PCIDs: what is stale for the one is not so for the other, who has nothing cached. */
Test(shadow_view_flushes, two_pcids_of_one_table)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		uint64_t pte;
		struct rig rig;

		views_start(&rig, s);
		rig.no_tlb = true;
		cr4(&rig, X86_CR4_PCIDE);
		rig_cr3(&rig, rig.root | 1);
		pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
		for (unsigned i = 1; i <= 4; i++) {
			CHECK_OK(rig_user_load(&rig, USER));
			CHECK_OK(rig_load(&rig, USER));
			CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN + i) | USER_RW));
			rig_cr3(&rig, rig.root | (1 + i) | X86_CR3_NOFLUSH);
			CHECK_OK(rig_load(&rig, USER));
			cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + i));
			CHECK_OK(rig_user_load(&rig, USER));
			cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + i));
			CHECK_AUDIT(&rig);
		}
		rig_end(&rig);
	}
}

/* A system call and its return flush nothing, and so resync nothing. */
Test(shadow_view_flushes, a_change_of_privilege_is_no_flush)
{
	uint64_t pte;
	struct rig rig;

	views_start(&rig, 0);
	rig.no_tlb = true;
	pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	CHECK_OK(rig_user_load(&rig, USER));
	CHECK_OK(rig_poke(&rig, pte, PAGE(FREE_GFN + 1) | USER_RW));
	CHECK_QUIET(rig_user_load(&rig, USER));
	cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN), "as a TLB might have it");
	rig_cr3(&rig, rig.root);
	CHECK_OK(rig_user_load(&rig, USER));
	cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + 1));
	rig_end(&rig);
}

/* Upper levels are tracked: a store reaches the pages of all views at once. */
Test(shadow_view_flushes, tracked_stores_reach_every_view)
{
	uint64_t pde, table;
	struct rig rig;

	views_start(&rig, 0);
	rig.no_tlb = true;
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	pde = rig_entry(&rig, rig.root, USER, 2);
	table = rig_table(&rig);
	rig_write(&rig, table, PAGE(FREE_GFN + 1) | USER_RW);
	CHECK_OK(rig_user_load(&rig, USER));
	CHECK_OK(rig_load(&rig, USER));
	CHECK_OK(rig_poke(&rig, pde, table | USER_RW));
	cr_assert_eq(rig.emulated, 1);
	privilege(&rig, true, false);
	cr_assert_eq(rig_leaf_level(&rig, USER), 0);
	privilege(&rig, false, false);
	cr_assert_eq(rig_leaf_level(&rig, USER), 0);
	CHECK_OK(rig_user_load(&rig, USER));
	cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + 1));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* The kernel fills a table that its user uses between any two stores: a table in use, however often it is written
 * in the view that does not use it. */
Test(shadow_view_flushes, use_in_one_view_is_use)
{
	uint64_t pde, faults;
	struct rig rig;

	views_start(&rig, 0);
	for (uint64_t i = 0; i < 20; i++)
		rig_map(&rig, rig.root, USER + (i << 21), 1, PAGE(FREE_GFN + i) | USER_RW);
	pde = rig_entry(&rig, rig.root, USER, 2);
	CHECK_OK(rig_load(&rig, USER));
	for (uint64_t i = 0; i < 19; i++) {
		uint64_t at = pde + 8 * (i + 1);

		CHECK_OK(rig_user_load(&rig, USER + (i << 21)));
		CHECK_OK(rig_poke(&rig, at, rig_read(&rig, at)));
		cr_assert_eq(rig.emulated, i + 1);
	}
	faults = rig.faults;
	CHECK_QUIET(rig_user_load(&rig, USER));
	cr_assert_eq(rig.faults, faults);
	/* And data it is when nobody does. */
	for (unsigned i = 0; i < 6; i++)
		CHECK_OK(rig_poke(&rig, pde + 8 * 100, 0));
	cr_assert_lt(rig.emulated, 19 + 6);
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* Random changes, each with its INVLPG or a wider flush, seen by random privileges: as the guest's tables say. */
Test(shadow_view_flushes, random_changes_are_seen_by_all)
{
	for (unsigned s = 0; s < SCHEMES; s++)
		for (unsigned seed = 1; seed <= 6; seed++) {
			uint64_t pte[16], state = seed * 0x9e3779b97f4a7c15;
			struct rig rig;

			views_start(&rig, s);
			rig.no_tlb = seed & 1;
			cr4(&rig, (seed & 2 ? X86_CR4_SMAP : 0) | (seed & 4 ? X86_CR4_PCIDE : 0));
			for (unsigned i = 0; i < 16; i++)
				pte[i] =
					rig_map(&rig, rig.root, USER + PAGE(i) + (PAGE(i / 8) << 9),
						1, PAGE(FREE_GFN + i) | USER_RW);
			for (unsigned n = 0; n < 3000; n++) {
				uint64_t r = (state = state * 6364136223846793005 +
						      1442695040888963407) >>
					     20;
				unsigned i = r & 15;
				uint64_t va = USER + PAGE(i) + (PAGE(i / 8) << 9);
				struct gn_access a = { .va = gva(va),
						       .kind = (uint8_t)((r >> 4) % 3),
						       .size = 8,
						       .user = r >> 8 & 1,
						       .ac = r >> 9 & 1 };
				struct rig_result have;
				uint32_t code;
				gpa_t at;

				if ((r >> 10) % 4 == 0) {
					CHECK_OK(rig_poke(&rig, pte[i],
							  PAGE(FREE_GFN + (r >> 12) % 32) |
								  X86_PTE_A |
								  ((r >> 17) % 8 ? X86_PTE_P : 0) |
								  ((r >> 20) % 4 ? X86_PTE_U : 0) |
								  ((r >> 22) % 4 ? X86_PTE_W : 0) |
								  ((r >> 24) % 2 ? X86_PTE_D : 0)));
					if ((r >> 25) % 8)
						rig_invlpg(&rig, va);
					else
						flush_wide(&rig, (enum flush)((r >> 28) % FLUSHES),
							   rig.root);
				}
				have = rig_run(&rig, rig.vcpu, &a, n);
				if (gn_vcpu_translate(rig.vcpu, &a, &at, &code))
					cr_assert(
						have.end == RIG_OK &&
							have.hpa >> 12 ==
								gn_p2m_word_pfn(
									gn_p2m_get(&rig.vm->p2m,
										   gpa_to_gfn(at)))
									.v,
						"%s seed %u step %u: end %d", schemes[s], seed, n,
						have.end);
				else
					cr_assert(have.end == RIG_PF && have.error_code == code,
						  "%s seed %u step %u: end %d code %#x not %#x",
						  schemes[s], seed, n, have.end, have.error_code,
						  code);
				if (n % 100 == 0)
					CHECK_AUDIT(&rig);
			}
			rig_end(&rig);
		}
}
