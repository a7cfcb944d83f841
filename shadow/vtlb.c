/* SPDX-License-Identifier: MIT */
/*
 * vtlb.c - the virtual TLB: the shadow scheme of the textbooks (Intel SDM vol. 3C "VMM Software TLB
 * Management"), for comparison.
 *
 * Our tables are a TLB with much room. Nothing of the guest's tables is watched: its stores run free, and
 * what we made of an entry stays until the guest flushes, as in the real thing. MOV CR3 and every wider
 * flush throw all of a vCPU's translations away; INVLPG throws one away; faults fill. The price is paid
 * at each context switch, as hidden faults.
 *
 * The pages are those of the shadow scheme, with differences that follow from the above: no hash table, no
 * tracking, no unsync, no sharing. Each vCPU has a tree of its own in which each page has one
 * parent, and its root page lasts as long as the vCPU. In a deprivileged VM it has one for each view that was ever in
 * force; together they are the TLB, so a flush empties all of them, and a change of privilege none.
 *
 * INVLPG of an address in a large guest page means all of that page, of which we may have many pieces: those
 * below direct pages. The topmost of these goes as a whole, and the hardware is flushed wider than asked.
 */
#include "shadow.h"

static void flush_own(struct gn_shadow *s, struct gn_vcpu *vcpu)
{
	const struct gn_flush everything = { .scope = GN_FLUSH_ALL };

	/* Nobody else's hardware ever saw these pages. */
	if (s->flush_due)
		gn_vcpu_flush(vcpu, &everything);
	s->flush_due = false;
}

static void empty_trees(struct gn_shadow *s, const struct gn_shadow_vcpu *sv)
{
	for (unsigned v = 0; v < GN_SHADOW_VIEWS; v++)
		if (sv->views[v])
			gn_shadow_page_empty(s, sv->views[v]);
}

static void empty(struct gn_vcpu *vcpu)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);

	gn_shadow_enter(s);
	empty_trees(s, gn_shadow_vcpu_of(vcpu));
	flush_own(s, vcpu);
	gn_shadow_leave(s);
}

static int make_root(struct gn_vcpu *vcpu, const struct gn_shadow_key *key)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);
	struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);
	int err = gn_shadow_reserve_need(s, &sv->reserve, 1, 0);
	struct gn_shadow_page *root;

	if (err)
		return err;
	gn_shadow_enter(s);
	root = gn_shadow_page_take(s, &sv->reserve, key, false);
	root->live_refs = 1;
	*gn_shadow_view_of(sv, key->role) = root;
	gn_shadow_leave(s);
	return 0;
}

/* A tree that was of another CR3 or mode is empty, so its root may become that of any. */
static void put_in_force(struct gn_shadow *s, struct gn_vcpu *vcpu, const struct gn_shadow_key *key,
			 bool moved)
{
	struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);
	struct gn_shadow_page *root = *gn_shadow_view_of(sv, key->role);

	gn_shadow_enter(s);
	if (moved)
		empty_trees(s, sv);
	if (!gn_shadow_key_equal(&root->key, key)) {
		GN_BUG_ON(root->present_count);
		root->key = *key;
		gn_shadow_page_set_reserved(s, root);
	}
	sv->root = root;
	flush_own(s, vcpu);
	gn_shadow_leave(s);
}

int gn_shadow_vtlb_load_root(struct gn_vcpu *vcpu)
{
	struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);
	union gn_shadow_role base = gn_shadow_role_base(&vcpu->paging, vcpu->view);
	struct gn_shadow_key key = gn_shadow_root_key(vcpu, base);

	if (!*gn_shadow_view_of(sv, base)) {
		int err = make_root(vcpu, &key);

		if (err)
			return err;
	}
	put_in_force(gn_shadow_of(vcpu->vm), vcpu, &key, gn_shadow_has_moved(vcpu, &key));
	gn_shadow_in_force(vcpu, base, sv->root);
	return 0;
}

void gn_shadow_vtlb_flush_guest(struct gn_vcpu *vcpu, const struct gn_flush *what)
{
	(void)what;
	empty(vcpu);
}

static void invalidate(struct gn_shadow *s, struct gn_shadow_page *page, gva_t va)
{
	struct gn_shadow_page *child;

	for (;; page = child) {
		unsigned index = gn_fmt_index(s->fmt, page->key.role.level, va.v);

		child = gn_shadow_child(s, page, index);
		if (!child || child->key.role.direct) {
			gn_shadow_entry_drop(s, page, index);
			break;
		}
	}
}

void gn_shadow_vtlb_invlpg(struct gn_vcpu *vcpu, gva_t va)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);
	const struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);

	gn_shadow_enter(s);
	for (unsigned v = 0; v < GN_SHADOW_VIEWS; v++)
		if (sv->views[v])
			invalidate(s, sv->views[v], va);
	flush_own(s, vcpu);
	gn_shadow_leave(s);
}
