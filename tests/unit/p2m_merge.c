/* SPDX-License-Identifier: MIT */
/*
 * p2m_merge.c - pages are published and merged: states, references, large blocks, contents, who has the memory afterwards,
 * and what is refused.
 */
#include <errno.h>

#include "mmu/audit.h"
#include "mmu/retire.h"
#include "support/p2m_rig.h"
#include "support/resident.h"

#define BLOCK 512u

TestSuite(p2m_merge, .fini = rig_teardown);

static pfn_t frame_of(uint64_t at)
{
	return plain_query(vm, at).pfn;
}

/* Without a reference left of ours. */
static int publish_as(uint64_t at, enum gn_share_access access, pfn_t *frame)
{
	struct gn_merge page = { .at = gfn(at) };

	cr_assert_eq(gn_p2m_publish(vm, &page, 1, access), 0);
	*frame = page.frame;
	return page.result;
}

static pfn_t publish(uint64_t at)
{
	pfn_t frame;

	cr_assert_eq(publish_as(at, GN_SHARE_READ, &frame), 0);
	return frame;
}

static int merge_as(uint64_t at, pfn_t frame, enum gn_share_access access)
{
	struct gn_merge page = { .at = gfn(at), .frame = frame };
	uint64_t merged = 99;
	bool was_other = frame_of(at).v != frame.v;

	cr_assert_eq(gn_p2m_merge(vm, &page, 1, access, &merged), 0);
	cr_assert_eq(merged, !page.result && was_other);
	return page.result;
}

static int merge(uint64_t at, pfn_t frame)
{
	return merge_as(at, frame, GN_SHARE_READ);
}

/* ---- Publishing ---------------------------------------------------------------------------------------- */

Test(p2m_merge, published_in_place_and_counted)
{
	pfn_t before, frame, again;

	rig_make(4 * MIB, 1);
	rig_fill(3, 7);
	before = frame_of(3);
	frame = publish(3);
	cr_assert_eq(frame.v, before.v);
	cr_assert_eq(rig_state(3), GN_P2M_SHARED);
	cr_assert_eq(plain_query(vm, 3).rights, GN_R | GN_X);
	cr_assert_eq(gn_frames_refs(vm->frames, frame), 2);
	again = publish(3);
	cr_assert_eq(again.v, frame.v);
	cr_assert_eq(gn_frames_refs(vm->frames, frame), 3);
	gn_frames_put(vm->frames, frame);
	/* A copy as long as anybody has a reference. */
	rig_fill(3, 8);
	cr_assert_neq(frame_of(3).v, frame.v);
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_refs(vm->frames, frame), 1);
	cr_assert_eq(*(uint8_t *)gn_frames_at(vm->frames, pfn_to_hpa(frame)), 7);
	cr_assert(gn_frames_put(vm->frames, frame));
}

Test(p2m_merge, the_last_one_gets_its_frame_back)
{
	pfn_t frame;

	rig_make(4 * MIB, 1);
	rig_fill(3, 7);
	frame = publish(3);
	gn_frames_put(vm->frames, frame);
	rig_fill(3, 8);
	cr_assert_eq(frame_of(3).v, frame.v);
	cr_assert_eq(rig_state(3), GN_P2M_PRIVATE);
}

static const struct {
	const char *name;
	enum gn_p2m_state state;
	int published, merged;
} states[] = {
	{ "unbacked", GN_P2M_UNBACKED, -EINVAL, -EINVAL },
	{ "private", GN_P2M_PRIVATE, 0, 0 },
	{ "shared", GN_P2M_SHARED, 0, 0 },
	{ "read-only", GN_P2M_READONLY, -EINVAL, -EINVAL },
	{ "ballooned", GN_P2M_BALLOONED, -EINVAL, -EINVAL },
	{ "mmio", GN_P2M_MMIO, -EINVAL, -EINVAL },
};
#define STATES (sizeof(states) / sizeof(states[0]))

