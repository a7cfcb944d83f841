/* SPDX-License-Identifier: MIT */
/*
 * tlb.h - one TLB: up to three arrays, each holding pages of one or several sizes.
 *
 * Two things a TLB does that a plain cache does not. A page of a size that no array takes is *fractured*: an
 * entry for the piece around the address, of the next smaller size there is. And an entry may be global:
 * it matches under any tag and survives what flushes a tag.
 *
 * The page sizes are looked up one after the other, the one that hit last first, and a size without
 * entries is not looked up; hardware asks all at once. That the order does not show is due to the rule
 * that whoever inserts has dropped what was there for the address.
 */
#ifndef GN_SOFT_TLB_H
#define GN_SOFT_TLB_H

#include <gnomon/types.h>

#include "assoc.h"

#define GN_TLB_LEVELS 3 /* page sizes: 4 KiB, 2 MiB, 1 GiB */

struct gn_tlb {
	struct gn_assoc array[3];
	uint8_t home[GN_TLB_LEVELS + 1];     /* by level: the array its entries live in */
	uint8_t level_of[GN_TLB_LEVELS + 1]; /* by level: the level it is kept at; 0: not at all */
	bool also_4k;	 /* array[1] takes 4 KiB pages too: half of them, by an address bit */
	uint8_t hot;	 /* the level that hit last */
	uint8_t present; /* a bit per level that has entries */
	uint32_t live[GN_TLB_LEVELS + 1]; /* entries by level */
};

struct gn_tlb_shape {
	uint32_t entries[3], ways[3];
	uint8_t home[GN_TLB_LEVELS + 1]; /* as above */
	bool also_4k;
};
int gn_tlb_init(struct gn_tlb *t, const struct gn_tlb_shape *shape); /* -ENOMEM */
void gn_tlb_fini(struct gn_tlb *t);

static inline uint64_t gn_tlb_page(uint64_t address, unsigned level)
{
	return (address & GN_KEY_ADDRESS) >> gn_level_shift(level);
}
/* @tag is shifted into place already. */
static inline uint64_t gn_tlb_key(uint64_t page, unsigned level, uint64_t tag)
{
	return page << GN_KEY_PAGE_SHIFT | tag | (uint64_t)level << GN_KEY_LEVEL_SHIFT |
	       GN_KEY_VALID;
}
static inline struct gn_assoc *gn_tlb_array(struct gn_tlb *t, unsigned level, uint64_t page)
{
	if (level == 1 && t->also_4k && ((page >> t->array[0].set_bits) & 1))
		return &t->array[1];
	return &t->array[t->home[level]];
}

/* @level has entries. */
static inline struct gn_assoc_entry *gn_tlb_find_level(struct gn_tlb *t, uint64_t address,
						       uint64_t tag, unsigned level)
{
	uint64_t page = gn_tlb_page(address, level);
	struct gn_assoc *a = gn_tlb_array(t, level, page);
	struct gn_assoc_slot s = gn_assoc_slot(a, page);
	int way = gn_assoc_find(a, &s, gn_tlb_key(page, level, tag));

	if (way < 0)
		return NULL;
	gn_assoc_touch(a, &s, (unsigned)way);
	return &s.entries[way];
}

/* Among the levels that did not hit last. */
struct gn_assoc_entry *gn_tlb_find_other(struct gn_tlb *t, uint64_t address, uint64_t tag,
					 unsigned *level);

/* The entry for @address under @tag, used by that; NULL: a miss. *@level: its size. */
static inline struct gn_assoc_entry *gn_tlb_find(struct gn_tlb *t, uint64_t address, uint64_t tag,
						 unsigned *level)
{
	unsigned hot = t->hot;

	*level = hot;
	if (__builtin_expect((t->present >> hot) & 1, 1)) {
		struct gn_assoc_entry *e = gn_tlb_find_level(t, address, tag, hot);

		if (__builtin_expect(e != NULL, 1))
			return e;
	}
	if (!(t->present & ~(1u << hot)))
		return NULL;
	return gn_tlb_find_other(t, address, tag, level);
}

/* For the host: the set of @address's 4 KiB page. */
static inline void gn_tlb_prefetch(struct gn_tlb *t, uint64_t address)
{
	uint64_t page = gn_tlb_page(address, 1);
	struct gn_assoc *a = gn_tlb_array(t, 1, page);

	if (a->ways)
		__builtin_prefetch(gn_assoc_slot(a, page).set, 1);
}

/* A new entry for @address, which has none, in a page of @level. NULL: this TLB keeps no such pages.
 * *@level becomes the size of the entry. The caller fills it in. */
struct gn_assoc_entry *gn_tlb_insert(struct gn_tlb *t, uint64_t address, uint64_t tag,
				     bool is_global, unsigned *level);
/* Entries that cover @address under @tag, and global ones. */
void gn_tlb_drop(struct gn_tlb *t, uint64_t address, uint64_t tag);
/* All non-global entries of @tag. */
void gn_tlb_drop_tag(struct gn_tlb *t, uint64_t tag);
void gn_tlb_drop_nonglobal(struct gn_tlb *t);
void gn_tlb_clear(struct gn_tlb *t);
void gn_tlb_forget_decisions(struct gn_tlb *t);

#endif
