/* SPDX-License-Identifier: MIT */
/*
 * p2m_collapse.c - 512 small frames become one block: where it goes, what is copied, that nothing is lost or
 * leaked, and what is refused.
 */
#include <errno.h>

#include "support/p2m_rig.h"
#include "support/resident.h"

#define BLOCK	    512u /* pages, and the first gfn of the block most tests are about */
#define BLOCK_BYTES (BLOCK * GN_PAGE_SIZE)

static void make(struct gn_vm_config config)
{
	struct gn_vm_config plain_one = plain_config(8 * MIB);

	config.scheme = plain_one.scheme;
	config.backend = plain_one.backend;
	config.vcpus = 1;
	config.mem_bytes = config.mem_bytes ? config.mem_bytes : plain_one.mem_bytes;
	config.backing_level = 2;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
}

TestSuite(p2m_collapse, .fini = rig_teardown);

/* Every word of the page tells which it is. */
static void stamp(uint64_t at)
{
	uint64_t page[GN_PAGE_SIZE / 8];

	for (unsigned i = 0; i < GN_PAGE_SIZE / 8; i++)
		page[i] = at << 32 | (i + 1);
	cr_assert_eq(gn_vm_write(vm, gfn_to_gpa(gfn(at)), page, sizeof(page)), 0);
}

static bool has_stamp(uint64_t at)
{
	uint64_t page[GN_PAGE_SIZE / 8];

	cr_assert_eq(gn_vm_read(vm, gfn_to_gpa(gfn(at)), page, sizeof(page)), 0);
	for (unsigned i = 0; i < GN_PAGE_SIZE / 8; i++)
		if (page[i] != (at << 32 | (i + 1)))
			return false;
	return true;
}

static bool is_zero(uint64_t at)
{
	static const uint8_t zeros[GN_PAGE_SIZE];
	uint8_t page[GN_PAGE_SIZE];

	cr_assert_eq(gn_vm_read(vm, gfn_to_gpa(gfn(at)), page, sizeof(page)), 0);
	return !memcmp(page, zeros, sizeof(page));
}

static void stamp_block(void)
{
	for (uint64_t at = BLOCK; at < 2 * BLOCK; at++)
		stamp(at);
}

static void leave_and_return(uint64_t at, uint64_t count)
{
	cr_assert_eq(gn_p2m_balloon(vm, gfn(at), count), 0);
	cr_assert_eq(gn_p2m_unballoon(vm, gfn(at), count), 0);
}

/* One block, whose first frame is returned. */
static pfn_t is_whole(uint64_t start)
{
	struct gn_p2m_info first = plain_query(vm, start);

	cr_assert_eq(first.pfn.v % BLOCK, 0);
	for (uint64_t i = 0; i < BLOCK; i++) {
		struct gn_p2m_info info = plain_query(vm, start + i);

		cr_assert_eq(info.state, GN_P2M_PRIVATE);
		cr_assert_eq(info.rights, GN_RWX);
		cr_assert_eq(info.level, 2);
		cr_assert_eq(info.pfn.v, first.pfn.v + i);
		cr_assert_eq(gn_frames_refs(vm->frames, info.pfn), 1);
	}
	return first.pfn;
}

/* A frame to each page with one, and the scheme's table page. */
static void no_frame_is_lost(void)
{
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_used(vm->frames), vm->p2m.backed_pages + 1);
}

static uint64_t host_pages_of(pfn_t block)
{
	return resident_pages(gn_frames_at(vm->frames, pfn_to_hpa(block)), BLOCK_BYTES);
}

/* ---- Where the block goes -------------------------------------------------------------------- */

Test(p2m_collapse, what_was_only_split_stays_where_it_is)
{
	pfn_t before;
	uint64_t sequence;

	make((struct gn_vm_config){ .vcpus = 0 });
	stamp_block();
	before = is_whole(BLOCK);
	cr_assert_eq(gn_p2m_protect(vm, gfn(BLOCK + 7), 1, true), 0);
	cr_assert_eq(gn_p2m_protect(vm, gfn(BLOCK + 7), 1, false), 0);
	cr_assert_eq(plain_query(vm, BLOCK + 9).level, 1);
	memset(&plain, 0, sizeof(plain));
	sequence = vm->p2m.sequence;
	cr_assert_eq(gn_p2m_collapse(vm, gfn(BLOCK)), 0);
	cr_assert_eq(is_whole(BLOCK).v, before.v);
	cr_assert_eq(vm->p2m.sequence, sequence + 2);
	cr_assert_eq(plain.ranges, 1);
	cr_assert_eq(plain.change, GN_RANGE_ZAP);
	cr_assert_eq(plain.start.v, BLOCK);
	cr_assert_eq(plain.end.v, 2 * BLOCK);
	cr_assert(plain.sequence_was_odd);
	cr_assert_eq(plain.flushes, 1);
	for (uint64_t at = BLOCK; at < 2 * BLOCK; at++)
		cr_assert(has_stamp(at), "page %d", (int)at);
	no_frame_is_lost();
}

