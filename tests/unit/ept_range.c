/* SPDX-License-Identifier: MIT */
/*
 * ept_range.c - zap, write-protect, split, collapse, harvest. One case for each trap of nested paging that
 * range changes can fall into.
 */
#include <errno.h>

#include "ept_rig.h"
#include "support/cases.h"

#define MIB ((uint64_t)1 << 20)

/* What the tables look like at the moment the flush is posted. */
static uint64_t *watched_slot, *watched_child;
static unsigned watched_level;
static bool saw_frozen, saw_child_frozen, saw_child_alive;

static void watch(struct gn_vm *vm)
{
	struct gn_ept *ept = rig_ept(vm);
	pfn_t child = { ((uint64_t)((uint8_t *)watched_child - vm->frames->base)) >>
			GN_PAGE_SHIFT };

	saw_frozen = gn_ept_is_frozen(ept, watched_level, gn_entry_get(watched_slot));
	saw_child_frozen = true;
	for (unsigned i = 0; watched_child && i < GN_TABLE_ENTRIES; i++)
		saw_child_frozen &=
			gn_ept_is_frozen(ept, watched_level - 1, gn_entry_get(&watched_child[i]));
	saw_child_alive = !watched_child || gn_frames_refs(vm->frames, child) == 1;
}

static void watch_next_flush(struct gn_vm *vm, uint64_t at, unsigned level)
{
	watched_slot = rig_slot(vm, at, level);
	watched_level = level;
	watched_child = level > 1 ? (uint64_t *)((uintptr_t)rig_slot(vm, at, level - 1) &
						 ~(uintptr_t)(GN_PAGE_SIZE - 1))
				  : NULL;
	saw_frozen = saw_child_frozen = saw_child_alive = false;
	rig_flushes = 0;
	rig_on_flush = watch;
}

/* TRAPS, nested paging 1: freeze, flush, clear, account, free. */
Test(ept_range, a_leaf_is_frozen_while_the_flush_is_posted)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);

		rig_touch(vm, 3, GN_WRITE);
		rig_touch(vm, 4, GN_WRITE);
		watch_next_flush(vm, 3, 1);
		gn_rcu_read_lock(); /* the scheme's own part, without the engine's bookkeeping */
		gn_rcu_read_unlock();
		rig_range(vm, 3, 4, GN_RANGE_ZAP);
		cr_assert_geq(rig_flushes, 1);
		cr_assert(saw_frozen, "%s", config.scheme);
		cr_assert_eq(rig_walk(vm, 3).end, GN_WALK_ABSENT);
		cr_assert_eq(*rig_slot(vm, 3, 1), 0);
		cr_assert(rig_maps(vm, 4, GN_RWX), "the neighbour stays");
		rig_audit(vm, "after a zap");
		gn_vm_destroy(vm);
	}
}

/* TRAPS, nested paging 1: entries of an unlinked table are exchanged too, and it is freed after the flush. */
Test(ept_range, children_of_an_unlinked_table_are_frozen_and_freed_late)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		uint64_t tables;

		rig_touch(vm, 512, GN_WRITE);
		rig_touch(vm, 700, GN_WRITE);
		rig_touch(vm, 0, GN_WRITE);
		tables = rig_tables(vm);
		watch_next_flush(vm, 512, 2);
		rig_range(vm, 512, 1024, GN_RANGE_ZAP);
		cr_assert(saw_frozen);
		cr_assert(saw_child_frozen, "every entry, absent ones too");
		cr_assert(saw_child_alive, "not freed before the flush");
		cr_assert_eq(rig_tables(vm), tables - 1);
		cr_assert(rig_maps(vm, 0, GN_RWX));
		rig_audit(vm, "after a zap of a whole table");
		gn_vm_destroy(vm);
	}
}

Test(ept_range, nothing_usable_changed_means_no_flush)
{
	struct gn_vm_config config = rig_config(&rig_variants[0], 8 * MIB, 1);
	struct gn_vm *vm = rig_vm(&config);

	rig_touch(vm, 3, GN_WRITE);
	rig_flushes = 0;
	rig_range(vm, 100, 200, GN_RANGE_ZAP);
	rig_range(vm, 1024, 2048, GN_RANGE_ZAP);
	rig_range(vm, 1024, 2048, GN_RANGE_WRPROTECT);
	rig_range(vm, 7, 7, GN_RANGE_ZAP);
	cr_assert_eq(rig_flushes, 0);
	cr_assert(rig_maps(vm, 3, GN_RWX));
	gn_vm_destroy(vm);
}

