/* SPDX-License-Identifier: MIT */
/*
 * link.c - shadow entries: what they are made of, put in, taken out.
 *
 * A present entry is one of two things, and each has its second half elsewhere: a leaf is in the reverse
 * map of the gfn it maps, a link is among the parents of the page behind it. Both halves are changed here and
 * nowhere else.
 *
 * Rights of a leaf (plain): the guest's, ANDed over its walk, and the p2m's. W only when the guest's D is
 * set, so that the first write comes to us and sets it. With CR0.WP=0 a supervisor page is writable for
 * the kernel whatever W says; the hardware always runs with WP=1, so W is given there. A read-only *user*
 * page under WP=0 cannot be said in one entry: for a kernel write it becomes U=0,W=1 (and NX under SMEP, for
 * a page that lost U would be executable for the kernel), for anything else U=1,W=0 again.
 *
 * In a view (a deprivileged VM: the hardware runs all of the guest at CPL 3, and a root is in force per privilege of
 * the guest's) a leaf says in the bits of a user page what that privilege may do, and what it may not use
 * at all is absent. CR0.WP, SMEP and SMAP are in the view's role, so WP=0 needs nothing special there. Such a leaf
 * is never global, for a change of privilege must flush it, and has key 0.
 *
 * Dropping an entry owes a flush and does not post it: see law 3 in shadow.h. With one exception: where a
 * large guest page is shadowed in pieces, the guest's own INVLPG names one address and means all of them,
 * so the pieces are flushed when their page is unlinked.
 */
#include "shadow.h"

#include <errno.h>

gn_rights_t gn_shadow_view_rights(union gn_shadow_role role, gn_rights_t guest)
{
	if (role.view == GN_VIEW_USER)
		return guest & GN_U ? guest : 0;
	if (guest & GN_U) {
		if (role.view_smap)
			return 0;
		if (role.view_smep)
			guest &= ~GN_X;
	}
	return guest | GN_U | (role.wp ? 0 : GN_W);
}

static gn_rights_t leaf_rights(union gn_shadow_role role, const struct gn_shadow_leaf *leaf)
{
	gn_rights_t rights = leaf->rights;

	if (GN_UNLIKELY(role.view != GN_VIEW_BOTH)) {
		rights = gn_shadow_view_rights(role, rights);
	} else if (!role.wp && !(rights & GN_W)) {
		if (!(rights & GN_U))
			rights |= GN_W;
		else if (leaf->kernel_write)
			rights = (rights | GN_W) & ~(GN_U | (role.smep_without_wp ? GN_X : 0));
	}
	if (!leaf->dirty || !leaf->may_write)
		rights &= ~GN_W;
	return rights;
}

uint64_t gn_shadow_leaf_entry(const struct gn_shadow *s, union gn_shadow_role role,
			      const struct gn_shadow_leaf *leaf, p2m_word_t word)
{
	const struct gn_fmt_level *l = &s->fmt->level[role.level];
	uint64_t pages = gn_level_pages(role.level);
	gn_rights_t rights = leaf_rights(role, leaf) & (gn_p2m_word_rights(word) | GN_U);
	uint64_t entry = gn_fmt_leaf(s->fmt, role.level,
				     pfn(gn_p2m_word_pfn(word).v & ~(pages - 1)), rights);

	entry |= l->accessed | (rights & GN_W ? l->dirty : 0);
	if (GN_UNLIKELY(role.view != GN_VIEW_BOTH))
		return rights & GN_R ? entry : 0;
	entry |= leaf->global ? l->global : 0;
	return entry | gn_fmt_pkey_bits(s->fmt, role.level, leaf->pkey);
}

static bool is_present(const struct gn_shadow *s, const struct gn_shadow_page *page, uint64_t entry)
{
	return gn_fmt_is_present(s->fmt, page->key.role.level, entry);
}

static void store(struct gn_shadow *s, struct gn_shadow_page *page, unsigned index, uint64_t entry)
{
	struct gn_entry_change change =
		gn_entry_set(s->vm, s->fmt, page->key.role.level, &page->entries[index], entry);

	s->flush_owed |= change.must_flush;
}

