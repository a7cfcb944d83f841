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

static inline uint64_t gn_pwc_key(uint64_t page, uint64_t tag)
{
	return page << GN_KEY_PAGE_SHIFT | tag | GN_KEY_VALID;
}

/* The lowest cached entry on the way to @address, of levels 2..@top; *@level: its level. NULL: none. */
static inline const struct gn_assoc_entry *gn_pwc_find(struct gn_pwc *p, uint64_t address,
						       uint64_t tag, unsigned top, unsigned *level)
{
	if (!p->exists)
		return NULL;
	for (unsigned n = 2; n <= top; n++) {
		struct gn_assoc *a = &p->level[n];
		uint64_t page = (address & GN_KEY_ADDRESS) >> gn_level_shift(n);
		struct gn_assoc_slot s;
		int way;

		if (!a->used)
			continue;
		s = gn_assoc_slot(a, page);
		way = gn_assoc_find(a, &s, gn_pwc_key(page, tag));
		if (way < 0)
			continue;
		gn_assoc_touch(a, &s, (unsigned)way);
		*level = n;
		return &s.entries[way];
	}
	return NULL;
}

/* Keep the entry of @level on the way to @address: the walk has just read it, so it is not there. */
static inline void gn_pwc_insert(struct gn_pwc *p, uint64_t address, uint64_t tag, unsigned level,
				 uint64_t table, gn_rights_t rights, gn_rights_t outer_rights)
{
	struct gn_assoc *a = &p->level[level];
	uint64_t page = (address & GN_KEY_ADDRESS) >> gn_level_shift(level), replaced;
	struct gn_assoc_entry *e;

	if (!a->ways)
		return;
	e = gn_assoc_insert(a, page, gn_pwc_key(page, tag), &replaced);
	e->frame = table;
	e->rights = rights;
	e->outer_rights = outer_rights;
}

#endif