/* Ranges against a naive set of mapped gfns. */
Test(ept_range, zap_is_precise)
{
	static const uint64_t ranges[][2] = { { 0, 1 },	      { 511, 513 },   { 512, 1024 },
					      { 1000, 2000 }, { 2047, 2048 }, { 100, 2048 },
					      { 0, 2048 } };

	for (unsigned v = 0; v < RIG_VARIANTS; v++)
		for (unsigned r = 0; r < sizeof(ranges) / sizeof(ranges[0]); r++) {
			struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 1);
			struct gn_vm *vm = rig_vm(&config);

			for (uint64_t at = 0; at < 2048; at++)
				rig_touch(vm, at, GN_WRITE);
			rig_range(vm, ranges[r][0], ranges[r][1], GN_RANGE_ZAP);
			for (uint64_t at = 0; at < 2048; at++) {
				bool gone = at >= ranges[r][0] && at < ranges[r][1];

				cr_assert_eq(rig_walk(vm, at).end == GN_WALK_ABSENT, gone,
					     "range %u gfn %lu", r, (unsigned long)at);
			}
			rig_audit(vm, "after a range");
			gn_vm_destroy(vm);
		}
}

/* Blocks of 2 MiB: one large leaf, small leaves, or nothing. */
static void touch_some(struct gn_vm *vm, struct test_random *r)
{
	for (uint64_t block = 0; block < vm->p2m.gfn_count; block += 512) {
		uint64_t kind = test_random_below(r, 3);

		if (kind == 2)
			continue;
		if (kind == 1)
			cr_assert_eq(gn_p2m_discard(vm, gfn(block + test_random_below(r, 512)), 1),
				     0);
		for (uint64_t at = block; at < block + 512; at++)
			if (kind == 0 || test_random_below(r, 4))
				rig_touch(vm, at, GN_WRITE);
	}
}

/* Sorted and disjoint, neighbours and empty ones among them. */
static size_t some_runs(struct gn_vm *vm, struct test_random *r, struct gn_gfn_run *runs,
			size_t most)
{
	static const uint64_t longest[] = { 1, 3, 60, 1200 };
	uint64_t at = test_random_below(r, 8);
	size_t count = 0;

	while (count < most) {
		uint64_t n = test_random_below(r, longest[test_random_below(r, 4)] + 1);

		if (at + n > vm->p2m.gfn_count)
			break;
		runs[count++] = (struct gn_gfn_run){ gfn(at), n };
		at += n + test_random_below(r, longest[test_random_below(r, 4)] + 1);
	}
	return count;
}

static bool meets(const struct gn_gfn_run *runs, size_t count, uint64_t first, uint64_t pages)
{
	for (size_t i = 0; i < count; i++)
		if (runs[i].count && runs[i].start.v < first + pages &&
		    first < runs[i].start.v + runs[i].count)
			return true;
	return false;
}

