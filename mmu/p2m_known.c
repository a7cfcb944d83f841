/* SPDX-License-Identifier: MIT */
/*
 * p2m_known.c - pages whose contents the host has anyway go back to it, and the guest does not notice.
 *
 * Two kinds. A page without a frame reads as zeros and gets a frame when it is next used. So a frame full of zeros can be taken from a
 * guest that was not asked and would not have agreed: it is all that can be, where there is no swap. And in a VM over a template a page
 * that was written is a copy; holds it what the template holds, the copy can be dropped, and the template's page is there again. Which
 * kind it is the VM says: it has one or the other.
 *
 * The guest writes meanwhile. A look at a page, with nobody held off, finds candidates: most pages say in their first
 * words that they are none. Candidates are gathered into runs, and a batch of runs is one change: rights withdrawn,
 * translations dropped, flushed, and waited until nobody uses one any more (the guest's processors, and the engine's own
 * stores, which look at the word's rights inside the read section they store in). Only then does the look
 * count: what still holds zeros loses its frame, or is the template's before anyone can store again; all the rest gets its rights
 * back. What was stored before the change is seen by the second look, and what comes later finds no rights, waits, and gets a fresh
 * frame. Who has looked already, as sharing does, spares itself the first look.
 *
 * Only PRIVATE frames go. A SHARED one is not this gfn's to give, READONLY says that the VMM has a mind about it, and
 * the others have none. A block of 2 MiB goes as a whole or stays: to split it would cost the guest its large
 * translation, for good. One of 1 GiB stays: looking through it would hold everybody up for far too long.
 *
 * A batch is at most 2 MiB, so that faults never wait for more than two looks through as much. It goes to the host
 * before the next one is looked for: a frame that the host had not backed yet is backed by being looked at, and a
 * search for memory must not use it up.
 *
 * The dirty log is told nothing, for nothing changed.
 */
#include <errno.h>
#include <string.h>

#include "p2m_writer.h"

#define RUNS	      128
#define BATCH_PAGES   512
#define LARGEST_LEVEL 2
#define LOOK_PAGES    4096 /* copies are asked for at a time */
#define PAGE_WORDS    (GN_PAGE_SIZE / sizeof(uint64_t))
#define WORDS_AT_A_GO 8

struct batch {
	struct gn_gfn_run runs[RUNS]; /* ascending, disjoint, of whole blocks */
	size_t count;
	uint64_t pages;
};

struct search {
	struct gn_vm *vm;
	uint64_t start, end;
	const uint8_t *spared; /* one bit a gfn from start on; NULL: none is */
	bool was_seen;	       /* whoever asks has looked at all others a moment ago */
};

/* What the pages from @at on would read as; zeros: NULL. */
static const uint64_t *known_of(const struct gn_vm *vm, uint64_t at)
{
	return gn_vm_is_over_template(vm) ? gn_frames_template_of(vm->frames, pfn(at)) : NULL;
}

/* While the guest writes. It is memory that this waits for, so loads one by one cost nothing. ThreadSanitizer need not tell
 * that whoever stores by memcpy() races with it: nothing is made of the outcome but a second look. */
__attribute__((no_sanitize("thread"))) static bool
seems_known(const uint64_t *words, const uint64_t *known, uint64_t pages)
{
	uint64_t any = 0;

	for (uint64_t at = 0; at < pages * PAGE_WORDS && !any; at += WORDS_AT_A_GO)
		for (uint64_t i = at; i < at + WORDS_AT_A_GO; i++)
			any |= __atomic_load_n(&words[i], __ATOMIC_RELAXED) ^
			       (known ? known[i] : 0);
	return !any;
}

/* While nobody writes. The library's comparison takes the widest vectors this processor has, and the page is in a cache. */
static bool is_known(const uint64_t *words, const uint64_t *known, uint64_t pages)
{
	static const uint64_t zeroes[PAGE_WORDS];
	uint64_t i = 0;

	while (i < pages && !memcmp(words + i * PAGE_WORDS, known ? known + i * PAGE_WORDS : zeroes,
				    GN_PAGE_SIZE))
		i++;
	return i == pages;
}

/* @pages from @at on are one page, or one block, that may go. */
static bool may_go(p2m_word_t w, uint64_t pages)
{
	unsigned level = gn_p2m_word_level(w);

	return gn_p2m_word_state(w) == GN_P2M_PRIVATE && level <= LARGEST_LEVEL &&
	       pages == gn_level_pages(level);
}

