/* SPDX-License-Identifier: MIT */
/*
 * ept_range.c - zap, write-protect, split, collapse, harvest. One case for each trap of nested paging that
 * range changes can fall into.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "ept_rig.h"
#include "support/cases.h"

#define MIB ((uint64_t)1 << 20)

static struct gn_ept *ept_of(struct gn_vm *vm)
{
	return (struct gn_ept *)vm->scheme_data;
}

static uint64_t *slot_at(struct gn_vm *vm, uint64_t at, unsigned level)
{
	struct gn_ept *ept = ept_of(vm);
	pfn_t table = ept->root;

	for (unsigned l = ept->fmt->levels; l > level; l--)
		table = gn_ept_child(ept, l,
				     gn_entry_get(gn_ept_slot_of(vm, ept, table, l, gfn(at))));
	return gn_ept_slot_of(vm, ept, table, level, gfn(at));
}

/* What the tables look like at the moment the flush is posted. */
static uint64_t *watched_slot, *watched_child;
static unsigned watched_level;
static bool saw_frozen, saw_child_frozen, saw_child_alive;

static void watch(struct gn_vm *vm)
{
	struct gn_ept *ept = ept_of(vm);
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
	watched_slot = slot_at(vm, at, level);
	watched_level = level;
	watched_child = level > 1 ? (uint64_t *)((uintptr_t)slot_at(vm, at, level - 1) &
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
		cr_assert_eq(*slot_at(vm, 3, 1), 0);
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
		struct gn_ept *ept = ept_of(vm);
		struct gn_ept_spare spare = { .full = false };
		uint64_t before[512], *slot;

		rig_touch(vm, 512, GN_WRITE);
		for (unsigned i = 0; i < 512; i++)
			before[i] = rig_walk(vm, 512 + i).address;
		slot = slot_at(vm, 512, 2);
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
		const struct gn_fmt_level *l = &ept_of(vm)->fmt->level[1];
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

/* ---- Equal contents elsewhere --------------------------------------------------------------------- */

static struct gn_merge merge_into(struct gn_vm *vm, uint64_t at, pfn_t frame)
{
	struct gn_merge page = { .at = gfn(at), .frame = frame };

	cr_assert_eq(gn_p2m_merge(vm, &page, 1, GN_SHARE_READ, NULL), 0);
	return page;
}

static pfn_t publish(struct gn_vm *vm, uint64_t at)
{
	struct gn_merge page = { .at = gfn(at) };

	cr_assert_eq(gn_p2m_publish(vm, &page, 1, GN_SHARE_READ), 0);
	cr_assert_eq(page.result, 0);
	return page.frame;
}

static pfn_t mapped_frame(struct gn_vm *vm, uint64_t at)
{
	const struct gn_walk walk = rig_walk(vm, at);

	cr_assert_eq(walk.end, GN_WALK_LEAF);
	return hpa_to_pfn(hpa(walk.address));
}

static uint64_t *moving_slot;
static pfn_t moved_from, moved_to;
static bool was_protected_before, was_exchanged_before;

/* A flush is worth something only after what it is for. */
static void watch_moving(struct gn_vm *vm)
{
	const struct gn_fmt *fmt = ((struct gn_ept *)vm->scheme_data)->fmt;
	const uint64_t entry = gn_entry_get(moving_slot);
	const uint64_t frame = gn_fmt_address(fmt, 1, entry) >> GN_PAGE_SHIFT;

	was_protected_before |= frame == moved_from.v && !(gn_fmt_rights(fmt, 1, entry) & GN_W);
	was_exchanged_before |= frame == moved_to.v;
	cr_assert(gn_frames_refs(vm->frames, moved_from), "its frame went before the flush");
}

/* Who reads a page does not fault when it comes to share, nor after. Its neighbours are not concerned. */
Test(ept_range, reads_go_on_while_pages_are_merged)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		uint8_t bitmap;
		pfn_t frame;

		for (unsigned at = 3; at < 6; at++)
			rig_touch(vm, at, GN_WRITE);
		moved_from = mapped_frame(vm, 4);
		frame = publish(vm, 3);
		cr_assert_eq(mapped_frame(vm, 3).v, frame.v);
		cr_assert(rig_maps(vm, 3, GN_R) && !rig_maps(vm, 3, GN_W));
		cr_assert_eq(gn_accessed_harvest(vm, gfn(0), 8, &bitmap), 0);
		cr_assert_eq(bitmap, 1 << 3 | 1 << 4 | 1 << 5);
		moved_to = frame;
		moving_slot = slot_at(vm, 4, 1);
		was_protected_before = was_exchanged_before = false;
		rig_on_flush = watch_moving;
		cr_assert_eq(merge_into(vm, 4, frame).result, 0);
		rig_on_flush = NULL;
		cr_assert(was_protected_before && was_exchanged_before);
		cr_assert_eq(mapped_frame(vm, 4).v, frame.v);
		cr_assert(rig_maps(vm, 4, GN_R) && !rig_maps(vm, 4, GN_W));
		cr_assert(rig_maps(vm, 5, GN_RWX));
		cr_assert_eq(gn_accessed_harvest(vm, gfn(0), 8, &bitmap), 0);
		cr_assert_eq(bitmap, 0, "nobody used it: it was only moved");
		rig_audit(vm, "after a merge");
		/* What differs keeps its frame, and its right comes back by a fault. */
		cr_assert_eq(gn_vm_write(vm, gfn_to_gpa(gfn(5)), "x", 1), 0);
		cr_assert_eq(merge_into(vm, 5, frame).result, -EAGAIN);
		cr_assert(rig_maps(vm, 5, GN_R) && !rig_maps(vm, 5, GN_W));
		rig_touch(vm, 5, GN_WRITE);
		cr_assert(rig_maps(vm, 5, GN_RWX));
		/* A store makes a copy. */
		rig_touch(vm, 4, GN_WRITE);
		cr_assert(rig_maps(vm, 4, GN_RWX));
		cr_assert_neq(mapped_frame(vm, 4).v, frame.v);
		rig_audit(vm, "after a copy");
		gn_frames_put(vm->frames, frame);
		gn_vm_destroy(vm);
	}
}

