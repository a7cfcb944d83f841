/* SPDX-License-Identifier: MIT */
/*
 * reclaim.c - room for new shadow pages when frames or the table budget are short.
 *
 * By age, with a second chance: pages stand in the order they were made; one that a fault has used since
 * the last visit goes to the young end instead. Roots in force stay. Everything else may go, cached roots
 * and the way to the very address being faulted on included, for a shadow page can always be made
 * again; so as long as the budget covers each vCPU's root and one way down, a fault finds room.
 *
 * Several pages go at a time: each round costs a flush of everything and a grace period.
 */
#include "shadow.h"

#include <errno.h>

static size_t share(const struct gn_shadow *s)
{
	return s->page_count / 16;
}

/* Pages zapped. */
static size_t reclaim(struct gn_shadow *s, size_t want)
{
	size_t before, visits, gone = 0;

	gn_shadow_enter(s);
	before = s->page_count;
	if (want < share(s))
		want = share(s);
	for (visits = 2 * before; visits && gone < want; visits--) {
		struct gn_shadow_page *page = (struct gn_shadow_page *)s->pages.next;

		if (gn_shadow_list_is_empty(&s->pages))
			break;
		gn_shadow_list_remove(&page->link);
		gn_shadow_list_append(&s->pages, &page->link);
		if (page->live_refs)
			continue;
		if (page->used)
			page->used = false;
		else
			gn_shadow_page_zap(s, page);
		gone = before - s->page_count;
	}
	gn_shadow_leave(s);
	return gone;
}

int gn_shadow_reserve_need(struct gn_shadow *s, struct gn_shadow_reserve *reserve,
			   unsigned page_count, unsigned gfns_count)
{
	int err = gn_shadow_reserve_fill(s, reserve, page_count, gfns_count);

	while (err == -ENOMEM && reclaim(s, page_count)) {
		gn_retire_drain(s->vm);
		err = gn_shadow_reserve_fill(s, reserve, page_count, gfns_count);
	}
	return err;
}
