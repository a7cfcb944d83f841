/* SPDX-License-Identifier: MIT */
/*
 * p2m_merge.c - many pages with the same contents come to have one frame.
 *
 * Two halves. A page is published: it is SHARED from then on, in the frame it has (but see find_away()), and whoever publishes
 * it has a reference of its own to that frame. While anybody holds one, a write to the page copies (gn_p2m_unshare() asks for
 * the count), so the contents of the frame stand still for as long as that reference is kept. Then other pages, of any VM on the
 * same pool, are merged into it: each is compared with the frame, and takes it if they are equal.
 *
 * Equal contents are proved, not believed: rights to write withdrawn, flushed, waited until nobody uses an old translation any
 * more, and only then compared, byte by byte. What was stored before the change is compared; what comes later finds no
 * rights, waits for the change to end, and finds a SHARED page to copy or its own to write. The same before a page is
 * told to be published: a store that was under way would change a frame that others have compared with. Where a dirty log knows
 * that no page of a batch is being written, as it does of pages that stood still for a while, the proof needs no wait.
 *
 * No frame has a list of those who share it: a count says how many they are, and nobody ever asks which. So one frame with a
 * million sharers costs each of them what one with two does.
 *
 * Only stores would change what is compared. So where scheme and backend can have translations follow a page to another frame, rights to
 * read stay, and readers notice nothing: no fault while it goes on, and none afterwards. Elsewhere all rights go.
 *
 * A batch is one change, with one wait or none, of at most 1024 pages, or 256 where reads wait as well: faults wait for it, and
 * comparing as much takes a fraction of a millisecond, since every page was looked at before, when nobody waits. Fewer would not be kinder: each wait interrupts
 * every processor that runs one of our threads. Between two batches those who wait come
 * first. Frames that were given up go to the host together, after the last batch, or after so many that the host should not have to wait.
 *
 * A page that is sealed has been through all that, and nobody has a translation to it since: whoever uses it takes the p2m's lock and
 * a copy. So what was sealed first can be merged later (GN_SHARE_RESEAL) with nobody waited for, a page at a time: a guest that was
 * held off as a whole would know by it that a like of some page was found. What was used meanwhile is not sealed, and is left alone.
 *
 * A page table of the guest may be among the pages: the change makes a scheme forget what it made of it, and the guest's walk
 * copies it before it sets a bit (mmu/guest_walk.c).
 *
 * The dirty log is told nothing, for nothing changed. Deliberately absent: who finds pages that are alike.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "p2m_writer.h"

#define BATCH_PAGES GN_RETIRE_MERGE_RUNS
#define HELD_PAGES  256		     /* of a batch that holds reads off, too */
#define DRAIN_PAGES 16384	     /* given up and not yet the host's: 64 MiB */
#define SHARERS_MAX (UINT32_MAX / 2) /* of a frame, about: its count has 32 bits */
#define CHOSEN	    1		     /* a result that is none yet: the page is part of the change */

struct batch {
	struct gn_vm *vm;
	enum gn_share_access access;
	struct gn_merge *pages;
	size_t count;
	size_t run_count, leaving_count;
	pfn_t away[BATCH_PAGES]; /* of a VM with home frames: frames to publish in, ascending */
	size_t away_count, away_used;
	struct gn_gfn_run runs[BATCH_PAGES];	  /* of the chosen pages */
	struct gn_frame_run leaving[BATCH_PAGES]; /* frames they had */
};

/* What is done with each page: whether it can be (CHOSEN or the result), and doing it, when contents stand still. */
struct step {
	void (*prepare)(struct batch *b); /* NULL: nothing */
	int (*choose)(struct batch *b, struct gn_merge *page);
	void (*carry_out)(struct batch *b, struct gn_merge *page);
	void (*conclude)(struct batch *b);				/* NULL: nothing */
	void (*look_at)(struct gn_vm *vm, const struct gn_merge *page); /* before; NULL: not */
};

/* In RAM, ascending, disjoint; of a VM that can share frames. */
static int check_pages(const struct gn_vm *vm, const struct gn_merge *pages, size_t count)
{
	uint64_t floor = 0;

	if (gn_vm_is_over_template(vm))
		return -EINVAL;
	for (size_t i = 0; i < count; i++) {
		if (pages[i].at.v < floor || !gn_p2m_is_in_ram(&vm->p2m, pages[i].at, 1))
			return -EINVAL;
		floor = pages[i].at.v + 1;
	}
	return 0;
}

static p2m_word_t shared_word(pfn_t frame, enum gn_share_access access)
{
	p2m_word_t w = gn_p2m_word(GN_P2M_SHARED, 0, 1, frame);

	if (access != GN_SHARE_READ)
		w.v |= GN_P2M_SEALED;
	return gn_p2m_word_at_rest(w);
}