Test(p2m_merge, every_state)
{
	pfn_t model, frame;

	rig_make(4 * MIB, 1);
	rig_fill(900, 5);
	model = publish(900);
	for (unsigned i = 0; i < STATES; i++) {
		struct gn_p2m_info before, after;

		rig_make_state(4 * i, states[i].state, 5);
		rig_make_state(100 + 4 * i, states[i].state, 5);
		before = plain_query(vm, 4 * i);
		cr_assert_eq(publish_as(4 * i, GN_SHARE_READ, &frame), states[i].published, "%s",
			     states[i].name);
		if (states[i].published == 0)
			gn_frames_put(vm->frames, frame);
		cr_assert_eq(merge(100 + 4 * i, model), states[i].merged, "%s", states[i].name);
		after = plain_query(vm, 4 * i);
		if (states[i].published)
			cr_assert(before.state == after.state && before.pfn.v == after.pfn.v &&
					  before.rights == after.rights,
				  "%s", states[i].name);
		if (!states[i].merged)
			cr_assert_eq(frame_of(100 + 4 * i).v, model.v);
	}
	gn_frames_put(vm->frames, model);
}

/* ---- Merging --------------------------------------------------------------------------------------------- */

Test(p2m_merge, one_frame_for_equal_pages_only)
{
	pfn_t frame, own;
	uint8_t one = 1;

	rig_make(4 * MIB, 1);
	for (unsigned i = 0; i < 4; i++)
		rig_fill(i, 9);
	/* The last byte differs. */
	cr_assert_eq(gn_vm_write(vm, gpa(2 * GN_PAGE_SIZE + GN_PAGE_SIZE - 1), &one, 1), 0);
	frame = publish(0);
	own = frame_of(2);
	cr_assert_eq(merge(1, frame), 0);
	cr_assert_eq(merge(2, frame), -EAGAIN);
	cr_assert_eq(merge(3, frame), 0);
	cr_assert_eq(merge(3, frame), 0, "it has it already");
	cr_assert_eq(gn_frames_refs(vm->frames, frame), 4);
	cr_assert_eq(frame_of(1).v, frame.v);
	cr_assert_eq(frame_of(2).v, own.v);
	cr_assert_eq(rig_state(2), GN_P2M_PRIVATE);
	cr_assert_eq(plain_query(vm, 2).rights, GN_RWX);
	rig_fill(1, 4);
	cr_assert_eq(rig_byte_of(0), 9);
	cr_assert_eq(rig_byte_of(1), 4);
	cr_assert_eq(rig_byte_of(3), 9);
	gn_frames_put(vm->frames, frame);
}

Test(p2m_merge, from_one_shared_frame_to_another)
{
	pfn_t a, b;

	rig_make(4 * MIB, 1);
	for (unsigned i = 0; i < 4; i++)
		rig_fill(i, 9);
	a = publish(0);
	b = publish(2);
	cr_assert_eq(merge(1, a), 0);
	cr_assert_eq(merge(3, b), 0);
	for (unsigned i = 0; i < 3 * PAGES; i++) /* the retire list is drained in time */
		cr_assert_eq(merge(1, i % 2 ? a : b), 0);
	cr_assert_eq(frame_of(1).v, a.v);
	gn_frames_put(vm->frames, b);
	cr_assert_eq(merge(2, a), 0);
	cr_assert_eq(gn_frames_refs(vm->frames, b), 1);
	cr_assert_eq(merge(3, a), 0);
	cr_assert_eq(gn_frames_refs(vm->frames, b), 0);
	cr_assert_eq(gn_frames_refs(vm->frames, a), 5);
	gn_frames_put(vm->frames, a);
}

/* References that others retired and nobody drained: they are put before merging adds to them. */
Test(p2m_merge, room_is_made_for_retired_frames)
{
	pfn_t frame;

	rig_make(4 * MIB, 1);
	rig_fill(0, 9);
	frame = publish(0);
	for (unsigned i = 0; i < 32768; i++) {
		gn_frames_get(vm->frames, frame);
		gn_retire_frame(vm, frame);
		if (i == 1000) {
			cr_assert_eq(merge(0, frame), 0);
			cr_assert_eq(gn_frames_refs(vm->frames, frame), 1001 + 2, "not yet");
		}
	}
	cr_assert_eq(merge(0, frame), 0);
	cr_assert_eq(gn_frames_refs(vm->frames, frame), 2);
	gn_frames_put(vm->frames, frame);
}

