/* SPDX-License-Identifier: MIT */
/*
 * scanner_impl.h - what the files of the scanner share (scanner.c: life, verdicts; sweep.c: what was written; look.c: pages
 * looked at; copies.c: those of a VM over a template; known.c: what goes to the host); nobody else includes it.
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

/* Pages that hold what the host has anyway (zeros, or the template's), gathered over a few areas: they go by one call. */
#define GN_KNOWN_WINDOW_PAGES (16 * GN_AREA_PAGES)

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

	uint64_t known_base; /* the window's first page */
	uint64_t known[GN_KNOWN_WINDOW_PAGES / 64];
	unsigned known_count;

	struct gn_offer offers[GN_SCANNER_BATCH];
	size_t offer_count;

	uint64_t counts[GN_PAGE_STATES];
	uint64_t volatile_areas, full_scans, pages_hashed;
	uint64_t known_pages; /* that went */
};

static inline bool gn_scanner_is_todo(const struct gn_scanner *s, uint64_t page)
{
	return s->todo[page / 64] >> (page % 64) & 1;
}

/* Pages of a word of bits that wait to be looked at, and were not written. */
static inline uint64_t gn_scanner_waiting(const struct gn_scanner *s, uint64_t word)
{
	return s->todo[word] & ~s->dirty[word];
}

/* A sweep more in which it was clean: it has been so for long enough. */
static inline bool gn_scanner_is_ripe(const struct gn_scanner *s, struct gn_page *p)
{
	unsigned needed = p->hint == GN_SHARE_LIKELY ? 1 : s->config.settle_sweeps;

	if (p->age < GN_AGE_MAX)
		p->age++;
	return p->age >= needed;
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

/* ---- known.c ------------------------------------------------------------------------------------- */

/* The pages of @page's area can be noted. As the next two, not inside a read section. */
void gn_known_move_window(struct gn_scanner *s, uint64_t page);
/* What was noted goes, unless it was written since. */
void gn_known_drop(struct gn_scanner *s);
void gn_known_drop_if_many(struct gn_scanner *s);
/* The page seems to hold what the host has anyway. It stays AGING: what could not be dropped is found again. */
void gn_known_note(struct gn_scanner *s, uint64_t page);

/* ---- copies.c ------------------------------------------------------------------------------------ */

/* The pages of an area of a VM over a template. Returns how many words of bits had pages that waited. */
unsigned gn_copies_look_at_area(struct gn_scanner *s, uint64_t index);

#endif
