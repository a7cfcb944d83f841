/* SPDX-License-Identifier: MIT */
/*
 * shadow_writes.c - stores to guest tables of all shapes, and tables that turn into data.
 */
#include "unit/shadow_check.h"

#define USER	 ((uint64_t)0x40000000)
#define PAGE(n)	 ((uint64_t)(n) << 12)
#define FREE_GFN 2048

static struct rig_result run(struct rig *rig, struct gn_access a, uint64_t value)
{
	a.kind = GN_WRITE;
	return rig_run(rig, rig->vcpu, &a, value);
}

/* 1, 2, 4 and 8 bytes into an entry of each level: the next use sees the new entry. */
Test(shadow_writes, trap09_partial_writes)
{
	for (unsigned level = 1; level <= 4; level++)
		for (unsigned size = 1; size <= 8; size *= 2)
			for (unsigned offset = 0; offset + size <= 8; offset++) {
				const struct gn_vm_config config = { 0 };
				struct gn_access a = { .size = (uint8_t)size };
				struct rig rig;
				uint64_t entry, value, bytes = 0;

				rig_start(&rig, &config);
				rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
				entry = rig_entry(&rig, rig.root, USER, level);
				CHECK_OK(rig_user_store(&rig, USER, 1));
				a.va = gva(RIG_LINEAR + entry + offset);
				/* These bytes of a not-present entry. */
				value = rig_read(&rig, entry) & ~X86_PTE_P;
				memcpy(&bytes, (uint8_t *)&value + offset, size);
				CHECK_OK(run(&rig, a, bytes));
				rig_invlpg(&rig, USER);
				if (offset == 0) {
					CHECK_PF(rig_user_load(&rig, USER), X86_PF_U);
				} else {
					CHECK_OK(rig_user_load(&rig, USER));
				}
				CHECK_AUDIT(&rig);
				rig_end(&rig);
			}
}

/* A report may span entries, all of the page even. */
Test(shadow_writes, trap09_crossing_entries)
{
	const struct gn_vm_config config = { 0 };
	static const uint8_t zeros[4096];
	struct rig rig;
	uint64_t pte, pde;

	rig_start(&rig, &config);
	for (unsigned i = 0; i < 4; i++)
		rig_map(&rig, rig.root, USER + PAGE(i), 1, PAGE(FREE_GFN + i) | USER_RW);
	pte = rig_entry(&rig, rig.root, USER, 1);
	pde = rig_entry(&rig, rig.root, USER, 2);
	for (unsigned i = 0; i < 4; i++)
		CHECK_OK(rig_user_load(&rig, USER + PAGE(i)));
	cr_assert_eq(gn_vcpu_store(rig.vcpu, gpa(pte + 8 + 4), zeros, 8), 0);
	CHECK_AUDIT(&rig);
	cr_assert_eq(rig_leaf_level(&rig, USER), 1);
	cr_assert_eq(rig_gpa(&rig, USER + PAGE(2)), ~(uint64_t)0);
	cr_assert_eq(gn_vcpu_store(rig.vcpu, gpa(pte & ~(uint64_t)4095), zeros, 4096), 0);
	CHECK_AUDIT(&rig);
	cr_assert_eq(rig_leaf_level(&rig, USER), 0);
	cr_assert_eq(gn_vcpu_store(rig.vcpu, gpa(pde & ~(uint64_t)4095), zeros, 4096), 0);
	CHECK_AUDIT(&rig);
	cr_assert_eq(gn_vcpu_store(rig.vcpu, gpa(PAGE(4096)), zeros, 8), -EFAULT);
	rig_end(&rig);
}

