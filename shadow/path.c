/* SPDX-License-Identifier: MIT */
/*
 * path.c - from the root down to the page that will hold the leaf.
 *
 * Nearly every fault finds all pages linked: then this is three loads and compares. The compare of keys is what
 * keeps the tables sound: an entry can be re-read with its new value before the store that made it so
 * was reported to us, and its link is still the old one. (Reusing a child by its gfn alone, without the rest
 * of the role, was CVE-2026-53359 of another hypervisor.)
 *
 * When pages are missing they are counted first, and the lock is given up to have them made: nothing is
 * changed before everything that may fail is in hand. Since tracking one page can end another (an upper
 * level shadow of a table ends its unsync level-1 shadows), the count can fall short; then what was built
 * stays, which is as good a tree as any, and the fault starts again.
 *
 * A new page is write-protected, empty and linked before anything is put into it. If its protection has not
 * settled yet, the fault waits for that and walks again.
 */
#include "shadow.h"

#include <errno.h>

static bool is_settled(const struct gn_shadow *s, const struct gn_shadow_page *page)
{
	return page->protect_seq <= s->settled_seq;
}

static void touch(struct gn_shadow_page *page)
{
	page->used = true;
	page->flood = 0;
}

/* True: all that extend() is going to take is in hand, as far as one can tell now. */
static bool is_supplied(struct gn_shadow *s, struct gn_shadow_fill *fill, unsigned level)
{
	const struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(fill->vcpu);
	bool prepared = true;

	fill->need_pages = fill->need_gfns = 0;
	while (level-- > fill->leaf_level) {
		struct gn_shadow_key key = gn_shadow_walk_key(sv->base, &fill->walk, level);

		if (!s->is_vtlb && gn_shadow_page_find(s, &key))
			continue;
		fill->need_pages++;
		fill->need_gfns += gn_shadow_key_needs_gfns(&key);
		if (!s->is_vtlb && !key.role.direct)
			prepared &= gn_rmap_is_prepared(s, key.gfn);
	}
	return prepared && sv->reserve.page_count >= fill->need_pages &&
	       sv->reserve.gfns_count >= fill->need_gfns;
}

/* The page for @key, with room for one more parent. */
static int obtain(struct gn_shadow *s, struct gn_shadow_fill *fill, const struct gn_shadow_key *key,
		  struct gn_shadow_page **out)
{
	struct gn_shadow_reserve *reserve = &gn_shadow_vcpu_of(fill->vcpu)->reserve;
	struct gn_shadow_page *page = s->is_vtlb ? NULL : gn_shadow_page_find(s, key);
	int err;

	if (!page) {
		fill->need_pages = 1;
		fill->need_gfns = gn_shadow_key_needs_gfns(key);
		if (reserve->page_count < fill->need_pages || reserve->gfns_count < fill->need_gfns)
			return GN_STEP_PAGES;
		*out = gn_shadow_page_take(s, reserve, key, !s->is_vtlb);
		return GN_STEP_DONE;
	}
	err = gn_slots_reserve(s->vm->scheme_arena, &page->parents);
	if (err)
		return err;
	if (gn_shadow_has_unsync(page))
		gn_shadow_sync_below(s, page);
	*out = page;
	return GN_STEP_DONE;
}

static int extend(struct gn_shadow *s, struct gn_shadow_fill *fill, struct gn_shadow_page **at)
{
	const struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(fill->vcpu);
	struct gn_shadow_page *page = *at, *child;
	unsigned level = page->key.role.level;

	if (!is_supplied(s, fill, level))
		return GN_STEP_PAGES;
	for (; level > fill->leaf_level; level--) {
		unsigned index = gn_fmt_index(s->fmt, level, fill->access->va.v);
		struct gn_shadow_key key = gn_shadow_walk_key(sv->base, &fill->walk, level - 1);

		child = gn_shadow_child(s, page, index);
		if (!child || !gn_shadow_key_equal(&child->key, &key)) {
			int step = obtain(s, fill, &key, &child);

			if (step)
				return step;
			gn_shadow_entry_drop(s, page, index);
			gn_shadow_link(s, page, index, child);
		}
		touch(child);
		if (!is_settled(s, child))
			return GN_STEP_SETTLE;
		page = child;
	}
	*at = page;
	return GN_STEP_DONE;
}

int gn_shadow_path(struct gn_shadow *s, struct gn_shadow_fill *fill, struct gn_shadow_page **out)
{
	const struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(fill->vcpu);
	struct gn_shadow_page *page = sv->root;
	unsigned level = page->key.role.level;

	touch(page);
	if (!is_settled(s, page))
		return GN_STEP_SETTLE;
	for (; level > fill->leaf_level; level--) {
		struct gn_shadow_key key = gn_shadow_walk_key(sv->base, &fill->walk, level - 1);
		unsigned index = gn_fmt_index(s->fmt, level, fill->access->va.v);
		struct gn_shadow_page *child = gn_shadow_child(s, page, index);

		if (!child || !gn_shadow_key_equal(&child->key, &key))
			break;
		touch(child);
		if (!is_settled(s, child))
			return GN_STEP_SETTLE;
		page = child;
	}
	*out = page;
	return level > fill->leaf_level ? extend(s, fill, out) : GN_STEP_DONE;
}
