/* SPDX-License-Identifier: MIT */
/*
 * frames.c - which host frames are taken.
 *
 * Two levels of bitmaps. One bit a frame says "taken"; above it, one bit a 2 MiB block says "full"
 * (no frame left in it) and another "used" (not wholly free). The lowest free frame is found by the
 * first block that is not full, the lowest free block by the first not used, eight zero words of
 * `used` in a row being a free GiB. A hint remembers below which word of each bitmap nothing is to
 * be found; it moves down when something is freed there, so a search starts where it will end.
 * Tables are taken from the other end, so that the frames of guest memory, and with them its place
 * in physically indexed caches, are the same whatever tables a scheme keeps. All bitmaps start as
 * zeros, so that a pool of terabytes costs nothing until it is used.
 *
 * Frames are handed out zeroed, and the kernel's fresh pages are zero already: a bit a frame
 * ("dirty") says whether it was handed out since the host last took it back, and only then is it
 * cleared by hand, outside the lock. A block that becomes wholly free is given back to the host;
 * but a few such blocks are kept, or a guest that frees and takes one frame in turns would pay a
 * system call each time. Who gives memory up for good (give_back.c) has it given back at once,
 * whatever its size. All of it depends on the sequence of calls alone, never on time: frame numbers
 * are part of the deterministic result.
 *
 * Frames can be held in reserve, for the copies that writes to shared frames ask for, for pages whose zeros were taken, and for the
 * tables that then map them: what sharing saved is a loan, and a guest that wants all of it back at once must not be refused because
 * others were quicker to ask for more memory.
 *
 * A reference count is an atomic of its own; get() and put() of a frame in use take no lock.
 *
 * Deliberately absent: growing the pool, NUMA placement, and a guess at what the kernel will really
 * give: the pool is a limit, not a reservation. A host that overcommits beyond its means is told by
 * the kernel.
 */
#include "frames.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "arena.h"
#include "check.h"
#include "frames_impl.h"

#define BLOCK_BYTES	(GN_BLOCK_FRAMES * GN_PAGE_SIZE)
#define GIB_BLOCKS	((uint64_t)512)
#define KEPT_BLOCKS_MAX 16 /* free blocks left unpunched: 32 MiB */
#define FULL_WORD	(~(uint64_t)0)
#define POOL_BYTES_MAX	(((uint64_t)1 << 40) * GN_PAGE_SIZE) /* what p2m words can name */

/* ---- Set-up ---------------------------------------------------------------------------------- */

