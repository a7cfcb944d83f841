/* SPDX-License-Identifier: MIT */
/*
 * tlb.h - one TLB: up to three arrays, each holding pages of one or several sizes.
 *
 * Two things a TLB does that a plain cache does not. A page of a size that no array takes is *fractured*: an
 * entry for the piece around the address, of the next smaller size there is. And an entry may be global:
 * it matches under any tag and survives what flushes a tag.
 *
 * The page sizes are looked up one after the other, the one that was used last first, and another size only if it has
 * entries; hardware asks all at once. Who inserts has dropped what was there for the address. Where a guest changed a
 * page's size and did not flush, entries of two sizes may cover one address all the same, and any of them may be used
 * (SDM 4.10.2.3): here it is the size used last.
 */
#ifndef GN_SOFT_TLB_H
#define GN_SOFT_TLB_H

#include <gnomon/types.h>

#include "assoc.h"
#include "mmu/check.h"

#define GN_TLB_LEVELS 3 /* page sizes: 4 KiB, 2 MiB, 1 GiB */

/* An entry's meta, for TLBs. A decision is a bit per gn_soft_access_bit(). */
#define GN_TLB_ALLOW_SHIFT  0  /* 16 bits: accesses the entry permits, as far as decided */
#define GN_TLB_KNOWN_SHIFT  16 /* 16 bits: accesses decided */
#define GN_TLB_RIGHTS_SHIFT 32 /* gn_rights_t of the first dimension */
#define GN_TLB_OUTER_SHIFT  40 /* of the nested one */
#define GN_TLB_PKEY_SHIFT   48
#define GN_TLB_DIRTY	    ((uint64_t)1 << 56) /* D is set wherever a write needs it */
#define GN_TLB_GLOBAL	    ((uint64_t)1 << 57)
#define GN_TLB_DECISIONS    ((uint64_t)0xffffffff)

static inline uint64_t gn_tlb_meta(gn_rights_t rights, gn_rights_t outer, unsigned pkey, bool dirty,
				   bool is_global)
{
	return (uint64_t)rights << GN_TLB_RIGHTS_SHIFT | (uint64_t)outer << GN_TLB_OUTER_SHIFT |
	       (uint64_t)pkey << GN_TLB_PKEY_SHIFT | (dirty ? GN_TLB_DIRTY : 0) |
	       (is_global ? GN_TLB_GLOBAL : 0);
}
static inline gn_rights_t gn_tlb_rights(uint64_t meta)
{
	return (gn_rights_t)(meta >> GN_TLB_RIGHTS_SHIFT);
}
static inline gn_rights_t gn_tlb_outer(uint64_t meta)
{
	return (gn_rights_t)(meta >> GN_TLB_OUTER_SHIFT);
}
/* Accesses decided and permitted. */
static inline uint16_t gn_tlb_allowed(uint64_t meta)
{
	return (uint16_t)(meta & (meta >> GN_TLB_KNOWN_SHIFT));
}

struct gn_tlb {
	struct gn_assoc array[3];
	struct gn_assoc *of[GN_TLB_LEVELS + 1]; /* by level: the array its entries live in */
	uint8_t level_of[GN_TLB_LEVELS + 1]; /* by level: the level it is kept at; 0: not at all */
	bool also_4k;	 /* array[1] takes 4 KiB pages too: half of them, by an address bit */
	uint8_t quick;	 /* a bit per level that is kept in one array, of at most 16 ways */
	uint8_t last;	 /* the level found or put last; 0: none */
	uint8_t hot;	 /* the same if it is quick, else 0 */
	uint8_t present; /* a bit per level that has entries */
	uint32_t live[GN_TLB_LEVELS + 1]; /* entries by level */
};

struct gn_tlb_shape {
	uint32_t entries[3], ways[3];
	uint8_t home[GN_TLB_LEVELS + 1]; /* by level: an array */
	bool also_4k;
};
int gn_tlb_init(struct gn_tlb *t, const struct gn_tlb_shape *shape); /* -ENOMEM */
void gn_tlb_fini(struct gn_tlb *t);

/* Where an address was looked for: what follows from it can be put there without a second search. Level 0:
 * nowhere, or what was found there has been dropped. */
