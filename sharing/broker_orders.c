/* SPDX-License-Identifier: MIT */
/*
 * broker_orders.c - from what a VM should do to what it is told, and which answer belongs to what.
 *
 * What is wanted waits in a queue of the VM, because others make work for it whatever room its ring has. Under way are at
 * most GN_BROKER_ORDERS, so that all answers find room. An order is numbered by its place and the place's generation:
 * an answer that comes twice, or late, or out of the air, names none.
 */
#include <errno.h>
#include <stdlib.h>

#include "broker_impl.h"
#include "entry.h"

#define SHOW_TICKS 10 /* seconds, about, for a VM to answer */

static bool grow(struct gn_broker_vm *vm)
{
	size_t capacity = vm->wanted_capacity ? 2 * vm->wanted_capacity : 64;
	struct gn_broker_order *wanted = malloc(capacity * sizeof(*wanted));

	if (!wanted)
		return false;
	for (size_t i = 0; i < vm->wanted_count; i++)
		wanted[i] = vm->wanted[(vm->wanted_head + i) % vm->wanted_capacity];
	free(vm->wanted);
	vm->wanted = wanted;
	vm->wanted_head = 0;
	vm->wanted_capacity = capacity;
	return true;
}

static void drop_first_wanted(struct gn_broker_vm *vm)
{
	vm->wanted_head = (vm->wanted_head + 1) % vm->wanted_capacity;
	vm->wanted_count--;
}

static bool enqueue(struct gn_broker_vm *vm, const struct gn_broker_order *order)
{
	struct gn_broker_order *at;

	if (vm->is_broken || vm->is_lost || (vm->wanted_count == vm->wanted_capacity && !grow(vm)))
		return false;
	at = &vm->wanted[(vm->wanted_head + vm->wanted_count++) % vm->wanted_capacity];
	*at = *order;
	at->tick = vm->broker->tick;
	return true;
}

void gn_broker_want_show(struct gn_broker_vm *vm, uint64_t gfn, struct gn_tag tag)
{
	const struct gn_broker_order order = { .kind = GN_ORDER_SHOW, .gfn = gfn, .tag = tag };

	if (!enqueue(vm, &order))
		gn_broker_drop_pending(vm, gfn, tag);
}

void gn_broker_want_merge(struct gn_broker_vm *vm, uint64_t gfn, uint64_t frame, struct gn_tag tag)
{
	const struct gn_broker_order order = {
		.kind = GN_ORDER_MERGE, .gfn = gfn, .frame = frame, .tag = tag
	};

	if (vm->stats.charged_pages >= gn_broker_most(vm) || !enqueue(vm, &order))
		return;
	gn_share_pool_get(vm->broker->pool, frame);
	vm->broker->stats.merges_ordered++;
}

void gn_broker_want_reoffer(struct gn_broker_vm *vm, uint64_t gfn)
{
	const struct gn_broker_order order = { .kind = GN_ORDER_REOFFER, .gfn = gfn };

	/* If it cannot be told, the page stays unshared until it is written. */
	(void)enqueue(vm, &order);
}

bool gn_broker_want_split(struct gn_broker_vm *vm, uint64_t gfn)
{
	const struct gn_broker_order order = { .kind = GN_ORDER_SPLIT, .gfn = gfn };
	const bool is_told = enqueue(vm, &order);

	vm->broker->stats.splits_ordered += is_told;
	return is_told;
}

void gn_broker_want_detach(struct gn_broker_vm *vm, unsigned segment)
{
	const struct gn_broker_order order = { .kind = GN_ORDER_DETACH,
					       .frame = (uint64_t)segment * GN_SEGMENT_FRAMES };

	/* If it cannot be told, the segment waits for the VM's end. */
	(void)enqueue(vm, &order);
}

/* A place for @order, and a slot if it needs one. False: there is none now. */
static bool find_place(struct gn_broker_vm *vm, struct gn_broker_order *order, unsigned *place)
{
	if (vm->order_count == GN_BROKER_ORDERS ||
	    (order->kind == GN_ORDER_SHOW && !vm->free_slots))
		return false;
	while (vm->orders[vm->place_hint].kind)
		vm->place_hint = (vm->place_hint + 1) % GN_BROKER_ORDERS;
	*place = vm->place_hint;
	if (order->kind == GN_ORDER_SHOW)
		order->slot = (uint8_t)__builtin_ctzll(vm->free_slots);
	return true;
}