Test(p2m_merge, what_somebody_else_holds_stays)
{
	pfn_t frame, held;

	rig_make(4 * MIB, 1);
	rig_fill(0, 1);
	rig_fill(1, 1);
	frame = publish(0);
	held = frame_of(1);
	gn_frames_get(vm->frames, held);
	cr_assert_eq(merge(1, frame), -EBUSY);
	cr_assert_eq(merge(1, held), -EBUSY, "not a frame that can be written");
	cr_assert_eq(publish_as(1, GN_SHARE_READ, &(pfn_t){ 0 }), -EBUSY);
	cr_assert_eq(rig_state(1), GN_P2M_PRIVATE);
	gn_frames_put(vm->frames, held);
	gn_frames_put(vm->frames, frame);
}

Test(p2m_merge, calls_that_are_refused)
{
	struct gn_merge pages[2];
	uint64_t merged = 99;
	pfn_t frame;

	rig_make(4 * MIB, 1);
	rig_fill(0, 1);
	rig_fill(1, 1);
	frame = publish(0);
	pages[0] = (struct gn_merge){ .at = gfn(1), .frame = frame };
	pages[1] = pages[0];
	cr_assert_eq(gn_p2m_merge(vm, pages, 2, GN_SHARE_READ, &merged), -EINVAL, "twice the same");
	cr_assert_eq(merged, 0);
	pages[1].at = gfn(0);
	cr_assert_eq(gn_p2m_publish(vm, pages, 2, GN_SHARE_READ), -EINVAL, "descending");
	pages[1].at = gfn(4 * MIB / GN_PAGE_SIZE);
	cr_assert_eq(gn_p2m_merge(vm, pages, 2, GN_SHARE_READ, NULL), -EINVAL, "outside");
	pages[0].frame = pfn(vm->frames->frame_count);
	cr_assert_eq(gn_p2m_merge(vm, pages, 1, GN_SHARE_READ, NULL), -EINVAL, "no frame");
	pages[0].frame = pfn(vm->frames->frame_count - 2);
	cr_assert_eq(gn_p2m_merge(vm, pages, 1, GN_SHARE_READ, NULL), -EINVAL, "a free frame");
	cr_assert_eq(rig_state(1), GN_P2M_PRIVATE);
	cr_assert_eq(gn_p2m_merge(vm, pages, 0, GN_SHARE_READ, &merged), 0);
	gn_frames_put(vm->frames, frame);
}

/* ---- Many -------------------------------------------------------------------------------------------------- */

Test(p2m_merge, batches_and_the_host)
{
	static struct gn_merge pages[PAGES];
	struct gn_balloon_usage usage;
	struct gn_pool pool;
	uint64_t merged, before;
	pfn_t frame;

	rig_make(PAGES * GN_PAGE_SIZE, 1);
	for (unsigned i = 0; i < PAGES; i++)
		rig_fill(i, i % 3 == 2 ? (uint8_t)i : 0xaa);
	gn_vm_pool(vm, &pool);
	before = resident_pages(pool.base, pool.bytes);
	frame = publish(0);
	for (unsigned i = 1; i < PAGES; i++)
		pages[i - 1] = (struct gn_merge){ gfn(i), frame, 0 };
	cr_assert_eq(gn_p2m_merge(vm, pages, PAGES - 1, GN_SHARE_READ, &merged), 0);
	for (unsigned i = 1; i < PAGES; i++)
		cr_assert_eq(pages[i - 1].result, i % 3 == 2 && (uint8_t)i != 0xaa ? -EAGAIN : 0,
			     "%u", i);
	cr_assert_eq(gn_frames_refs(vm->frames, frame), merged + 2);
	cr_assert_eq(resident_pages(pool.base, pool.bytes), before - merged);
	gn_vm_balloon_usage(vm, &usage);
	cr_assert_eq(usage.released_bytes, merged * GN_PAGE_SIZE);
	for (unsigned i = 0; i < PAGES; i++)
		cr_assert_eq(rig_byte_of(i), i % 3 == 2 ? (uint8_t)i : 0xaa);
	gn_frames_put(vm->frames, frame);
}

