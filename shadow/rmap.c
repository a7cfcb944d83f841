/* SPDX-License-Identifier: MIT */
/*
 * rmap.c - the reverse map kept, and used to take rights and mappings away.
 *
 * The blocks' sets of gfns are made by whoever is about to map or shadow something there, before it takes the
 * lock, and live as long as the scheme: a block that was used once will be used again, and freeing them would
 * put an allocation back on the way of faults.
 *
 * gfns at or past the end of RAM have no entry here. No leaf maps them; a root register may name one, and
 * its (forever empty) shadow page simply has no standing.
 */
#include "shadow.h"

#include <errno.h>

#define BLOCK_PAGES ((uint64_t)GN_TABLE_ENTRIES)
#define GIGA_PAGES  (BLOCK_PAGES * GN_TABLE_ENTRIES)
#define SETS_BYTES  (BLOCK_PAGES * sizeof(struct gn_slots))

static size_t block_count(const struct gn_rmap *r)
{
	return (r->gfn_count + BLOCK_PAGES - 1) / BLOCK_PAGES;
}

static size_t giga_count(const struct gn_rmap *r)
{
	return (r->gfn_count + GIGA_PAGES - 1) / GIGA_PAGES;
}

int gn_rmap_init(struct gn_shadow *s)
{
	struct gn_rmap *r = &s->rmap;
	struct gn_arena *arena = s->vm->scheme_arena;

	r->gfn_count = s->vm->p2m.gfn_count;
	r->blocks = gn_arena_zalloc(arena, block_count(r) * sizeof(*r->blocks));
	if (!r->blocks)
		return -ENOMEM;
	r->gigas = gn_arena_zalloc(arena, giga_count(r) * sizeof(*r->gigas));
	if (!r->gigas) {
		gn_arena_free(arena, r->blocks, block_count(r) * sizeof(*r->blocks));
		return -ENOMEM;
	}
	return 0;
}

void gn_rmap_fini(struct gn_shadow *s)
{
	struct gn_rmap *r = &s->rmap;
	struct gn_arena *arena = s->vm->scheme_arena;

	for (size_t i = 0; i < block_count(r); i++) {
		struct gn_slots *pages =
			atomic_load_explicit(&r->blocks[i].pages, memory_order_relaxed);

		gn_arena_free(arena, pages, SETS_BYTES);
	}
	gn_arena_free(arena, r->gigas, giga_count(r) * sizeof(*r->gigas));
	gn_arena_free(arena, r->blocks, block_count(r) * sizeof(*r->blocks));
}

int gn_rmap_prepare(struct gn_shadow *s, gfn_t at)
{
	_Atomic(struct gn_slots *) *place;
	struct gn_slots *none = NULL, *pages;

	if (gn_rmap_is_prepared(s, at))
		return 0;
	place = &s->rmap.blocks[at.v / BLOCK_PAGES].pages;
	pages = gn_arena_zalloc(s->vm->scheme_arena, SETS_BYTES);
	if (!pages)
		return -ENOMEM;
	if (!atomic_compare_exchange_strong_explicit(place, &none, pages, memory_order_acq_rel,
						     memory_order_acquire))
		gn_arena_free(s->vm->scheme_arena, pages, SETS_BYTES);
	return 0;
}

struct gn_slots *gn_rmap_peek(const struct gn_shadow *s, gfn_t at)
{
	struct gn_slots *pages;

	if (GN_UNLIKELY(at.v >= s->rmap.gfn_count))
		return NULL;
	pages = atomic_load_explicit(&s->rmap.blocks[at.v / BLOCK_PAGES].pages,
				     memory_order_acquire);
	return pages ? &pages[at.v % BLOCK_PAGES] : NULL;
}

bool gn_rmap_is_prepared(const struct gn_shadow *s, gfn_t at)
{
	return at.v >= s->rmap.gfn_count || gn_rmap_peek(s, at);
}

struct gn_slots *gn_rmap_leaves(struct gn_shadow *s, gfn_t at, unsigned level)
{
	if (level == 1)
		return gn_rmap_peek(s, at);
	if (level == 2)
		return &s->rmap.blocks[at.v / BLOCK_PAGES].large;
	return &s->rmap.gigas[at.v / GIGA_PAGES].large;
}

bool gn_rmap_allows_large(const struct gn_shadow *s, gfn_t at, unsigned level)
{
	if (level == 2)
		return !s->rmap.blocks[at.v / BLOCK_PAGES].shadowed_count;
	return level == 3 && !s->rmap.gigas[at.v / GIGA_PAGES].shadowed_count;
}

static bool drop_leaves(struct gn_shadow *s, struct gn_slots *set)
{
	bool any = false;

	while (!gn_slots_is_empty(set)) {
		uint64_t *slot = gn_slots_last(set);

		gn_shadow_entry_drop(s, gn_shadow_page_of_slot(s, slot),
				     gn_shadow_slot_index(slot));
		any = true;
	}
	return any;
}

static bool drop_large(struct gn_shadow *s, gfn_t at)
{
	bool any = drop_leaves(s, gn_rmap_leaves(s, at, 2));

	return drop_leaves(s, gn_rmap_leaves(s, at, 3)) || any;
}

bool gn_rmap_protect(struct gn_shadow *s, gfn_t at)
{
	struct gn_slots *set = gn_rmap_peek(s, at);
	uint32_t count = set ? gn_slots_count(set) : 0;
	bool any = drop_large(s, at);

	for (uint32_t i = 0; i < count; i++)
		any |= gn_shadow_entry_protect(s, gn_slots_at(set, i), 1);
	return any;
}

void gn_rmap_drop(struct gn_shadow *s, gfn_t at)
{
	struct gn_slots *set = gn_rmap_peek(s, at);

	drop_large(s, at);
	if (set)
		drop_leaves(s, set);
}

static void count_shadowed(struct gn_shadow *s, gfn_t at, uint32_t one)
{
	s->rmap.blocks[at.v / BLOCK_PAGES].shadowed_count += one;
	s->rmap.gigas[at.v / GIGA_PAGES].shadowed_count += one;
}

uint64_t gn_rmap_set_standing(struct gn_shadow *s, gfn_t at, uintptr_t marks)
{
	struct gn_slots *set = gn_rmap_peek(s, at);
	uintptr_t old;

	if (at.v >= s->rmap.gfn_count)
		return 0;
	GN_BUG_ON(!set);
	old = set->word & GN_SLOTS_MARKS;
	set->word = (set->word & ~GN_SLOTS_MARKS) | marks;
	if (!old != !marks)
		count_shadowed(s, at, marks ? 1 : (uint32_t)-1);
	/* Unsync comes after tracked, so large leaves are gone then. */
	if (marks == GN_RMAP_TRACKED && old != marks)
		s->flush_due |= gn_rmap_protect(s, at) || s->flush_owed;
	return s->is_single ? 0 : s->flush_seq + s->flush_due;
}
