/* SPDX-License-Identifier: MIT */
/*
 * broker_blocks.c - pages of large blocks: a block is split where it pays.
 *
 * A VM offers the pages of a cold block as such. They are never ordered to be shown or merged. Of each page two things are kept:
 * that its like was *met* anywhere, and that a like is within *reach*: a frame, a single page, a page of the same block, or one of a
 * block that is promising, which is to say that GN_SPLIT_PAGES_DEFAULT of its pages were met. A page of zeros is both. What becomes
 * promising is asked for once more, for others may be promising now; with so many pages within reach it is ordered to be split,
 * and its VM offers them as single ones. Of two blocks that wait for each other the first to be split brings the second within
 * reach; a block whose like lies scattered over blocks that stay whole stays whole, too.
 *
 * When the VM answers, all that was known of the block is forgotten. One that is whole still is counted anew.
 */
#include "block.h"
#include "broker_impl.h"
#include "entry.h"

#define BESIDE_MAX  3 /* entries of pages in blocks, of one content */
#define BLOCK_WORDS (GN_BLOCK_PAGES / 64)
#define ASKED	    1 /* an area's state: it was asked for once more, */
#define ORDERED	    2 /* and to be split */

static unsigned count(const uint64_t *bits, uint64_t area)
{
	unsigned sum = 0;

	for (uint64_t word = area * BLOCK_WORDS; word < (area + 1) * BLOCK_WORDS; word++)
		sum += (unsigned)__builtin_popcountll(bits[word]);
	return sum;
}

static bool is_promising(const struct gn_broker_vm *vm, uint64_t gfn)
{
	return count(vm->met, gfn / GN_BLOCK_PAGES) >= GN_SPLIT_PAGES_DEFAULT;
}

void gn_broker_forget_met(struct gn_broker_vm *vm, uint64_t gfn)
{
	const uint64_t bit = (uint64_t)1 << (gfn % 64), area = gfn / GN_BLOCK_PAGES;

	if (!(vm->met[gfn / 64] & bit))
		return;
	vm->met[gfn / 64] &= ~bit;
	vm->reach[gfn / 64] &= ~bit;
	/* Pages that are offered anew go and come back one by one: that is no reason to ask again. */
	if (count(vm->met, area) < GN_SPLIT_PAGES_DEFAULT / 2)
		vm->asked[area] &= (uint8_t)~ASKED;
}

void gn_broker_note_met(struct gn_broker_vm *vm, uint64_t gfn, bool is_within_reach)
{
	const uint64_t bit = (uint64_t)1 << (gfn % 64), area = gfn / GN_BLOCK_PAGES;
	const uint64_t first = area * GN_BLOCK_PAGES;

	vm->met[gfn / 64] |= bit;
	vm->reach[gfn / 64] |= is_within_reach ? bit : 0;
	if (vm->broker->config.is_dry)
		return;
	if (!(vm->asked[area] & ORDERED) && count(vm->reach, area) >= GN_SPLIT_PAGES_DEFAULT) {
		if (gn_broker_want_split(vm, first))
			vm->asked[area] |= ORDERED;
	} else if (!(vm->asked[area] & (ASKED | ORDERED)) && is_promising(vm, gfn)) {
		vm->asked[area] |= ASKED;
		gn_broker_want_reoffer(vm, first);
	}
}

/* May a page at @gfn count on the one of @other? */
static bool reaches(const struct gn_broker_vm *vm, uint64_t gfn, const struct gn_broker_vm *other,
		    uint64_t other_gfn)
{
	return is_promising(other, other_gfn) ||
	       (vm == other && gfn / GN_BLOCK_PAGES == other_gfn / GN_BLOCK_PAGES);
}

bool gn_broker_meet(struct gn_broker_vm *vm, uint64_t gfn, bool is_in_block,
		    const struct gn_index_entry *e)
{
	struct gn_broker_vm *other = vm->broker->vms[gn_entry_vm_of(e->value)];
	const uint64_t other_gfn = gn_entry_number_of(e->value);

	if (gn_entry_kind_of(e->value) != GN_ENTRY_IN_BLOCK)
		return true;
	gn_broker_note_met(other, other_gfn, !is_in_block || reaches(other, other_gfn, vm, gfn));
	return reaches(vm, gfn, other, other_gfn);
}

void gn_broker_on_split(struct gn_broker_vm *vm, uint64_t gfn)
{
	const uint64_t area = gfn / GN_BLOCK_PAGES;

	vm->asked[area] = 0;
	for (uint64_t word = area * BLOCK_WORDS; word < (area + 1) * BLOCK_WORDS; word++)
		vm->met[word] = vm->reach[word] = 0;
}

bool gn_broker_has_room_beside(struct gn_broker *b, struct gn_tag tag)
{
	struct gn_index_entry *e = NULL;
	unsigned beside = 0;

	while ((e = gn_index_next(&b->index, tag.bits, e)))
		beside += gn_entry_kind_of(e->value) == GN_ENTRY_IN_BLOCK &&
			  gn_entry_check_of(e->value) == tag.check;
	return beside < BESIDE_MAX;
}
