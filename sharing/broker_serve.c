/* SPDX-License-Identifier: MIT */
/*
 * broker_serve.c - what VMs say, and what comes of it.
 *
 * Of a record nothing is believed. A gfn is held against the VM's size; an answer has to name an order under way, and is
 * taken for the kind of that order; a frame that comes back must be charged to who returns it.
 */
#include <errno.h>
#include <string.h>

#include "broker_impl.h"
#include "entry.h"

#define PAGE_BYTES 4096u
/* So much may wait to be ordered before a VM's next offers are looked at. */
#define WANTED_MAX 1024

static void note_bad(struct gn_broker_vm *vm)
{
	vm->stats.bad_records++;
	vm->broker->stats.bad_records++;
}

/* What the index has of an offer's tag, all of it live. */
struct meeting {
	struct gn_index_entry *frame; /* that a page can be merged into */
	struct gn_index_entry *own;   /* of the very page */
	bool is_met;		      /* others have it, */
	bool is_within_reach;	      /* and may share it */
};

static struct meeting meet(struct gn_broker_vm *vm, uint64_t gfn, struct gn_tag tag,
			   bool is_in_block)
{
	struct gn_broker *b = vm->broker;
	struct meeting m = { .frame = NULL };

	for (struct gn_index_entry *e = gn_index_next(&b->index, tag.bits, NULL); e;
	     e = gn_index_next(&b->index, tag.bits, e)) {
		if (gn_entry_check_of(e->value) != tag.check)
			continue;
		if (gn_entry_kind_of(e->value) == GN_ENTRY_FRAME) {
			m.frame = m.frame ? m.frame : e;
		} else if (gn_entry_vm_of(e->value) == vm->id &&
			   gn_entry_number_of(e->value) == gfn) {
			m.own = e;
		} else if (gn_broker_entry_is_stale(b, e)) {
			gn_index_erase(&b->index, e);
		} else {
			m.is_met = true;
			m.is_within_reach |= gn_broker_meet(vm, gfn, is_in_block, e);
		}
	}
	return m;
}

/* The page's entry says what it is now: one in a block, or not. */
static bool enter(struct gn_broker_vm *vm, struct gn_index_entry *own, struct gn_tag tag,
		  uint64_t value)
{
	struct gn_broker *b = vm->broker;

	if (own)
		own->value = value;
	else if (!gn_broker_enter(b, tag, value))
		return false;
	gn_broker_step(b, "offered");
	b->stats.candidates += !own;
	return true;
}

static void take_page(struct gn_broker_vm *vm, uint64_t gfn, struct gn_tag tag)
{
	struct gn_broker *b = vm->broker;
	const uint64_t value = gn_entry_value(GN_ENTRY_CANDIDATE, vm->id, gfn, tag.check);
	const struct meeting m = meet(vm, gfn, tag, false);
	const bool was_in_block = m.own && gn_entry_kind_of(m.own->value) == GN_ENTRY_IN_BLOCK;

	if (m.frame) {
		const uint64_t frame = gn_entry_number_of(m.frame->value);

		if (was_in_block)
			gn_broker_erase(b, m.own);
		gn_broker_want_merge(vm, gfn, frame, tag);
		return;
	}
	if (m.own && !was_in_block)
		return;
	if (!enter(vm, m.own, tag, value)) {
		/* So many of its like wait already; when one is a frame there is room again. */
		if (m.is_met && !b->config.is_dry)
			gn_broker_want_reoffer(vm, gfn);
		return;
	}
	b->stats.could_merge += b->config.is_dry && m.is_met;
	if (!b->config.is_dry && m.is_met)
		gn_broker_elect(b, tag);
}

static void take_page_in_block(struct gn_broker_vm *vm, uint64_t gfn, struct gn_tag tag)
{
	struct gn_broker *b = vm->broker;
	const uint64_t value = gn_entry_value(GN_ENTRY_IN_BLOCK, vm->id, gfn, tag.check);
	const struct meeting m = meet(vm, gfn, tag, true);

	if (m.frame || m.is_met) {
		gn_broker_note_met(vm, gfn, m.frame || m.is_within_reach);
		b->stats.could_merge += b->config.is_dry;
	}
	if (m.own ? gn_entry_kind_of(m.own->value) == GN_ENTRY_CANDIDATE
		  : gn_broker_has_room_beside(b, tag))
		(void)enter(vm, m.own, tag, value);
}