/* What shows that a table is data now, and what does not. */
Test(shadow_writes, trap09_reuse_as_data)
{
	static const struct {
		const char *name;
		struct gn_access access;
		unsigned offset;
		unsigned free_after; /* stores until it is no longer trapped */
	} cases[] = {
		{ "user code", { .size = 8, .user = true }, 0, 1 },
		{ "event delivery", { .size = 8, .implicit = true }, 8, 1 },
		{ "misaligned", { .size = 8 }, 12, 1 },
		{ "two bytes", { .size = 2 }, 8, 1 },
		{ "flood", { .size = 8 }, 16, 3 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct gn_vm_config config = { 0 };
		struct rig rig;
		uint64_t pmd;

		rig_start(&rig, &config);
		rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
		pmd = rig_entry(&rig, rig.root, USER, 2) & ~(uint64_t)4095;
		rig_map(&rig, rig.root, 2 * USER, 1, pmd | USER_RW);
		CHECK_OK(rig_user_load(&rig, USER));
		for (unsigned n = 1; n <= cases[i].free_after; n++) {
			struct gn_access a = cases[i].access;

			a.va = gva(2 * USER + 256 + cases[i].offset);
			CHECK_OK(run(&rig, a, 0));
			CHECK_AUDIT(&rig);
			cr_assert_eq(!!(rig_rights(&rig, 2 * USER) & GN_W),
				     n >= cases[i].free_after, "%s, store %u", cases[i].name, n);
		}
		CHECK_OK(rig_user_load(&rig, USER));
		CHECK_AUDIT(&rig);
		rig_end(&rig);
	}
}

/* A use between them, and they are no flood. */
Test(shadow_writes, trap09_use_ends_a_flood)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t pde;

	rig_start(&rig, &config);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	pde = rig_entry(&rig, rig.root, USER, 2);
	CHECK_OK(rig_user_load(&rig, USER));
	for (unsigned i = 1; i < 20; i++) {
		CHECK_OK(rig_poke(&rig, pde + 8 * i, 0));
		rig_map(&rig, rig.root, USER + PAGE(i), 1, PAGE(FREE_GFN + i) | USER_RW);
		CHECK_OK(rig_user_load(&rig, USER + PAGE(i)));
		cr_assert_not(rig_rights(&rig, RIG_LINEAR + pde) & GN_W, "store %u", i);
	}
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* A table used by the store's own translation, and a root in force, are never unshadowed by a store. */
Test(shadow_writes, trap09_progress)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t pmd;

	rig_start(&rig, &config);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	pmd = rig_entry(&rig, rig.root, USER, 2) & ~(uint64_t)4095;
	rig_map(&rig, rig.root, USER + 4096, 1, pmd | USER_RW);	  /* translated by pmd */
	rig_map(&rig, rig.root, 2 * USER, 1, rig.root | USER_RW); /* the root */
	for (unsigned i = 0; i < 8; i++) {
		CHECK_OK(rig_user_store(&rig, USER + 4096 + 2048 + 8 * i, 0));
		CHECK_OK(rig_user_store(&rig, 2 * USER + 1024 + 8 * i, 0));
		CHECK_AUDIT(&rig);
	}
	cr_assert_eq(rig.emulated, 16);
	rig_end(&rig);
}

/* Nor is the root of another vCPU: it would be rebuilt at each of its faults. */
Test(shadow_writes, trap09_root_of_another_vcpu)
{
	const struct gn_vm_config config = { .vcpus = 2 };
	struct gn_vcpu *other;
	struct rig rig;
	uint64_t root;

	rig_start(&rig, &config);
	other = gn_vm_vcpu(rig.vm, 1);
	root = rig_table(&rig);
	rig_map(&rig, root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	rig_mode(other, root, X86_CR0_WP, 0);
	CHECK_OK(rig_load_on(&rig, other, USER, true));
	rig_map(&rig, rig.root, USER, 1, root | USER_RW);
	for (unsigned i = 0; i < 5; i++) {
		CHECK_OK(rig_user_store(&rig, USER + 1024 + 8 * i, 0));
		CHECK_QUIET(rig_load_on(&rig, other, USER, true));
		CHECK_AUDIT(&rig);
	}
	cr_assert_eq(rig.emulated, 5);
	rig_end(&rig);
}

/* What the guest takes out of an upper level goes, so that a freed table is ordinary memory at once. */
Test(shadow_writes, freed_tables_are_not_trapped)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t pte, pde;

	rig_start(&rig, &config);
	pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	pde = rig_entry(&rig, rig.root, USER, 2);
	CHECK_OK(rig_user_load(&rig, USER));
	CHECK_OK(rig_poke(&rig, pde, 0));
	rig_invlpg(&rig, USER);
	CHECK_OK(rig_load(&rig, RIG_LINEAR + pte));
	CHECK_QUIET(rig_poke(&rig, pte, 0x1234));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* Stores from outside, as a device makes them. */
Test(shadow_writes, from_outside)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	uint64_t pte;

	rig_start(&rig, &config);
	pte = rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	for (unsigned i = 0; i < 10; i++) {
		rig_write(&rig, pte, PAGE(FREE_GFN + i) | USER_RW);
		rig_invlpg(&rig, USER);
		CHECK_OK(rig_user_load(&rig, USER));
		cr_assert_eq(rig_gpa(&rig, USER), PAGE(FREE_GFN + i));
		CHECK_AUDIT(&rig);
	}
	rig_end(&rig);
}