/* All bookkeeping lives in one lazily backed mapping. */
static int tables_map(struct gn_frames_impl *impl, uint64_t own_count, uint64_t window_count)
{
	size_t frame_map_bytes = own_count / 8, block_map_bytes = impl->block_words * 8;
	size_t refs_bytes = (own_count + window_count) * sizeof(*impl->refs);
	uint8_t *p;

	impl->tables_bytes = 4 * frame_map_bytes + 4 * block_map_bytes + refs_bytes +
			     2 * (window_count / 8) +
			     impl->block_count * sizeof(*impl->taken_count);
	p = mmap(NULL, impl->tables_bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	impl->tables = p;
	impl->taken = (uint64_t *)p;
	impl->dirty = (uint64_t *)(p += frame_map_bytes);
	impl->full = (uint64_t *)(p += frame_map_bytes);
	impl->used = (uint64_t *)(p += block_map_bytes);
	impl->kept = (uint64_t *)(p += block_map_bytes);
	impl->leaving = (uint64_t *)(p += block_map_bytes);
	impl->leaving_blocks = (uint64_t *)(p += frame_map_bytes);
	impl->refs = (_Atomic(uint32_t) *)(p += block_map_bytes);
	impl->returned = (uint64_t *)(p += refs_bytes);
	impl->anchored = (uint64_t *)(p += window_count / 8);
	impl->taken_count = (uint16_t *)(p + frame_map_bytes + window_count / 8);

	impl->full_top_hint = impl->block_words - 1;
	/* What is past the end of the pool is taken for good. */
	for (uint64_t block = impl->block_count; block < impl->block_words * 64; block++) {
		gn_bit_set(impl->full, block);
		gn_bit_set(impl->used, block);
	}
	return 0;
}

int gn_frames_new(uint64_t bytes, enum gn_pool_kind kind, bool huge, struct gn_frames **out)
{
	return gn_frames_new_windowed(bytes, kind, huge, 0, out);
}

static uint64_t in_blocks(uint64_t bytes)
{
	return (bytes + BLOCK_BYTES - 1) & ~(BLOCK_BYTES - 1);
}

int gn_frames_new_windowed(uint64_t bytes, enum gn_pool_kind kind, bool huge, uint64_t window_bytes,
			   struct gn_frames **out)
{
	struct gn_frames *frames;
	struct gn_frames_impl *impl;
	int err = -ENOMEM;

	if (!bytes || bytes > POOL_BYTES_MAX || window_bytes > POOL_BYTES_MAX - bytes) {
		gn_log(GN_LOG_ERROR,
		       "host frame pool: the size, with its window, must be 1 byte to 4 PiB");
		return -EINVAL;
	}
	bytes = in_blocks(bytes);
	window_bytes = in_blocks(window_bytes);
	if (gn_alloc_should_fail())
		return -ENOMEM;
	frames = calloc(1, sizeof(*frames));
	impl = calloc(1, sizeof(*impl));
	if (!frames || !impl)
		goto fail;
	frames->impl = impl;
	frames->own_count = bytes / GN_PAGE_SIZE;
	frames->frame_count = frames->own_count + window_bytes / GN_PAGE_SIZE;
	impl->reserve_low = frames->own_count;
	impl->block_count = bytes / BLOCK_BYTES;
	/* Whole GiB, so that the search for one needs no end condition of its own. */
	impl->block_words = (impl->block_count + GIB_BLOCKS - 1) / GIB_BLOCKS * (GIB_BLOCKS / 64);
	err = tables_map(impl, frames->own_count, window_bytes / GN_PAGE_SIZE);
	if (err)
		goto fail;
	err = gn_alloc_should_fail()
		      ? -ENOMEM
		      : gn_host_memory_map(kind, bytes, huge, window_bytes, &impl->memory);
	if (err)
		goto fail_tables;
	frames->base = impl->memory.base;
	gn_lock_init(&impl->lock, GN_RANK_FRAMES);
	gn_lock_init(&impl->give_lock, GN_RANK_GIVE);
	*out = frames;
	return 0;

fail_tables:
	munmap(impl->tables, impl->tables_bytes);
fail:
	gn_log(GN_LOG_ERROR, "host frame pool of %llu MiB: %s", (unsigned long long)(bytes >> 20),
	       strerror(-err));
	free(impl);
	free(frames);
	return err;
}

void gn_frames_destroy(struct gn_frames *frames)
{
	struct gn_frames_impl *impl;

	if (!frames)
		return;
	impl = frames->impl;
	gn_lock_fini(&impl->give_lock);
	gn_lock_fini(&impl->lock);
	gn_window_fini(impl);
	gn_host_memory_unmap(&impl->memory);
	munmap(impl->tables, impl->tables_bytes);
	free(impl->stock);
	free(impl);
	free(frames);
}

int gn_frames_fd(const struct gn_frames *frames)
{
	return frames->impl->memory.fd;
}

/* ---- Taking ---------------------------------------------------------------------------------- */

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

	while (word < impl->block_words && impl->full[word] == FULL_WORD)
		word++;
	impl->full_hint = word;
	if (word == impl->block_words)
		return false;
	block = word * 64 + (unsigned)__builtin_ctzll(~impl->full[word]);
	taken = &impl->taken[block * GN_BLOCK_WORDS];
	for (at = 0; taken[at] == FULL_WORD; at++)
		;
	*frame = block * GN_BLOCK_FRAMES + at * 64 + (unsigned)__builtin_ctzll(~taken[at]);
	return true;
}

/* The highest. */
static bool find_highest(struct gn_frames_impl *impl, uint64_t *frame)
{
	uint64_t word = impl->full_top_hint, block, at;
	const uint64_t *taken;

	while (word > 0 && impl->full[word] == FULL_WORD)
		word--;
	impl->full_top_hint = word;
	if (impl->full[word] == FULL_WORD)
		return false;
	block = word * 64 + 63 - (unsigned)__builtin_clzll(~impl->full[word]);
	taken = &impl->taken[block * GN_BLOCK_WORDS];
	for (at = GN_BLOCK_WORDS - 1; taken[at] == FULL_WORD; at--)
		;
	*frame = block * GN_BLOCK_FRAMES + at * 64 + 63 - (unsigned)__builtin_clzll(~taken[at]);
	return true;
}

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

	while (word < impl->block_words && impl->used[word] == FULL_WORD)
		word++;
	impl->used_hint = word;
	if (word == impl->block_words)
		return false;
	*block = word * 64 + (unsigned)__builtin_ctzll(~impl->used[word]);
	return true;
}

