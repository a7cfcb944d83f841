/* SPDX-License-Identifier: MIT */
/*
 * sweep.c - what was written since the last sweep, and which areas are not worth asking for.
 *
 * To ask costs the guest: what was written is write-protected anew, and its next write is a fault. Where most of an area
 * of 2 MiB is written between sweeps anyway, that buys nothing; so after three harvests in a row like that the area is left
 * alone for a sweep, then for two, up to sixteen. Pages of an area that was not harvested are not looked at: nothing is known of
 * them. (KSM skips pages by age for the same reason, and one by one.)
 *
 * A part of the areas is looked after in each sweep (all of them in quiet mode, where a read breaks sharing): a page that is
 * taken to be shared and is not any more, one whose frame has no other user left, one that had no frame and has one now. Nothing
 * tells of those. In quiet mode such a page has to stand still as any other, also if it was just to be offered again.
 */
#include <string.h>

#include "mmu/vm.h"
#include "scanner_impl.h"

#define MUCH_PAGES	  64 /* of 512 */
#define STREAK_OF_WAITING 3
#define WAIT_SHIFT_MAX	  4
#define HASH_AGAIN_PERIOD 8  /* sweeps: without a log, to look after is how writes are seen */
#define AHEAD		  16 /* pages between a prefetch and the look */

/* ---- Harvest ------------------------------------------------------------------------------------- */

static uint64_t pages_of_areas(const struct gn_scanner *s, uint64_t first, uint64_t count)
{
	const uint64_t end = (first + count) * GN_AREA_PAGES;

	return (end < s->page_count ? end : s->page_count) - first * GN_AREA_PAGES;
}

static void set_all_dirty(struct gn_scanner *s, uint64_t first, uint64_t pages)
{
	for (uint64_t i = first; i < first + pages; i++)
		s->dirty[i / 64] |= (uint64_t)1 << (i % 64);
}

static int harvest_run(struct gn_scanner *s, uint64_t first, uint64_t count)
{
	const uint64_t page = first * GN_AREA_PAGES, pages = pages_of_areas(s, first, count);
	uint8_t *bitmap = (uint8_t *)&s->dirty[page / 64];
	bool is_known;
	int err;

	memset(bitmap, 0, (pages + 7) / 8);
	err = gn_dirtiness_harvest(s->vm, s->dirtiness, gfn(page), pages, bitmap, &is_known);

	if (s->dirtiness == GN_DIRTINESS_LOG && (err || !is_known))
		set_all_dirty(s, page, pages);
	else if (err || !is_known)
		s->by_hash = true;
	return err;
}

/* Whether it is this area's turn. */
static bool take_turn(struct gn_area *area)
{
	area->is_due = !area->wait;
	if (area->wait)
		area->wait--;
	return area->is_due;
}

static int harvest(struct gn_scanner *s)
{
	int first_err = 0;

	s->by_hash = false;
	for (uint64_t at = 0, run; at < s->area_count; at += run + 1) {
		int err = 0;

		for (run = 0; at + run < s->area_count && take_turn(&s->areas[at + run]); run++)
			;
		if (run)
			err = harvest_run(s, at, run);
		if (!first_err)
			first_err = err;
	}
	return first_err;
}

/* ---- What the harvest means ---------------------------------------------------------------------- */

static void set_written(struct gn_scanner *s, uint64_t page)
{
	struct gn_page *p = &s->pages[page];

	p->age = 0;
	p->is_careful = false;
	if (p->state != GN_PAGE_AGING)
		gn_scanner_set_state(s, page, GN_PAGE_AGING);
}

static void back_off(struct gn_scanner *s, struct gn_area *area, unsigned written)
{
	const bool has_waited = area->has_waited;
	unsigned shift;

	area->has_waited = false;
	if (has_waited)
		return; /* that was written in all the time of the wait; the next harvest tells */
	if (written < MUCH_PAGES) {
		area->streak = 0;
		return;
	}
	if (area->streak < STREAK_OF_WAITING + WAIT_SHIFT_MAX)
		area->streak++;
	if (area->streak < STREAK_OF_WAITING)
		return;
	shift = area->streak - STREAK_OF_WAITING;
	area->wait = (uint8_t)(1u << shift);
	area->has_waited = true;
	s->volatile_areas++;
}

