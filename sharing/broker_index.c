/* SPDX-License-Identifier: MIT */
/*
 * broker_index.c - what the index says of a tag, and what it may forget.
 *
 * An entry names a VM by a number that is used again. That of a VM which is gone may thus come to mean a page of another;
 * as with a page that has changed, the tag decides when it is shown, and bytes when it is merged. So entries are counted by number, or who comes
 * and goes would have more of them each time; a VM that is new gets the number of which fewest are left.
 *
 * A page that is offered again has changed, so its former entry is void, and known by a byte a page: the check of its last offer. So
 * the index holds about an entry a page, however often pages change.
 */
#include "broker_impl.h"
#include "entry.h"

struct gn_index_entry *gn_broker_find(struct gn_broker *b, struct gn_tag tag, uint64_t value)
{
	struct gn_index_entry *e = gn_index_next(&b->index, tag.bits, NULL);

	while (e && e->value != value)
		e = gn_index_next(&b->index, tag.bits, e);
	return e;
}

/* An entry of a VM goes. */
static void count_out(struct gn_broker *b, uint64_t value)
{
	b->entries[gn_entry_vm_of(value)]--;
}

void gn_broker_erase(struct gn_broker *b, struct gn_index_entry *e)
{
	count_out(b, e->value);
	gn_index_erase(&b->index, e);
}

bool gn_broker_entry_is_stale(void *ctx, const struct gn_index_entry *entry)
{
	struct gn_broker *b = ctx;
	const uint64_t value = entry->value, number = gn_entry_number_of(value);
	const struct gn_broker_vm *vm = b->vms[gn_entry_vm_of(value)];

	if (gn_entry_kind_of(value) != GN_ENTRY_FRAME) {
		bool is_void = !vm || vm->is_lost || number >= vm->pages;

		if (gn_entry_kind_of(value) != GN_ENTRY_PENDING)
			is_void = is_void || vm->checks[number] != gn_entry_check_of(value);
		if (is_void)
			count_out(b, value);
		return is_void;
	}
	if (gn_share_pool_refs(b->pool, number) > 1)
		return false;
	gn_share_pool_put(b->pool, number);
	b->stats.pages_shared--;
	return true;
}

bool gn_broker_enter(struct gn_broker *b, struct gn_tag tag, uint64_t value)
{
	const bool is_of_vm = gn_entry_kind_of(value) != GN_ENTRY_FRAME;
	const unsigned id = gn_entry_vm_of(value);
	struct gn_index_entry *e;

	if ((is_of_vm && b->entries[id] >= gn_broker_most(b->vms[id])) ||
	    gn_index_insert(&b->index, tag.bits, value, gn_broker_entry_is_stale, b, &e)) {
		b->stats.index_full++;
		return false;
	}
	b->entries[id] += is_of_vm;
	return true;
}

void gn_broker_give_up(struct gn_broker *b, uint64_t frame)
{
	struct gn_index_entry *e;
	struct gn_tag tag;

	if (gn_share_pool_refs(b->pool, frame) != 1)
		return;
	/* A frame never changes, so its tag need not be kept. */
	tag = gn_hasher_tag(&b->hasher, gn_share_pool_at(b->pool, frame));
	e = gn_broker_find(b, tag, gn_entry_value(GN_ENTRY_FRAME, 0, frame, tag.check));
	if (e && gn_broker_entry_is_stale(b, e))
		gn_index_erase(&b->index, e);
}

void gn_broker_drop_pending(struct gn_broker_vm *vm, uint64_t gfn, struct gn_tag tag)
{
	const uint64_t value = gn_entry_value(GN_ENTRY_PENDING, vm->id, gfn, tag.check);
	struct gn_index_entry *e = gn_broker_find(vm->broker, tag, value);

	if (e)
		gn_broker_erase(vm->broker, e);
}

void gn_broker_elect(struct gn_broker *b, struct gn_tag tag)
{
	struct gn_index_entry *e, *first = NULL;
	unsigned count = 0;
	uint64_t value;

	for (e = gn_index_next(&b->index, tag.bits, NULL); e;
	     e = gn_index_next(&b->index, tag.bits, e)) {
		if (gn_entry_check_of(e->value) != tag.check)
			continue;
		if (gn_broker_entry_is_stale(b, e)) {
			gn_index_erase(&b->index, e);
			continue;
		}
		if (gn_entry_kind_of(e->value) == GN_ENTRY_IN_BLOCK)
			continue;
		if (gn_entry_kind_of(e->value) != GN_ENTRY_CANDIDATE)
			return;
		first = first ? first : e;
		count++;
	}
	if (count < 2)
		return;
	value = first->value;
	first->value = gn_entry_value(GN_ENTRY_PENDING, gn_entry_vm_of(value),
				      gn_entry_number_of(value), tag.check);
	gn_broker_want_show(b->vms[gn_entry_vm_of(value)], gn_entry_number_of(value), tag);
}
