/* SPDX-License-Identifier: MIT */
/*
 * range.c - what a p2m change, the dirty log and working-set sampling do to shadow leaves.
 *
 * The reverse map says where a gfn is mapped, so all of these cost by what is mapped and not by the size
 * of the tables. A guest table in a range that is zapped is unshadowed: its contents are about to be others.
 *
 * Who asks also flushes: a p2m change (mmu/p2m.c), the dirty log and the harvest (mmu/dirty.c) post one flush of
 * everything after us. So what is dropped here owes none, and a single vCPU needs no other. Where there are several, who tracks a table
 * next asks for how many flushes there were whether W to it can still be in use; so there the flush is posted here, and counted, too.
 */
#include "shadow.h"

static void zap_one(struct gn_shadow *s, gfn_t at)
{
	if (gn_rmap_marks(s, at))
		gn_shadow_unshadow(s, at);
	gn_rmap_drop(s, at);
}

/* Returns whether a W was taken; what was dropped is owed. */
static bool change_run(struct gn_shadow *s, const struct gn_gfn_run *run,
		       enum gn_range_change change)
{
	const uint64_t end = run->start.v + run->count;
	bool any = false;

	for (uint64_t at = run->start.v; at < end && at < s->rmap.gfn_count; at++) {
		if (change == GN_RANGE_ZAP)
			zap_one(s, gfn(at));
		else
			any |= gn_rmap_protect(s, gfn(at));
	}
	return any;
}

void gn_shadow_range(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
		     enum gn_range_change change)
{
	struct gn_shadow *s = gn_shadow_of(vm);
	bool owed, any = false;

	gn_shadow_enter(s);
	owed = s->flush_owed;
	s->flush_owed = false;
	for (size_t i = 0; i < count; i++)
		any |= change_run(s, &runs[i], change);
	s->flush_due |= !s->is_single && (any || s->flush_owed);
	s->flush_owed = owed;
	gn_shadow_leave(s);
}

/* ---- Equal contents elsewhere ---------------------------------------------------------------------------- */

static void move_leaf(struct gn_shadow *s, uint64_t *slot, pfn_t frame)
{
	const uint64_t address = s->fmt->level[1].address;
	uint64_t old = gn_entry_get(slot);
	bool must_flush;

	while (!gn_entry_cmpxchg(s->vm, s->fmt, 1, slot, &old,
				 (old & ~address) | pfn_to_hpa(frame).v, &must_flush))
		;
}

/* Large leaves went with the right to write. */
static bool move_one(struct gn_shadow *s, gfn_t at)
{
	const pfn_t frame = gn_p2m_word_pfn(gn_p2m_get(&s->vm->p2m, at));
	const struct gn_slots *set = gn_rmap_leaves(s, at, 1);
	const uint32_t count = set ? gn_slots_count(set) : 0;

	for (uint32_t i = 0; i < count; i++)
		move_leaf(s, gn_slots_at(set, i), frame);
	if (gn_rmap_marks(s, at))
		gn_shadow_unshadow(s, at);
	return count;
}

bool gn_shadow_moved(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count)
{
	struct gn_shadow *s = gn_shadow_of(vm);
	bool any = false;

	gn_shadow_enter(s);
	for (size_t i = 0; i < count; i++)
		for (uint64_t k = 0; k < runs[i].count; k++)
			any |= move_one(s, gfn(runs[i].start.v + k));
	any |= s->flush_owed;
	gn_shadow_leave(s);
	return any;
}

/* ---- Accessed bits --------------------------------------------------------------------------------------- */

struct harvest {
	uint64_t start, end;
	uint8_t *bitmap;
};

static bool clear_accessed(struct gn_shadow *s, uint64_t *slot, unsigned level)
{
	uint64_t accessed = s->fmt->level[level].accessed, old = gn_entry_get(slot);
	bool must_flush;

	do {
		if (!(old & accessed))
			return false;
	} while (!gn_entry_cmpxchg(s->vm, s->fmt, level, slot, &old, old & ~accessed, &must_flush));
	return true;
}

static void harvest_leaves(struct gn_shadow *s, const struct harvest *h, uint64_t at,
			   unsigned level)
{
	const struct gn_slots *set = gn_rmap_leaves(s, gfn(at), level);
	uint32_t count = set ? gn_slots_count(set) : 0;
	uint64_t pages = gn_level_pages(level), first = at & ~(pages - 1), last = first + pages;
	bool accessed = false;

	for (uint32_t i = 0; i < count; i++)
		accessed |= clear_accessed(s, gn_slots_at(set, i), level);
	if (!accessed)
		return;
	if (first < h->start)
		first = h->start;
	if (last > h->end)
		last = h->end;
	for (; first < last; first++)
		h->bitmap[(first - h->start) / 8] |= (uint8_t)(1u << ((first - h->start) % 8));
}

void gn_shadow_harvest_accessed(struct gn_vm *vm, gfn_t start, gfn_t end, uint8_t *bitmap)
{
	struct gn_shadow *s = gn_shadow_of(vm);
	struct harvest h = { start.v, end.v, bitmap };

	if (h.end > s->rmap.gfn_count)
		h.end = s->rmap.gfn_count;
	gn_shadow_enter(s);
	for (uint64_t at = h.start; at < h.end; at++) {
		harvest_leaves(s, &h, at, 1);
		if (at == h.start || at % gn_level_pages(2) == 0)
			harvest_leaves(s, &h, at, 2);
		if (at == h.start || at % gn_level_pages(3) == 0)
			harvest_leaves(s, &h, at, 3);
	}
	gn_shadow_leave(s);
}
