/* SPDX-License-Identifier: MIT */
/*
 * agent_orders.c - what the daemon orders is done, as far as it makes sense, and answered.
 *
 * Merges are gathered, because the engine makes one change of many. An order that names a segment that is not here yet
 * waits for it, and with it those behind: answers come in the order of what was done, and that is what the daemon's books
 * rest on. A frame whose last use has ended is told after the answers of all that was merged before.
 */
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent_impl.h"
#include "mmu/frames.h"

enum {
	BATCH_MAX = 256,
	/* Room that answers to orders may need; frames are returned with what is left. */
	ANSWERS_SPARED = 1024,
};

struct batch {
	struct {
		struct gn_merge merge;
		uint32_t number;
	} items[BATCH_MAX];
	size_t count;
};

/* A daemon that orders more than can be answered is given up. */
static void put_answer(struct gn_share_agent *a, const struct gn_exchange_answer *answer)
{
	a->is_broken |= gn_exchange_put(a->exchange, GN_EXCHANGE_ANSWERS, answer) != 0;
	a->has_put = true;
}

static void answer(struct gn_share_agent *a, uint32_t number, int result)
{
	put_answer(a, &(struct gn_exchange_answer){
			      .kind = GN_ANSWER_DONE, .number = number, .result = result });
}

static int read_page(struct gn_share_agent *a, gfn_t at, uint8_t *page)
{
	struct gn_p2m_info info;
	int err;

	if (a->is_quiet)
		return gn_share_read_sealed(a, at, page);
	err = gn_p2m_query(a->config.vm, at, &info);
	if (err || (info.state != GN_P2M_PRIVATE && info.state != GN_P2M_SHARED))
		return err ? err : -EINVAL;
	return gn_vm_read(a->config.vm, gfn_to_gpa(at), page, GN_PAGE_SIZE);
}

/* The page into the slot, if it is what was offered once: whatever else the guest has there since is nobody's business, and who
 * asked for the show by an offer of his own need not know it. */
static int show(struct gn_share_agent *a, const struct gn_exchange_order *order)
{
	uint8_t page[GN_PAGE_SIZE];
	int err;

	if (order->gfn >= a->pages || order->slot >= GN_EXCHANGE_SLOTS ||
	    !gn_scanner_may_share(a->scanner, gfn(order->gfn)))
		return -EINVAL;
	err = read_page(a, gfn(order->gfn), page);
	if (err)
		return err;
	if (gn_hasher_tag(&a->hasher, page).bits != order->frame)
		return -EAGAIN;
	memcpy(gn_exchange_slot(a->exchange, order->slot), page, sizeof(page));
	atomic_fetch_add_explicit(&a->shown, 1, memory_order_relaxed);
	return 0;
}

static int by_gfn(const void *x, const void *y)
{
	const struct gn_merge *a = x, *b = y;

	return a->at.v < b->at.v ? -1 : a->at.v > b->at.v;
}

/* What became of one page: to the scanner, to the daemon, and the reference of ours goes. */
static void conclude(struct gn_share_agent *a, const struct gn_merge *merge, uint32_t number)
{
	const int result = merge->result;

	if (!result) {
		/* Sealed, it counts as shared since then, and has maybe been written since. */
		if (!a->is_quiet)
			gn_scanner_set_shared(a->scanner, merge->at);
		gn_share_window_hold(&a->window, merge->frame);
		if (!a->is_quiet)
			gn_forming_note_small(&a->forming, merge->at);
		atomic_fetch_add_explicit(&a->merged, 1, memory_order_relaxed);
	} else {
		if (result == -EAGAIN || result == -EBUSY)
			gn_share_reoffer(a, merge->at, true);
		atomic_fetch_add_explicit(&a->refused, 1, memory_order_relaxed);
	}
	answer(a, number, result);
	if (!result && a->is_quiet)
		gn_frames_anchor(a->window.frames, merge->frame);
	else
		gn_frames_put(a->window.frames, merge->frame);
}

static void flush(struct gn_share_agent *a, struct batch *b)
{
	struct gn_merge merges[BATCH_MAX];
	int err;

	_Static_assert(offsetof(__typeof__(b->items[0]), merge) == 0, "by_gfn() takes it there");
	if (!b->count)
		return;
	qsort(b->items, b->count, sizeof(b->items[0]), by_gfn);
	for (size_t i = 0; i < b->count; i++)
		merges[i] = b->items[i].merge;
	err = gn_p2m_merge(a->config.vm, merges, b->count,
			   a->is_quiet ? GN_SHARE_RESEAL : GN_SHARE_READ, NULL);
	for (size_t i = 0; i < b->count; i++) {
		merges[i].result = err ? err : merges[i].result;
		conclude(a, &merges[i], b->items[i].number);
	}
	b->count = 0;
}

static bool is_in(const struct batch *b, uint64_t at)
{
	for (size_t i = 0; i < b->count; i++)
		if (b->items[i].merge.at.v == at)
			return true;
	return false;
}

