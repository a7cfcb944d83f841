/* SPDX-License-Identifier: MIT */
/*
 * kernel_frames.c - the page allocator: 4 KiB frames and aligned blocks of 512, counted.
 *
 * Two sources. Frames given back wait on a list, last in first out, and their old contents must be
 * cleared. Frames never handed out lie between two marks, taken singly from below and in blocks from above;
 * where RAM is zero when the machine starts these need no clearing (the PG_ZERO idea of the BSDs). Hence a first touch
 * costs little and a steady state pays for its clears, as on a machine that has been up for a while. Where RAM begins with
 * anything (config.dirty_ram, as a real machine's does), every frame is cleared.
 *
 * Each of a block's 512 frames has its own reference count, so a large page can be split and given back
 * piecemeal. Blocks given back piecemeal are put together again for the balloon only (k_frames_gather).
 *
 * When no frame is left, clean pages of files are evicted (kernel_cache.c), then the balloon gives back
 * (kernel_balloon.c). Frames of a list hold what their last owner or the host left there, or params.free_poison if
 * that is set: it is written when a frame is given back, and a frame that lost it is not handed out again.
 *
 * The zero frame is mapped by anyone and counted by no one.
 */
#include "kernel_state.h"

#define RECLAIM_BATCH 32 /* as Linux: SWAP_CLUSTER_MAX */

void k_frames_boot(uint32_t reserved, uint32_t total)
{
	struct frames *f = &k_now->frames;

	f->total = total;
	f->first = f->low = reserved;
	f->high = total & ~(K_LARGE_FRAMES - 1);
	f->free = f->high - f->low;
	for (uint32_t frame = f->high; frame < total; frame++) {
		f->refs[frame] = 1;
		k_frame_put(frame);
	}
}

/* ---- What free frames hold ------------------------------------------------------------------------------------ */

static uint64_t poison(void)
{
	return k_now->config.free_poison * (((uint64_t)1 << 32) + 1);
}

/* On the way to a list. */
static void leave_behind(uint32_t frame)
{
	struct frames *f = &k_now->frames;

	f->freed++;
	f->told[frame / 64] &= ~((uint64_t)1 << frame % 64);
	for (uint64_t i = 0; k_now->config.free_poison && i < K_PAGE; i += 8)
		cpu_store64(k_va(k_gpa(frame)) + i, poison());
}

/* Off a list. */
static void find_unchanged(uint32_t frame)
{
	for (uint64_t i = 0; k_now->config.free_poison && i < K_PAGE; i += 8)
		if (cpu_load64(k_va(k_gpa(frame)) + i) != poison())
			cpu_panic("guest kernel: a free frame was written to");
}

void k_frames_mark_told(uint32_t first, uint32_t count)
{
	for (uint32_t i = first; i < first + count; i++)
		k_now->frames.told[i / 64] |= (uint64_t)1 << i % 64;
}

bool k_frame_is_listed(uint32_t frame)
{
	const struct frames *f = &k_now->frames;

	return !f->refs[frame] && frame >= f->first && (frame < f->low || frame >= f->high);
}

/* ---- Handing out -------------------------------------------------------------------------------------------------- */

/* A block off the list of blocks becomes single frames, the lowest first in line. */
static void break_block(struct frames *f)
{
	uint32_t first = f->large_head;

	f->large_head = f->next[first];
	for (uint32_t i = K_LARGE_FRAMES; i-- > 0;) {
		f->next[first + i] = f->free_head;
		f->free_head = first + i;
	}
}

/* There is one. *is_fresh: it was never handed out. */
static uint32_t frame_take(bool *is_fresh)
{
	struct frames *f = &k_now->frames;
	uint32_t frame;

	if (!f->free_head && f->low == f->high)
		break_block(f);
	*is_fresh = !f->free_head;
	if (f->free_head) {
		frame = f->free_head;
		f->free_head = f->next[frame];
	} else {
		frame = f->low++;
	}
	f->refs[frame] = 1;
	f->free--;
	return frame;
}

static uint32_t large_take(bool *is_fresh)
{
	struct frames *f = &k_now->frames;
	uint32_t first;

	*is_fresh = !f->large_head;
	if (f->large_head) {
		first = f->large_head;
		f->large_head = f->next[first];
	} else if (f->high - f->low >= K_LARGE_FRAMES) {
		f->high -= K_LARGE_FRAMES;
		first = f->high;
	} else {
		return 0;
	}
	for (uint32_t i = 0; i < K_LARGE_FRAMES; i++)
		f->refs[first + i] = 1;
	f->free -= K_LARGE_FRAMES;
	return first;
}

