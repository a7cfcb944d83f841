/* SPDX-License-Identifier: MIT */
/*
 * take.c - which free frame is taken, and for whom one is kept.
 *
 * The lowest free frame is found by the first block that is not full, the lowest free block by the first not used, eight zero
 * words of `used` in a row being a free GiB (frames.c has the books). Tables are taken from the other end, so that the frames of
 * guest memory, and with them its place in physically indexed caches, are the same whatever tables a scheme keeps.
 *
 * Frames can be held in reserve, for the copies that writes to shared frames ask for, for pages whose zeros were taken, and for the
 * tables that then map them: what sharing saved is a loan, and a guest that wants all of it back at once must not be refused because
 * others were quicker to ask for more memory.
 */
#include "frames.h"

#include <errno.h>
#include <string.h>

#include "arena.h"
#include "check.h"
#include "frames_impl.h"

/* ---- Finding --------------------------------------------------------------------------------- */

/* A block stops being wholly free. */
static void block_enter_use(struct gn_frames_impl *impl, uint64_t block)
{
	gn_bit_set(impl->used, block);
	if (gn_bit_get(impl->kept, block)) {
		gn_bit_clear(impl->kept, block);
		impl->kept_count--;
	}
}

/* The lowest free frame. */
static bool find_lowest(struct gn_frames_impl *impl, uint64_t *frame)
{
	uint64_t word = impl->full_hint, block, at;
	const uint64_t *taken;

	while (word < impl->block_words && impl->full[word] == GN_FULL_WORD)
		word++;
	impl->full_hint = word;
	if (word == impl->block_words)
		return false;
	block = word * 64 + (unsigned)__builtin_ctzll(~impl->full[word]);
	taken = &impl->taken[block * GN_BLOCK_WORDS];
	for (at = 0; taken[at] == GN_FULL_WORD; at++)
		;
	*frame = block * GN_BLOCK_FRAMES + at * 64 + (unsigned)__builtin_ctzll(~taken[at]);
	return true;
}

/* The highest. */
static bool find_highest(struct gn_frames_impl *impl, uint64_t *frame)
{
	uint64_t word = impl->full_top_hint, block, at;
	const uint64_t *taken;

	while (word > 0 && impl->full[word] == GN_FULL_WORD)
		word--;
	impl->full_top_hint = word;
	if (impl->full[word] == GN_FULL_WORD)
		return false;
	block = word * 64 + 63 - (unsigned)__builtin_clzll(~impl->full[word]);
	taken = &impl->taken[block * GN_BLOCK_WORDS];
	for (at = GN_BLOCK_WORDS - 1; taken[at] == GN_FULL_WORD; at--)
		;
	*frame = block * GN_BLOCK_FRAMES + at * 64 + 63 - (unsigned)__builtin_clzll(~taken[at]);
	return true;
}

/* ---- Taking ---------------------------------------------------------------------------------- */

/* What a frame is for. */
enum purpose {
	FOR_MEMORY, /* more of it; leaves the reserve alone */
	FOR_TABLE,
	FOR_LENT, /* a page whose zeros were taken comes back */
	FOR_COPY, /* of a shared one, filled by whoever asks for it */
};

/* Frames that are free for it. */
static uint64_t count_spare(const struct gn_frames *frames, enum purpose purpose)
{
	const struct gn_frames_impl *impl = frames->impl;
	uint64_t free_frames = frames->own_count - gn_frames_used(frames);
	uint64_t kept = purpose == FOR_MEMORY ? impl->reserve : 0;

	return free_frames > kept ? free_frames - kept : 0;
}

void gn_count_used(struct gn_frames_impl *impl, uint64_t difference)
{
	uint64_t used = atomic_load_explicit(&impl->used_frames, memory_order_relaxed);

	atomic_store_explicit(&impl->used_frames, used + difference, memory_order_relaxed);
}

static void take_frame(struct gn_frames_impl *impl, uint64_t frame, bool *must_clear)
{
	uint64_t block = frame / GN_BLOCK_FRAMES;

	gn_bit_set(impl->taken, frame);
	*must_clear = gn_bit_get(impl->dirty, frame);
	gn_bit_set(impl->dirty, frame);
	if (!impl->taken_count[block]++)
		block_enter_use(impl, block);
	if (impl->taken_count[block] == GN_BLOCK_FRAMES)
		gn_bit_set(impl->full, block);
	gn_count_used(impl, 1);
}

bool gn_frames_take_lowest(struct gn_frames_impl *impl, uint64_t *frame)
{
	bool must_clear;

	if (!find_lowest(impl, frame))
		return false;
	take_frame(impl, *frame, &must_clear);
	return true;
}

static bool find_block(struct gn_frames_impl *impl, uint64_t *block)
{
	uint64_t word = impl->used_hint;

	while (word < impl->block_words && impl->used[word] == GN_FULL_WORD)
		word++;
	impl->used_hint = word;
	if (word == impl->block_words)
		return false;
	*block = word * 64 + (unsigned)__builtin_ctzll(~impl->used[word]);
	return true;
}

