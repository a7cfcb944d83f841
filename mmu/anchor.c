/* SPDX-License-Identifier: MIT */
/*
 * anchor.c - a reference of the pool's own to a frame, so that no page that uses it is the last.
 *
 * A page whose frame nobody else has takes it over when it is written, and gives it back when it goes elsewhere. Both take another time
 * than a copy out of a frame that others have, too. Where that must not be told apart (pages that are sealed, merged or not),
 * frames are anchored: whoever leaves one copies, and puts a reference that is not the last.
 *
 * Anchors of frames that nobody else has any more hold memory for nothing. Who anchors lifts those now and then; and so does an
 * allocation that finds no frame, before it fails. So anchors never take memory from a guest that needs it: a guest with
 * all of its pages in frames of its own has none that is used. If the copy finds no frame even so, the page takes
 * the frame and the anchor is no more (p2m_fault.c): a guest that stops for want of a page would tell more.
 *
 * What is being lifted is neither anchored nor free for a while. An allocation that finds nothing meanwhile waits for it: lifting
 * holds the lock of who gives back.
 *
 * A bit a frame, changed under the pool's lock. A frame with nothing but its anchor gets no other reference, but one of the
 * window, by being lent (window.c), which is done under that lock, too.
 */
#include "frames_impl.h"

#define RUNS_MAX  256
#define LOOK_MAX  64 /* words of bits looked at while others wait for the lock */
#define WORD_BITS ((uint64_t)64)

void gn_frames_anchor(struct gn_frames *frames, pfn_t frame)
{
	struct gn_frames_impl *impl = frames->impl;
	bool was_anchored;

	gn_lock(&impl->lock);
	was_anchored = gn_bit_get(impl->anchored, frame.v);
	gn_bit_set(impl->anchored, frame.v);
	gn_unlock(&impl->lock);
	if (was_anchored)
		gn_frames_put(frames, frame);
}

/* ---- Lifting ----------------------------------------------------------------------------------------------------- */

static void add_run(struct gn_frame_run *runs, size_t *count, uint64_t frame)
{
	struct gn_frame_run *last = *count ? &runs[*count - 1] : NULL;

	if (last && last->first.v + last->count == frame)
		last->count++;
	else
		runs[(*count)++] =
			(struct gn_frame_run){ .first = pfn(frame), .count = 1, .to_host = true };
}

static void count_left(const struct gn_frames *frames, uint64_t frame, uint32_t refs,
		       struct gn_anchors *left)
{
	if (gn_frames_is_own(frames, pfn(frame))) {
		left->own++;
		return;
	}
	left->lent++;
	left->lent_uses += refs - 1;
}

/* The anchors of a word of bits that go: theirs is a reference each, to be put. Lock held. */
static void look_at_word(struct gn_frames *frames, uint64_t word, bool all,
			 struct gn_frame_run *runs, size_t *count, struct gn_anchors *left)
{
	struct gn_frames_impl *impl = frames->impl;

	for (uint64_t bits = impl->anchored[word]; bits; bits &= bits - 1) {
		const uint64_t frame = word * WORD_BITS + (unsigned)__builtin_ctzll(bits);
		const uint32_t refs =
			atomic_load_explicit(&impl->refs[frame], memory_order_acquire);

		if (refs > 1 && !all) {
			count_left(frames, frame, refs, left);
			continue;
		}
		gn_bit_clear(impl->anchored, frame);
		add_run(runs, count, frame);
	}
}

static void lift(struct gn_frames *frames, bool all, struct gn_anchors *left)
{
	const uint64_t words = frames->frame_count / WORD_BITS;
	struct gn_frames_impl *impl = frames->impl;
	struct gn_frame_run runs[RUNS_MAX];

	*left = (struct gn_anchors){ 0 };
	for (uint64_t word = 0; word < words;) {
		uint64_t end = word + LOOK_MAX < words ? word + LOOK_MAX : words;
		size_t count = 0;

		gn_lock(&impl->give_lock);
		gn_lock(&impl->lock);
		for (; word < end && count + WORD_BITS <= RUNS_MAX; word++)
			look_at_word(frames, word, all, runs, &count, left);
		impl->is_lifting = count;
		gn_unlock(&impl->lock);
		if (count)
			gn_give_back_runs(frames, runs, count);
		gn_lock(&impl->lock);
		impl->is_lifting = false;
		gn_unlock(&impl->lock);
		gn_unlock(&impl->give_lock);
	}
}

void gn_frames_lift_anchors(struct gn_frames *frames, struct gn_anchors *left)
{
	lift(frames, false, left);
}

void gn_frames_drop_anchors(struct gn_frames *frames)
{
	struct gn_anchors none;

	lift(frames, true, &none);
}

/* ---- Out of memory ------------------------------------------------------------------------------------------------ */

bool gn_anchors_yield(struct gn_frames *frames)
{
	struct gn_frames_impl *impl = frames->impl;
	bool any = false;

	for (uint64_t word = 0; word < frames->own_count / WORD_BITS; word++)
		for (uint64_t bits = impl->anchored[word]; bits; bits &= bits - 1) {
			const uint64_t frame = word * WORD_BITS + (unsigned)__builtin_ctzll(bits);

			if (atomic_load_explicit(&impl->refs[frame], memory_order_acquire) != 1)
				continue;
			gn_bit_clear(impl->anchored, frame);
			atomic_store_explicit(&impl->refs[frame], 0, memory_order_relaxed);
			gn_frames_free_range(frames, frame, 1, false);
			any = true;
		}
	return any;
}

bool gn_frames_give_anchor(struct gn_frames *frames, pfn_t frame)
{
	struct gn_frames_impl *impl = frames->impl;
	bool is_given;

	gn_lock(&impl->lock);
	is_given = gn_bit_get(impl->anchored, frame.v) && gn_frames_refs(frames, frame) == 2;
	if (is_given) {
		gn_bit_clear(impl->anchored, frame.v);
		atomic_fetch_sub_explicit(&impl->refs[frame.v], 1, memory_order_acq_rel);
	}
	gn_unlock(&impl->lock);
	return is_given;
}