static void make_room(void)
{
	if (!k_cache_reclaim(RECLAIM_BATCH) && !k_balloon_relieve())
		cpu_panic("guest kernel: out of memory: the workload needs more guest RAM");
}

uint32_t k_frame_alloc(bool *is_zero)
{
	bool is_fresh;
	uint32_t frame;

	if (!k_now->frames.free)
		make_room();
	frame = frame_take(&is_fresh);
	if (!is_fresh)
		find_unchanged(frame);
	*is_zero = is_fresh && !k_now->config.dirty_ram;
	return frame;
}

uint32_t k_frame_alloc_cleared(void)
{
	bool is_zero;
	uint32_t frame = k_frame_alloc(&is_zero);

	if (!is_zero)
		k_frame_clear(frame);
	return frame;
}

uint32_t k_large_alloc_cleared(void)
{
	bool is_fresh;
	uint32_t first = large_take(&is_fresh);
	bool is_zero = is_fresh && !k_now->config.dirty_ram;

	for (uint32_t i = 0; first && !is_zero && i < K_LARGE_FRAMES; i++) {
		if (!is_fresh)
			find_unchanged(first + i);
		k_frame_clear(first + i);
	}
	return first;
}

uint32_t k_frame_take(void)
{
	bool is_fresh;

	return k_now->frames.free ? frame_take(&is_fresh) : 0;
}

uint32_t k_large_take(void)
{
	bool is_fresh;

	return large_take(&is_fresh);
}

static bool is_block_listed(uint32_t first)
{
	for (uint32_t i = 0; i < K_LARGE_FRAMES; i++)
		if (!k_frame_is_listed(first + i))
			return false;
	return true;
}

void k_frames_gather(void)
{
	struct frames *f = &k_now->frames;

	f->free_head = f->large_head = 0;
	for (uint32_t frame = f->total; frame-- > f->first;) {
		uint32_t block = frame & ~(K_LARGE_FRAMES - 1);

		if (frame == block + K_LARGE_FRAMES - 1 && block >= f->first &&
		    is_block_listed(block)) {
			f->next[block] = f->large_head;
			f->large_head = block;
			frame = block;
		} else if (k_frame_is_listed(frame)) {
			f->next[frame] = f->free_head;
			f->free_head = frame;
		}
	}
}

/* ---- Sharing and giving back ------------------------------------------------------------------------------------- */

void k_frame_get(uint32_t frame)
{
	if (frame != k_now->zero_frame)
		k_now->frames.refs[frame]++;
}

void k_frame_put(uint32_t frame)
{
	struct frames *f = &k_now->frames;

	if (frame == k_now->zero_frame)
		return;
	if (!f->refs[frame])
		cpu_panic("guest kernel: a free frame was given back");
	if (--f->refs[frame])
		return;
	leave_behind(frame);
	f->next[frame] = f->free_head;
	f->free_head = frame;
	f->free++;
}

void k_large_get(uint32_t first)
{
	for (uint32_t i = 0; i < K_LARGE_FRAMES; i++)
		k_frame_get(first + i);
}

void k_large_put(uint32_t first)
{
	struct frames *f = &k_now->frames;

	if (!k_large_is_exclusive(first)) {
		for (uint32_t i = 0; i < K_LARGE_FRAMES; i++)
			k_frame_put(first + i);
		return;
	}
	for (uint32_t i = 0; i < K_LARGE_FRAMES; i++) {
		f->refs[first + i] = 0;
		leave_behind(first + i);
	}
	f->next[first] = f->large_head;
	f->large_head = first;
	f->free += K_LARGE_FRAMES;
}

bool k_frame_is_exclusive(uint32_t frame)
{
	return frame != k_now->zero_frame && k_now->frames.refs[frame] == 1;
}

bool k_large_is_exclusive(uint32_t first)
{
	for (uint32_t i = 0; i < K_LARGE_FRAMES; i++)
		if (k_now->frames.refs[first + i] != 1)
			return false;
	return true;
}

void k_frame_clear(uint32_t frame)
{
	uint64_t at = k_va(k_gpa(frame));

	for (uint64_t i = 0; i < K_PAGE; i += 8)
		cpu_store64(at + i, 0);
}

void k_frame_copy(uint32_t to, uint32_t from)
{
	uint64_t dst = k_va(k_gpa(to)), src = k_va(k_gpa(from));

	for (uint64_t i = 0; i < K_PAGE; i += 8)
		cpu_store64(dst + i, cpu_load64(src + i));
}