static void leave(struct batch *b, pfn_t frame)
{
	struct gn_frame_run *last = b->leaving_count ? &b->leaving[b->leaving_count - 1] : NULL;

	if (last && last->first.v + last->count == frame.v)
		last->count++;
	else
		b->leaving[b->leaving_count++] =
			(struct gn_frame_run){ .first = frame, .count = 1, .to_host = true };
}

/* ---- Publishing ---------------------------------------------------------------------------------- */

static int by_pfn(const void *x, const void *y)
{
	const pfn_t *a = x, *b = y;

	return a->v < b->v ? -1 : a->v > b->v;
}

/* Of a private page. */
static bool can_be_published(const struct batch *b, pfn_t frame)
{
	return b->access != GN_SHARE_RESEAL && gn_frames_refs(b->vm->frames, frame) == 1;
}

static bool has_home_to_leave(const struct batch *b, const struct gn_merge *page, pfn_t frame)
{
	return b->vm->config.home_frames && frame.v == page->at.v;
}

static size_t count_leaving_home(const struct batch *b)
{
	size_t count = 0;

	for (size_t i = 0; i < b->count; i++) {
		p2m_word_t w = gn_p2m_get(&b->vm->p2m, b->pages[i].at);
		pfn_t frame = gn_p2m_word_pfn(w);

		count += gn_p2m_word_state(w) == GN_P2M_PRIVATE && can_be_published(b, frame) &&
			 has_home_to_leave(b, &b->pages[i], frame);
	}
	return count;
}

/* The host finds memory for them by the run, before rights are withdrawn. */
static void populate_away(struct batch *b)
{
	size_t run;

	for (size_t at = 0; at < b->away_count; at += run) {
		for (run = 1; at + run < b->away_count; run++)
			if (b->away[at + run].v != b->away[at].v + run)
				break;
		gn_frames_populate(b->vm->frames, b->away[at], run);
	}
}

/*
 * With home frames a published page leaves its home, so that this is free for it when it is written: a writer that had to live
 * elsewhere would cost the backend a mapping, and no limit could be put to those. What goes away goes in runs: neighbours
 * get neighbouring frames.
 */
static void find_away(struct batch *b)
{
	const size_t most = b->vm->config.home_frames ? count_leaving_home(b) : 0;

	b->away_count = b->away_used = 0;
	while (b->away_count < most &&
	       !gn_frames_alloc_away(b->vm->frames, &b->away[b->away_count]))
		b->away_count++;
	qsort(b->away, b->away_count, sizeof(b->away[0]), by_pfn);
	populate_away(b);
}

static void drop_away(struct batch *b)
{
	while (b->away_count > b->away_used)
		gn_frames_put(b->vm->frames, b->away[--b->away_count]);
}

static int choose_to_publish(struct batch *b, struct gn_merge *page)
{
	struct gn_vm *vm = b->vm;
	p2m_word_t w = gn_p2m_get(&vm->p2m, page->at);
	pfn_t frame = gn_p2m_word_pfn(w);

	switch (gn_p2m_word_state(w)) {
	case GN_P2M_SHARED:
		page->frame = frame;
		if (b->access != GN_SHARE_READ && !(w.v & GN_P2M_SEALED))
			return CHOSEN;
		gn_frames_get(vm->frames, frame);
		return 0;
	case GN_P2M_PRIVATE:
		if (!can_be_published(b, frame))
			return -EBUSY;
		page->frame = frame;
		if (!has_home_to_leave(b, page, frame))
			return CHOSEN;
		if (b->away_used == b->away_count)
			return -ENOMEM;
		page->frame = b->away[b->away_used++];
		return CHOSEN;
	default:
		return -EINVAL;
	}
}

static void publish(struct batch *b, struct gn_merge *page)
{
	const pfn_t own = gn_p2m_word_pfn(gn_p2m_get(&b->vm->p2m, page->at));

	if (page->frame.v != own.v) {
		memcpy(gn_frames_at(b->vm->frames, pfn_to_hpa(page->frame)),
		       gn_frames_at(b->vm->frames, pfn_to_hpa(own)), GN_PAGE_SIZE);
		leave(b, own);
	}
	gn_frames_get(b->vm->frames, page->frame);
	gn_p2m_set(b->vm, page->at, shared_word(page->frame, b->access));
	page->result = 0;
}

/* ---- Merging ------------------------------------------------------------------------------------- */

