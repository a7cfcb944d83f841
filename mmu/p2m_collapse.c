/* SPDX-License-Identifier: MIT */
/*
 * p2m_collapse.c - 512 small frames become one block again.
 *
 * A change of a part of a large block splits it, and for the translation that is for good: its pages may all be
 * plain memory again, in their old frames even, and each keeps a leaf of its own. Here the block is made whole. To a
 * guest nothing happens: the same contents, zeros where there was no frame.
 *
 * Where the block goes. Best is the block of frames that its pages are in already: those in their place stay, and
 * what is missing of it is taken if it is free, so that a block of which a few pages left and came back costs a few
 * pages, and one that was only split costs nothing but the words. Otherwise it is a fresh block, and all is copied. In
 * a VM whose frames have homes it is the home or nothing: any other block is 512 other gfns' home.
 *
 * Everything that can fail comes before the change begins. Frames that are copied from have to stand still, so the
 * change is settled first; if none is, nobody needs to be waited for. The range is dropped from the scheme's tables in
 * any case, for that is what brings the fault that builds the large leaf.
 *
 * Deliberately absent: who looks for blocks worth it (balloon/reform.c, for one); blocks of 1 GiB; what the host has
 * behind the frames, which may be small pages of its own where the block was formed in place.
 */
#include <errno.h>
#include <string.h>

#include "p2m_writer.h"

#define BLOCK_PAGES ((uint64_t)GN_TABLE_ENTRIES)

static p2m_word_t word_of(const struct gn_vm *vm, gfn_t start, uint64_t i)
{
	return gn_p2m_get(&vm->p2m, gfn(start.v + i));
}

/* The block's ith page has the ith frame from @base on. */
static bool is_in_place(const struct gn_vm *vm, gfn_t start, uint64_t i, pfn_t base)
{
	p2m_word_t w = word_of(vm, start, i);

	return gn_p2m_word_has_frame(w) && gn_p2m_word_pfn(w).v == base.v + i;
}

static int check_block(const struct gn_vm *vm, gfn_t start)
{
	for (uint64_t i = 0; i < BLOCK_PAGES; i++) {
		p2m_word_t w = word_of(vm, start, i);

		if (gn_p2m_word_level(w) > 1)
			return -EALREADY;
		if (gn_p2m_word_state(w) == GN_P2M_UNBACKED)
			continue;
		if (gn_p2m_word_state(w) != GN_P2M_PRIVATE)
			return -EINVAL;
		if (gn_frames_refs(vm->frames, gn_p2m_word_pfn(w)) != 1)
			return -EBUSY;
	}
	return 0;
}

/* ---- Frames for it --------------------------------------------------------------------------- */

/* The block's home, or the block of frames in which some page of it has its place. */
static bool find_own(const struct gn_vm *vm, gfn_t start, pfn_t *base)
{
	*base = pfn(start.v);
	if (vm->config.home_frames)
		return gn_frames_is_own(vm->frames, pfn(start.v + BLOCK_PAGES - 1));
	for (uint64_t i = 0; i < BLOCK_PAGES; i++) {
		p2m_word_t w = word_of(vm, start, i);

		*base = pfn(gn_p2m_word_pfn(w).v & ~(BLOCK_PAGES - 1));
		if (is_in_place(vm, start, i, *base))
			return true;
	}
	return false;
}

/* References to the frames of the first @count pages that are not in place. */
static void put_taken(struct gn_vm *vm, gfn_t start, pfn_t base, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		if (!is_in_place(vm, start, i, base))
			gn_frames_put(vm->frames, pfn(base.v + i));
}

static bool take(struct gn_vm *vm, pfn_t frame)
{
	pfn_t got;

	if (gn_frames_refs(vm->frames, frame) || gn_frames_alloc_home(vm->frames, 1, frame, &got))
		return false;
	if (got.v != frame.v)
		gn_frames_put(vm->frames, got);
	return got.v == frame.v;
}