static void absorb_area(struct gn_scanner *s, uint64_t index)
{
	const uint64_t first_word = index * GN_AREA_WORDS;
	unsigned written = 0;

	for (uint64_t word = first_word; word < first_word + GN_AREA_WORDS; word++) {
		uint64_t bits = s->dirty[word];

		written += (unsigned)__builtin_popcountll(bits);
		for (; bits; bits &= bits - 1)
			set_written(s, word * 64 + (unsigned)__builtin_ctzll(bits));
	}
	back_off(s, &s->areas[index], written);
}

/* ---- Looking after --------------------------------------------------------------------------------- */

/* The page's state is not what the p2m says. */
static bool has_changed(const struct gn_scanner *s, uint64_t page)
{
	p2m_word_t w = gn_p2m_get(&s->vm->p2m, gfn(page));

	switch (s->pages[page].state) {
	case GN_PAGE_EMPTY:
		return gn_p2m_word_has_frame(w) && gn_p2m_word_level(w) == 1;
	case GN_PAGE_SHARED:
		if (gn_vm_is_over_template(s->vm))
			return s->by_hash;
		/* Who else uses a frame of another process's is not to be seen here. */
		return gn_p2m_word_state(w) != GN_P2M_SHARED ||
		       (gn_frames_is_own(s->vm->frames, gn_p2m_word_pfn(w)) &&
			gn_frames_refs(s->vm->frames, gn_p2m_word_pfn(w)) == 1);
	case GN_PAGE_OFFERED: /* then it may have been written all the time */
		return s->by_hash;
	default:
		return false;
	}
}

/* It is to be offered again without delay. */
static bool is_in_haste(const struct gn_scanner *s, uint64_t page)
{
	return s->pages[page].age == GN_AGE_MAX &&
	       gn_p2m_word_state(gn_p2m_get(&s->vm->p2m, gfn(page))) != GN_P2M_SHARED;
}

/* A shared page's word leads anywhere. */
static void look_ahead(const struct gn_scanner *s, uint64_t page)
{
	p2m_word_t w = gn_p2m_get(&s->vm->p2m, gfn(page));

	if (gn_p2m_word_state(w) == GN_P2M_SHARED)
		gn_frames_prefetch_refs(s->vm->frames, gn_p2m_word_pfn(w));
}

static void look_after_area(struct gn_scanner *s, uint64_t index, bool with_all)
{
	const uint64_t first = index * GN_AREA_PAGES;
	const uint64_t end = first + pages_of_areas(s, index, 1);

	for (uint64_t page = first; page < end; page++) {
		enum gn_page_state state = (enum gn_page_state)s->pages[page].state;

		if (page + AHEAD < end)
			look_ahead(s, page + AHEAD);
		if (state == GN_PAGE_AGING && s->config.quiet && is_in_haste(s, page))
			s->pages[page].age = 0;
		if (state == GN_PAGE_AGING || (state != GN_PAGE_SHARED && !with_all) ||
		    !has_changed(s, page))
			continue;
		s->pages[page].age = s->config.quiet ? 0 : GN_AGE_MAX;
		gn_scanner_set_state(s, page, GN_PAGE_AGING);
	}
}

static void look_after(struct gn_scanner *s)
{
	const unsigned period = s->by_hash ? HASH_AGAIN_PERIOD : GN_LOOK_AFTER_PERIOD;

	for (uint64_t i = 0; i < s->area_count; i++) {
		bool is_turn = i % period == s->sweeps % period;

		if (is_turn || s->config.quiet)
			look_after_area(s, i, is_turn);
	}
}

/* ---- The sweep --------------------------------------------------------------------------------------- */

int gn_scanner_sweep(struct gn_scanner *scanner)
{
	int err = harvest(scanner);

	scanner->volatile_areas = 0;
	for (uint64_t i = 0; i < scanner->area_count; i++) {
		if (scanner->areas[i].is_due && !scanner->by_hash)
			absorb_area(scanner, i);
		else if (!scanner->areas[i].is_due)
			scanner->volatile_areas++;
	}
	/* With the first one knowledge begins: of no page it is known that it was clean before. */
	scanner->to_look = scanner->sweeps++ ? scanner->area_count : 0;
	if (scanner->sweeps > 1)
		look_after(scanner);
	else
		scanner->full_scans++;
	return err;
}