/* Many runs at once against a leaf by leaf check; one flush, however many they are. */
Test(ept_range, many_runs_are_one_change)
{
	enum { GFNS = 32 * 1024 / 4, MOST = 400 };
	static struct gn_walk before[GFNS];
	struct test_random r = test_random_seed(1);
	struct gn_gfn_run runs[MOST];

	for (unsigned round = 0; round < 24 * RIG_VARIANTS; round++) {
		struct gn_vm_config config =
			rig_config(&rig_variants[round % RIG_VARIANTS], 32 * MIB, 2);
		bool is_zap = round / RIG_VARIANTS % 2, any = false;
		struct gn_vm *vm = rig_vm(&config);
		size_t count;

		touch_some(vm, &r);
		count = some_runs(vm, &r, runs, MOST);
		for (uint64_t at = 0; at < GFNS; at++)
			before[at] = rig_walk(vm, at);
		rig_flushes = 0;
		gn_ept_range(vm, runs, count, is_zap ? GN_RANGE_ZAP : GN_RANGE_WRPROTECT);
		for (uint64_t at = 0; at < GFNS; at++) {
			uint64_t pages = before[at].end == GN_WALK_LEAF
						 ? gn_level_pages(before[at].level)
						 : 1;
			bool is_hit = before[at].end == GN_WALK_LEAF &&
				      meets(runs, count, at & ~(pages - 1), pages);
			struct gn_walk after = rig_walk(vm, at);

			any |= is_hit;
			if (is_hit && is_zap)
				cr_assert_eq(after.end, GN_WALK_ABSENT, "round %u gfn %lu", round,
					     (unsigned long)at);
			else if (before[at].end == GN_WALK_LEAF)
				cr_assert_eq(after.rights,
					     before[at].rights & (is_hit ? ~GN_W : ~0),
					     "round %u gfn %lu", round, (unsigned long)at);
			else
				cr_assert_neq(after.end, GN_WALK_LEAF);
		}
		cr_assert_eq(rig_flushes, any * config.vcpus);
		rig_audit(vm, "after runs");
		gn_vm_destroy(vm);
	}
}

Test(ept_range, a_large_leaf_partly_in_the_range_goes_as_a_whole_and_refills)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 2);
		struct gn_vm *vm = rig_vm(&config);

		rig_touch(vm, 600, GN_WRITE);
		rig_touch(vm, 1100, GN_WRITE);
		cr_assert_eq(rig_walk(vm, 600).level, 2);
		cr_assert_eq(gn_p2m_discard(vm, gfn(601), 1), 0);
		cr_assert_eq(rig_walk(vm, 600).end, GN_WALK_ABSENT);
		cr_assert_eq(rig_walk(vm, 1100).level, 2);
		rig_audit(vm, "after half a leaf went");
		rig_touch(vm, 600, GN_WRITE);
		cr_assert_eq(rig_walk(vm, 600).level, 1, "the block is broken");
		rig_audit(vm, "after the refill");
		gn_vm_destroy(vm);
	}
}

static void touch_every_gfn(struct gn_vm *vm, enum gn_access_kind kind)
{
	for (uint64_t at = 0; at < vm->p2m.gfn_count; at++)
		rig_touch(vm, at, kind);
}

/* TRAPS, nested paging 4: large pages are split when the log starts, and W comes back page by page. */
Test(ept_range, the_dirty_log_works_in_small_pages)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 2);
		struct gn_vm *vm = rig_vm(&config);
		uint8_t bitmap[256];

		touch_every_gfn(vm, GN_WRITE);
		cr_assert_eq(rig_walk(vm, 777).level, 2);
		cr_assert_eq(gn_dirty_start(vm), 0);
		rig_audit(vm, "after the start");
		cr_assert_not(rig_maps(vm, 777, GN_W));
		cr_assert_eq(rig_touch(vm, 777, GN_READ), GN_FIX_RETRY);
		cr_assert_not(rig_maps(vm, 777, GN_W), "a read does not grant W");
		cr_assert_eq(rig_touch(vm, 777, GN_WRITE), GN_FIX_RETRY);
		cr_assert_eq(rig_walk(vm, 777).level, 1);
		cr_assert(rig_maps(vm, 777, GN_RWX));
		cr_assert_not(rig_maps(vm, 776, GN_W));
		rig_audit(vm, "with one page dirty");
		rig_flushes = 0;
		cr_assert_eq(gn_dirty_harvest(vm, gfn(0), 2048, bitmap), 0);
		for (unsigned at = 0; at < 2048; at++)
			cr_assert_eq((bitmap[at / 8] >> (at % 8)) & 1, at == 777, "gfn %u", at);
		cr_assert_geq(rig_flushes, 1);
		cr_assert_not(rig_maps(vm, 777, GN_W), "the next write must be seen again");
		rig_audit(vm, "after the harvest");
		cr_assert_eq(gn_dirty_harvest(vm, gfn(0), 2048, bitmap), 0);
		for (unsigned i = 0; i < sizeof(bitmap); i++)
			cr_assert_eq(bitmap[i], 0);
		gn_dirty_stop(vm);
		gn_vm_destroy(vm);
	}
}