static bool is_any_set(const uint8_t *bitmap, uint64_t from, uint64_t count)
{
	for (uint64_t i = from; i < from + count; i++)
		if (bitmap[i / 8] >> (i % 8) & 1)
			return true;
	return false;
}

/* The page or block at @at, with nobody held off. *pages: how much of it lies below the end. */
static bool is_candidate(const struct search *s, uint64_t at, uint64_t *pages)
{
	p2m_word_t w;
	bool is;

	gn_rcu_read_lock();
	w = gn_p2m_get(&s->vm->p2m, gfn(at));
	*pages = gn_p2m_alike(w, at, s->end);
	is = may_go(w, *pages) && !(s->spared && is_any_set(s->spared, at - s->start, *pages)) &&
	     (s->was_seen || seems_known(gn_p2m_pointer_of(s->vm, w, gfn_to_gpa(gfn(at))),
					 known_of(s->vm, at), *pages));
	gn_rcu_read_unlock();
	return is;
}

/* False: there is no room. */
static bool batch_add(struct batch *b, uint64_t at, uint64_t pages)
{
	struct gn_gfn_run *last = b->count ? &b->runs[b->count - 1] : NULL;

	if (b->pages + pages > BATCH_PAGES)
		return false;
	if (last && last->start.v + last->count == at) {
		last->count += pages;
	} else {
		if (b->count == RUNS)
			return false;
		b->runs[b->count++] = (struct gn_gfn_run){ gfn(at), pages };
	}
	b->pages += pages;
	return true;
}

/* No other change came in between that a change of the run would undo, or have to split. */
static bool is_as_it_was(const struct gn_vm *vm, const struct gn_gfn_run *run)
{
	const uint64_t end = run->start.v + run->count;

	for (uint64_t at = run->start.v, pages; at < end; at += pages) {
		p2m_word_t w = gn_p2m_get(&vm->p2m, gfn(at));

		pages = gn_p2m_alike(w, at, end);
		if (!may_go(w, pages))
			return false;
	}
	return true;
}

/* Within the change, when contents stand still. Returns how many pages went. */
static uint64_t drop_zeroes(struct gn_vm *vm, const struct gn_gfn_run *run)
{
	const p2m_word_t none = { .v = GN_P2M_UNBACKED | GN_P2M_LENT };
	const uint64_t end = run->start.v + run->count;
	uint64_t dropped = 0;

	for (uint64_t at = run->start.v, pages; at < end; at += pages) {
		p2m_word_t w = gn_p2m_get(&vm->p2m, gfn(at));
		struct gn_frame_run frames = { .first = gn_p2m_word_pfn(w), .to_host = true };
		unsigned level = gn_p2m_word_level(w);
		bool goes;

		pages = frames.count = gn_p2m_alike(w, at, end);
		goes = is_known(gn_p2m_pointer_of(vm, w, gfn_to_gpa(gfn(at))), NULL, pages);
		for (uint64_t i = 0; i < pages; i++)
			gn_p2m_set(vm, gfn(at + i),
				   goes ? none
					: gn_p2m_word(GN_P2M_PRIVATE, GN_RWX, level,
						      pfn(frames.first.v + i)));
		if (!goes)
			continue;
		gn_retire_runs(vm, &frames, 1);
		dropped += pages;
	}
	return dropped;
}

/* The same over a template. Copies are dropped while nobody may store, and only then are there rights again. */
static uint64_t drop_copies(struct gn_vm *vm, const struct batch *b)
{
	struct gn_frame_run copies[BATCH_PAGES];
	uint64_t dropped;
	size_t count = 0;

	for (size_t i = 0; i < b->count; i++)
		for (uint64_t k = 0; k < b->runs[i].count; k++) {
			pfn_t frame = pfn(b->runs[i].start.v + k);
			struct gn_frame_run *last = count ? &copies[count - 1] : NULL;

			if (!is_known(gn_frames_at(vm->frames, pfn_to_hpa(frame)),
				      known_of(vm, frame.v), 1))
				continue;
			if (last && last->first.v + last->count == frame.v)
				last->count++;
			else
				copies[count++] =
					(struct gn_frame_run){ .first = frame, .count = 1 };
		}
	dropped = vm->is_unheld ? 0 : gn_frames_drop_copies(vm->frames, copies, count);
	for (size_t i = 0; i < b->count; i++)
		for (uint64_t k = 0; k < b->runs[i].count; k++) {
			gfn_t at = gfn(b->runs[i].start.v + k);

			gn_p2m_set(vm, at, gn_p2m_word_at_rest(gn_p2m_get(&vm->p2m, at)));
		}
	atomic_fetch_add_explicit(&vm->released_bytes, dropped * GN_PAGE_SIZE,
				  memory_order_relaxed);
	return dropped;
}

