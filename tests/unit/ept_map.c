/* SPDX-License-Identifier: MIT */
/*
 * ept_map.c - violations fill the tables from the p2m: right frame, right rights, largest leaf.
 */
#include <errno.h>

#include "ept_rig.h"

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

Test(ept_map, demand_fill_maps_the_frame_of_the_p2m)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		struct gn_p2m_info info;

		cr_assert_eq(rig_walk(vm, 5).end, GN_WALK_ABSENT);
		for (uint64_t at = 0; at < 600; at += 7) {
			cr_assert_eq(rig_touch(vm, at, GN_READ), GN_FIX_RETRY);
			cr_assert_eq(gn_p2m_query(vm, gfn(at), &info), 0);
			cr_assert(rig_maps(vm, at, GN_RWX), "%s gfn %lu", config.scheme,
				  (unsigned long)at);
			cr_assert_eq(rig_walk(vm, at).address, pfn_to_hpa(info.pfn).v);
			cr_assert_eq(rig_walk(vm, at).refs, config.nested_levels);
		}
		cr_assert_eq(gn_vcpu_counters(gn_vm_vcpu(vm, 0))->nested_faults, 86);
		rig_audit(vm, "after the fill");
		gn_vm_destroy(vm);
	}
}

Test(ept_map, the_root_is_one_for_all_vcpus_and_nothing_is_intercepted)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 4 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		const struct gn_hw *a = gn_vcpu_hw(gn_vm_vcpu(vm, 0)),
				   *b = gn_vcpu_hw(gn_vm_vcpu(vm, 1));

		cr_assert_eq(a->kind, GN_HW_NESTED);
		cr_assert_eq(a->root.v, b->root.v);
		cr_assert_eq(a->intercepts, 0);
		cr_assert_eq(a->fmt->levels, config.nested_levels);
		cr_assert(a->nested_ad);
		gn_vm_destroy(vm);
	}
}

/* TRAPS, nested paging 5: loading a root is no reason to drop nested translations. */
Test(ept_map, loading_cr3_keeps_the_nested_tables)
{
	struct gn_vm_config config = rig_config(&rig_variants[0], 4 * MIB, 1);
	struct gn_vm *vm = rig_vm(&config);
	hpa_t root = gn_vcpu_hw(gn_vm_vcpu(vm, 0))->root;
	bool gp = true;

	cr_assert_eq(rig_touch(vm, 3, GN_WRITE), GN_FIX_RETRY);
	cr_assert_eq(gn_vcpu_write_cr3(gn_vm_vcpu(vm, 0), 0x5000, &gp), 0);
	cr_assert_not(gp);
	cr_assert_eq(gn_vcpu_hw(gn_vm_vcpu(vm, 0))->root.v, root.v);
	cr_assert(rig_maps(vm, 3, GN_RWX));
	cr_assert_eq(rig_flushes, 0);
	gn_vm_destroy(vm);
}

struct leaf_case {
	unsigned backing, max_leaf, expected;
};
static const struct leaf_case leaf_cases[] = {
	{ 1, 3, 1 }, { 2, 3, 2 }, { 2, 2, 2 }, { 2, 1, 1 }, { 3, 3, 3 }, { 3, 2, 2 }, { 3, 1, 1 },
};

Test(ept_map, the_largest_leaf_that_block_and_configuration_allow)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++)
		for (unsigned c = 0; c < sizeof(leaf_cases) / sizeof(leaf_cases[0]); c++) {
			const struct leaf_case *k = &leaf_cases[c];
			struct gn_vm_config config =
				rig_config(&rig_variants[v], 2 * GIB, k->backing);
			struct gn_p2m_info info;
			struct gn_vm *vm;
			uint64_t at = 262144 + 777; /* in the second GiB */

			config.max_leaf_level = k->max_leaf;
			config.pool_bytes = 3 * GIB + 64 * MIB;
			vm = rig_vm(&config);
			cr_assert_eq(rig_touch(vm, at, GN_WRITE), GN_FIX_RETRY);
			cr_assert_eq(rig_walk(vm, at).level, k->expected, "case %u: level %u", c,
				     rig_walk(vm, at).level);
			cr_assert_eq(gn_p2m_query(vm, gfn(at), &info), 0);
			cr_assert_eq(rig_walk(vm, at).address, pfn_to_hpa(info.pfn).v);
			cr_assert_eq(rig_tables(vm), config.nested_levels - k->expected + 1);
			rig_audit(vm, "after a large fill");
			gn_vm_destroy(vm);
		}
}

