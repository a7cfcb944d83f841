/* SPDX-License-Identifier: MIT */
/*
 * give_back.c - many frames at once, and their memory to the host.
 *
 * Three steps. First the references are dropped; a frame that was the last one's is marked in a bitmap of those that
 * leave, and has no reference then but is still taken, so nobody can get hold of it. Then the bitmap is read
 * from the bottom: that sorts them and joins neighbours, however the guest scattered them over the pool, and costs a bit
 * a frame. What comes out, as many ranges as one system call takes, is dropped by the host. Only then are the
 * frames free: a frame that were free before it is dropped could be taken, and its new owner's data would go.
 *
 * A range the host would not take back (locked memory) is free all the same; its frames stay marked as dirty and
 * will be cleared by hand.
 *
 * The count of a frame that nobody else refers to needs no locked instruction: who could take a second reference
 * has to have one already.
 */
#include "check.h"
#include "frames_impl.h"

/* True: it was the last one. Acquires what others did to the frame before they put theirs. */
static bool drop_reference(_Atomic(uint32_t) *refs)
{
	uint32_t old = atomic_load_explicit(refs, memory_order_acquire);

	if (GN_LIKELY(old == 1)) {
		atomic_store_explicit(refs, 0, memory_order_relaxed);
		return true;
	}
	old = atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel);
	GN_BUG_ON(old == 0);
	return old == 1;
}

/* drop_reference() of 64 frames (the first a multiple of 64) whose only one it is for each, two counts at a time. False:
 * not so, and nothing was done. */
static bool drop_last_references(_Atomic(uint32_t) *refs)
{
	const uint64_t one_each = (uint64_t)1 << 32 | 1;
	uint64_t *pairs = (uint64_t *)refs, others = 0;

	for (unsigned i = 0; i < 32; i++)
		others |= __atomic_load_n(&pairs[i], __ATOMIC_ACQUIRE) ^ one_each;
	if (others)
		return false;
	for (unsigned i = 0; i < 32; i++)
		__atomic_store_n(&pairs[i], 0, __ATOMIC_RELAXED);
	return true;
}

static void leave(struct gn_frames *frames, const struct gn_frame_run *run)
{
	struct gn_frames_impl *impl = frames->impl;
	uint64_t at = run->first.v, end = at + run->count, next;

	/* The window's are not ours to give back. */
	for (; end > at && end > frames->own_count; end--)
		gn_window_put(frames, pfn(end - 1));
	for (; at < end; at = next) {
		uint64_t bits = 0;

		next = (at | 63) + 1 < end ? (at | 63) + 1 : end;
		if (next - at == 64 && drop_last_references(&impl->refs[at]))
			bits = ~(uint64_t)0;
		else
			for (uint64_t i = at; i < next; i++)
				bits |= (uint64_t)drop_reference(&impl->refs[i]) << i % 64;
		if (!bits)
			continue;
		impl->leaving[at / 64] |= bits;
		gn_bit_set(impl->leaving_blocks, at / GN_BLOCK_FRAMES);
	}
}

/* ---- To the host -------------------------------------------------------------------------------- */

struct batch {
	struct gn_frames *frames;
	uint64_t given_bytes;
	size_t count;
	struct gn_host_range ranges[GN_HOST_RANGES_MAX];
};

static void free_ranges(struct gn_frames *frames, const struct gn_host_range *ranges, size_t count,
			bool is_clean)
{
	gn_lock(&frames->impl->lock);
	for (size_t i = 0; i < count; i++)
		gn_frames_free_range(frames, ranges[i].offset / GN_PAGE_SIZE,
				     ranges[i].bytes / GN_PAGE_SIZE, is_clean);
	gn_unlock(&frames->impl->lock);
}