/* A block falls apart, whether all of it is asked for or a page. */
Test(p2m_merge, large_blocks)
{
	static struct gn_merge pages[BLOCK];
	uint64_t merged;
	pfn_t frame;

	rig_make(8 * MIB, 2);
	for (unsigned i = 0; i < 4 * BLOCK; i++)
		rig_fill(i, i % 2 ? 3 : 4);
	cr_assert_eq(plain_query(vm, BLOCK).level, 2);
	frame = publish(7);
	cr_assert_eq(plain_query(vm, 0).level, 1);
	cr_assert_eq(merge(BLOCK + 9, frame), 0);
	cr_assert_eq(plain_query(vm, BLOCK).level, 1);
	for (unsigned i = 0; i < BLOCK; i++)
		pages[i] = (struct gn_merge){ gfn(2 * BLOCK + i), frame, 0 };
	cr_assert_eq(gn_p2m_merge(vm, pages, BLOCK, GN_SHARE_READ, &merged), 0);
	cr_assert_eq(merged, BLOCK / 2);
	for (unsigned i = 0; i < BLOCK; i++)
		pages[i] = (struct gn_merge){ .at = gfn(3 * BLOCK + i) };
	cr_assert_eq(gn_p2m_publish(vm, pages, BLOCK, GN_SHARE_READ), 0);
	for (unsigned i = 0; i < BLOCK; i++)
		gn_frames_put(vm->frames, pages[i].frame);
	for (unsigned i = 0; i < 4 * BLOCK; i++)
		cr_assert_eq(rig_byte_of(i), i % 2 ? 3 : 4, "%u", i);
	gn_frames_put(vm->frames, frame);
}

/* ---- Sealed -------------------------------------------------------------------------------------------------- */

Test(p2m_merge, sealed_pages_are_copied_by_a_read)
{
	pfn_t frame;

	rig_make(4 * MIB, 1);
	for (unsigned i = 0; i < 4; i++)
		rig_fill(i, 9);
	cr_assert_eq(publish_as(0, GN_SHARE_SEALED, &frame), 0);
	cr_assert_eq(merge_as(1, frame, GN_SHARE_SEALED), 0);
	cr_assert_eq(rig_state(1), GN_P2M_SHARED);
	cr_assert_eq(plain_query(vm, 0).rights, 0);
	cr_assert_eq(plain_query(vm, 1).rights, 0);
	cr_assert_eq(rig_byte_of(1), 9);
	cr_assert_eq(rig_state(1), GN_P2M_PRIVATE);
	cr_assert_neq(frame_of(1).v, frame.v);
	cr_assert_eq(plain_query(vm, 0).rights, 0, "the other one is as it was");
	rig_fill(0, 8);
	cr_assert_eq(*(uint8_t *)gn_frames_at(vm->frames, pfn_to_hpa(frame)), 9);
	cr_assert_eq(rig_byte_of(0), 8);
	gn_frames_put(vm->frames, frame);
}

