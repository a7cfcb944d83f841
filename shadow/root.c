/* SPDX-License-Identifier: MIT */
/*
 * root.c - roots: found again over CR3 switches, in force, dead.
 *
 * A root is a shadow page like any other, so one that was in force before is found by its key, with
 * everything below it. What the root cache of a vCPU adds is a hold: the pages of the last roots are not
 * reclaimed, stay tracked (or unsync and known to be), and so cannot be mistaken when the guest frees the table
 * and uses its gfn for something else. PCIDs tag translations, not tables: they are no part of the key.
 *
 * A dead root is one in force that had to be zapped (its guest table was unshadowed, ballooned, ...). Only the
 * vCPU's own thread may change its registers, so the page stays, empty: whatever the vCPU touches
 * faults, and the fault loads the root anew.
 *
 * Views. A deprivileged VM has a root per privilege for one CR3, and each system call and return changes which is in
 * force, without any flush of the guest's. So a root that is put in force by a change of privilege must already
 * be what the guest's flushes have made of it. The rule: a vCPU remembers, for the CR3 and mode it is in, the roots
 * that have missed no flush since (views[]);
 *   - INVLPG is carried out in all of them, at once;
 *   - a wider flush is carried out in the root in force, and the others are forgotten;
 *   - another CR3 or mode forgets all;
 *   - a remembered root is put in force as it is; a forgotten one is found by its key and resynced first.
 * So a change of privilege is two loads and compares under the lock. The hardware flushes its TLB at each of them, as
 * at any load of CR3 without PCIDs, so a flush owed to a root not in force is paid before that root is used again.
 *
 * Resync: MOV CR3 that flushes is followed by flush_guest(); one that does not (PCIDs) is allowed to keep
 * translations, but it switches to a root whose INVLPGs and flushes by other means may have
 * passed while it was not in force. So with PCIDs every load resyncs.
 */
#include "shadow.h"

#include <errno.h>
#include <string.h>

void gn_shadow_in_force(struct gn_vcpu *vcpu, union gn_shadow_role base,
			const struct gn_shadow_page *root)
{
	struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);

	sv->base = base;
	sv->mode = gn_shadow_role_base(&vcpu->paging, GN_VIEW_KERNEL);
	vcpu->hw = (struct gn_hw){
		.kind = GN_HW_TABLES,
		.fmt = vcpu->paging.levels == 5 ? &gn_fmt_x86_5 : &gn_fmt_x86_4,
		.root = pfn_to_hpa(root->table),
		.pcid = gn_vcpu_guest_pcid(vcpu),
		.intercepts =
			GN_ICPT_CR | GN_ICPT_CR3 | GN_ICPT_INVLPG | GN_ICPT_INVPCID | GN_ICPT_PF,
	};
}

/* ---- The cache ------------------------------------------------------------------------------------------ */

static void forget_view(struct gn_shadow_vcpu *sv, const struct gn_shadow_page *page)
{
	for (unsigned v = 0; v < GN_SHADOW_VIEWS; v++)
		if (sv->views[v] == page)
			sv->views[v] = NULL;
}

static void cache_remove(struct gn_shadow_vcpu *sv, struct gn_shadow_page *page)
{
	unsigned i = 0;

	while (i < GN_SHADOW_CACHED_ROOTS && sv->cache[i] != page)
		i++;
	if (i == GN_SHADOW_CACHED_ROOTS)
		return;
	for (; i + 1 < GN_SHADOW_CACHED_ROOTS; i++)
		sv->cache[i] = sv->cache[i + 1];
	sv->cache[i] = NULL;
	page->cache_refs--;
}

static void cache_insert(struct gn_shadow_vcpu *sv, struct gn_shadow_page *page)
{
	struct gn_shadow_page *last = sv->cache[GN_SHADOW_CACHED_ROOTS - 1];

	if (last) {
		last->cache_refs--;
		forget_view(sv, last);
	}
	for (unsigned i = GN_SHADOW_CACHED_ROOTS - 1; i > 0; i--)
		sv->cache[i] = sv->cache[i - 1];
	sv->cache[0] = page;
	page->cache_refs++;
}

void gn_shadow_roots_forget(struct gn_shadow *s, struct gn_shadow_page *page)
{
	for (unsigned i = 0; i < s->vm->config.vcpus; i++)
		if (s->vcpus[i]) {
			cache_remove(s->vcpus[i], page);
			forget_view(s->vcpus[i], page);
		}
}

/* ---- The root in force ------------------------------------------------------------------------------------ */

static void put_in_force(struct gn_shadow *s, struct gn_shadow_vcpu *sv,
			 struct gn_shadow_page *root)
{
	struct gn_shadow_page *old = sv->root;

	if (old == root)
		return;
	root->live_refs++;
	root->used = true;
	cache_remove(sv, root);
	sv->root = root;
	if (!old)
		return;
	old->live_refs--;
	if (old->is_hashed) {
		cache_insert(sv, old);
	} else {
		forget_view(sv, old);
		gn_shadow_page_doom(s, old);
	}
}

bool gn_shadow_has_moved(const struct gn_vcpu *vcpu, const struct gn_shadow_key *key)
{
	const struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);
	union gn_shadow_role mode = gn_shadow_role_base(&vcpu->paging, GN_VIEW_KERNEL);

	return vcpu->view == GN_VIEW_BOTH || !sv->root || sv->root->key.gfn.v != key->gfn.v ||
	       sv->mode.word != mode.word || vcpu->hw.pcid != gn_vcpu_guest_pcid(vcpu);
}