static int choose_to_merge(struct batch *b, struct gn_merge *merge)
{
	struct gn_vm *vm = b->vm;
	p2m_word_t w = gn_p2m_get(&vm->p2m, merge->at);
	pfn_t frame = gn_p2m_word_pfn(w);

	if (GN_UNLIKELY(gn_frames_refs(vm->frames, merge->frame) > SHARERS_MAX))
		return -EBUSY;
	switch (gn_p2m_word_state(w)) {
	case GN_P2M_SHARED:
		return frame.v == merge->frame.v ? 0 : CHOSEN;
	case GN_P2M_PRIVATE:
		return gn_frames_refs(vm->frames, frame) == 1 ? CHOSEN : -EBUSY;
	default:
		return -EINVAL;
	}
}

static bool is_equal(const struct gn_frames *frames, pfn_t a, pfn_t b)
{
	return !memcmp(gn_frames_at(frames, pfn_to_hpa(a)), gn_frames_at(frames, pfn_to_hpa(b)),
		       GN_PAGE_SIZE);
}

static void merge(struct batch *b, struct gn_merge *merge)
{
	struct gn_frames *frames = b->vm->frames;
	p2m_word_t old = gn_p2m_get(&b->vm->p2m, merge->at);
	pfn_t own = gn_p2m_word_pfn(old);

	if (!is_equal(frames, own, merge->frame)) {
		/* Its block, if it was in one, is in pieces: others of it may have gone. */
		gn_p2m_set(b->vm, merge->at, gn_p2m_word_moved(old, 1, own));
		merge->result = -EAGAIN;
		return;
	}
	gn_frames_get(frames, merge->frame);
	gn_p2m_set(b->vm, merge->at, shared_word(merge->frame, b->access));
	leave(b, own);
	merge->result = 0;
}

/* ---- A batch ------------------------------------------------------------------------------------- */

static void choose(struct batch *b, const struct step *step)
{
	b->run_count = 0;
	for (size_t i = 0; i < b->count; i++) {
		struct gn_merge *page = &b->pages[i];
		struct gn_gfn_run *last = b->run_count ? &b->runs[b->run_count - 1] : NULL;

		page->result = step->choose(b, page);
		if (page->result != CHOSEN)
			continue;
		if (last && last->start.v + last->count == page->at.v)
			last->count++;
		else
			b->runs[b->run_count++] = (struct gn_gfn_run){ page->at, 1 };
	}
}

static bool reads_go_on(const struct batch *b)
{
	return b->access == GN_SHARE_READ && gn_p2m_reads_can_go_on(b->vm);
}

static void change_locked(struct batch *b, const struct step *step)
{
	const bool readable = reads_go_on(b);

	if (readable) {
		gn_p2m_change_begin_readable(b->vm, b->runs, b->run_count);
	} else {
		gn_p2m_change_begin_runs(b->vm, b->runs, b->run_count);
		gn_vm_synchronize(
			b->vm); /* for readers, too: of what is sealed they may have no translation left */
	}
	for (size_t i = 0; i < b->count; i++)
		if (b->pages[i].result == CHOSEN)
			step->carry_out(b, &b->pages[i]);
	if (readable)
		gn_p2m_change_moved(b->vm, b->runs, b->run_count);
	gn_retire_runs(b->vm, b->leaving, b->leaving_count);
	gn_p2m_change_end(b->vm);
}

static void batch_carry_out(struct batch *b, const struct step *step)
{
	struct gn_vm *vm = b->vm;

	b->leaving_count = 0;
	gn_p2m_change_lock(vm);
	gn_retire_make_room(vm);
	if (step->prepare)
		step->prepare(b);
	choose(b, step);
	if (b->run_count)
		change_locked(b, step);
	if (step->conclude)
		step->conclude(b);
	gn_p2m_change_unlock(vm);
	for (size_t i = 0; i < b->run_count; i++)
		gn_p2m_change_tell(vm, b->runs[i].start, b->runs[i].count);
	gn_p2m_change_give_way(vm);
}

/* While the guest writes, and nothing is made of what is there: a page that the host has to find first is found now, when nobody
 * waits for it. */
__attribute__((no_sanitize("thread"))) static void look_at(const struct gn_vm *vm, pfn_t frame)
{
	(void)__atomic_load_n((const uint8_t *)gn_frames_at(vm->frames, pfn_to_hpa(frame)),
			      __ATOMIC_RELAXED);
}

static void look_at_both(struct gn_vm *vm, const struct gn_merge *merge)
{
	p2m_word_t w;

	look_at(vm, merge->frame);
	gn_rcu_read_lock();
	w = gn_p2m_get(&vm->p2m, merge->at);
	if (gn_p2m_word_has_frame(w))
		look_at(vm, gn_p2m_word_pfn(w));
	gn_rcu_read_unlock();
}