/* A change that leaves the page what it is leaves the seal. */
Test(p2m_merge, seals_outlast_other_changes)
{
	pfn_t frame, third;

	rig_make(4 * MIB, 1);
	for (unsigned i = 0; i < 4; i++)
		rig_fill(i, (uint8_t)i);
	cr_assert_eq(publish_as(1, GN_SHARE_SEALED, &frame), 0);
	cr_assert_eq(gn_p2m_protect(vm, gfn(0), 4, false), 0);
	cr_assert_eq(plain_query(vm, 1).rights, 0, "protect");
	cr_assert_eq(gn_p2m_share(vm, gfn(1), gfn(2)), -EINVAL);
	cr_assert_eq(plain_query(vm, 1).rights, 0, "share");
	third = publish(3);
	cr_assert_eq(merge(1, third), -EAGAIN);
	cr_assert_eq(plain_query(vm, 1).rights, 0, "merge");
	cr_assert_eq(gn_p2m_move(vm, gfn(0), 4), 0);
	cr_assert_eq(plain_query(vm, 1).rights, 0, "move");
	cr_assert_neq(frame_of(1).v, frame.v);
	cr_assert_eq(rig_byte_of(1), 1);
	cr_assert_eq(plain_query(vm, 1).rights, GN_RWX);
	gn_frames_put(vm->frames, frame);
	gn_frames_put(vm->frames, third);
	/* Those that are equal after all: both are sealed, whichever was. */
	rig_fill(0, 3);
	cr_assert_eq(publish_as(0, GN_SHARE_SEALED, &frame), 0);
	cr_assert_eq(gn_p2m_share(vm, gfn(0), gfn(3)), 0);
	cr_assert_eq(plain_query(vm, 0).rights, 0, "keep");
	cr_assert_eq(plain_query(vm, 3).rights, 0, "give");
	cr_assert_eq(rig_byte_of(3), 3);
	rig_fill(2, 3);
	cr_assert_eq(gn_p2m_share(vm, gfn(2), gfn(0)), 0);
	cr_assert_eq(plain_query(vm, 2).rights, 0);
	gn_frames_put(vm->frames, frame);
}

static unsigned waits;

static void count_wait(struct gn_vm *of)
{
	(void)of;
	waits++;
}

/* A page that is sealed finds its like later, and nobody waits; one that has been used meanwhile is left alone. */
Test(p2m_merge, what_is_sealed_is_merged_later)
{
	static const struct gn_backend_ops backend = { .name = "waits",
						       .flush = plain_flush,
						       .quiesce = count_wait };
	struct gn_vm_config config = plain_config(4 * MIB);
	pfn_t frame, own, other;

	config.backend = &backend;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	for (unsigned i = 0; i < 6; i++)
		rig_fill(i, 9);
	rig_fill(5, 8);
	frame = publish(0);
	cr_assert_eq(publish_as(1, GN_SHARE_SEALED, &own), 0);
	cr_assert_eq(publish_as(5, GN_SHARE_SEALED, &other), 0);
	gn_retire_drain(vm);
	waits = 0;
	cr_assert_eq(merge_as(1, frame, GN_SHARE_RESEAL), 0);
	cr_assert_eq(frame_of(1).v, frame.v);
	cr_assert_eq(plain_query(vm, 1).rights, 0);
	cr_assert_eq(merge_as(1, frame, GN_SHARE_RESEAL), 0, "it has it");
	cr_assert_eq(merge_as(5, frame, GN_SHARE_RESEAL), -EAGAIN);
	cr_assert_eq(plain_query(vm, 5).rights, 0, "still sealed");
	cr_assert_eq(merge_as(2, frame, GN_SHARE_RESEAL), -EBUSY, "it has a frame of its own");
	cr_assert_eq(rig_state(2), GN_P2M_PRIVATE);
	cr_assert_eq(merge_as(0, own, GN_SHARE_RESEAL), -EBUSY, "it can be read");
	cr_assert_eq(merge_as(1000, frame, GN_SHARE_RESEAL), -EINVAL);
	cr_assert_eq(waits, 0);
	cr_assert_eq(merge_as(2, frame, GN_SHARE_SEALED), 0);
	cr_assert_gt(waits, 0, "who can be told of waits is told");
	waits = 0;
	gn_retire_drain_always(vm);
	gn_retire_drain_always(vm);
	cr_assert_eq(waits, 2);
	gn_retire_drain(vm);
	cr_assert_eq(waits, 2);
	cr_assert_eq(gn_frames_refs(vm->frames, own), 1, "the page has left it");
	cr_assert_eq(rig_byte_of(1), 9);
	gn_frames_put(vm->frames, frame);
	gn_frames_put(vm->frames, own);
	gn_frames_put(vm->frames, other);
}