static bool find_gib(struct gn_frames_impl *impl, uint64_t *block)
{
	const uint64_t gib_words = GN_GIB_BLOCKS / 64;

	for (uint64_t word = 0; word < impl->block_words; word += gib_words) {
		uint64_t any = 0;

		for (uint64_t i = 0; i < gib_words; i++)
			any |= impl->used[word + i];
		if (!any) {
			*block = word * 64;
			return true;
		}
	}
	return false;
}

/* Take wholly free blocks. Their dirty frames are cleared here, under the lock: it is rare, and the
 * bits that say which are ours to read only now. */
static void take_blocks(struct gn_frames *frames, uint64_t first, uint64_t count)
{
	struct gn_frames_impl *impl = frames->impl;

	for (uint64_t block = first; block < first + count; block++) {
		uint64_t frame = block * GN_BLOCK_FRAMES;

		block_enter_use(impl, block);
		gn_bit_set(impl->full, block);
		impl->taken_count[block] = GN_BLOCK_FRAMES;
		for (uint64_t i = 0; i < GN_BLOCK_FRAMES; i++)
			if (gn_bit_get(impl->dirty, frame + i))
				memset(gn_frames_at(frames, pfn_to_hpa(pfn(frame + i))), 0,
				       GN_PAGE_SIZE);
		memset(&impl->taken[block * GN_BLOCK_WORDS], 0xff, GN_BLOCK_FRAMES / 8);
		memset(&impl->dirty[block * GN_BLOCK_WORDS], 0xff, GN_BLOCK_FRAMES / 8);
	}
	gn_count_used(impl, count * GN_BLOCK_FRAMES);
}

/* *frame: before, the home that is wished for. */
typedef bool find_fn(struct gn_frames_impl *impl, uint64_t *frame);

/* Or else far from all homes, or it would drive another from its own, and so on. */
static bool find_home(struct gn_frames_impl *impl, uint64_t *frame)
{
	if (*frame < impl->block_count * GN_BLOCK_FRAMES && !gn_bit_get(impl->taken, *frame))
		return true;
	return find_highest(impl, frame);
}

/* Who cannot wait for the host is served from the stock; others, and who wants a certain frame, only if there is nothing else. */
static bool take_one(struct gn_frames_impl *impl, find_fn *find, enum purpose purpose,
		     uint64_t *frame, bool *must_clear)
{
	*must_clear = true;
	if (purpose != FOR_MEMORY && find != find_home && gn_stock_take(impl, frame))
		return true;
	if (!find(impl, frame))
		return gn_stock_take(impl, frame);
	take_frame(impl, *frame, must_clear);
	return true;
}

/* False: there is none; *again: some are about to be free. */
static bool try_take(struct gn_frames *frames, find_fn *find, enum purpose purpose, uint64_t *frame,
		     bool *must_clear, bool *again)
{
	struct gn_frames_impl *impl = frames->impl;
	uint64_t spare;
	bool found;

	gn_lock(&impl->lock);
	spare = count_spare(frames, purpose);
	found = spare && take_one(impl, find, purpose, frame, must_clear);
	if (!found && gn_anchors_yield(frames)) {
		spare = count_spare(frames, purpose);
		found = spare && take_one(impl, find, purpose, frame, must_clear);
	}
	if (found && purpose != FOR_MEMORY && spare - 1 < impl->reserve_low)
		impl->reserve_low = spare - 1;
	*again = !found && impl->is_lifting;
	gn_unlock(&impl->lock);
	return found;
}

static void warn_full(struct gn_frames *frames)
{
	bool has_reserve;

	gn_lock(&frames->impl->lock);
	has_reserve = frames->impl->reserve;
	gn_unlock(&frames->impl->lock);
	gn_log(GN_LOG_WARN, "host frame pool is full: all %llu frames are taken%s",
	       (unsigned long long)frames->own_count,
	       has_reserve ? ", or reserved for what sharing saved" : "");
}

static int alloc_frame(struct gn_frames *frames, find_fn *find, pfn_t home, enum purpose purpose,
		       pfn_t *out)
{
	bool found, again, must_clear = false;
	uint64_t frame = home.v;

	while (!(found = try_take(frames, find, purpose, &frame, &must_clear, &again)) && again) {
		/* Who lifts anchors holds it until they are free. */
		gn_lock(&frames->impl->give_lock);
		gn_unlock(&frames->impl->give_lock);
	}
	if (!found) {
		warn_full(frames);
		return -ENOMEM;
	}
	if (must_clear && purpose != FOR_COPY)
		memset(gn_frames_at(frames, pfn_to_hpa(pfn(frame))), 0, GN_PAGE_SIZE);
	*out = pfn(frame);
	return 0;
}