/* A scheme switch in between makes some faults wait longer, and nothing wrong. */
static size_t batch_pages(const struct batch *b)
{
	bool readable;

	if (b->access != GN_SHARE_READ)
		return HELD_PAGES;
	gn_p2m_change_lock(b->vm);
	readable = reads_go_on(b);
	gn_p2m_change_unlock(b->vm);
	return readable ? BATCH_PAGES : HELD_PAGES;
}

/* Returns how many frames were left. */
static uint64_t carry_out(struct gn_vm *vm, struct gn_merge *pages, size_t count,
			  enum gn_share_access access, const struct step *step)
{
	uint64_t left = 0, drained = 0;
	struct batch b;
	size_t most;

	b.vm = vm;
	b.access = access;
	most = count ? batch_pages(&b) : 0;
	for (size_t at = 0; at < count; at += b.count) {
		b.pages = &pages[at];
		b.count = count - at < most ? count - at : most;
		for (size_t i = 0; i < b.count && step->look_at; i++)
			step->look_at(vm, &b.pages[i]);
		batch_carry_out(&b, step);
		for (size_t i = 0; i < b.leaving_count; i++)
			left += b.leaving[i].count;
		if (left - drained < DRAIN_PAGES)
			continue;
		gn_retire_drain(vm);
		drained = left;
	}
	if (left > drained)
		gn_retire_drain(vm);
	return left;
}

/* ---- What is sealed ------------------------------------------------------------------------------ */

/* The contents of both stand still: the page's frame is shared, and without rights. p2m lock held. */
static int merge_sealed_locked(struct gn_vm *vm, const struct gn_merge *merge)
{
	p2m_word_t w = gn_p2m_get(&vm->p2m, merge->at);
	pfn_t own = gn_p2m_word_pfn(w);

	if (gn_p2m_word_state(w) != GN_P2M_SHARED)
		return gn_p2m_word_state(w) == GN_P2M_PRIVATE ? -EBUSY : -EINVAL;
	if (!(w.v & GN_P2M_SEALED) || gn_frames_refs(vm->frames, merge->frame) > SHARERS_MAX)
		return -EBUSY;
	if (own.v == merge->frame.v)
		return 0;
	if (!is_equal(vm->frames, own, merge->frame))
		return -EAGAIN;
	/* A scheme may have made something of it, if it is one of the guest's tables. */
	gn_p2m_change_begin(vm, merge->at, gfn(merge->at.v + 1), false);
	gn_frames_get(vm->frames, merge->frame);
	gn_p2m_set(vm, merge->at, shared_word(merge->frame, GN_SHARE_SEALED));
	gn_retire_frame(vm, own);
	gn_p2m_change_end(vm);
	return CHOSEN;
}

static uint64_t merge_sealed(struct gn_vm *vm, struct gn_merge *merges, size_t count)
{
	uint64_t merged = 0;

	for (size_t i = 0; i < count; i++) {
		look_at_both(vm, &merges[i]);
		gn_p2m_change_lock(vm);
		gn_retire_make_room(vm);
		merges[i].result = merge_sealed_locked(vm, &merges[i]);
		gn_p2m_change_unlock(vm);
		gn_p2m_change_give_way(vm);
		merged += merges[i].result == CHOSEN;
		if (merges[i].result == CHOSEN)
			merges[i].result = 0;
	}
	return merged;
}

/* ---- The face ------------------------------------------------------------------------------------ */

int gn_p2m_publish(struct gn_vm *vm, struct gn_merge *pages, size_t count,
		   enum gn_share_access access)
{
	static const struct step step = { find_away, choose_to_publish, publish, drop_away, NULL };
	int err = check_pages(vm, pages, count);

	if (!err)
		carry_out(vm, pages, count, access, &step);
	return err;
}

int gn_p2m_merge(struct gn_vm *vm, struct gn_merge *merges, size_t count,
		 enum gn_share_access access, uint64_t *merged_pages)
{
	static const struct step step = { NULL, choose_to_merge, merge, NULL, look_at_both };
	int err = check_pages(vm, merges, count);
	uint64_t merged = 0;

	for (size_t i = 0; i < count && !err; i++)
		if (!gn_frames_valid(vm->frames, merges[i].frame) ||
		    !gn_frames_refs(vm->frames, merges[i].frame))
			err = -EINVAL;
	if (!err && access == GN_SHARE_RESEAL)
		merged = merge_sealed(vm, merges, count);
	else if (!err)
		merged = carry_out(vm, merges, count, access, &step);
	if (merged_pages)
		*merged_pages = merged;
	return err;
}