/* What could be read gets its seal, and what has a frame of its own is not sealed by the way. */
Test(p2m_merge, what_is_shared_is_sealed_later)
{
	pfn_t frame, again;

	rig_make(4 * MIB, 1);
	rig_fill(0, 9);
	rig_fill(1, 9);
	frame = publish(0);
	cr_assert_eq(merge(1, frame), 0);
	cr_assert_eq(publish_as(0, GN_SHARE_RESEAL, &again), 0);
	cr_assert_eq(again.v, frame.v);
	cr_assert_eq(plain_query(vm, 0).rights, 0);
	cr_assert_eq(plain_query(vm, 1).rights, GN_R | GN_X);
	gn_frames_put(vm->frames, again);
	cr_assert_eq(publish_as(1, GN_SHARE_SEALED, &again), 0);
	cr_assert_eq(plain_query(vm, 1).rights, 0);
	cr_assert_eq(gn_frames_refs(vm->frames, frame), 4);
	gn_frames_put(vm->frames, again);
	cr_assert_eq(publish_as(1, GN_SHARE_READ, &again), 0);
	cr_assert_eq(plain_query(vm, 1).rights, 0, "a seal stays");
	gn_frames_put(vm->frames, again);
	cr_assert_eq(rig_byte_of(0), 9);
	cr_assert_eq(publish_as(0, GN_SHARE_RESEAL, &again), -EBUSY);
	cr_assert_eq(rig_state(0), GN_P2M_PRIVATE);
	gn_frames_put(vm->frames, frame);
}

/* ---- The dirty log ------------------------------------------------------------------------------------------- */

static bool is_dirty(uint64_t at)
{
	uint8_t bitmap;

	cr_assert_eq(gn_dirty_harvest(vm, gfn(at), 1, &bitmap), 0);
	return bitmap;
}

Test(p2m_merge, the_dirty_log_is_told_of_breaks_only)
{
	pfn_t frame;

	rig_make(4 * MIB, 1);
	for (unsigned i = 0; i < 4; i++)
		rig_fill(i, 9);
	cr_assert_eq(gn_dirty_start(vm), 0);
	frame = publish(0);
	cr_assert_eq(merge(1, frame), 0);
	cr_assert_eq(merge_as(2, frame, GN_SHARE_SEALED), 0);
	cr_assert(!is_dirty(0) && !is_dirty(1) && !is_dirty(2));
	rig_fill(1, 9);
	cr_assert_eq(rig_byte_of(2), 9);
	cr_assert(is_dirty(1), "stored to, if the same");
	cr_assert(!is_dirty(2), "copied for a read");
	gn_frames_put(vm->frames, frame);
}

/* ---- Several VMs --------------------------------------------------------------------------------------------- */

Test(p2m_merge, two_vms_on_one_pool)
{
	struct gn_vm_config config = plain_config(4 * MIB);
	struct gn_frames *frames;
	struct gn_vm *other;
	uint64_t used;
	pfn_t frame;

	cr_assert_eq(gn_frames_new(16 * MIB, GN_POOL_ANONYMOUS, false, &frames), 0);
	config.frames = frames;
	vm = other = plain_vm(&config);
	cr_assert_not_null(other);
	rig_fill(5, 6);
	rig_fill(6, 7);
	frame = publish(5);
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	rig_fill(0, 6);
	rig_fill(1, 6);
	cr_assert_eq(merge(0, frame), 0);
	cr_assert_eq(merge(1, frame), 0);
	cr_assert_eq(gn_frames_refs(frames, frame), 4);
	rig_fill(1, 8);
	gn_vm_destroy(other);
	cr_assert_eq(rig_byte_of(0), 6, "its contents outlive the VM it comes from");
	cr_assert_eq(rig_byte_of(1), 8);
	gn_frames_put(frames, frame);
	cr_assert_eq(rig_byte_of(0), 6);
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_refs(frames, frame), 1);
	used = gn_frames_used(frames);
	/* A table page of the other one was the pool's again, not the host's. */
	cr_assert_leq(resident_pages(frames->base, 16 * MIB), used + 1);
	rig_teardown();
	vm = NULL;
	cr_assert_eq(gn_frames_used(frames), 0);
	gn_frames_destroy(frames);
}