Test(p2m_collapse, what_is_missing_is_taken_if_it_is_free)
{
	pfn_t before;

	make((struct gn_vm_config){ .vcpus = 0 });
	stamp_block();
	before = is_whole(BLOCK);
	leave_and_return(BLOCK + 100, 3);
	leave_and_return(2 * BLOCK - 1, 1);
	cr_assert_eq(vm->p2m.backed_pages, BLOCK - 4);
	cr_assert_eq(gn_p2m_collapse(vm, gfn(BLOCK)), 0);
	cr_assert_eq(is_whole(BLOCK).v, before.v, "no page had to move");
	cr_assert_eq(vm->p2m.backed_pages, BLOCK);
	for (uint64_t at = BLOCK; at < 2 * BLOCK; at++)
		if ((at >= BLOCK + 100 && at < BLOCK + 103) || at == 2 * BLOCK - 1)
			cr_assert(is_zero(at), "page %d", (int)at);
		else
			cr_assert(has_stamp(at), "page %d", (int)at);
	no_frame_is_lost();
}

/* Its own place is free again, and the page is elsewhere: it goes home, alone. */
Test(p2m_collapse, a_page_elsewhere_is_fetched)
{
	pfn_t before, moved;

	make((struct gn_vm_config){ .vcpus = 0 });
	stamp_block();
	before = is_whole(BLOCK);
	cr_assert_eq(gn_p2m_move(vm, gfn(BLOCK + 100), 1), 0);
	moved = plain_query(vm, BLOCK + 100).pfn;
	cr_assert_neq(moved.v, before.v + 100);
	gn_retire_drain(vm);
	cr_assert_eq(gn_p2m_collapse(vm, gfn(BLOCK)), 0);
	cr_assert_eq(is_whole(BLOCK).v, before.v);
	cr_assert_eq(gn_frames_refs(vm->frames, moved), 0);
	for (uint64_t at = BLOCK; at < 2 * BLOCK; at++)
		cr_assert(has_stamp(at), "page %d", (int)at);
	no_frame_is_lost();
}

/* Someone else has a frame of its place: a fresh block, and the old frames go back to the host. */
Test(p2m_collapse, a_fresh_block_when_its_place_is_taken)
{
	const enum gn_pool_kind kinds[] = { GN_POOL_MEMFD, GN_POOL_ANONYMOUS };

	for (unsigned k = 0; k < 2; k++) {
		pfn_t before, after, squatter;

		make((struct gn_vm_config){ .pool = kinds[k] });
		stamp_block();
		before = is_whole(BLOCK);
		leave_and_return(BLOCK + 100, 1);
		cr_assert_eq(gn_frames_alloc_home(vm->frames, 1, pfn(before.v + 100), &squatter),
			     0);
		cr_assert_eq(squatter.v, before.v + 100);
		cr_assert_eq(gn_p2m_collapse(vm, gfn(BLOCK)), 0);
		after = is_whole(BLOCK);
		cr_assert_neq(after.v, before.v);
		cr_assert_leq(host_pages_of(before), 1, "the old frames are the host's");
		for (uint64_t i = 0; i < BLOCK; i++)
			cr_assert_eq(gn_frames_refs(vm->frames, pfn(before.v + i)), i == 100);
		for (uint64_t at = BLOCK; at < 2 * BLOCK; at++)
			cr_assert(at == BLOCK + 100 ? is_zero(at) : has_stamp(at), "page %d",
				  (int)at);
		cr_assert(gn_frames_put(vm->frames, squatter));
		no_frame_is_lost();
		rig_teardown();
	}
	vm = NULL;
}