Test(ept_map, leaves_are_born_accessed_and_dirty_if_writable)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 4 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		const struct gn_fmt_level *l = &gn_vcpu_hw(gn_vm_vcpu(vm, 0))->fmt->level[1];
		struct gn_walk walk;

		rig_touch(vm, 1, GN_READ);
		walk = rig_walk(vm, 1);
		cr_assert(walk.entry & l->accessed);
		cr_assert(walk.entry & l->dirty);
		cr_assert_eq(gn_vm_write(vm, gpa(2 * GN_PAGE_SIZE), "rom", 3), 0);
		cr_assert_eq(gn_p2m_protect(vm, gfn(2), 1, true), 0);
		rig_touch(vm, 2, GN_READ);
		walk = rig_walk(vm, 2);
		cr_assert(walk.entry & l->accessed);
		cr_assert_not(walk.entry & l->dirty);
		gn_vm_destroy(vm);
	}
}

/* TRAPS, nested paging 3: the hardware walks NPT as user and may write guest tables: U and W everywhere. */
Test(ept_map, every_level_grants_what_a_table_walk_needs)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 4 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		struct gn_fix fix;

		cr_assert_eq(rig_fault_of(vm, 0, gfn(9), GN_READ, true, &fix), 0);
		cr_assert_eq(fix.kind, GN_FIX_RETRY);
		cr_assert(rig_maps(vm, 9, GN_RWXU), "%s", config.scheme);
		gn_vm_destroy(vm);
	}
}

/* TRAPS, nested paging 3: a table read is a write, so it copies a shared page and marks the dirty log. */
Test(ept_map, a_table_walk_counts_as_a_write)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 4 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		struct gn_p2m_info info;
		struct gn_fix fix;
		uint8_t bitmap[2] = { 0 };

		rig_touch(vm, 4, GN_READ);
		rig_touch(vm, 5, GN_READ);
		cr_assert_eq(gn_p2m_share(vm, gfn(4), gfn(5)), 0);
		cr_assert_eq(rig_walk(vm, 4).end, GN_WALK_ABSENT, "a share forgets both");
		cr_assert_eq(gn_dirty_start(vm), 0);
		cr_assert_eq(rig_fault_of(vm, 0, gfn(5), GN_READ, true, &fix), 0);
		cr_assert_eq(fix.kind, GN_FIX_RETRY);
		cr_assert_eq(gn_p2m_query(vm, gfn(5), &info), 0);
		cr_assert_eq(info.state, GN_P2M_PRIVATE);
		cr_assert(rig_maps(vm, 5, GN_W));
		cr_assert_eq(gn_dirty_harvest(vm, gfn(0), 16, bitmap), 0);
		cr_assert_eq(bitmap[0], 1 << 5);
		gn_vm_destroy(vm);
	}
}

Test(ept_map, what_the_p2m_withholds_is_answered)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 4 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		struct gn_fix fix;

		cr_assert_eq(rig_touch(vm, 1024, GN_READ), GN_FIX_MMIO, "beyond RAM");
		cr_assert_eq(rig_fault_of(vm, 0, gfn(1 << 20), GN_WRITE, false, &fix), 0);
		cr_assert_eq(fix.kind, GN_FIX_MMIO);
		cr_assert_eq(fix.gpa.v, (uint64_t)1 << 32);
		cr_assert_eq(gn_p2m_set_mmio(vm, gfn(7), 1), 0);
		cr_assert_eq(rig_touch(vm, 7, GN_READ), GN_FIX_MMIO);
		rig_touch(vm, 8, GN_WRITE);
		cr_assert_eq(gn_p2m_balloon(vm, gfn(8), 1), 0);
		cr_assert_eq(rig_touch(vm, 8, GN_READ), GN_FIX_DENIED);
		rig_touch(vm, 9, GN_WRITE);
		cr_assert_eq(gn_p2m_protect(vm, gfn(9), 1, true), 0);
		cr_assert_eq(rig_touch(vm, 9, GN_READ), GN_FIX_RETRY);
		cr_assert(rig_maps(vm, 9, GN_R));
		cr_assert_not(rig_maps(vm, 9, GN_W));
		cr_assert_eq(rig_fault_of(vm, 0, gfn(9), GN_WRITE, false, &fix), 0);
		cr_assert_eq(fix.kind, GN_FIX_DENIED);
		cr_assert_not_null(fix.why);
		rig_audit(vm, "after denials");
		gn_vm_destroy(vm);
	}
}