Test(p2m_merge, configurations_that_contradict_a_pool)
{
	struct gn_vm_config config = plain_config(4 * MIB), wrong;
	struct gn_vm *none = NULL;
	struct gn_frames *frames;

	cr_assert_eq(gn_frames_new(16 * MIB, GN_POOL_ANONYMOUS, false, &frames), 0);
	config.frames = frames;
	wrong = config;
	wrong.pool_bytes = 16 * MIB;
	cr_assert_eq(gn_vm_create(&wrong, &none), -EINVAL);
	wrong = config;
	wrong.pool = GN_POOL_ANONYMOUS;
	cr_assert_eq(gn_vm_create(&wrong, &none), -EINVAL);
	wrong = config;
	wrong.home_frames = true;
	cr_assert_eq(gn_vm_create(&wrong, &none), -EINVAL);
	cr_assert_null(none);
	cr_assert_eq(gn_frames_used(frames), 0);
	gn_frames_destroy(frames);
}

/* A page that is written gets its home, though that waits to be put and nobody has drained it. */
Test(p2m_merge, a_home_that_waits_is_used)
{
	struct gn_vm_config config = plain_config(8 * MIB);
	uint8_t byte = 1;
	pfn_t shared, home;

	config.home_frames = true;
	vm = plain_vm(&config);
	cr_assert_eq(gn_vm_write(vm, gfn_to_gpa(gfn(7)), &byte, 1), 0);
	cr_assert_eq(gn_vm_write(vm, gfn_to_gpa(gfn(8)), &byte, 1), 0);
	shared = publish(7);
	cr_assert_eq(merge(8, shared), 0);
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_alloc_home(vm->frames, 1, pfn(8), &home), 0);
	cr_assert_eq(home.v, 8);
	gn_retire_frame(vm, home);
	byte = 2;
	cr_assert_eq(gn_vm_write(vm, gfn_to_gpa(gfn(8)), &byte, 1), 0);
	cr_assert_eq(frame_of(8).v, 8);
	gn_frames_put(vm->frames, shared);
}

/* The host finds memory for what is published away from home, and for no more. */
Test(p2m_merge, only_what_is_published_takes_memory)
{
	struct gn_vm_config config = plain_config(8 * MIB);
	struct gn_merge pages[64];
	uint8_t byte = 1;

	config.home_frames = true;
	vm = plain_vm(&config);
	for (uint64_t i = 0; i < 64; i++) {
		pages[i] = (struct gn_merge){ .at = gfn(i) };
		if (i % 8 < 2)
			cr_assert_eq(gn_vm_write(vm, gfn_to_gpa(gfn(i)), &byte, 1), 0);
	}
	for (unsigned turn = 0; turn < 2; turn++) {
		cr_assert_eq(gn_p2m_publish(vm, pages, 64, GN_SHARE_READ), 0);
		for (uint64_t i = 0; i < 64; i++) {
			cr_assert_eq(pages[i].result, i % 8 < 2 ? 0 : -EINVAL);
			if (!pages[i].result)
				gn_frames_put(vm->frames, pages[i].frame);
		}
	}
	cr_assert_eq(resident_pages(gn_frames_at(vm->frames, pfn_to_hpa(pfn(0))),
				    vm->frames->frame_count * GN_PAGE_SIZE),
		     16);
}

static pfn_t copied_from;

static void see_copying(struct gn_vm *of)
{
	waits += frame_of(3).v == copied_from.v && gn_frames_refs(of->frames, copied_from) == 2;
}

/* A vCPU that goes on with what it has for a while must not see what was stored to a copy, and then the page from before it. */
Test(p2m_merge, a_copy_is_waited_for_where_vcpus_read_on)
{
	static const struct gn_backend_ops backend = { .name = "waits",
						       .flush = plain_flush,
						       .quiesce = see_copying };
	struct gn_vm_config config = plain_config(4 * MIB);

	config.backend = &backend;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	rig_fill(3, 9);
	copied_from = publish(3);
	waits = 0;
	rig_fill(3, 8);
	cr_assert_eq(waits, 1, "before the word has the copy");
	gn_frames_put(vm->frames, copied_from);
}
