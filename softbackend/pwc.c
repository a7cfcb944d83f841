/* SPDX-License-Identifier: MIT */
/*
 * pwc.c - making and emptying walk caches.
 */
#include "pwc.h"

#include <string.h>

int gn_pwc_init(struct gn_pwc *p, const struct gn_pwc_shape *shape)
{
	int err = 0;

	memset(p, 0, sizeof(*p));
	for (unsigned n = 2; n <= GN_MAX_LEVELS && !err; n++) {
		err = gn_assoc_init(&p->level[n], shape->entries[n], shape->ways[n]);
		p->exists |= p->level[n].ways != 0;
	}
	if (err)
		gn_pwc_fini(p);
	return err;
}

void gn_pwc_fini(struct gn_pwc *p)
{
	for (unsigned n = 2; n <= GN_MAX_LEVELS; n++)
		gn_assoc_fini(&p->level[n]);
	p->exists = false;
}

void gn_pwc_clear(struct gn_pwc *p)
{
	for (unsigned n = 2; n <= GN_MAX_LEVELS; n++)
		gn_assoc_clear(&p->level[n]);
}

void gn_pwc_drop_tag(struct gn_pwc *p, uint64_t tag)
{
	for (unsigned n = 2; n <= GN_MAX_LEVELS; n++)
		gn_assoc_drop_matching(&p->level[n], GN_KEY_TAG_MASK, tag, NULL, NULL);
}

void gn_pwc_drop(struct gn_pwc *p, uint64_t address, uint64_t tag)
{
	for (unsigned level = 2; level <= GN_MAX_LEVELS; level++) {
		struct gn_assoc_place at;
		int way;

		if (!p->level[level].used)
			continue;
		at = gn_pwc_place(p, level, address, tag);
		way = gn_assoc_find(&p->level[level], &at);
		if (way >= 0)
			gn_assoc_drop(&p->level[level], at.set, (unsigned)way);
	}
}