struct gn_shadow_page *gn_shadow_child(struct gn_shadow *s, const struct gn_shadow_page *page,
				       unsigned index)
{
	unsigned level = page->key.role.level;
	uint64_t entry = gn_entry_get(&page->entries[index]);

	if (!gn_fmt_is_present(s->fmt, level, entry) || gn_fmt_is_leaf(s->fmt, level, entry))
		return NULL;
	return gn_shadow_page_of(s, hpa_to_pfn(hpa(gn_fmt_address(s->fmt, level, entry))));
}

bool gn_shadow_is_orphan(const struct gn_shadow_page *page)
{
	return gn_slots_is_empty(&page->parents) && !page->live_refs && !page->cache_refs;
}

struct gn_shadow_page *gn_shadow_entry_drop(struct gn_shadow *s, struct gn_shadow_page *page,
					    unsigned index)
{
	struct gn_arena *arena = s->vm->scheme_arena;
	uint64_t *slot = &page->entries[index];
	struct gn_shadow_page *child = gn_shadow_child(s, page, index);

	if (!is_present(s, page, gn_entry_get(slot)) || gn_shadow_is_reserved(s, page, index))
		return NULL;
	if (child)
		gn_slots_remove(arena, &child->parents, slot);
	else
		gn_slots_remove(
			arena,
			gn_rmap_leaves(s, gn_shadow_leaf_gfn(page, index), page->key.role.level),
			slot);
	page->present_count--;
	store(s, page, index, 0);
	if (child && child->key.role.direct)
		s->flush_due = true;
	if (child && (child->key.role.direct || s->is_vtlb) && gn_shadow_is_orphan(child))
		gn_shadow_page_zap(s, child);
	return child;
}

int gn_shadow_leaf_set(struct gn_shadow *s, struct gn_shadow_page *page, unsigned index, gfn_t at,
		       uint64_t entry)
{
	unsigned level = page->key.role.level;
	const struct gn_fmt_level *l = &s->fmt->level[level];
	uint64_t old = gn_entry_get(&page->entries[index]);
	struct gn_slots *set;
	int err;

	if (GN_UNLIKELY(gn_fmt_is_present(s->fmt, level, old))) {
		if (gn_fmt_is_leaf(s->fmt, level, old) &&
		    gn_shadow_leaf_gfn(page, index).v == at.v) {
			if ((old ^ entry) & ~(l->accessed | l->dirty))
				store(s, page, index, entry);
			return 0;
		}
		gn_shadow_entry_drop(s, page, index);
	}
	set = gn_rmap_leaves(s, at, level);
	err = gn_slots_reserve(s->vm->scheme_arena, set);
	if (GN_UNLIKELY(err))
		return err;
	gn_slots_add(set, &page->entries[index]);
	if (page->gfns)
		page->gfns[index] = (uint32_t)at.v;
	page->present_count++;
	store(s, page, index, entry);
	return 0;
}

void gn_shadow_link(struct gn_shadow *s, struct gn_shadow_page *page, unsigned index,
		    struct gn_shadow_page *child)
{
	unsigned level = page->key.role.level;

	GN_BUG_ON(is_present(s, page, gn_entry_get(&page->entries[index])));
	gn_slots_add(&child->parents, &page->entries[index]);
	page->present_count++;
	if (gn_shadow_has_unsync(child))
		gn_shadow_mark_unsync(s, page, index);
	store(s, page, index,
	      gn_fmt_table(s->fmt, level, child->table, GN_RWXU) | s->fmt->level[level].accessed);
}

bool gn_shadow_entry_protect(struct gn_shadow *s, uint64_t *slot, unsigned level)
{
	const struct gn_fmt_level *l = &s->fmt->level[level];
	uint64_t old = gn_entry_get(slot);
	bool must_flush;

	do {
		if (!(gn_fmt_rights(s->fmt, level, old) & GN_W))
			return false;
	} while (!gn_entry_cmpxchg(s->vm, s->fmt, level, slot, &old,
				   (old & ~l->grant[GN_RI_W]) | l->deny[GN_RI_W], &must_flush));
	return true;
}
