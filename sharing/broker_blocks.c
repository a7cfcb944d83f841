/* SPDX-License-Identifier: MIT */
/*
 * broker_blocks.c - pages of large blocks: a block is split where it pays.
 *
 * A VM offers the pages of a cold block as such. They are never ordered to be shown or merged. Of each page it is kept whether its
 * like was met elsewhere, when it was offered or later; when split_pages of a block have been, pages of zeros counted in, the
 * VM is ordered to split it, and then offers its pages as single ones. So two blocks that wait for each other are both split.
 *
 * A page's bit is cleared by an offer of its own VM alone, so nobody can have another's block ordered to be split again and again.
 */
#include <string.h>

#include "broker_impl.h"
#include "entry.h"
#include "forming.h"

#define BESIDE_MAX  3 /* entries under one tag */
#define BLOCK_WORDS (GN_BLOCK_PAGES / 64)

static unsigned count_met(const struct gn_broker_vm *vm, uint64_t area)
{
	unsigned count = 0;

	for (uint64_t word = area * BLOCK_WORDS; word < (area + 1) * BLOCK_WORDS; word++)
		count += (unsigned)__builtin_popcountll(vm->met[word]);
	return count;
}

void gn_broker_forget_met(struct gn_broker_vm *vm, uint64_t gfn)
{
	vm->met[gfn / 64] &= ~((uint64_t)1 << (gfn % 64));
}

void gn_broker_note_met(struct gn_broker_vm *vm, uint64_t gfn)
{
	const uint64_t bit = (uint64_t)1 << (gfn % 64), area = gfn / GN_BLOCK_PAGES;

	if (vm->met[gfn / 64] & bit)
		return;
	vm->met[gfn / 64] |= bit;
	if (!vm->broker->config.is_dry && count_met(vm, area) == GN_SPLIT_PAGES_DEFAULT)
		gn_broker_want_split(vm, area * GN_BLOCK_PAGES);
}

/* An entry of a page in a block was met, by a page or a frame. */
void gn_broker_meet(struct gn_broker *b, const struct gn_index_entry *e)
{
	struct gn_broker_vm *vm = b->vms[gn_entry_vm_of(e->value)];
	const uint64_t gfn = gn_entry_number_of(e->value);

	if (gn_entry_kind_of(e->value) == GN_ENTRY_IN_BLOCK && vm && !vm->is_lost &&
	    gfn < vm->pages && vm->checks[gfn] == gn_entry_check_of(e->value))
		gn_broker_note_met(vm, gfn);
}

bool gn_broker_has_room_beside(struct gn_broker *b, struct gn_tag tag)
{
	struct gn_index_entry *e = NULL;
	unsigned beside = 0;

	while ((e = gn_index_next(&b->index, tag.bits, e)))
		beside++;
	return beside < BESIDE_MAX;
}
