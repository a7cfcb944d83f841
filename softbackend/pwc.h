/* SPDX-License-Identifier: MIT */
/*
 * pwc.h - the page-walk caches of one dimension: per level, non-leaf entries seen lately.
 *
 * The cache of level n keeps entries of level n: it is asked with the address bits that lead to such an
 * entry, and answers with the table of level n-1 and the rights granted so far. A walk asks from the
 * bottom up and starts below the first hit, as Intel SDM vol. 3A 4.10.3 allows.
 *
 * Entries are made only by walks that succeeded, after A was set on the way (SDM 4.10.3.1), so skipping
 * an entry never skips the setting of its A bit.
 */
#ifndef GN_SOFT_PWC_H
#define GN_SOFT_PWC_H

#include <gnomon/types.h>

#include "assoc.h"

struct gn_pwc {
	struct gn_assoc level[GN_MAX_LEVELS + 1]; /* [2] PDE ... [5] PML5E */
	bool exists;				  /* any of them */
};

struct gn_pwc_shape {
	uint32_t entries[GN_MAX_LEVELS + 1], ways[GN_MAX_LEVELS + 1];
};
int gn_pwc_init(struct gn_pwc *p, const struct gn_pwc_shape *shape); /* -ENOMEM */
void gn_pwc_fini(struct gn_pwc *p);
void gn_pwc_clear(struct gn_pwc *p);
void gn_pwc_drop_tag(struct gn_pwc *p, uint64_t tag);
/* Every entry on the way to @address. */
void gn_pwc_drop(struct gn_pwc *p, uint64_t address, uint64_t tag);

/* An entry's meta: rights of the path, and what the nested dimension lets us do to the table. */
static inline gn_rights_t gn_pwc_rights(const struct gn_assoc_entry *e)
{
	return (gn_rights_t)e->meta;
}
static inline gn_rights_t gn_pwc_outer(const struct gn_assoc_entry *e)
{
	return (gn_rights_t)(e->meta >> 8);
}

static inline uint64_t gn_pwc_page(unsigned level, uint64_t address)
{
	return (address & GN_KEY_ADDRESS) >> gn_level_shift(level);
}
static inline uint64_t gn_pwc_key(uint64_t page, uint64_t tag)
{
	return page << GN_KEY_PAGE_SHIFT | tag | GN_KEY_VALID;
}

static inline __attribute__((always_inline)) struct gn_assoc_place
gn_pwc_place(const struct gn_pwc *p, unsigned level, uint64_t address, uint64_t tag)
{
	uint64_t page = gn_pwc_page(level, address);

	return gn_assoc_place(&p->level[level], page, gn_pwc_key(page, tag));
}

static inline __attribute__((always_inline)) const struct gn_assoc_entry *
gn_pwc_find_level(struct gn_pwc *p, unsigned level, uint64_t address, uint64_t tag)
{
	struct gn_assoc *a = &p->level[level];
	struct gn_assoc_place at;

	if (gn_pwc_key(gn_pwc_page(level, address), tag) == a->last_key) /* most often */
		return a->last;
	if (!a->used)
		return NULL;
	at = gn_pwc_place(p, level, address, tag);
	return gn_assoc_get(a, &at);
}

/* The lowest cached entry on the way to @address, of levels 2..@top; *@level: its level. NULL: none. *@pde: where one of
 * level 2 belongs. */
static inline __attribute__((always_inline)) const struct gn_assoc_entry *
gn_pwc_find(struct gn_pwc *p, uint64_t address, uint64_t tag, unsigned top, unsigned *level,
	    struct gn_assoc_place *pde)
{
	const struct gn_assoc_entry *e;

	*level = 2;
	*pde = gn_pwc_place(p, 2, address, tag);
	e = p->level[2].used ? gn_assoc_get(&p->level[2], pde) : NULL;
	if (e)
		return e;
	*level = 3;
	e = gn_pwc_find_level(p, 3, address, tag);
	if (e)
		return e;
	*level = 4;
	e = gn_pwc_find_level(p, 4, address, tag);
	if (e || top < 5)
		return e;
	*level = 5;
	return gn_pwc_find_level(p, 5, address, tag);
}

/* Keep the entry of @level on the way to @address: the walk has just read it, so it is not there. @pde: from the search. */
static inline void gn_pwc_insert(struct gn_pwc *p, uint64_t address, uint64_t tag, unsigned level,
				 const struct gn_assoc_place *pde, uint64_t table,
				 gn_rights_t rights, gn_rights_t outer)
{
	struct gn_assoc_place own;
	struct gn_assoc_entry *e;
	uint64_t replaced;

	if (!p->level[level].ways)
		return;
	if (level != 2) {
		own = gn_pwc_place(p, level, address, tag);
		pde = &own;
	}
	e = gn_assoc_put(&p->level[level], pde, &replaced);
	e->frame = table;
	e->meta = (uint64_t)outer << 8 | rights;
}

#endif