static bool find_gib(struct gn_frames_impl *impl, uint64_t *block)
{
	const uint64_t gib_words = GIB_BLOCKS / 64;

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

/* ---- Putting --------------------------------------------------------------------------------- */

static bool has_dirty(const struct gn_frames_impl *impl, uint64_t block)
{
	uint64_t any = 0;

	for (uint64_t i = 0; i < GN_BLOCK_WORDS; i++)
		any |= impl->dirty[block * GN_BLOCK_WORDS + i];
	return any != 0;
}

/* A wholly free block: give its memory back, unless few such blocks are kept yet. */
static void block_leave_use(struct gn_frames_impl *impl, uint64_t block, bool in_pieces)
{
	const struct gn_host_range range = { block * BLOCK_BYTES, BLOCK_BYTES };
	bool is_dirty = has_dirty(impl, block);

	gn_bit_clear(impl->used, block);
	if (block / 64 < impl->used_hint)
		impl->used_hint = block / 64;
	if (!is_dirty) {
		/* The host has it all, but page by page: to put a large page there it wants its
		 * table back too. */
		if (in_pieces && impl->memory.huge)
			(void)gn_host_memory_drop(&impl->memory, range);
		return;
	}
	if (impl->kept_count >= KEPT_BLOCKS_MAX && !gn_host_memory_drop(&impl->memory, range)) {
		memset(&impl->dirty[block * GN_BLOCK_WORDS], 0, GN_BLOCK_FRAMES / 8);
		return;
	}
	gn_bit_set(impl->kept, block);
	impl->kept_count++;
}

/* Frames [at, at + count) of one block. */
static void free_in_block(struct gn_frames_impl *impl, uint64_t block, uint64_t at, uint64_t count,
			  bool is_clean)
{
	uint64_t *taken = &impl->taken[block * GN_BLOCK_WORDS];
	uint64_t *dirty = &impl->dirty[block * GN_BLOCK_WORDS];

	for (uint64_t i = at, pages; i < at + count; i += pages) {
		uint64_t bits;

		pages = 64 - i % 64 < at + count - i ? 64 - i % 64 : at + count - i;
		bits = FULL_WORD >> (64 - pages) << i % 64;
		GN_BUG_ON((taken[i / 64] & bits) != bits);
		taken[i / 64] &= ~bits;
		if (is_clean)
			dirty[i / 64] &= ~bits;
	}
	gn_bit_clear(impl->full, block);
	if (block / 64 < impl->full_hint)
		impl->full_hint = block / 64;
	if (block / 64 > impl->full_top_hint)
		impl->full_top_hint = block / 64;
	impl->taken_count[block] -= (uint16_t)count;
	if (!impl->taken_count[block])
		block_leave_use(impl, block, count < GN_BLOCK_FRAMES);
}

void gn_frames_free_range(struct gn_frames *frames, uint64_t first, uint64_t count, bool is_clean)
{
	struct gn_frames_impl *impl = frames->impl;
	uint64_t end = first + count, pages;

	gn_lock_assert_held(&impl->lock);
	for (uint64_t at = first; at < end; at += pages) {
		uint64_t offset = at % GN_BLOCK_FRAMES;

		pages = GN_BLOCK_FRAMES - offset < end - at ? GN_BLOCK_FRAMES - offset : end - at;
		free_in_block(impl, at / GN_BLOCK_FRAMES, offset, pages, is_clean);
	}
	gn_count_used(impl, -count);
}

void gn_frames_get(struct gn_frames *frames, pfn_t frame)
{
	uint32_t old;

	GN_BUG_ON(!gn_frames_valid(frames, frame));
	old = atomic_fetch_add_explicit(&frames->impl->refs[frame.v], 1, memory_order_relaxed);
	GN_BUG_ON(old == 0 || old == UINT32_MAX);
}

bool gn_frames_put(struct gn_frames *frames, pfn_t frame)
{
	uint32_t old;

	GN_BUG_ON(!gn_frames_valid(frames, frame));
	if (GN_UNLIKELY(!gn_frames_is_own(frames, frame)))
		return gn_window_put(frames, frame);
	/* Release what was done to the frame, acquire what the others did, before it is handed out
	 * anew. */
	old = atomic_fetch_sub_explicit(&frames->impl->refs[frame.v], 1, memory_order_acq_rel);
	GN_BUG_ON(old == 0);
	if (old != 1)
		return false;
	gn_lock(&frames->impl->lock);
	gn_frames_free_range(frames, frame.v, 1, false);
	gn_unlock(&frames->impl->lock);
	return true;
}

uint32_t gn_frames_refs(const struct gn_frames *frames, pfn_t frame)
{
	GN_BUG_ON(!gn_frames_valid(frames, frame));
	return atomic_load_explicit(&frames->impl->refs[frame.v], memory_order_acquire);
}

uint64_t gn_frames_used(const struct gn_frames *frames)
{
	return atomic_load_explicit(&frames->impl->used_frames, memory_order_relaxed);
}
