/* SPDX-License-Identifier: MIT */
/*
 * anchor.c - frames that nobody is the last to leave: copied from whoever else is there, freed when their anchor is lifted, and
 * never in the way of a guest that needs memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mmu/audit.h"
#include "mmu/retire.h"
#include "support/p2m_rig.h"

static int owner_fd = -1;

static void make(uint64_t pool_bytes)
{
	struct gn_vm_config config = plain_config(4 * MIB);

	config.pool_bytes = pool_bytes;
	config.window_bytes = 2 * MIB;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
}

static void tear_down(void)
{
	gn_frames_drop_anchors(vm->frames);
	rig_teardown();
	if (owner_fd >= 0)
		close(owner_fd);
}

TestSuite(anchor, .fini = tear_down);

static pfn_t frame_of(uint64_t at)
{
	return plain_query(vm, at).pfn;
}

/* Sealed in the frame it has, and that anchored. */
static pfn_t seal(uint64_t at)
{
	struct gn_merge page = { .at = gfn(at) };

	cr_assert_eq(gn_p2m_publish(vm, &page, 1, GN_SHARE_SEALED), 0);
	cr_assert_eq(page.result, 0);
	gn_frames_anchor(vm->frames, page.frame);
	return page.frame;
}

static struct gn_anchors lift(void)
{
	struct gn_anchors left;

	gn_retire_drain(vm);
	gn_frames_lift_anchors(vm->frames, &left);
	return left;
}

Test(anchor, nobody_is_the_last)
{
	uint64_t used;
	pfn_t frame;

	make(16 * MIB);
	rig_fill(0, 7);
	frame = seal(0);
	cr_assert_eq(gn_frames_refs(vm->frames, frame), 2);
	cr_assert_eq(seal(0).v, frame.v, "again");
	cr_assert_eq(gn_frames_refs(vm->frames, frame), 2, "one anchor is enough");
	cr_assert_eq(lift().own, 1, "it is used");
	used = gn_frames_used(vm->frames);
	cr_assert_eq(rig_byte_of(0), 7);
	cr_assert_neq(frame_of(0).v, frame.v, "copied, though nobody else has it");
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_used(vm->frames), used + 1);
	cr_assert_eq(*(uint8_t *)gn_frames_at(vm->frames, pfn_to_hpa(frame)), 7);
	cr_assert_eq(lift().own, 0);
	cr_assert_eq(gn_frames_used(vm->frames), used);
	rig_fill(0, 8);
	cr_assert_eq(rig_byte_of(0), 8);
}

/* More of them than are put at a time, and than are looked at; their memory is the host's again. */
Test(anchor, many)
{
	uint64_t used;

	make(16 * MIB);
	for (unsigned i = 0; i < 1000; i++)
		rig_fill(i, 7);
	for (unsigned i = 0; i < 1000; i++)
		seal(i);
	used = gn_frames_used(vm->frames);
	for (unsigned i = 0; i < 1000; i += 2)
		rig_fill(i, 8);
	cr_assert_eq(lift().own, 500);
	cr_assert_eq(gn_frames_used(vm->frames), used);
	gn_frames_drop_anchors(vm->frames);
	cr_assert_eq(lift().own, 0);
	for (unsigned i = 0; i < 1000; i++)
		cr_assert_eq(rig_byte_of(i), i % 2 ? 7 : 8);
}

/* A frame of the window is its owner's again when its anchor is lifted, and not before. */
Test(anchor, of_the_window)
{
	struct gn_merge pages[] = { { .at = gfn(1) }, { .at = gfn(2) } };
	struct gn_anchors left;
	pfn_t first, out[4];
	uint8_t *owner;

	make(16 * MIB);
	owner_fd = memfd_create("owner", MFD_ALLOW_SEALING);
	cr_assert_eq(ftruncate(owner_fd, MIB), 0);
	cr_assert_eq(fcntl(owner_fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	owner = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, owner_fd, 0);
	memset(owner, 9, GN_PAGE_SIZE);
	cr_assert_eq(gn_frames_attach(vm->frames, owner_fd, MIB, &first), 0);
	rig_fill(1, 9);
	rig_fill(2, 9);
	cr_assert_eq(gn_frames_lend(vm->frames, first), 0);
	pages[0].frame = pages[1].frame = first;
	cr_assert_eq(gn_p2m_merge(vm, pages, 2, GN_SHARE_SEALED, NULL), 0);
	gn_frames_anchor(vm->frames, first);
	left = lift();
	cr_assert(left.own == 0 && left.lent == 1 && left.lent_uses == 2);
	cr_assert_eq(rig_byte_of(1), 9);
	cr_assert_eq(lift().lent_uses, 1);
	rig_fill(2, 3);
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_take_returned(vm->frames, out, 4), 0, "the anchor is there");
	cr_assert_eq(gn_frames_detach(vm->frames, first), -EBUSY, "it is in use");
	cr_assert_eq(lift().lent, 0);
	cr_assert_eq(gn_frames_take_returned(vm->frames, out, 4), 1);
	cr_assert_eq(out[0].v, first.v);
	cr_assert_eq(gn_frames_detach(vm->frames, first), 0);
	munmap(owner, MIB);
}

/* ---- Out of memory ------------------------------------------------------------------------------------------------ */

static void use_up(void)
{
	uint64_t next = 100;

	while (gn_frames_used(vm->frames) < vm->frames->own_count)
		cr_assert_eq(gn_p2m_populate(vm, gfn(next++), 1), 0);
}

/* Frames that nothing but anchors hold are there for who needs one, whatever for. */
Test(anchor, old_ones_yield)
{
	pfn_t frame, table;

	make(2 * MIB);
	for (unsigned i = 0; i < 100; i++) {
		rig_fill(i, (uint8_t)i);
		seal(i);
	}
	for (unsigned i = 0; i < 50; i++)
		rig_fill(i, (uint8_t)(i + 1));
	gn_retire_drain(vm);
	use_up();
	cr_assert_eq(gn_frames_alloc_table(vm->frames, &table), 0, "of the 50 that are not used");
	gn_frames_put(vm->frames, table);
	for (unsigned i = 50; i < 100; i++) {
		frame = frame_of(i);
		rig_fill(i, (uint8_t)(i + 1));
		cr_assert_neq(frame_of(i).v, frame.v, "copied, as if there were many frames");
	}
	cr_assert_eq(gn_frames_used(vm->frames), vm->frames->own_count);
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(rig_byte_of(i), i + 1);
}

/* A copy for which there is no frame is not made: the guest goes on. */
Test(anchor, a_page_without_a_copy)
{
	pfn_t frame;

	make(2 * MIB);
	rig_fill(0, 5);
	frame = seal(0);
	use_up();
	cr_assert_eq(rig_byte_of(0), 5);
	cr_assert_eq(frame_of(0).v, frame.v);
	cr_assert_eq(rig_state(0), GN_P2M_PRIVATE);
	cr_assert_eq(gn_frames_refs(vm->frames, frame), 1, "its own for good");
	rig_fill(0, 6);
	cr_assert_eq(frame_of(0).v, frame.v);
}