static uint64_t change_locked(struct gn_vm *vm, struct batch *b)
{
	uint64_t dropped = 0;
	size_t kept = 0;

	for (size_t i = 0; i < b->count; i++)
		if (is_as_it_was(vm, &b->runs[i]))
			b->runs[kept++] = b->runs[i];
	b->count = kept;
	gn_p2m_change_begin_runs(vm, b->runs, kept);
	gn_vm_synchronize(vm);
	if (gn_vm_is_over_template(vm))
		dropped = drop_copies(vm, b);
	else
		for (size_t i = 0; i < kept; i++)
			dropped += drop_zeroes(vm, &b->runs[i]);
	gn_p2m_change_end(vm);
	return dropped;
}

/* Afterwards the batch is empty, and what went is the host's. */
static uint64_t batch_carry_out(struct gn_vm *vm, struct batch *b)
{
	uint64_t dropped;

	if (!b->count)
		return 0;
	gn_p2m_change_lock(vm);
	dropped = change_locked(vm, b);
	gn_p2m_change_unlock(vm);
	for (size_t i = 0; i < b->count; i++)
		gn_p2m_change_tell(vm, b->runs[i].start, b->runs[i].count);
	gn_retire_drain(vm);
	b->count = 0;
	b->pages = 0;
	return dropped;
}

/* Returns how many pages went. */
static uint64_t discard(struct gn_vm *vm, gfn_t start, uint64_t count, const uint8_t *spared,
			bool was_seen)
{
	const struct search s = { vm, start.v, start.v + count, spared, was_seen };
	struct batch batch;
	uint64_t freed = 0;

	batch.count = 0;
	batch.pages = 0;
	for (uint64_t at = s.start, pages; at < s.end; at += pages) {
		if (!is_candidate(&s, at, &pages) || batch_add(&batch, at, pages))
			continue;
		freed += batch_carry_out(vm, &batch);
		batch_add(&batch, at, pages);
	}
	return freed + batch_carry_out(vm, &batch);
}

int gn_p2m_discard_zeroes(struct gn_vm *vm, gfn_t start, uint64_t count, const uint8_t *spared,
			  uint64_t *freed_pages)
{
	*freed_pages = 0;
	if (gn_vm_is_over_template(vm) || !gn_p2m_is_in_ram(&vm->p2m, start, count))
		return -EINVAL;
	*freed_pages = discard(vm, start, count, spared, false);
	return 0;
}

int gn_p2m_discard_seen(struct gn_vm *vm, gfn_t start, uint64_t count, const uint8_t *spared,
			uint64_t *freed_pages)
{
	*freed_pages = 0;
	if (!gn_p2m_is_in_ram(&vm->p2m, start, count))
		return -EINVAL;
	*freed_pages = discard(vm, start, count, spared, true);
	return 0;
}

/* What the template has is not to be looked at: it is found in no time that it is equal to itself. */
static int find_spared(const struct gn_vm *vm, gfn_t start, uint64_t count, const uint8_t *spared,
		       uint64_t *out)
{
	int err = gn_frames_find_copies(vm->frames, pfn(start.v), count, out);

	for (uint64_t word = 0; word < (count + 63) / 64; word++)
		out[word] = ~out[word];
	for (uint64_t i = 0; spared && i < count; i++)
		out[i / 64] |= (uint64_t)(spared[i / 8] >> (i % 8) & 1) << (i % 64);
	return err;
}

int gn_p2m_drop_copies(struct gn_vm *vm, gfn_t start, uint64_t count, const uint8_t *spared,
		       uint64_t *dropped_pages)
{
	uint64_t others[LOOK_PAGES / 64];
	int err = 0;

	*dropped_pages = 0;
	if (!gn_vm_is_over_template(vm) || !gn_p2m_is_in_ram(&vm->p2m, start, count))
		return -EINVAL;
	for (uint64_t at = 0, n; at < count && !err; at += n) {
		n = count - at < LOOK_PAGES ? count - at : LOOK_PAGES;
		err = find_spared(vm, gfn(start.v + at), n, spared ? spared + at / 8 : NULL,
				  others);
		if (!err)
			*dropped_pages +=
				discard(vm, gfn(start.v + at), n, (const uint8_t *)others, false);
	}
	return err;
}