/* @page is in force and misses no flush from now on. */
static void remember_view(struct gn_shadow_vcpu *sv, struct gn_shadow_page *page, bool moved)
{
	if (moved)
		memset(sv->views, 0, sizeof(sv->views));
	*gn_shadow_view_of(sv, page->key.role) = page;
}

/* Found or made, and in force. False: the reserve is needed first. */
static bool find_root(struct gn_vcpu *vcpu, const struct gn_shadow_key *key, bool moved)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);
	struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);
	struct gn_shadow_page *page;
	bool is_fresh;

	gn_shadow_enter(s);
	page = moved ? NULL : *gn_shadow_view_of(sv, key->role);
	is_fresh = page && page->is_hashed;
	if (!is_fresh)
		page = gn_shadow_page_find(s, key);
	if (!page && sv->reserve.page_count)
		page = gn_shadow_page_take(s, &sv->reserve, key, true);
	if (page) {
		put_in_force(s, sv, page);
		if (vcpu->view != GN_VIEW_BOTH)
			remember_view(sv, page, moved);
		/* One that has moved is flushed by the guest in a moment, but for PCIDs. */
		if ((vcpu->paging.pcide || !moved) && !is_fresh && gn_shadow_has_unsync(page)) {
			gn_rcu_read_lock();
			gn_shadow_sync_below(s, page);
			gn_rcu_read_unlock();
		}
	}
	gn_shadow_leave(s);
	return page;
}

int gn_shadow_load_root(struct gn_vcpu *vcpu)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);
	struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);
	union gn_shadow_role base = gn_shadow_role_base(&vcpu->paging, vcpu->view);
	struct gn_shadow_key key = gn_shadow_root_key(vcpu, base);
	bool moved = gn_shadow_has_moved(vcpu, &key);
	int err = key.role.direct ? 0 : gn_rmap_prepare(s, key.gfn);

	while (!err && !find_root(vcpu, &key, moved))
		err = gn_shadow_reserve_need(s, &sv->reserve, 1, 0);
	if (err)
		return err;
	gn_shadow_in_force(vcpu, base, sv->root);
	return 0;
}

int gn_shadow_vcpu_init(struct gn_vcpu *vcpu)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);
	struct gn_shadow_vcpu *sv =
		(struct gn_shadow_vcpu *)gn_arena_zalloc(vcpu->vm->scheme_arena, sizeof(*sv));
	int err;

	if (!sv)
		return -ENOMEM;
	vcpu->scheme_data = sv;
	s->vcpus[vcpu->index] = sv;
	err = s->is_vtlb ? gn_shadow_vtlb_load_root(vcpu) : gn_shadow_load_root(vcpu);
	if (err)
		gn_shadow_vcpu_fini(vcpu);
	return err;
}

static void release_root(struct gn_shadow *s, struct gn_shadow_page *root)
{
	root->live_refs--;
	if (!root->is_hashed) {
		gn_shadow_page_empty(s, root);
		gn_shadow_page_doom(s, root);
	}
}

void gn_shadow_vcpu_fini(struct gn_vcpu *vcpu)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);
	struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);

	gn_shadow_enter(s);
	for (unsigned i = 0; i < GN_SHADOW_CACHED_ROOTS; i++)
		if (sv->cache[i])
			sv->cache[i]->cache_refs--;
	for (unsigned v = 0; s->is_vtlb && v < GN_SHADOW_VIEWS; v++)
		if (sv->views[v])
			release_root(s, sv->views[v]);
	if (!s->is_vtlb && sv->root)
		release_root(s, sv->root);
	s->vcpus[vcpu->index] = NULL;
	gn_shadow_leave(s);
	gn_shadow_reserve_drop(s, &sv->reserve);
	gn_arena_free(vcpu->vm->scheme_arena, sv, sizeof(*sv));
	vcpu->scheme_data = NULL;
}

/* ---- The guest's invalidations -------------------------------------------------------------------------------- */

static void invalidate(struct gn_shadow *s, struct gn_shadow_page *page, gva_t va)
{
	while (page && page->key.role.level > 1)
		page = gn_shadow_child(s, page, gn_fmt_index(s->fmt, page->key.role.level, va.v));
	if (page && page->is_unsync) {
		gn_rcu_read_lock();
		if (gn_shadow_sync_entry(s, page, gn_fmt_index(s->fmt, 1, va.v)))
			page->calm = 0;
		gn_rcu_read_unlock();
	}
}

void gn_shadow_invlpg(struct gn_vcpu *vcpu, gva_t va)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);
	const struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);

	gn_shadow_enter(s);
	invalidate(s, sv->root, va);
	for (unsigned v = 0; v < GN_SHADOW_VIEWS; v++)
		if (sv->views[v] && sv->views[v] != sv->root)
			invalidate(s, sv->views[v], va);
	gn_shadow_leave(s);
}

/* What a root that is not in force is owed, it gets when it is loaded. */
void gn_shadow_flush_guest(struct gn_vcpu *vcpu, const struct gn_flush *what)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);
	struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);
	struct gn_shadow_page *root = sv->root;

	(void)what;
	gn_shadow_enter(s);
	for (unsigned v = 0; v < GN_SHADOW_VIEWS; v++)
		if (sv->views[v] != root)
			sv->views[v] = NULL;
	if (gn_shadow_has_unsync(root)) {
		gn_rcu_read_lock();
		gn_shadow_sync_below(s, root);
		gn_rcu_read_unlock();
	}
	gn_shadow_leave(s);
}