/* Pages that came one by one, and in disorder, were never a block. */
Test(p2m_collapse, pages_from_all_over)
{
	make((struct gn_vm_config){ .vcpus = 0 });
	cr_assert_eq(gn_p2m_set_mmio(vm, gfn(BLOCK), 1), 0);
	for (uint64_t n = 0; n < BLOCK; n++) {
		uint64_t at = BLOCK + n * 101 % BLOCK;

		if (at != BLOCK && at % 3)
			stamp(at);
	}
	cr_assert_eq(gn_p2m_discard(vm, gfn(BLOCK), 1), 0);
	cr_assert_eq(plain_query(vm, BLOCK + 2).level, 1);
	cr_assert_eq(gn_p2m_collapse(vm, gfn(BLOCK)), 0);
	is_whole(BLOCK);
	for (uint64_t at = BLOCK; at < 2 * BLOCK; at++)
		cr_assert(at != BLOCK && at % 3 ? has_stamp(at) : is_zero(at), "page %d", (int)at);
	no_frame_is_lost();
	/* And can be split and formed again. */
	leave_and_return(BLOCK, 1);
	cr_assert_eq(gn_p2m_collapse(vm, gfn(BLOCK)), 0);
	is_whole(BLOCK);
	no_frame_is_lost();
}

Test(p2m_collapse, without_any_frame_it_is_a_block_of_zeros)
{
	make((struct gn_vm_config){ .vcpus = 0 });
	cr_assert_eq(gn_p2m_collapse(vm, gfn(BLOCK)), 0);
	is_whole(BLOCK);
	cr_assert(is_zero(BLOCK) && is_zero(BLOCK + 300));
	cr_assert_eq(vm->p2m.backed_pages, BLOCK);
	cr_assert_eq(plain.flushes, 0, "nothing was cached");
	no_frame_is_lost();
}

Test(p2m_collapse, at_home_or_nowhere)
{
	pfn_t squatter;

	make((struct gn_vm_config){ .home_frames = true });
	stamp_block();
	cr_assert_eq(is_whole(BLOCK).v, BLOCK);
	/* One away from home, one that left and came back. */
	cr_assert_eq(gn_p2m_move(vm, gfn(BLOCK + 100), 1), 0);
	leave_and_return(BLOCK + 200, 1);
	cr_assert_neq(plain_query(vm, BLOCK + 100).pfn.v, BLOCK + 100);
	gn_retire_drain(vm);
	cr_assert_eq(gn_p2m_collapse(vm, gfn(BLOCK)), 0);
	cr_assert_eq(is_whole(BLOCK).v, BLOCK);
	cr_assert(has_stamp(BLOCK + 100) && has_stamp(BLOCK + 99) && is_zero(BLOCK + 200));
	no_frame_is_lost();
	/* A home that is taken. */
	leave_and_return(BLOCK + 300, 1);
	cr_assert_eq(gn_frames_alloc_home(vm->frames, 1, pfn(BLOCK + 300), &squatter), 0);
	cr_assert_eq(gn_p2m_collapse(vm, gfn(BLOCK)), -ENOMEM);
	cr_assert_eq(plain_query(vm, BLOCK + 1).level, 1);
	cr_assert(gn_frames_put(vm->frames, squatter));
	no_frame_is_lost();
	cr_assert_eq(gn_p2m_collapse(vm, gfn(BLOCK)), 0);
	cr_assert_eq(is_whole(BLOCK).v, BLOCK);
}

/* ---- What is refused ------------------------------------------------------------------------- */

static void ballooned(void)
{
	cr_assert_eq(gn_p2m_balloon(vm, gfn(2 * BLOCK - 1), 1), 0);
}
static void readonly(void)
{
	cr_assert_eq(gn_p2m_protect(vm, gfn(BLOCK), 1, true), 0);
}
static void mmio(void)
{
	cr_assert_eq(gn_p2m_set_mmio(vm, gfn(BLOCK + 1), 1), 0);
}
static void shared(void)
{
	cr_assert_eq(gn_p2m_discard(vm, gfn(BLOCK + 2), 2), 0);
	cr_assert_eq(gn_p2m_populate(vm, gfn(BLOCK + 2), 2), 0);
	cr_assert_eq(gn_p2m_share(vm, gfn(BLOCK + 2), gfn(BLOCK + 3)), 0);
}
static pfn_t pinned;
static void pin(void)
{
	leave_and_return(BLOCK, 1);
	pinned = plain_query(vm, BLOCK + 5).pfn;
	gn_frames_get(vm->frames, pinned);
}
static void nothing(void)
{
}