/* All of the block at @base becomes ours, or nothing more of it. */
static bool take_rest(struct gn_vm *vm, gfn_t start, pfn_t base)
{
	for (uint64_t i = 0; i < BLOCK_PAGES; i++)
		if (!is_in_place(vm, start, i, base) && !take(vm, pfn(base.v + i))) {
			put_taken(vm, start, base, i);
			return false;
		}
	return true;
}

/* Afterwards each frame of *base has one reference: its page's if it is in place, else ours. */
static int take_frames(struct gn_vm *vm, gfn_t start, pfn_t *base)
{
	if (find_own(vm, start, base) && take_rest(vm, start, *base))
		return 0;
	return vm->config.home_frames ? -ENOMEM : gn_p2m_alloc(vm, 2, base);
}

/* ---- The change ------------------------------------------------------------------------------ */

/* Whether a page has to be copied. The frames to copy to are touched now: to back them may take the host far longer than
 * the copy, and while the range changes its guest waits. */
static bool prepare_copies(const struct gn_vm *vm, gfn_t start, pfn_t base)
{
	bool any = false;

	for (uint64_t i = 0; i < BLOCK_PAGES; i++) {
		volatile uint8_t *to =
			(uint8_t *)gn_frames_at(vm->frames, pfn_to_hpa(pfn(base.v + i)));

		if (!gn_p2m_word_has_frame(word_of(vm, start, i)) ||
		    is_in_place(vm, start, i, base))
			continue;
		*to = 0; /* as it is */
		any = true;
	}
	return any;
}

/* The frame's contents are elsewhere: it is the host's. Neighbours are told together. */
static void leave(struct gn_vm *vm, struct gn_frame_run *run, pfn_t frame)
{
	if (run->count && run->first.v + run->count == frame.v) {
		run->count++;
		return;
	}
	if (run->count)
		gn_retire_runs(vm, run, 1);
	*run = (struct gn_frame_run){ .first = frame, .count = 1, .to_host = true };
}

static void commit_collapse(struct gn_vm *vm, gfn_t start, pfn_t base)
{
	struct gn_frame_run leaving = { .count = 0 };

	for (uint64_t i = 0; i < BLOCK_PAGES; i++) {
		const pfn_t to = pfn(base.v + i);
		p2m_word_t old = word_of(vm, start, i);

		if (gn_p2m_word_has_frame(old) && !is_in_place(vm, start, i, base)) {
			memcpy(gn_frames_at(vm->frames, pfn_to_hpa(to)),
			       gn_frames_at(vm->frames, pfn_to_hpa(gn_p2m_word_pfn(old))),
			       GN_PAGE_SIZE);
			leave(vm, &leaving, gn_p2m_word_pfn(old));
		}
		gn_p2m_set(vm, gfn(start.v + i), gn_p2m_word(GN_P2M_PRIVATE, GN_RWX, 2, to));
	}
	if (leaving.count)
		gn_retire_runs(vm, &leaving, 1);
}

static int collapse_locked(struct gn_vm *vm, gfn_t start)
{
	bool must_copy;
	pfn_t base;
	int err = check_block(vm, start);

	if (!err)
		err = take_frames(vm, start, &base);
	if (err)
		return err;
	must_copy = prepare_copies(vm, start, base);
	gn_p2m_change_begin(vm, start, gfn(start.v + BLOCK_PAGES), must_copy);
	commit_collapse(vm, start, base);
	gn_p2m_change_end(vm);
	return 0;
}

int gn_p2m_collapse(struct gn_vm *vm, gfn_t start)
{
	int err;

	if (vm->p2m.backing_level < 2 || start.v % BLOCK_PAGES ||
	    !gn_p2m_is_in_ram(&vm->p2m, start, BLOCK_PAGES))
		return -EINVAL;
	gn_p2m_change_lock(vm);
	err = collapse_locked(vm, start);
	gn_p2m_change_unlock(vm);
	if (err)
		return err;
	gn_p2m_change_tell(vm, start, BLOCK_PAGES);
	gn_retire_drain(vm);
	return 0;
}