Test(ept_range, eager_split_leaves_no_large_leaf_behind)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 32 * MIB, 2);
		struct gn_vm *vm = rig_vm(&config);

		touch_every_gfn(vm, GN_WRITE);
		cr_assert_eq(gn_dirty_start(vm), 0);
		gn_ept_split_all(vm); /* whether or not the engine asked already */
		for (uint64_t at = 0; at < vm->p2m.gfn_count; at += 512) {
			cr_assert_eq(rig_walk(vm, at).level, 1, "gfn %lu", (unsigned long)at);
			cr_assert(rig_maps(vm, at, GN_R));
			cr_assert_not(rig_maps(vm, at, GN_W));
		}
		rig_audit(vm, "after the split");
		gn_vm_destroy(vm);
	}
}

/* Without memory for tables the log still is exact: the fault splits. */
Test(ept_range, eager_split_gives_up_quietly)
{
	struct gn_vm_config config = rig_config(&rig_variants[0], 32 * MIB, 2);
	struct gn_vm *vm = rig_vm(&config);

	touch_every_gfn(vm, GN_WRITE);
	gn_alloc_fail_nth(3);
	cr_assert_eq(gn_dirty_start(vm), 0);
	gn_alloc_fail_nth(1);
	gn_ept_split_all(vm);
	gn_alloc_fail_nth(0);
	rig_audit(vm, "after half a split");
	cr_assert_eq(rig_touch(vm, 5000, GN_WRITE), GN_FIX_RETRY);
	cr_assert(rig_maps(vm, 5000, GN_RWX));
	rig_audit(vm, "after the fault's own split");
	gn_vm_destroy(vm);
}

/* TRAPS, nested paging 2: a split says what the leaf said, A and D included. */
Test(ept_range, a_split_says_what_the_leaf_said)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 2);
		struct gn_vm *vm = rig_vm(&config);
		struct gn_ept *ept = rig_ept(vm);
		struct gn_ept_spare spare = { .full = false };
		uint64_t before[512], *slot;

		rig_touch(vm, 512, GN_WRITE);
		for (unsigned i = 0; i < 512; i++)
			before[i] = rig_walk(vm, 512 + i).address;
		slot = rig_slot(vm, 512, 2);
		rig_flushes = 0;
		cr_assert_eq(gn_ept_split(vm, ept, 2, slot, *slot, &spare), GN_EPT_NEED_TABLE);
		cr_assert_eq(gn_ept_spare_fill(vm, &spare), 0);
		cr_assert_eq(
			gn_ept_split(vm, ept, 2, slot, *slot ^ ept->fmt->level[2].dirty, &spare),
			GN_EPT_BUSY, "the entry changed meanwhile");
		cr_assert_eq(gn_ept_split(vm, ept, 2, slot, *slot, &spare), GN_EPT_DONE);
		cr_assert_not(spare.full);
		cr_assert_eq(rig_flushes, 0);
		for (unsigned i = 0; i < 512; i++) {
			struct gn_walk walk = rig_walk(vm, 512 + i);

			cr_assert_eq(walk.level, 1);
			cr_assert_eq(walk.address, before[i]);
			cr_assert(walk.entry & ept->fmt->level[1].dirty);
			cr_assert(walk.entry & ept->fmt->level[1].accessed);
		}
		rig_audit(vm, "after a split");
		gn_vm_destroy(vm);
	}
}

/* TRAPS, nested paging 2: collapse = build, freeze, swap, flush; here when the log has stopped. */
Test(ept_range, a_block_collapses_at_the_first_fault_after_the_log)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 2);
		struct gn_vm *vm = rig_vm(&config);
		uint64_t tables;

		touch_every_gfn(vm, GN_WRITE);
		tables = rig_tables(vm);
		cr_assert_eq(gn_dirty_start(vm), 0);
		gn_ept_split_all(vm);
		rig_touch(vm, 513, GN_WRITE);
		gn_dirty_stop(vm);
		watch_next_flush(vm, 512, 2);
		rig_touch(vm, 514, GN_WRITE);
		rig_on_flush = NULL;
		cr_assert_geq(rig_flushes, 1);
		cr_assert(saw_frozen && saw_child_frozen && saw_child_alive);
		cr_assert_eq(rig_walk(vm, 514).level, 2);
		cr_assert(rig_maps(vm, 514, GN_RWX));
		rig_audit(vm, "after a collapse");
		for (uint64_t at = 0; at < 2048; at += 512)
			rig_touch(vm, at, GN_WRITE);
		cr_assert_eq(rig_tables(vm), tables);
		gn_vm_destroy(vm);
	}
}

