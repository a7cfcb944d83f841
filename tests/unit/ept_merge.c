/* SPDX-License-Identifier: MIT */
/*
 * ept_merge.c - pages that come to share under nested tables: who only reads notices nothing, large leaves and sealed pages go, and
 * nobody is waited for where the dirty log says that nobody stores.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "ept_rig.h"

#define MIB ((uint64_t)1 << 20)

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
	const struct gn_fmt *fmt = rig_ept(vm)->fmt;
	const uint64_t entry = gn_entry_get(moving_slot);
	const uint64_t frame = gn_fmt_address(fmt, 1, entry) >> GN_PAGE_SHIFT;

	was_protected_before |= frame == moved_from.v && !(gn_fmt_rights(fmt, 1, entry) & GN_W);
	was_exchanged_before |= frame == moved_to.v;
	cr_assert(gn_frames_refs(vm->frames, moved_from), "its frame went before the flush");
}

/* Who reads a page does not fault when it comes to share, nor after. Its neighbours are not concerned. */
Test(ept_merge, reads_go_on_while_pages_are_merged)
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
		moving_slot = rig_slot(vm, 4, 1);
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
Test(ept_merge, a_large_leaf_goes_when_a_page_of_it_is_merged)
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
Test(ept_merge, sealed_pages_keep_no_leaf)
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

/* ---- Who is waited for ------------------------------------------------------------------------------- */

/* A call that changes a page, while somebody is in a read section. */
struct beside_reader {
	struct gn_vm *vm;
	uint64_t at;
	pfn_t frame;
	bool (*call)(const struct beside_reader *b);
	bool went_well;
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

	b->went_well = b->call(b);
	return NULL;
}

static bool is_private(const struct beside_reader *b)
{
	struct gn_p2m_info info;

	cr_assert_eq(gn_p2m_query(b->vm, gfn(b->at), &info), 0);
	return info.state == GN_P2M_PRIVATE;
}

/* Does it come to the page's change within that time, or wait for the reader before? */
static bool changes_beside_reader(struct gn_vm *vm, bool (*what)(const struct beside_reader *b),
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
	cr_assert(b.went_well && !is_private(&b));
	return changed;
}

static bool publish_it(const struct beside_reader *b)
{
	struct gn_merge page = { .at = gfn(b->at) };

	if (gn_p2m_publish(b->vm, &page, 1, GN_SHARE_READ) || page.result)
		return false;
	gn_frames_put(b->vm->frames, page.frame);
	return true;
}

static bool merge_it(const struct beside_reader *b)
{
	struct gn_merge page = { .at = gfn(b->at), .frame = b->frame };

	return !gn_p2m_merge(b->vm, &page, 1, GN_SHARE_READ, NULL) && !page.result;
}

static bool (*const calls[])(const struct beside_reader *) = { publish_it, merge_it };
enum { CALLS = sizeof(calls) / sizeof(calls[0]), SOON_MS = 50, LATE_MS = 20000 };

static struct gn_vm *vm_with_pages(const struct rig_variant *variant)
{
	struct gn_vm_config config = rig_config(variant, 8 * MIB, 1);
	struct gn_vm *vm = rig_vm(&config);

	for (unsigned at = 0; at < 10; at++)
		rig_touch(vm, at, GN_WRITE);
	return vm;
}

/* Where the dirty log knows that nobody can be storing, contents stand still, and who reads is not waited for. */
Test(ept_merge, what_the_log_knows_to_stand_still_is_not_waited_for)
{
	for (unsigned v = 0; v < RIG_VARIANTS; v++) {
		struct gn_vm *vm = vm_with_pages(&rig_variants[v]);
		pfn_t frame = publish(vm, 9);

		cr_assert_eq(gn_dirty_start(vm), 0);
		for (unsigned i = 0; i < CALLS; i++)
			cr_assert(changes_beside_reader(vm, calls[i], i, frame, LATE_MS), "call %u",
				  i);
		rig_audit(vm, "with a log");
		gn_frames_put(vm->frames, frame);
		gn_vm_destroy(vm);
	}
}

Test(ept_merge, who_may_store_is_waited_for)
{
	struct gn_vm *vm = vm_with_pages(&rig_variants[0]);
	pfn_t frame = publish(vm, 9);

	cr_assert_eq(gn_dirty_start(vm), 0);
	for (unsigned i = 0; i < CALLS; i++) {
		rig_touch(vm, i, GN_WRITE);
		cr_assert_not(changes_beside_reader(vm, calls[i], i, frame, SOON_MS),
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