/* A large leaf says more than its pages do once one of them shares: it goes, and nothing else of its kind. */
Test(ept_range, a_large_leaf_goes_when_a_page_of_it_is_merged)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 2);
		struct gn_vm *vm = rig_vm(&config);
		struct gn_merge pages[512];
		pfn_t frame;

		for (unsigned at = 0; at < 2048; at += 512)
			rig_touch(vm, at, GN_WRITE);
		cr_assert_eq(rig_walk(vm, 700).level, 2);
		frame = publish(vm, 3);
		cr_assert_eq(rig_walk(vm, 3).end, GN_WALK_ABSENT);
		cr_assert_eq(merge_into(vm, 700, frame).result, 0);
		cr_assert_eq(rig_walk(vm, 701).end, GN_WALK_ABSENT);
		for (unsigned i = 0; i < 512; i++)
			pages[i] = (struct gn_merge){ .at = gfn(1024 + i), .frame = frame };
		cr_assert_eq(gn_p2m_merge(vm, pages, 512, GN_SHARE_READ, NULL), 0);
		cr_assert_eq(rig_walk(vm, 1100).end, GN_WALK_ABSENT);
		cr_assert_eq(rig_walk(vm, 1600).level, 2, "the next one stays");
		rig_audit(vm, "after merges in large leaves");
		gn_frames_put(vm->frames, frame);
		gn_vm_destroy(vm);
	}
}

/* What is sealed may not even be read, and goes. */
Test(ept_range, sealed_pages_keep_no_leaf)
{
	struct gn_vm_config config = rig_config(&rig_variants[0], 8 * MIB, 1);
	struct gn_vm *vm = rig_vm(&config);
	struct gn_merge page = { .at = gfn(3) };

	rig_touch(vm, 3, GN_WRITE);
	cr_assert_eq(gn_p2m_publish(vm, &page, 1, GN_SHARE_SEALED), 0);
	cr_assert_eq(rig_walk(vm, 3).end, GN_WALK_ABSENT);
	gn_frames_put(vm->frames, page.frame);
	gn_vm_destroy(vm);
}