struct gn_tlb_place {
	struct gn_assoc *array;
	struct gn_assoc_place at;
	unsigned level;
};

static inline uint64_t gn_tlb_page(uint64_t address, unsigned level)
{
	return (address & GN_KEY_ADDRESS) >> gn_level_shift(level);
}
static inline uint64_t gn_tlb_mask(unsigned level)
{
	return ~(gn_level_bytes(level) - 1);
}
/* @tag is shifted into place already. */
static inline uint64_t gn_tlb_key(uint64_t page, unsigned level, uint64_t tag)
{
	return page << GN_KEY_PAGE_SHIFT | tag | level << GN_KEY_LEVEL_SHIFT | GN_KEY_VALID;
}
static inline void gn_tlb_locate(struct gn_assoc *a, uint64_t address, uint64_t tag, unsigned level,
				 struct gn_tlb_place *p)
{
	uint64_t page = gn_tlb_page(address, level);

	p->array = a;
	p->level = level;
	p->at = gn_assoc_place(a, page, gn_tlb_key(page, level, tag));
}

/* Among the levels but the hot one. */
struct gn_assoc_entry *gn_tlb_find_other(struct gn_tlb *t, uint64_t address, uint64_t tag,
					 struct gn_tlb_place *p);

/* The entry for @address under @tag, used by that; NULL: a miss. *@p: where, with its size. */
static inline __attribute__((always_inline)) struct gn_assoc_entry *
gn_tlb_find(struct gn_tlb *t, uint64_t address, uint64_t tag, struct gn_tlb_place *p)
{
	unsigned hot = t->hot;
	struct gn_assoc_entry *e;

	if (__builtin_expect(hot != 0, 1)) {
		gn_tlb_locate(t->of[hot], address, tag, hot, p);
		e = gn_assoc_get_narrow(p->array, &p->at);
		if (e)
			return e;
	} else {
		p->level = 0;
		p->array = &t->array[0];
	}
	if (__builtin_expect(!(t->present & ~(1u << hot)), 1))
		return NULL;
	return gn_tlb_find_other(t, address, tag, p);
}

/* The books: @level has one more entry, @replaced (a key, or 0) is gone. */
void gn_tlb_recount(struct gn_tlb *t, unsigned level, uint64_t replaced);

/* As the next one, from no search, at the level it is @kept at. */
struct gn_assoc_entry *gn_tlb_insert_other(struct gn_tlb *t, uint64_t address, uint64_t tag,
					   bool is_global, unsigned kept);

/* A new entry for @address, which has none, in a page of *@level; @p is from the search that missed, or says nowhere.
 * NULL: this TLB keeps no such pages. *@level becomes the size of the entry. The caller fills it in. */
static inline __attribute__((always_inline)) struct gn_assoc_entry *
gn_tlb_insert(struct gn_tlb *t, uint64_t address, uint64_t tag, bool is_global,
	      struct gn_tlb_place *p, unsigned *level)
{
	unsigned kept = t->level_of[*level];
	struct gn_assoc_entry *e;
	uint64_t replaced;

	if (!kept)
		return NULL;
	*level = kept;
	if (__builtin_expect(kept != p->level, 0))
		return gn_tlb_insert_other(t, address, tag, is_global, kept);
#ifdef GN_DEBUG
	GN_BUG_ON(!gn_assoc_is_narrow(p->array));
#endif
	p->at.key |= is_global ? GN_KEY_GLOBAL : 0;
	e = gn_assoc_put_narrow(p->array, &p->at, &replaced);
	if (__builtin_expect((replaced ^ p->at.key) & GN_KEY_LEVEL_MASK, 0))
		gn_tlb_recount(t, kept, replaced);
	return e;
}

/* Entries that cover @address under @tag, and global ones. */
void gn_tlb_drop(struct gn_tlb *t, uint64_t address, uint64_t tag);
/* All non-global entries of @tag. */
void gn_tlb_drop_tag(struct gn_tlb *t, uint64_t tag);
void gn_tlb_drop_nonglobal(struct gn_tlb *t);
void gn_tlb_clear(struct gn_tlb *t);
/* The registers behind the decisions changed. */
void gn_tlb_forget_decisions(struct gn_tlb *t);

#endif