Test(ept_map, a_stale_violation_changes_nothing)
{
	struct gn_vm_config config = rig_config(&rig_variants[0], 4 * MIB, 1);
	struct gn_vm *vm = rig_vm(&config);
	struct gn_fix fix;
	uint64_t entry;

	rig_touch(vm, 3, GN_WRITE);
	entry = rig_walk(vm, 3).entry;
	cr_assert_eq(rig_fault_of(vm, 1, gfn(3), GN_WRITE, false, &fix), 0);
	cr_assert_eq(fix.kind, GN_FIX_RETRY);
	cr_assert_eq(rig_walk(vm, 3).entry, entry);
	cr_assert_eq(rig_flushes, 0);
	gn_vm_destroy(vm);
}

Test(ept_map, a_fault_of_the_guest_is_the_guests)
{
	struct gn_vm_config config = rig_config(&rig_variants[2], 4 * MIB, 1);
	struct gn_vm *vm = rig_vm(&config);
	struct gn_fault fault = { .access = { .va = gva(0x1000) }, .error_code = 6 };
	struct gn_fix fix;

	cr_assert_eq(gn_vcpu_fault(gn_vm_vcpu(vm, 0), &fault, &fix), 0);
	cr_assert_eq(fix.kind, GN_FIX_INJECT);
	cr_assert_eq(fix.error_code, 6);
	gn_vm_destroy(vm);
}

Test(ept_map, each_allocation_may_fail)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++)
		for (uint64_t n = 1; n < 16; n++) {
			struct gn_vm_config config = rig_config(&rig_variants[v], 4 * MIB, 1);
			struct gn_vm *vm = rig_vm(&config);
			struct gn_fix fix;
			int err;

			gn_alloc_fail_nth(n);
			err = rig_fault_of(vm, 0, gfn(600), GN_WRITE, false, &fix);
			gn_alloc_fail_nth(0);
			cr_assert(err == 0 || err == -ENOMEM, "n %lu: %d", (unsigned long)n, err);
			rig_audit(vm, "after a failed allocation");
			cr_assert_eq(rig_touch(vm, 600, GN_WRITE), GN_FIX_RETRY);
			cr_assert(rig_maps(vm, 600, GN_RWX));
			rig_audit(vm, "after the second try");
			gn_vm_destroy(vm);
		}
}

Test(ept_map, creation_fails_cleanly)
{
	struct gn_vm_config config = rig_config(&rig_variants[0], 4 * MIB, 1);
	struct gn_vm *vm = rig_vm(&config);
	unsigned failures = 0;

	gn_vm_destroy(vm);
	for (uint64_t n = 1; n < 64; n++) {
		int err;

		gn_alloc_fail_nth(n);
		err = gn_vm_create(&config, &vm);
		gn_alloc_fail_nth(0);
		cr_assert(err == 0 || err == -ENOMEM, "n %lu: %d", (unsigned long)n, err);
		failures += err != 0;
		if (!err)
			gn_vm_destroy(vm);
	}
	cr_assert_geq(failures, 2);
}

/* The guest's table is in ROM: hardware would write it, so software walks. Paging off needs no table, so a
 * violation "on a table" is answered with the datum itself. */
Test(ept_map, a_table_in_rom_is_walked_by_software)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 4 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		struct gn_p2m_info info;
		struct gn_fix fix;

		rig_touch(vm, 5, GN_WRITE);
		cr_assert_eq(gn_p2m_protect(vm, gfn(5), 1, true), 0);
		cr_assert_eq(rig_fault_of(vm, 0, gfn(5), GN_READ, true, &fix), 0);
		cr_assert_eq(fix.kind, GN_FIX_ACCESS);
		cr_assert_eq(gn_p2m_query(vm, gfn(5), &info), 0);
		cr_assert_eq(fix.hpa.v, pfn_to_hpa(info.pfn).v);
		cr_assert_not(rig_maps(vm, 5, GN_W));
		gn_vm_destroy(vm);
	}
}
