/* SPDX-License-Identifier: MIT */
/*
 * scanner_impl.h - what the files of the scanner share (scanner.c: life, verdicts; sweep.c: what was written; look.c: pages
 * looked at); nobody else includes it.
 *
 * A page's two bytes and a bit: the bit (todo) says that a page waits to be looked at, so that a sweep over pages of which
 * few wait reads words of bits and nothing else.
 */
#ifndef GN_SHARING_SCANNER_IMPL_H
#define GN_SHARING_SCANNER_IMPL_H

#include "dirtiness.h"
#include "scanner.h"

#define GN_AREA_PAGES ((uint64_t)GN_TABLE_ENTRIES) /* 2 MiB */
#define GN_AREA_WORDS (GN_AREA_PAGES / 64)
#define GN_AGE_MAX    7

/* Todo is set for the pages that are AGING, but for those never to be looked at. */
enum gn_page_state {
	GN_PAGE_AGING,	 /* to be looked at when it has been clean for long enough */
	GN_PAGE_OFFERED, /* hashed, offered, and not written since */
	GN_PAGE_SHARED,	 /* merged, or what others were merged into */
	GN_PAGE_EMPTY,	 /* without a frame when it was looked at, or zeros in a large block */
	GN_PAGE_STATES
};

struct gn_page {
	uint8_t state : 2; /* enum gn_page_state */
	uint8_t age : 3;   /* sweeps it was clean in */
	uint8_t hint : 2;  /* enum gn_share_hint */
	uint8_t is_careful : 1;
	uint8_t check; /* of its hash, if it is OFFERED */
};

/* 2 MiB of guest memory. */
struct gn_area {
	uint8_t streak;	 /* harvests in a row that found much of it written */
	uint8_t wait;	 /* sweeps to leave it alone */
	bool has_waited; /* when it is harvested next */
	bool is_due;	 /* harvested in this sweep */
};

/* Pages of zeros, gathered over a few areas: their frames go by one call. */
#define GN_ZERO_WINDOW_PAGES (16 * GN_AREA_PAGES)

struct gn_scanner {
	struct gn_scanner_config config; /* (c) */
	struct gn_vm *vm;		 /* (c) */
	enum gn_dirtiness dirtiness;	 /* (c) */
	uint64_t page_count, area_count; /* (c) */
	struct gn_page *pages;
	uint64_t *todo;	 /* a bit a page */
	uint64_t *dirty; /* a bit a page: this sweep's harvest, of the areas that are due */
	struct gn_area *areas;

	uint64_t sweeps;
	bool by_hash;	  /* this sweep's harvest says nothing: pages tell by their hashes */
	uint64_t cursor;  /* the area looked at next */
	uint64_t to_look; /* areas until the sweep is complete */

	uint64_t zero_base; /* the window's first page */
	uint64_t zeroes[GN_ZERO_WINDOW_PAGES / 64];
	unsigned zero_count;

	struct gn_offer offers[GN_SCANNER_BATCH];
	size_t offer_count;

	uint64_t counts[GN_PAGE_STATES];
	uint64_t volatile_areas, full_scans, pages_hashed, zero_pages;
};

static inline bool gn_scanner_is_todo(const struct gn_scanner *s, uint64_t page)
{
	return s->todo[page / 64] >> (page % 64) & 1;
}

/* The one way a page's state changes. */
static inline void gn_scanner_set_state(struct gn_scanner *s, uint64_t page,
					enum gn_page_state state)
{
	const uint64_t bit = (uint64_t)1 << (page % 64);
	struct gn_page *p = &s->pages[page];

	s->counts[p->state]--;
	s->counts[state]++;
	p->state = state;
	if (state == GN_PAGE_AGING && p->hint != GN_SHARE_NEVER)
		s->todo[page / 64] |= bit;
	else
		s->todo[page / 64] &= ~bit;
}

#endif