static void take_offer(struct gn_broker_vm *vm, const struct gn_exchange_offer *offer)
{
	struct gn_broker *b = vm->broker;
	const struct gn_tag tag = { .bits = offer->tag & b->hasher.tag_mask,
				    .check = offer->check };

	if (offer->gfn >= vm->pages || offer->kind > GN_OFFER_ZEROES_IN_BLOCK) {
		note_bad(vm);
		return;
	}
	b->stats.offers++;
	vm->stats.offers++;
	vm->checks[offer->gfn] = tag.check;
	gn_broker_forget_met(vm, offer->gfn);
	if (offer->kind == GN_OFFER_PAGE)
		take_page(vm, offer->gfn, tag);
	else if (offer->kind == GN_OFFER_IN_BLOCK)
		take_page_in_block(vm, offer->gfn, tag);
	else
		gn_broker_note_met(vm, offer->gfn, true);
}

/* @frame has the contents of @tag for good: it is in the index, and who is a candidate merges. */
static void publish(struct gn_broker *b, uint64_t frame, struct gn_tag tag)
{
	struct gn_index_entry *e;

	for (e = gn_index_next(&b->index, tag.bits, NULL); e;
	     e = gn_index_next(&b->index, tag.bits, e)) {
		const uint64_t value = e->value;
		struct gn_broker_vm *vm = b->vms[gn_entry_vm_of(value)];

		if (gn_entry_check_of(value) != tag.check ||
		    gn_entry_kind_of(value) == GN_ENTRY_FRAME)
			continue;
		if (gn_entry_kind_of(value) == GN_ENTRY_IN_BLOCK) {
			if (gn_broker_entry_is_stale(b, e))
				gn_index_erase(&b->index, e);
			else
				gn_broker_note_met(vm, gn_entry_number_of(value), true);
			continue;
		}
		gn_broker_erase(b, e);
		if (vm)
			gn_broker_want_merge(vm, gn_entry_number_of(value), frame, tag);
	}
	if (gn_broker_enter(b, tag, gn_entry_value(GN_ENTRY_FRAME, 0, frame, tag.check)))
		b->stats.pages_shared++;
	else
		gn_share_pool_put(b->pool, frame); /* no index entry: the orders have it alone */
	gn_broker_step(b, "published");
}

/* The slot's page into a frame of ours. 0; -EAGAIN: it is not what was offered; else there is no frame. The whole domain can read
 * the frame, so nothing else is ever written there. */
static int take_shown(struct gn_broker_vm *vm, const struct gn_broker_order *order, uint64_t *frame)
{
	struct gn_broker *b = vm->broker;
	uint8_t page[PAGE_BYTES];
	struct gn_tag tag;
	int err;

	memcpy(page, gn_exchange_slot(vm->exchange, order->slot), sizeof(page));
	tag = gn_hasher_tag(&b->hasher, page);
	if (tag.bits != order->tag.bits || tag.check != order->tag.check)
		return -EAGAIN;
	err = gn_share_pool_alloc(b->pool, frame);
	if (err)
		return err;
	memcpy(gn_share_pool_at(b->pool, *frame), page, sizeof(page));
	gn_broker_step(b, "shown");
	return 0;
}

static void on_shown(struct gn_broker_vm *vm, const struct gn_broker_order *order, int result)
{
	struct gn_broker *b = vm->broker;
	uint64_t frame;
	int err;

	b->stats.shows++;
	if (order->is_expired)
		return;
	if (result) {
		b->stats.shows_failed++;
		gn_broker_drop_pending(vm, order->gfn, order->tag);
		gn_broker_elect(b, order->tag);
		return;
	}
	err = take_shown(vm, order, &frame);
	if (!err) {
		publish(b, frame, order->tag);
		return;
	}
	b->stats.shows_differing += err == -EAGAIN;
	b->stats.pool_full += err != -EAGAIN;
	gn_broker_drop_pending(vm, order->gfn, order->tag);
	/* Without room in the pool the others could not be shown either. They wait for the next offer. */
	if (err == -EAGAIN)
		gn_broker_elect(b, order->tag);
}