static int alloc_block(struct gn_frames *frames, unsigned level, pfn_t *out)
{
	struct gn_frames_impl *impl = frames->impl;
	uint64_t block = 0;
	bool found;

	gn_lock(&impl->lock);
	found = count_spare(frames, FOR_MEMORY) >= gn_level_pages(level) &&
		(level == 2 ? find_block(impl, &block) : find_gib(impl, &block));
	if (found)
		take_blocks(frames, block, gn_level_pages(level) / GN_BLOCK_FRAMES);
	gn_unlock(&impl->lock);
	*out = pfn(block * GN_BLOCK_FRAMES);
	return found ? 0 : -ENOMEM;
}

/* One reference for each of the frames that were taken. */
static void reference(struct gn_frames *frames, pfn_t first, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		atomic_store_explicit(&frames->impl->refs[first.v + i], 1, memory_order_relaxed);
}

void gn_frames_take_first(struct gn_frames *frames, uint64_t count)
{
	bool must_clear;

	gn_lock(&frames->impl->lock);
	for (uint64_t frame = 0; frame < count; frame++)
		take_frame(frames->impl, frame, &must_clear);
	gn_unlock(&frames->impl->lock);
	reference(frames, pfn(0), count);
}

int gn_frames_alloc(struct gn_frames *frames, unsigned level, pfn_t *out)
{
	pfn_t frame;
	int err;

	GN_BUG_ON(level < 1 || level > 3);
	if (gn_alloc_should_fail())
		return -ENOMEM;
	err = level == 1 ? alloc_frame(frames, find_lowest, pfn(0), FOR_MEMORY, &frame)
			 : alloc_block(frames, level, &frame);
	if (err)
		return err;
	reference(frames, frame, gn_level_pages(level));
	*out = frame;
	return 0;
}

static bool take_home(struct gn_frames *frames, unsigned level, pfn_t home)
{
	struct gn_frames_impl *impl = frames->impl;
	uint64_t pages = gn_level_pages(level), block = home.v / GN_BLOCK_FRAMES;
	bool is_free = home.v + pages <= frames->own_count;

	gn_lock(&impl->lock);
	is_free &= count_spare(frames, FOR_MEMORY) >= pages;
	for (uint64_t i = 0; is_free && i < pages / GN_BLOCK_FRAMES; i++)
		is_free = !gn_bit_get(impl->used, block + i);
	if (is_free)
		take_blocks(frames, block, pages / GN_BLOCK_FRAMES);
	gn_unlock(&impl->lock);
	return is_free;
}

static int alloc_one(struct gn_frames *frames, find_fn *find, pfn_t home, enum purpose purpose,
		     pfn_t *out)
{
	pfn_t frame;
	int err;

	if (gn_alloc_should_fail())
		return -ENOMEM;
	err = alloc_frame(frames, find, home, purpose, &frame);
	if (err)
		return err;
	reference(frames, frame, 1);
	*out = frame;
	return 0;
}

int gn_frames_alloc_home(struct gn_frames *frames, unsigned level, pfn_t home, pfn_t *out)
{
	GN_BUG_ON(level < 1 || level > 3 || home.v % gn_level_pages(level));
	if (level == 1)
		return alloc_one(frames, find_home, home, FOR_MEMORY, out);
	if (gn_alloc_should_fail() || !take_home(frames, level, home))
		return -ENOMEM;
	reference(frames, home, gn_level_pages(level));
	*out = home;
	return 0;
}

int gn_frames_alloc_table(struct gn_frames *frames, pfn_t *out)
{
	return alloc_one(frames, find_highest, pfn(0), FOR_TABLE, out);
}

int gn_frames_alloc_away(struct gn_frames *frames, pfn_t *out)
{
	return alloc_one(frames, find_highest, pfn(0), FOR_MEMORY, out);
}

int gn_frames_alloc_lent(struct gn_frames *frames, const pfn_t *home, pfn_t *out)
{
	return alloc_one(frames, home ? find_home : find_lowest, home ? *home : pfn(0), FOR_LENT,
			 out);
}

int gn_frames_alloc_copy(struct gn_frames *frames, const pfn_t *home, pfn_t *out)
{
	return alloc_one(frames, home ? find_home : find_lowest, home ? *home : pfn(0), FOR_COPY,
			 out);
}

/* ---- The reserve ----------------------------------------------------------------------------- */

void gn_frames_set_reserve(struct gn_frames *frames, uint64_t pages)
{
	struct gn_frames_impl *impl = frames->impl;

	gn_lock(&impl->lock);
	impl->reserve = pages;
	impl->reserve_low = frames->own_count;
	gn_unlock(&impl->lock);
}

uint64_t gn_frames_reserve_low(struct gn_frames *frames)
{
	uint64_t low;

	gn_lock(&frames->impl->lock);
	low = frames->impl->reserve_low;
	gn_unlock(&frames->impl->lock);
	return low;
}
