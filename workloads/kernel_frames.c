/* SPDX-License-Identifier: MIT */
/*
 * kernel_frames.c - the page allocator: 4 KiB frames and aligned blocks of 512, counted.
 *
 * Two sources. Frames given back wait on a list, last in first out, and their old contents must be
 * cleared. Frames never handed out lie between two marks, taken singly from below and in blocks from above;
 * RAM is zero at power-on, so these need no clearing (the PG_ZERO idea of the BSDs). Hence a first touch
 * costs little and a steady state pays for its clears, as on a machine that has been up for a while.
 *
 * Each of a block's 512 frames has its own reference count, so a large page can be split and given back
 * piecemeal. Blocks given back piecemeal are not put together again.
 *
 * When no frame is left, clean pages of files are evicted (kernel_cache.c).
 *
 * The zero frame is mapped by anyone and counted by no one.
 */
#include "kernel_state.h"

#define RECLAIM_BATCH 32 /* as Linux: SWAP_CLUSTER_MAX */

void k_frames_boot(uint32_t reserved, uint32_t total)
{
	struct frames *f = &k_now->frames;

	f->total = total;
	f->low = reserved;
	f->high = total & ~(K_LARGE_FRAMES - 1);
	f->free = f->high - f->low;
	for (uint32_t frame = f->high; frame < total; frame++) {
		f->refs[frame] = 1;
		k_frame_put(frame);
	}
}

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

static void make_room(void)
{
	if (!k_cache_reclaim(RECLAIM_BATCH))
		cpu_panic("guest kernel: out of memory: the workload needs more guest RAM");
}

uint32_t k_frame_alloc(bool *is_zero)
{
	struct frames *f = &k_now->frames;
	uint32_t frame;

	if (!f->free)
		make_room();
	if (!f->free_head && f->low == f->high && f->large_head)
		break_block(f);
	*is_zero = !f->free_head;
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
	struct frames *f = &k_now->frames;
	uint32_t first;
	bool is_zero = !f->large_head;

	if (f->large_head) {
		first = f->large_head;
		f->large_head = f->next[first];
	} else if (f->high - f->low >= K_LARGE_FRAMES) {
		f->high -= K_LARGE_FRAMES;
		first = f->high;
	} else {
		return 0;
	}
	for (uint32_t i = 0; i < K_LARGE_FRAMES; i++) {
		f->refs[first + i] = 1;
		if (!is_zero)
			k_frame_clear(first + i);
	}
	f->free -= K_LARGE_FRAMES;
	return first;
}

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
	for (uint32_t i = 0; i < K_LARGE_FRAMES; i++)
		f->refs[first + i] = 0;
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