static const struct {
	const char *what;
	void (*prepare)(void);
	uint64_t start;
	int err;
} refusals[] = {
	{ "a block", nothing, BLOCK, -EALREADY },
	{ "a ballooned page", ballooned, BLOCK, -EINVAL },
	{ "a read-only page", readonly, BLOCK, -EINVAL },
	{ "MMIO", mmio, BLOCK, -EINVAL },
	{ "shared pages", shared, BLOCK, -EINVAL },
	{ "a pinned frame", pin, BLOCK, -EBUSY },
	{ "not aligned", nothing, BLOCK + 1, -EINVAL },
	{ "the tail of RAM", nothing, PAGES, -EINVAL },
	{ "outside RAM", nothing, 2 * PAGES, -EINVAL },
	{ "far outside RAM", nothing, UINT64_MAX - BLOCK + 1, -EINVAL },
};

Test(p2m_collapse, what_is_refused_and_changes_nothing)
{
	for (unsigned i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		uint64_t sum, sequence, used;

		make((struct gn_vm_config){ .mem_bytes = 8 * MIB + 511 * GN_PAGE_SIZE });
		stamp_block();
		refusals[i].prepare();
		gn_retire_drain(vm);
		sum = gn_vm_memory_sum(vm);
		sequence = vm->p2m.sequence;
		used = gn_frames_used(vm->frames);
		cr_assert_eq(gn_p2m_collapse(vm, gfn(refusals[i].start)), refusals[i].err, "%s",
			     refusals[i].what);
		cr_assert_eq(vm->p2m.sequence, sequence);
		cr_assert_eq(gn_frames_used(vm->frames), used);
		cr_assert_eq(gn_vm_memory_sum(vm), sum, "%s", refusals[i].what);
		if (refusals[i].err == -EBUSY)
			gn_frames_put(vm->frames, pinned);
		rig_teardown();
	}
	rig_make(8 * MIB, 1);
	cr_assert_eq(gn_p2m_collapse(vm, gfn(BLOCK)), -EINVAL, "frames are small in this VM");
	rig_teardown();
	rig_make(2 * MIB - GN_PAGE_SIZE, 2);
	cr_assert_eq(gn_p2m_collapse(vm, gfn(0)), -EINVAL, "less RAM than a block");
}

Test(p2m_collapse, no_block_is_free)
{
	uint64_t used;

	make((struct gn_vm_config){ .pool_bytes = 8 * MIB });
	for (uint64_t at = 0; at < PAGES - BLOCK; at += BLOCK)
		stamp(at);
	cr_assert_eq(gn_p2m_move(vm, gfn(BLOCK + 4), 1), 0, "into the block of the scheme's page");
	leave_and_return(BLOCK + 5, 1);
	cr_assert_eq(gn_p2m_populate(vm, gfn(BLOCK + 5), 1), 0, "in the frame that left");
	used = gn_frames_used(vm->frames);
	cr_assert_eq(gn_p2m_collapse(vm, gfn(BLOCK)), -ENOMEM);
	cr_assert_eq(plain_query(vm, BLOCK).level, 1);
	cr_assert(has_stamp(BLOCK));
	gn_retire_drain(vm);
	cr_assert_leq(gn_frames_used(vm->frames), used);
	no_frame_is_lost();
}

/* With its place taken there is one allocation, of the block; in place, one for each page. */
Test(p2m_collapse, allocations_fail)
{
	for (unsigned elsewhere = 0; elsewhere < 2; elsewhere++) {
		unsigned failures = 0;
		pfn_t squatter = { 0 };
		uint64_t sum;

		make((struct gn_vm_config){ .home_frames = !elsewhere });
		stamp_block();
		leave_and_return(BLOCK + 100, 3);
		if (elsewhere)
			cr_assert_eq(gn_frames_alloc_home(vm->frames, 1,
							  pfn(plain_query(vm, BLOCK).pfn.v + 100),
							  &squatter),
				     0);
		sum = gn_vm_memory_sum(vm);
		for (uint64_t n = 1;; n++) {
			const uint64_t used = gn_frames_used(vm->frames);
			int err;

			gn_alloc_fail_nth(n);
			err = gn_p2m_collapse(vm, gfn(BLOCK));
			if (gn_alloc_fail_nth(0) < n) {
				cr_assert_eq(err, 0);
				break;
			}
			cr_assert_eq(err, -ENOMEM);
			cr_assert_eq(gn_frames_used(vm->frames), used);
			cr_assert_eq(plain_query(vm, BLOCK).level, 1);
			failures++;
		}
		cr_assert_eq(failures, elsewhere ? 1 : 3);
		is_whole(BLOCK);
		cr_assert_eq(gn_vm_memory_sum(vm), sum);
		if (elsewhere)
			gn_frames_put(vm->frames, squatter);
		no_frame_is_lost();
		rig_teardown();
	}
	vm = NULL;
}