/* Some may not go to the host at all. */
static void fill_stock(struct batch *b)
{
	struct gn_frames_impl *impl = b->frames->impl;

	gn_lock(&impl->lock);
	while (b->count && gn_stock_has_room(impl)) {
		struct gn_host_range *last = &b->ranges[b->count - 1];

		last->bytes -= GN_PAGE_SIZE;
		gn_stock_put(impl, (last->offset + last->bytes) / GN_PAGE_SIZE);
		b->count -= !last->bytes;
	}
	gn_unlock(&impl->lock);
}

static void batch_carry_out(struct batch *b)
{
	size_t at = 0;

	fill_stock(b);
	while (at < b->count) {
		size_t done = gn_host_memory_drop_all(&b->frames->impl->memory, &b->ranges[at],
						      b->count - at);

		for (size_t i = at; i < at + done; i++)
			b->given_bytes += b->ranges[i].bytes;
		free_ranges(b->frames, &b->ranges[at], done, true);
		at += done;
		if (at < b->count)
			free_ranges(b->frames, &b->ranges[at++], 1, false);
	}
	b->count = 0;
}

static void batch_add(struct batch *b, uint64_t frame, uint64_t count)
{
	struct gn_host_range *last = b->count ? &b->ranges[b->count - 1] : NULL;
	uint64_t offset = frame * GN_PAGE_SIZE;

	if (last && last->offset + last->bytes == offset) {
		last->bytes += count * GN_PAGE_SIZE;
		return;
	}
	if (b->count == GN_HOST_RANGES_MAX)
		batch_carry_out(b);
	b->ranges[b->count++] =
		(struct gn_host_range){ .offset = offset, .bytes = count * GN_PAGE_SIZE };
}

/* The frames of one word of the bitmap. */
static void batch_add_word(struct batch *b, uint64_t base, uint64_t bits)
{
	while (bits) {
		unsigned from = (unsigned)__builtin_ctzll(bits);
		uint64_t rest = ~(bits >> from);
		unsigned count = rest ? (unsigned)__builtin_ctzll(rest) : 64;

		batch_add(b, base + from, count);
		bits = from + count < 64 ? bits >> (from + count) << (from + count) : 0;
	}
}

static void batch_add_block(struct batch *b, uint64_t block)
{
	uint64_t *words = &b->frames->impl->leaving[block * GN_BLOCK_WORDS];

	for (uint64_t i = 0; i < GN_BLOCK_WORDS; i++) {
		batch_add_word(b, block * GN_BLOCK_FRAMES + i * 64, words[i]);
		words[i] = 0;
	}
}

static uint64_t give_back_leaving(struct gn_frames *frames)
{
	struct gn_frames_impl *impl = frames->impl;
	struct batch b;

	b.frames = frames;
	b.given_bytes = 0;
	b.count = 0;
	for (uint64_t word = 0; word < impl->block_words; word++) {
		while (GN_UNLIKELY(impl->leaving_blocks[word])) {
			unsigned bit = (unsigned)__builtin_ctzll(impl->leaving_blocks[word]);

			batch_add_block(&b, word * 64 + bit);
			impl->leaving_blocks[word] &= impl->leaving_blocks[word] - 1;
		}
	}
	batch_carry_out(&b);
	return b.given_bytes;
}

uint64_t gn_give_back_runs(struct gn_frames *frames, const struct gn_frame_run *runs, size_t count)
{
	bool any_leaves = false;

	for (size_t i = 0; i < count; i++) {
		const struct gn_frame_run *run = &runs[i];

		GN_BUG_ON(run->first.v + run->count > frames->frame_count);
		if (run->to_host) {
			leave(frames, run);
			any_leaves = true;
			continue;
		}
		for (uint64_t k = 0; k < run->count; k++)
			gn_frames_put(frames, pfn(run->first.v + k));
	}
	return any_leaves ? give_back_leaving(frames) : 0;
}

uint64_t gn_frames_put_runs(struct gn_frames *frames, const struct gn_frame_run *runs, size_t count)
{
	uint64_t bytes;

	gn_lock(&frames->impl->give_lock);
	bytes = gn_give_back_runs(frames, runs, count);
	gn_unlock(&frames->impl->give_lock);
	return bytes;
}
