/* SPDX-License-Identifier: MIT */
/*
 * reform.c - blocks that the balloon split are formed again.
 *
 * A balloon takes pages from anywhere and splits the 2 MiB blocks they lie in; when the pages come back, by
 * deflation, a reset or a granted touch, the blocks stay split. Their numbers are noted, a bit each, for that is all
 * a register access may spend on it; gn_balloon_reform() looks at a few on the owner's thread and has the engine form
 * them again. It copies up to 2 MiB, without the device's lock.
 *
 * When a block is formed:
 *
 *   - none of its pages is in the balloon; the next that leaves it is the next occasion;
 *   - the balloon took none of it for GN_BALLOON_CALM_NS, so that a balloon that breathes and we do not undo each
 *     other's work: a block is copied no more than once in that time;
 *   - at least half of it has frames. It gets the other frames, too, and a guest that took its pages back and does
 *     not use them must not cost the host more than it would without us. A block without any frame gets a large one
 *     by itself, at its first touch.
 *
 * What the engine refuses for a reason that only another hand can end (a page is shared, read-only or MMIO) is
 * forgotten; what is a matter of time is looked at again.
 *
 * Deliberately absent: blocks split by free page reporting. Their pages are free, and forming the block would give
 * them frames again which the guest would not report once more.
 */
#include "device.h"

#include <errno.h>
#include <stdlib.h>

#include "mmu/vm.h"

#define BLOCK_PAGES   ((uint64_t)GN_TABLE_ENTRIES)
#define WORTHY_FRAMES (BLOCK_PAGES / 2)

int gn_reform_init(struct gn_balloon *b)
{
	uint64_t blocks = b->pages / BLOCK_PAGES;
	int err;

	if (b->vm->p2m.backing_level < 2 || !blocks)
		return 0;
	err = gn_page_set_init(&b->reform.split, blocks);
	if (err)
		return err;
	b->reform.taken_ns =
		gn_alloc_should_fail() ? NULL : calloc(blocks, sizeof(*b->reform.taken_ns));
	return b->reform.taken_ns ? 0 : -ENOMEM;
}

void gn_reform_fini(struct gn_balloon *b)
{
	gn_page_set_fini(&b->reform.split);
	free(b->reform.taken_ns);
}

/* ---- Notes, while the lock is held ----------------------------------------------------------- */

/* The whole blocks that [start, start + count) has to do with. False: there are none. */
static bool blocks_of(const struct gn_balloon *b, uint64_t start, uint64_t count, uint64_t *first,
		      uint64_t *blocks)
{
	uint64_t end = (start + count + BLOCK_PAGES - 1) / BLOCK_PAGES;

	if (end > b->reform.split.pages)
		end = b->reform.split.pages;
	*first = start / BLOCK_PAGES;
	*blocks = end - *first;
	return *first < end;
}

void gn_reform_note_taken(struct gn_balloon *b, uint64_t start, uint64_t count, uint64_t now_ns)
{
	uint64_t first, blocks;

	if (!blocks_of(b, start, count, &first, &blocks))
		return;
	gn_page_set_remove_run(&b->reform.split, first, blocks);
	for (uint64_t i = 0; i < blocks; i++)
		b->reform.taken_ns[first + i] = now_ns;
}

void gn_reform_note_left(struct gn_balloon *b, uint64_t start, uint64_t count)
{
	uint64_t first, blocks;

	if (blocks_of(b, start, count, &first, &blocks))
		gn_page_set_add_run(&b->reform.split, first, blocks);
}

/* ---- The owner's thread ---------------------------------------------------------------------- */

enum verdict { FORM, LATER, NEVER };

static enum verdict judge(const struct gn_balloon *b, uint64_t block, uint64_t now_ns)
{
	uint64_t frames = 0;

	if (now_ns < b->reform.taken_ns[block] + GN_BALLOON_CALM_NS)
		return LATER;
	for (uint64_t i = 0; i < BLOCK_PAGES; i++) {
		p2m_word_t w = gn_p2m_get(&b->vm->p2m, gfn(block * BLOCK_PAGES + i));

		if (gn_p2m_word_state(w) == GN_P2M_BALLOONED || gn_p2m_word_level(w) > 1)
			return NEVER;
		frames += gn_p2m_word_has_frame(w);
	}
	if (!frames)
		return NEVER;
	return frames < WORTHY_FRAMES ? LATER : FORM;
}

/* The next noted block, and what is to be done about it: it is noted no more unless that is LATER. False: that was the
 * last; the next call begins anew. */
static bool next_block(struct gn_balloon *b, uint64_t *block, enum verdict *verdict)
{
	struct gn_reform *r = &b->reform;
	uint64_t count;
	bool any;

	gn_balloon_lock(b);
	any = gn_page_set_next_run(&r->split, r->cursor, block, &count);
	if (any) {
		*verdict = judge(b, *block, gn_balloon_now_ns(b));
		if (*verdict != LATER)
			gn_page_set_remove_run(&r->split, *block, 1);
	}
	r->cursor = any ? *block + 1 : 0;
	gn_balloon_unlock(b);
	return any;
}

/* 0, or the engine's refusal. */
static int form(struct gn_balloon *b, uint64_t block)
{
	int err = gn_p2m_collapse(b->vm, gfn(block * BLOCK_PAGES));

	gn_balloon_lock(b);
	if (!err)
		b->stats.reformed_blocks++;
	else if (err == -ENOMEM || err == -EBUSY)
		gn_page_set_add(&b->reform.split, block);
	gn_balloon_unlock(b);
	return err;
}

unsigned gn_balloon_reform(struct gn_balloon *b, unsigned max_blocks)
{
	unsigned formed = 0;
	enum verdict verdict;
	uint64_t block;

	for (unsigned i = 0; i < max_blocks && next_block(b, &block, &verdict); i++) {
		int err = verdict == FORM ? form(b, block) : -EAGAIN;

		formed += !err;
		if (err == -ENOMEM)
			break;
	}
	return formed;
}
