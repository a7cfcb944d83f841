/* SPDX-License-Identifier: MIT */
/*
 * page_set.h - a set of guest pages, as bits: what a request names, what the balloon holds.
 *
 * A request's pages come in any order and may repeat. Put into a set they are sorted, distinct and merged into runs at
 * the price of one bit each; a guest can choose no order that makes that slow. A second level has a bit for each
 * word, so that to find the runs of a few pages in a large VM does not read the whole first level.
 *
 * Not locked: the owner's affair.
 */
#ifndef GN_BALLOON_PAGE_SET_H
#define GN_BALLOON_PAGE_SET_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gn_page_set {
	uint64_t *words;  /* a bit a page */
	uint64_t *groups; /* a bit a word that is not 0 */
	uint64_t pages;	  /* members are below */
	uint64_t count;	  /* of members */
};

int gn_page_set_init(struct gn_page_set *set, uint64_t pages); /* empty. -ENOMEM */
void gn_page_set_fini(struct gn_page_set *set);

static inline bool gn_page_set_has(const struct gn_page_set *set, uint64_t page)
{
	return set->words[page / 64] >> (page % 64) & 1;
}
/* False: it was a member already. */
static inline bool gn_page_set_add(struct gn_page_set *set, uint64_t page)
{
	uint64_t word = page / 64, bit = (uint64_t)1 << (page % 64);

	if (set->words[word] & bit)
		return false;
	set->words[word] |= bit;
	set->groups[word / 64] |= (uint64_t)1 << (word % 64);
	set->count++;
	return true;
}

/* [start, start + count) becomes part of the set, or leaves it. */
void gn_page_set_add_run(struct gn_page_set *set, uint64_t start, uint64_t count);
void gn_page_set_remove_run(struct gn_page_set *set, uint64_t start, uint64_t count);

void gn_page_set_clear(struct gn_page_set *set);

/* The first run of members at or after @from: [*start, *start + *count), as long as it goes. False: none. */
bool gn_page_set_next_run(const struct gn_page_set *set, uint64_t from, uint64_t *start,
			  uint64_t *count);

#ifdef __cplusplus
}
#endif
#endif