static void note_issued(struct gn_broker_vm *vm, const struct gn_broker_order *order,
			unsigned place)
{
	const uint16_t generation = (uint16_t)(vm->orders[place].generation + 1);

	vm->orders[place] = *order;
	vm->orders[place].generation = generation;
	vm->orders[place].tick = vm->broker->tick;
	vm->order_count++;
	if (order->kind == GN_ORDER_SHOW)
		vm->free_slots &= ~((uint64_t)1 << order->slot);
}

void gn_broker_issue(struct gn_broker_vm *vm)
{
	while (vm->wanted_count && !vm->is_broken && !vm->is_lost) {
		struct gn_broker_order order = vm->wanted[vm->wanted_head];
		struct gn_exchange_order record = { .kind = order.kind,
						    .gfn = order.gfn,
						    .frame = order.frame };
		unsigned place = 0;
		int err;

		if (order.is_expired) {
			drop_first_wanted(vm);
			continue;
		}
		if (!find_place(vm, &order, &place))
			return;
		record.slot = order.slot;
		if (order.kind == GN_ORDER_SHOW)
			record.frame = order.tag.bits;
		record.number = place | (uint32_t)(uint16_t)(vm->orders[place].generation + 1)
						<< 16;
		gn_broker_step(vm->broker, "ordering");
		err = gn_exchange_put(vm->exchange, GN_EXCHANGE_ORDERS, &record);
		vm->is_broken |= err == -EPROTO;
		if (err)
			return;
		note_issued(vm, &order, place);
		drop_first_wanted(vm);
		vm->needs_kick = true;
		gn_broker_step(vm->broker, "ordered");
	}
}

bool gn_broker_finish(struct gn_broker_vm *vm, uint32_t number, struct gn_broker_order *out)
{
	const unsigned place = number & 0xffff;

	if (place >= GN_BROKER_ORDERS || !vm->orders[place].kind ||
	    vm->orders[place].generation != number >> 16)
		return false;
	*out = vm->orders[place];
	vm->orders[place].kind = 0;
	vm->order_count--;
	if (out->kind == GN_ORDER_SHOW)
		vm->free_slots |= (uint64_t)1 << out->slot;
	return true;
}

static void cancel_one(struct gn_broker_vm *vm, const struct gn_broker_order *order)
{
	struct gn_broker *b = vm->broker;

	if (order->kind == GN_ORDER_MERGE) {
		gn_share_pool_put(b->pool, order->frame);
		gn_broker_give_up(b, order->frame);
	} else if (order->kind == GN_ORDER_SHOW && !order->is_expired) {
		gn_broker_drop_pending(vm, order->gfn, order->tag);
		gn_broker_elect(b, order->tag);
	}
}

static void cancel_wanted(struct gn_broker_vm *vm)
{
	while (vm->wanted_count) {
		cancel_one(vm, &vm->wanted[vm->wanted_head]);
		drop_first_wanted(vm);
	}
}

void gn_broker_cancel_unseen(struct gn_broker_vm *vm)
{
	for (unsigned i = 0; i < GN_BROKER_ORDERS; i++)
		if (vm->orders[i].kind == GN_ORDER_SHOW && !vm->orders[i].is_expired) {
			cancel_one(vm, &vm->orders[i]);
			vm->orders[i].is_expired = true;
		}
	cancel_wanted(vm);
}

/* Whose content it is finds somebody else to ask, who may be the same VM: its queue may grow meanwhile. */
static void expire_one(struct gn_broker_vm *vm, struct gn_broker_order *order)
{
	const struct gn_broker_order late = *order;

	if (late.kind != GN_ORDER_SHOW || late.is_expired ||
	    vm->broker->tick - late.tick < SHOW_TICKS)
		return;
	order->is_expired = true;
	vm->broker->stats.shows_late++;
	cancel_one(vm, &late);
}

void gn_broker_expire(struct gn_broker_vm *vm)
{
	const size_t wanted = vm->wanted_count;

	for (unsigned i = 0; i < GN_BROKER_ORDERS && vm->order_count; i++)
		expire_one(vm, &vm->orders[i]);
	for (size_t i = 0; i < wanted && i < vm->wanted_count; i++)
		expire_one(vm, &vm->wanted[(vm->wanted_head + i) % vm->wanted_capacity]);
}

void gn_broker_cancel(struct gn_broker_vm *vm)
{
	for (unsigned i = 0; i < GN_BROKER_ORDERS; i++) {
		cancel_one(vm, &vm->orders[i]);
		vm->orders[i].kind = 0;
	}
	cancel_wanted(vm);
	vm->order_count = 0;
}
