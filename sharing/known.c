/* SPDX-License-Identifier: MIT */
/*
 * known.c - pages that hold what the host has anyway are gathered, and go many at a time.
 *
 * A page of zeros reads the same without a frame, and a copy of what the template holds the same when it is dropped. That needs
 * nobody else, so it is done here and the owner is not asked.
 */
#include <string.h>

#include "mmu/vm.h"
#include "scanner_impl.h"

/* Taken at a time: the engine reads them again, and finds them in a cache. With the next word's they fill a change of
 * its, which is 512 pages. */
#define MANY 448

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* All of them are the template's now; those that were written since, the next sweep finds. */
static void set_shared(struct gn_scanner *s)
{
	for (unsigned i = 0; i < GN_KNOWN_WINDOW_PAGES / 64; i++)
		for (uint64_t bits = s->known[i]; bits; bits &= bits - 1)
			gn_scanner_set_state(
				s, s->known_base + i * 64 + (unsigned)__builtin_ctzll(bits),
				GN_PAGE_SHARED);
}

void gn_known_drop(struct gn_scanner *s)
{
	uint64_t spared[GN_KNOWN_WINDOW_PAGES / 64], freed = 0;
	unsigned end = GN_KNOWN_WINDOW_PAGES / 64, first = 0;

	while (end && !s->known[end - 1])
		end--;
	if (!end)
		return;
	while (!s->known[first])
		first++;
	/* Blocks go as a whole, so the range ends where one does. */
	first -= first % GN_AREA_WORDS;
	for (unsigned i = first; i < GN_KNOWN_WINDOW_PAGES / 64; i++)
		spared[i] = ~s->known[i];
	/* The range lies in RAM, so this does not fail. */
	(void)gn_p2m_discard_seen(s->vm, gfn(s->known_base + first * 64),
				  least(end * 64, s->page_count - s->known_base) - first * 64,
				  (const uint8_t *)&spared[first], &freed);
	if (gn_vm_is_over_template(s->vm) && freed == s->known_count)
		set_shared(s);
	s->known_pages += freed;
	s->known_count = 0;
	memset(s->known, 0, sizeof(s->known));
}

void gn_known_drop_if_many(struct gn_scanner *s)
{
	if (s->known_count >= MANY)
		gn_known_drop(s);
}

void gn_known_move_window(struct gn_scanner *s, uint64_t page)
{
	if (page >= s->known_base && page - s->known_base < GN_KNOWN_WINDOW_PAGES)
		return;
	gn_known_drop(s);
	s->known_base = page & ~(GN_AREA_PAGES - 1);
}

void gn_known_note(struct gn_scanner *s, uint64_t page)
{
	s->known[(page - s->known_base) / 64] |= (uint64_t)1 << (page % 64);
	s->known_count++;
}
