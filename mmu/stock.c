/* SPDX-License-Identifier: MIT */
/*
 * stock.c - free frames that the host has not got back.
 *
 * A frame that was given back costs a page fault of the host's when it is used again, which takes far longer than the copy that breaks
 * the sharing of a page (`gnomon overcommit sharing --probe break` shows both). So some of the frames that leave are kept, as they
 * are, for those who cannot wait: the copies of shared pages, pages whose zeros were taken, and the tables that map them.
 *
 * To the bitmaps of the pool a frame in stock is taken, so nobody finds it there; to those who count it is free. The last one in is
 * the first one out, for its contents may still be in a cache. More memory for a guest is taken from the stock only if
 * there is nothing else.
 *
 * It fills itself from what merging frees. Where that does not suffice, somebody who has time calls gn_frames_fill_stock().
 */
#include <errno.h>
#include <stdlib.h>

#include "arena.h"
#include "check.h"
#include "frames_impl.h"

int gn_frames_set_stock(struct gn_frames *frames, uint64_t pages)
{
	struct gn_frames_impl *impl = frames->impl;
	uint64_t *fresh = NULL, *old;

	if (pages > frames->own_count)
		return -EINVAL;
	if (pages && (gn_alloc_should_fail() || !(fresh = calloc(pages, sizeof(*fresh)))))
		return -ENOMEM;
	gn_lock(&impl->lock);
	while (impl->stock_count) {
		gn_count_used(impl, 1);
		gn_frames_free_range(frames, impl->stock[--impl->stock_count], 1, false);
	}
	old = impl->stock;
	impl->stock = fresh;
	impl->stock_most = pages;
	gn_unlock(&impl->lock);
	free(old);
	return 0;
}

uint64_t gn_frames_stock(struct gn_frames *frames)
{
	uint64_t count;

	gn_lock(&frames->impl->lock);
	count = frames->impl->stock_count;
	gn_unlock(&frames->impl->lock);
	return count;
}

bool gn_stock_has_room(const struct gn_frames_impl *impl)
{
	return impl->stock_count < impl->stock_most;
}

void gn_stock_put(struct gn_frames_impl *impl, uint64_t frame)
{
	GN_BUG_ON(!gn_bit_get(impl->taken, frame) || !gn_stock_has_room(impl));
	impl->stock[impl->stock_count++] = frame;
	gn_count_used(impl, -(uint64_t)1);
}

bool gn_stock_take(struct gn_frames_impl *impl, uint64_t *frame)
{
	if (!impl->stock_count)
		return false;
	*frame = impl->stock[--impl->stock_count];
	gn_count_used(impl, 1);
	return true;
}

uint64_t gn_frames_fill_stock(struct gn_frames *frames, uint64_t most)
{
	struct gn_frames_impl *impl = frames->impl;
	uint64_t frame, filled = 0;

	while (filled < most) {
		bool found;

		gn_lock(&impl->lock);
		found = gn_stock_has_room(impl) && gn_frames_take_lowest(impl, &frame);
		gn_unlock(&impl->lock);
		if (!found)
			break;
		/* The host's fault happens here, without the lock. */
		*(volatile uint8_t *)gn_frames_at(frames, pfn_to_hpa(pfn(frame))) = 0;
		gn_lock(&impl->lock);
		/* Others may have filled it meanwhile. */
		if (gn_stock_has_room(impl))
			gn_stock_put(impl, frame);
		else
			gn_frames_free_range(frames, frame, 1, false);
		gn_unlock(&impl->lock);
		filled++;
	}
	return filled;
}
