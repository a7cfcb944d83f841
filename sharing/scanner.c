/* SPDX-License-Identifier: MIT */
/*
 * scanner.c - the state of a VM's pages: life, hints, and the owner's verdicts.
 *
 * A page begins AGING, like one that was just written. When it has been clean for long enough it is looked at (look.c):
 *
 *     AGING --hashed--> OFFERED --merged--> SHARED
 *       |                  |                   |
 *       +--no frame-> EMPTY +------ written ----+--> AGING again (sweep.c)
 *
 * What is stored is two bytes a page and two bits, whatever the number of VMs and pages that are equal: there are no lists
 * of a frame's users, and no pointer from a page to its index entry. An entry that points to a page is asked whether the page is still what
 * it was: OFFERED, with eight bits of the same hash.
 *
 * The counts of states are kept by the one function that changes them.
 */
#include "scanner.h"

#include <errno.h>
#include <stdlib.h>

#include "mmu/prefetch.h"
#include "mmu/vm.h"
#include "scanner_impl.h"

#define SETTLE_SWEEPS_DEFAULT 2

static void *zalloc(size_t count, size_t bytes)
{
	return gn_alloc_should_fail() ? NULL : calloc(count, bytes);
}

static void free_all(struct gn_scanner *s)
{
	free(s->pages);
	free(s->todo);
	free(s->dirty);
	free(s->areas);
	free(s);
}

static int alloc_pages(struct gn_scanner *s)
{
	/* Whole areas, so that no loop over an area needs to know where RAM ends. */
	const uint64_t words = s->area_count * GN_AREA_WORDS;

	s->pages = zalloc(s->area_count * GN_AREA_PAGES, sizeof(s->pages[0]));
	s->todo = zalloc(words, sizeof(s->todo[0]));
	s->dirty = zalloc(words, sizeof(s->dirty[0]));
	s->areas = zalloc(s->area_count, sizeof(s->areas[0]));
	return s->pages && s->todo && s->dirty && s->areas ? 0 : -ENOMEM;
}

int gn_scanner_new(const struct gn_scanner_config *config, struct gn_scanner **out)
{
	struct gn_scanner *s;
	int err;

	if (config->settle_sweeps > GN_SETTLE_SWEEPS_MAX)
		return -EINVAL;
	s = zalloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->config = *config;
	if (!s->config.settle_sweeps)
		s->config.settle_sweeps = SETTLE_SWEEPS_DEFAULT;
	s->vm = config->vm;
	s->page_count = s->vm->p2m.gfn_count;
	s->area_count = (s->page_count + GN_AREA_PAGES - 1) / GN_AREA_PAGES;
	err = alloc_pages(s);
	if (!err)
		err = gn_dirtiness_start(s->vm, &s->dirtiness);
	if (err) {
		free_all(s);
		return err;
	}
	for (uint64_t i = 0; i < s->page_count; i++)
		s->todo[i / 64] |= (uint64_t)1 << (i % 64);
	s->counts[GN_PAGE_AGING] = s->page_count;
	*out = s;
	return 0;
}

void gn_scanner_destroy(struct gn_scanner *scanner)
{
	if (!scanner)
		return;
	gn_dirtiness_stop(scanner->vm, scanner->dirtiness);
	free_all(scanner);
}

struct gn_vm *gn_scanner_vm(const struct gn_scanner *scanner)
{
	return scanner->vm;
}

/* ---- Verdicts ------------------------------------------------------------------------------------ */

void gn_scanner_set_shared(struct gn_scanner *scanner, gfn_t at)
{
	scanner->pages[at.v].is_careful = false;
	gn_scanner_set_state(scanner, at.v, GN_PAGE_SHARED);
}

bool gn_scanner_may_share(const struct gn_scanner *scanner, gfn_t at)
{
	return scanner->pages[at.v].hint != GN_SHARE_NEVER;
}

void gn_scanner_reoffer(struct gn_scanner *scanner, gfn_t at, bool is_careful)
{
	scanner->pages[at.v].is_careful = is_careful;
	scanner->pages[at.v].age = gn_scanner_may_share(scanner, at) ? GN_AGE_MAX : 0;
	gn_scanner_set_state(scanner, at.v, GN_PAGE_AGING);
}

bool gn_scanner_is_current(const struct gn_scanner *scanner, gfn_t at, uint8_t check)
{
	const struct gn_page *page = &scanner->pages[at.v];

	/* Also one that is offered once more. */
	return gn_scanner_may_share(scanner, at) &&
	       (page->state == GN_PAGE_OFFERED ||
		(page->state == GN_PAGE_AGING && page->age == GN_AGE_MAX)) &&
	       page->check == check;
}

void gn_scanner_prefetch(const struct gn_scanner *scanner, gfn_t at)
{
	gn_prefetch(&scanner->pages[at.v]);
}

bool gn_scanner_is_shared(const struct gn_scanner *scanner, gfn_t at)
{
	return scanner->pages[at.v].state == GN_PAGE_SHARED;
}

void gn_scanner_hint(struct gn_scanner *scanner, gfn_t start, uint64_t count,
		     enum gn_share_hint hint)
{
	for (uint64_t i = start.v; i < start.v + count; i++) {
		scanner->pages[i].hint = (uint8_t)hint & 3;
		/* One that is never to be touched, and was found before, or is about to be, is not to be found any more. */
		if (hint == GN_SHARE_NEVER)
			scanner->pages[i].age = 0;
		if (hint == GN_SHARE_NEVER && scanner->pages[i].state == GN_PAGE_OFFERED)
			gn_scanner_set_state(scanner, i, GN_PAGE_AGING);
		else
			gn_scanner_set_state(scanner, i,
					     (enum gn_page_state)scanner->pages[i].state);
	}
}

void gn_scanner_stats(const struct gn_scanner *scanner, struct gn_scanner_stats *out)
{
	const uint64_t pages = scanner->area_count * GN_AREA_PAGES;

	*out = (struct gn_scanner_stats){
		.pages_aging = scanner->counts[GN_PAGE_AGING],
		.pages_offered = scanner->counts[GN_PAGE_OFFERED],
		.pages_shared = scanner->counts[GN_PAGE_SHARED],
		.pages_empty = scanner->counts[GN_PAGE_EMPTY],
		.volatile_areas = scanner->volatile_areas,
		.state_bytes = pages * sizeof(scanner->pages[0]) + pages / 8 * 2 +
			       scanner->area_count * sizeof(scanner->areas[0]),
		.full_scans = scanner->full_scans,
		.pages_hashed = scanner->pages_hashed,
		.known_pages = scanner->known_pages,
	};
}
