/* SPDX-License-Identifier: MIT */
/*
 * frames.c - the pool of host frames: its books, and how frames come back to it. How they are found and taken is take.c's.
 *
 * Two levels of bitmaps. One bit a frame says "taken"; above it, one bit a 2 MiB block says "full"
 * (no frame left in it) and another "used" (not wholly free). A hint remembers below which word of each bitmap nothing is to
 * be found; it moves down when something is freed there, so a search starts where it will end. All bitmaps start as
 * zeros, so that a pool of terabytes costs nothing until it is used.
 *
 * Frames are handed out zeroed, and the kernel's fresh pages are zero already: a bit a frame
 * ("dirty") says whether it was handed out since the host last took it back, and only then is it
 * cleared by hand. A block that becomes wholly free is given back to the host;
 * but a few such blocks are kept, or a guest that frees and takes one frame in turns would pay a
 * system call each time. Who gives memory up for good (give_back.c) has it given back at once,
 * whatever its size. All of it depends on the sequence of calls alone, never on time: frame numbers
 * are part of the deterministic result.
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
#include "prefetch.h"

#define BLOCK_BYTES	(GN_BLOCK_FRAMES * GN_PAGE_SIZE)
#define KEPT_BLOCKS_MAX 16 /* free blocks left unpunched: 32 MiB */
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

static uint64_t in_blocks(uint64_t bytes)
{
	return (bytes + BLOCK_BYTES - 1) & ~(BLOCK_BYTES - 1);
}

/* What a pool is made of. */
struct shape {
	uint64_t bytes, window_bytes;
	enum gn_pool_kind kind;
	bool huge;
	int template_fd; /* TEMPLATE, as the next one */
	uint64_t template_bytes;
};

static int memory_map(const struct shape *s, struct gn_host_memory *out)
{
	if (gn_alloc_should_fail())
		return -ENOMEM;
	return s->kind == GN_POOL_TEMPLATE
		       ? gn_host_memory_map_template(s->template_fd, s->template_bytes, s->bytes,
						     out)
		       : gn_host_memory_map(s->kind, s->bytes, s->huge, s->window_bytes, out);
}

static int frames_new(struct shape *s, struct gn_frames **out)
{
	struct gn_frames *frames;
	struct gn_frames_impl *impl;
	int err = -ENOMEM;

	if (!s->bytes || s->bytes > POOL_BYTES_MAX || s->window_bytes > POOL_BYTES_MAX - s->bytes) {
		gn_log(GN_LOG_ERROR,
		       "host frame pool: the size, with its window, must be 1 byte to 4 PiB");
		return -EINVAL;
	}
	s->bytes = in_blocks(s->bytes);
	s->window_bytes = in_blocks(s->window_bytes);
	if (gn_alloc_should_fail())
		return -ENOMEM;
	frames = calloc(1, sizeof(*frames));
	impl = calloc(1, sizeof(*impl));
	if (!frames || !impl)
		goto fail;
	frames->impl = impl;
	frames->own_count = s->bytes / GN_PAGE_SIZE;
	frames->frame_count = frames->own_count + s->window_bytes / GN_PAGE_SIZE;
	impl->reserve_low = frames->own_count;
	impl->block_count = s->bytes / BLOCK_BYTES;
	/* Whole GiB, so that the search for one needs no end condition of its own. */
	impl->block_words =
		(impl->block_count + GN_GIB_BLOCKS - 1) / GN_GIB_BLOCKS * (GN_GIB_BLOCKS / 64);
	err = tables_map(impl, frames->own_count, s->window_bytes / GN_PAGE_SIZE);
	if (err)
		goto fail;
	err = memory_map(s, &impl->memory);
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
	gn_log(GN_LOG_ERROR, "host frame pool of %llu MiB: %s",
	       (unsigned long long)(s->bytes >> 20), strerror(-err));
	free(impl);
	free(frames);
	return err;
}

int gn_frames_new(uint64_t bytes, enum gn_pool_kind kind, bool huge, struct gn_frames **out)
{
	return gn_frames_new_windowed(bytes, kind, huge, 0, out);
}

int gn_frames_new_windowed(uint64_t bytes, enum gn_pool_kind kind, bool huge, uint64_t window_bytes,
			   struct gn_frames **out)
{
	struct shape s = {
		.bytes = bytes, .window_bytes = window_bytes, .kind = kind, .huge = huge
	};

	return kind == GN_POOL_TEMPLATE ? -EINVAL : frames_new(&s, out);
}

int gn_frames_new_over(uint64_t bytes, int template_fd, uint64_t template_bytes,
		       struct gn_frames **out)
{
	struct shape s = { .bytes = bytes,
			   .kind = GN_POOL_TEMPLATE,
			   .template_fd = template_fd,
			   .template_bytes = template_bytes };
	int err = frames_new(&s, out);

	if (!err)
		gn_frames_take_first(*out, template_bytes / GN_PAGE_SIZE);
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

/* ---- Over a template --------------------------------------------------------------------------- */

const void *gn_frames_template_of(const struct gn_frames *frames, pfn_t frame)
{
	return frames->impl->memory.template_pages + frame.v * GN_PAGE_SIZE;
}

int gn_frames_find_copies(const struct gn_frames *frames, pfn_t first, uint64_t count,
			  uint64_t *bitmap)
{
	return gn_host_memory_find_copies(&frames->impl->memory, first.v, count, bitmap);
}

uint64_t gn_frames_drop_copies(struct gn_frames *frames, const struct gn_frame_run *runs,
			       size_t count)
{
	struct gn_host_range ranges[GN_HOST_RANGES_MAX];
	uint64_t dropped = 0;

	for (size_t at = 0, n; at < count; at += n) {
		size_t done;

		for (n = 0; n < GN_HOST_RANGES_MAX && at + n < count; n++)
			ranges[n] = (struct gn_host_range){ runs[at + n].first.v * GN_PAGE_SIZE,
							    runs[at + n].count * GN_PAGE_SIZE };
		done = gn_host_memory_drop_all(&frames->impl->memory, ranges, n);
		for (size_t i = 0; i < done; i++)
			dropped += runs[at + i].count;
		if (done < n) /* memory is locked, and the rest will be */
			break;
	}
	return dropped;
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
		bits = GN_FULL_WORD >> (64 - pages) << i % 64;
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

void gn_frames_populate(struct gn_frames *frames, pfn_t first, uint64_t count)
{
	gn_host_memory_populate(
		&frames->impl->memory,
		(struct gn_host_range){ first.v * GN_PAGE_SIZE, count * GN_PAGE_SIZE });
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

void gn_frames_prefetch_refs(const struct gn_frames *frames, pfn_t frame)
{
	gn_prefetch(&frames->impl->refs[frame.v]);
}

uint64_t gn_frames_used(const struct gn_frames *frames)
{
	return atomic_load_explicit(&frames->impl->used_frames, memory_order_relaxed);
}