/* A call that changes a page, while somebody is in a read section. */
struct beside_reader {
	struct gn_vm *vm;
	uint64_t at;
	pfn_t frame;
	void (*call)(struct beside_reader *b);
	atomic_bool is_reading, is_over;
};

static void *read_on(void *ctx)
{
	struct beside_reader *b = ctx;

	gn_read_lock();
	atomic_store(&b->is_reading, true);
	while (!atomic_load(&b->is_over))
		usleep(100);
	gn_read_unlock();
	return NULL;
}

static void *call(void *ctx)
{
	struct beside_reader *b = ctx;

	b->call(b);
	return NULL;
}

static bool is_private(const struct beside_reader *b)
{
	struct gn_p2m_info info;

	cr_assert_eq(gn_p2m_query(b->vm, gfn(b->at), &info), 0);
	return info.state == GN_P2M_PRIVATE;
}

/* Does it come to the page's change within that time, or wait for the reader before? */
static bool changes_beside_reader(struct gn_vm *vm, void (*what)(struct beside_reader *b),
				  uint64_t at, pfn_t frame, unsigned ms)
{
	struct beside_reader b = { .vm = vm, .at = at, .frame = frame, .call = what };
	pthread_t reader, caller;
	bool changed;

	cr_assert_eq(pthread_create(&reader, NULL, read_on, &b), 0);
	while (!atomic_load(&b.is_reading))
		usleep(100);
	cr_assert_eq(pthread_create(&caller, NULL, call, &b), 0);
	for (unsigned i = 0; i < ms && is_private(&b); i++)
		usleep(1000);
	changed = !is_private(&b);
	atomic_store(&b.is_over, true);
	pthread_join(reader, NULL);
	pthread_join(caller, NULL);
	cr_assert_not(is_private(&b));
	return changed;
}

static void publish_it(struct beside_reader *b)
{
	gn_frames_put(b->vm->frames, publish(b->vm, b->at));
}

static void merge_it(struct beside_reader *b)
{
	cr_assert_eq(merge_into(b->vm, b->at, b->frame).result, 0);
}

/* Where the dirty log knows that nobody can be storing, contents stand still, and who reads is not waited for. */
Test(ept_range, what_the_log_knows_to_stand_still_is_not_waited_for)
{
	static void (*const calls[])(struct beside_reader *) = { publish_it, merge_it };
	enum { CALLS = sizeof(calls) / sizeof(calls[0]), SOON_MS = 50, LATE_MS = 20000 };

	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm_config config = rig_config(&rig_variants[v], 8 * MIB, 1);
		struct gn_vm *vm = rig_vm(&config);
		pfn_t frame;

		for (unsigned at = 0; at < 10; at++)
			rig_touch(vm, at, GN_WRITE);
		frame = publish(vm, 9);
		cr_assert_eq(gn_dirty_start(vm), 0);
		for (unsigned i = 0; i < CALLS; i++)
			cr_assert(changes_beside_reader(vm, calls[i], i, frame, LATE_MS), "call %u",
				  i);
		for (unsigned i = 0; i < CALLS; i++) {
			rig_touch(vm, 3 + i, GN_WRITE);
			cr_assert_not(changes_beside_reader(vm, calls[i], 3 + i, frame, SOON_MS),
				      "call %u, a page that was written", i);
		}
		gn_dirty_stop(vm);
		for (unsigned i = 0; i < CALLS; i++)
			cr_assert_not(changes_beside_reader(vm, calls[i], 6 + i, frame, SOON_MS),
				      "call %u, without a log", i);
		rig_audit(vm, "with a log and without");
		gn_frames_put(vm->frames, frame);
		gn_vm_destroy(vm);
	}
}