Test(ept_range, a_block_that_came_back_collapses_over_an_empty_table)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 2);
		struct gn_vm *vm = rig_vm(&config);

		rig_touch(vm, 512, GN_WRITE);
		cr_assert_eq(gn_p2m_discard(vm, gfn(512), 1), 0);
		rig_touch(vm, 513, GN_WRITE); /* a table of small leaves */
		for (uint64_t at = 512; at < 1024; at++)
			cr_assert_eq(gn_p2m_discard(vm, gfn(at), 1), 0);
		rig_touch(vm, 600, GN_WRITE);
		rig_audit(vm, "after the block came back");
		cr_assert_eq(rig_walk(vm, 600).level, 2);
		gn_vm_destroy(vm);
	}
}

Test(ept_range, accessed_bits_are_tested_and_cleared)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		const struct gn_fmt_level *l = &rig_ept(vm)->fmt->level[1];
		uint8_t bitmap[4];

		rig_touch(vm, 1, GN_READ);
		rig_touch(vm, 9, GN_WRITE);
		rig_touch(vm, 40, GN_WRITE);
		rig_flushes = 0;
		cr_assert_eq(gn_accessed_harvest(vm, gfn(1), 31, bitmap), 0);
		cr_assert_eq(bitmap[0], 1);
		cr_assert_eq(bitmap[1], 1);
		cr_assert_eq(bitmap[2] | bitmap[3], 0);
		cr_assert_geq(rig_flushes, 1, "or the TLB hides the next access");
		cr_assert_eq(gn_accessed_harvest(vm, gfn(1), 31, bitmap), 0);
		cr_assert_eq(bitmap[0] | bitmap[1] | bitmap[2] | bitmap[3], 0);
		cr_assert(rig_walk(vm, 40).entry & l->accessed, "not in the range");
		*rig_walk(vm, 9).slot |= l->accessed; /* the hardware */
		cr_assert_eq(gn_accessed_harvest(vm, gfn(1), 31, bitmap), 0);
		cr_assert_eq(bitmap[1], 1);
		gn_vm_destroy(vm);
	}
}

Test(ept_range, a_scan_in_slices_sees_a_large_leaf_in_each_slice_once)
{
	struct gn_vm_config config = rig_config(&rig_variants[0], 8 * MIB, 2);
	struct gn_vm *vm = rig_vm(&config);
	uint8_t bitmap[64];

	rig_touch(vm, 512, GN_READ);
	for (unsigned pass = 0; pass < 2; pass++)
		for (uint64_t at = 512; at < 1024; at += 128) {
			cr_assert_eq(gn_accessed_harvest(vm, gfn(at), 128, bitmap), 0);
			for (unsigned i = 0; i < 16; i++)
				cr_assert_eq(bitmap[i], pass ? 0 : 0xff, "pass %u gfn %lu", pass,
					     (unsigned long)at);
		}
	gn_vm_destroy(vm);
}

Test(ept_range, the_last_byte_is_returned)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 32 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		struct gn_table_usage usage;

		touch_every_gfn(vm, GN_WRITE);
		cr_assert_eq(rig_tables(vm), config.nested_levels - 1 + 16);
		cr_assert_eq(gn_vm_switch_scheme(vm, "native"), 0);
		gn_vm_table_usage(vm, &usage);
		cr_assert_eq(usage.frames_bytes, 0);
		cr_assert_eq(gn_vm_switch_scheme(vm, config.scheme), 0);
		cr_assert_eq(rig_touch(vm, 5, GN_WRITE), GN_FIX_RETRY);
		rig_audit(vm, "after a switch and back");
		gn_vm_destroy(vm);
	}
}