static void gather(struct gn_share_agent *a, struct batch *b, const struct gn_exchange_order *order)
{
	pfn_t frame;

	if (order->gfn >= a->pages || !gn_scanner_may_share(a->scanner, gfn(order->gfn))) {
		answer(a, order->number, -EINVAL);
		return;
	}
	if (b->count == BATCH_MAX || is_in(b, order->gfn))
		flush(a, b);
	frame = gn_share_window_pfn(&a->window, order->frame);
	if (gn_frames_lend(a->window.frames, frame) < 0) {
		answer(a, order->number, -EINVAL);
		return;
	}
	b->items[b->count].merge = (struct gn_merge){ .at = gfn(order->gfn), .frame = frame };
	b->items[b->count++].number = order->number;
}

static void ask_for_segment(struct gn_share_agent *a, unsigned segment)
{
	char line[96];
	const int bytes =
		snprintf(line, sizeof(line),
			 "{\"execute\": \"get-segment\", \"arguments\": {\"segment\": %u}, "
			 "\"id\": \"segment\"}\n",
			 segment);

	a->is_asking = !gn_client_send(a->client, line, (size_t)bytes);
}

void gn_share_take_segment(struct gn_share_agent *a, int fd)
{
	const unsigned segment = (unsigned)(a->held_back.frame / GN_SEGMENT_FRAMES);

	if (a->is_asking && (fd < 0 || gn_share_window_attach(&a->window, segment, fd)))
		a->refused_segment = segment;
	a->is_asking = false;
}

/* False: it has to wait. */
static bool take_order(struct gn_share_agent *a, struct batch *b,
		       const struct gn_exchange_order *order)
{
	const uint64_t segment = order->frame / GN_SEGMENT_FRAMES;

	if ((order->kind == GN_ORDER_SHOW || order->kind == GN_ORDER_MERGE) &&
	    gn_share_is_in_block(a, order->gfn)) {
		/* It was a page of its own when it was offered. */
		gn_share_reoffer(a, gfn(order->gfn), false);
		answer(a, order->number, -EBUSY);
	} else if (order->kind == GN_ORDER_SHOW) {
		answer(a, order->number, show(a, order));
	} else if (order->kind == GN_ORDER_REOFFER) {
		if (order->gfn < a->pages)
			gn_share_reoffer(a, gfn(order->gfn), false);
		answer(a, order->number, 0);
	} else if (order->kind == GN_ORDER_SPLIT) {
		answer(a, order->number, gn_share_split(a, order->gfn));
	} else if (order->kind == GN_ORDER_DETACH) {
		flush(a, b);
		answer(a, order->number,
		       segment < UINT_MAX ? gn_share_window_detach(&a->window, (unsigned)segment)
					  : -EINVAL);
	} else if (order->kind != GN_ORDER_MERGE || segment >= UINT_MAX ||
		   segment == a->refused_segment) {
		answer(a, order->number, -EINVAL);
	} else if (gn_share_window_has(&a->window, (unsigned)segment)) {
		gather(a, b, order);
	} else {
		ask_for_segment(a, (unsigned)segment);
		return !a->is_asking;
	}
	a->refused_segment = UINT_MAX;
	return true;
}

static int next_order(struct gn_share_agent *a, struct gn_exchange_order *order)
{
	if (a->is_held_back) {
		*order = a->held_back;
		a->is_held_back = false;
		return 1;
	}
	return gn_exchange_take(a->exchange, GN_EXCHANGE_ORDERS, order);
}

/* Frames whose last use has ended. One that was merged into again since we heard of it is in use; it comes anew at its next end.
 * (Nobody but this thread lends.) */
static void return_frames(struct gn_share_agent *a)
{
	struct gn_exchange_answer done = { .kind = GN_ANSWER_RETURNED };

	for (;;) {
		if (!a->return_count)
			a->return_count = gn_frames_take_returned(a->window.frames, a->returns,
								  GN_SHARE_RETURNS);
		if (!a->return_count ||
		    gn_exchange_room(a->exchange, GN_EXCHANGE_ANSWERS) <= ANSWERS_SPARED)
			return;
		a->return_count--;
		if (gn_frames_refs(a->window.frames, a->returns[a->return_count]) ||
		    !gn_share_window_let_go(&a->window, a->returns[a->return_count], &done.frame))
			continue;
		put_answer(a, &done);
		atomic_fetch_add_explicit(&a->returned, 1, memory_order_relaxed);
	}
}

void gn_share_obey(struct gn_share_agent *a)
{
	struct batch b = { .count = 0 };
	struct gn_exchange_order order;
	int more = 1;

	while (!a->is_broken && !a->is_over && !a->is_asking && (more = next_order(a, &order)) > 0)
		if (!take_order(a, &b, &order)) {
			a->held_back = order;
			a->is_held_back = true;
		}
	a->is_broken |= more < 0;
	flush(a, &b);
	if (!a->is_broken)
		return_frames(a);
}