/* Another frame of the same tag, after @frame in the index. */
static void try_next_frame(struct gn_broker_vm *vm, const struct gn_broker_order *order)
{
	const uint64_t value = gn_entry_value(GN_ENTRY_FRAME, 0, order->frame, order->tag.check);
	struct gn_index *index = &vm->broker->index;
	struct gn_index_entry *e = gn_broker_find(vm->broker, order->tag, value);

	while (e && (e = gn_index_next(index, order->tag.bits, e)))
		if (gn_entry_kind_of(e->value) == GN_ENTRY_FRAME &&
		    gn_entry_check_of(e->value) == order->tag.check) {
			gn_broker_want_merge(vm, order->gfn, gn_entry_number_of(e->value),
					     order->tag);
			return;
		}
}

static bool bit_get(const uint64_t *bits, uint64_t n)
{
	return bits[n / 64] >> (n % 64) & 1;
}

static void on_merged(struct gn_broker_vm *vm, const struct gn_broker_order *order, int result)
{
	struct gn_broker *b = vm->broker;

	if (!result) {
		b->stats.merged++;
		vm->stats.merged++;
	} else {
		b->stats.refused_differing += result == -EAGAIN;
		b->stats.refused_busy += result == -EBUSY;
		b->stats.refused_state += result != -EAGAIN && result != -EBUSY;
		vm->stats.refused++;
	}
	if (result == -EAGAIN)
		try_next_frame(vm, order);
	if (!result && !bit_get(vm->charged, order->frame)) {
		/* The order's reference is the VM's. */
		vm->charged[order->frame / 64] |= (uint64_t)1 << (order->frame % 64);
		vm->stats.charged_pages++;
	} else {
		gn_share_pool_put(b->pool, order->frame);
		gn_broker_give_up(b, order->frame);
	}
	gn_broker_step(b, "merged");
}

static void on_detached(struct gn_broker_vm *vm, const struct gn_broker_order *order)
{
	const unsigned segment = (unsigned)(order->frame / GN_SEGMENT_FRAMES);

	vm->views[segment / 64] &= ~((uint64_t)1 << (segment % 64));
	gn_share_pool_unview(vm->broker->pool, segment);
}

static void on_returned(struct gn_broker_vm *vm, uint64_t frame)
{
	struct gn_broker *b = vm->broker;

	if (frame >= (uint64_t)gn_share_pool_segments(b->pool) * GN_SEGMENT_FRAMES ||
	    !bit_get(vm->charged, frame)) {
		note_bad(vm);
		return;
	}
	vm->charged[frame / 64] &= ~((uint64_t)1 << (frame % 64));
	vm->stats.charged_pages--;
	vm->stats.returns++;
	b->stats.returns++;
	gn_share_pool_put(b->pool, frame);
	gn_broker_give_up(b, frame);
	gn_broker_step(b, "returned");
}

static void take_answer(struct gn_broker_vm *vm, const struct gn_exchange_answer *answer)
{
	struct gn_broker_order order;

	if (answer->kind == GN_ANSWER_RETURNED)
		on_returned(vm, answer->frame);
	else if (answer->kind != GN_ANSWER_DONE || !gn_broker_finish(vm, answer->number, &order))
		note_bad(vm);
	else if (order.kind == GN_ORDER_SHOW)
		on_shown(vm, &order, answer->result);
	else if (order.kind == GN_ORDER_MERGE)
		on_merged(vm, &order, answer->result);
	else if (order.kind == GN_ORDER_DETACH && (!answer->result || answer->result == -ENOENT))
		on_detached(vm, &order); /* or it never had room for it */
	else if (order.kind == GN_ORDER_SPLIT)
		gn_broker_on_split(vm, order.gfn);
}

int gn_broker_serve(struct gn_broker_vm *vm, unsigned max)
{
	unsigned count = 0;
	int more = 1;

	while (count < max && more > 0) {
		struct gn_exchange_answer answer;

		more = gn_exchange_take(vm->exchange, GN_EXCHANGE_ANSWERS, &answer);
		if (more > 0) {
			take_answer(vm, &answer);
			count++;
		}
	}
	while (count < max && more >= 0 && vm->wanted_count < WANTED_MAX) {
		struct gn_exchange_offer offer;

		more = gn_exchange_take(vm->exchange, GN_EXCHANGE_OFFERS, &offer);
		if (more <= 0)
			break;
		take_offer(vm, &offer);
		count++;
	}
	vm->is_broken |= more < 0;
	return vm->is_broken ? -EPROTO : (int)count;
}
