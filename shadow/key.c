/* SPDX-License-Identifier: MIT */
/*
 * key.c - which shadow page a walk, or a guest entry, leads to.
 *
 * The one place where keys are made, so that the page a fault links and the page a trapped write expects
 * behind the same guest entry are the same by construction.
 */
#include "shadow.h"

#include <gnomon/x86.h>

/* Views that show the same are the same: without paging all is everyone's, without SMAP AC lifts nothing. */
static enum gn_view distinct_view(const struct gn_paging *paging, enum gn_view view)
{
	if (!paging->levels)
		return GN_VIEW_USER;
	return view == GN_VIEW_KERNEL_AC && !paging->smap ? GN_VIEW_KERNEL : view;
}

/* As gn_shadow_role_base(), for a view: what its leaves depend on, and no more. */
static union gn_shadow_role view_base(union gn_shadow_role role, const struct gn_paging *paging,
				      enum gn_view view)
{
	view = distinct_view(paging, view);
	role.view = view & 3;
	if (view == GN_VIEW_USER) {
		role.wp = 1;
	} else {
		role.view_smep = paging->smep;
		role.view_smap = paging->smap && view == GN_VIEW_KERNEL;
	}
	return role;
}

union gn_shadow_role gn_shadow_role_base(const struct gn_paging *paging, enum gn_view view)
{
	union gn_shadow_role role = { .word = 0 };

	role.levels = paging->levels;
	role.nxe = paging->nxe;
	/* Off, everything is allowed: that is what a role with WP and full access says. */
	role.wp = paging->wp || !paging->levels;
	if (view != GN_VIEW_BOTH)
		return view_base(role, paging, view);
	role.smep_without_wp = paging->smep && !paging->wp;
	role.user_guard_without_wp = (paging->smap || paging->pke) && !paging->wp;
	return role;
}

static union gn_shadow_role indirect_role(union gn_shadow_role base, unsigned level,
					  gn_rights_t access)
{
	base.level = level & 7;
	base.access = access & GN_RWXU;
	base.direct = base.dirty = base.global = base.pkey = 0;
	return base;
}

static union gn_shadow_role direct_role(union gn_shadow_role base, unsigned level,
					gn_rights_t access, bool dirty, bool global, unsigned pkey)
{
	base = indirect_role(base, level, access);
	base.direct = 1;
	base.dirty = dirty;
	if (base.view == GN_VIEW_BOTH) { /* a view's leaves have neither */
		base.global = global;
		base.pkey = pkey & 15;
	}
	return base;
}

/* First gfn of what a page of @level covers. */
static gfn_t direct_start(gfn_t at, unsigned level)
{
	return gfn(at.v & ~(gn_level_pages(level + 1) - 1));
}

struct gn_shadow_key gn_shadow_root_key(const struct gn_vcpu *vcpu, union gn_shadow_role base)
{
	const struct gn_paging *paging = &vcpu->paging;
	struct gn_shadow_key key;

	if (!paging->levels) {
		key.gfn = gfn(0);
		key.role = direct_role(base, 4, GN_RWXU, true, false, 0);
	} else {
		uint64_t table = vcpu->regs.cr3 & paging->fmt->level[paging->levels].address;

		key.gfn = gpa_to_gfn(gpa(table));
		key.role = indirect_role(base, paging->levels, GN_RWXU);
	}
	return key;
}

struct gn_shadow_key gn_shadow_walk_key(union gn_shadow_role base, const struct gn_guest_walk *walk,
					unsigned level)
{
	const struct gn_translation *t = &walk->t;
	struct gn_shadow_key key;

	if (level >= t->level) {
		key.gfn = walk->table[level];
		key.role = indirect_role(base, level, walk->above[level]);
	} else {
		key.gfn = direct_start(gpa_to_gfn(t->gpa), level);
		key.role = direct_role(base, level, t->rights, t->dirty, t->global, t->pkey);
	}
	return key;
}

struct gn_shadow_key gn_shadow_entry_key(const struct gn_shadow_page *page, uint64_t entry)
{
	const struct gn_fmt *f = &gn_fmt_x86_5;
	unsigned level = page->key.role.level;
	const struct gn_fmt_level *l = &f->level[level];
	gn_rights_t access = page->key.role.access & gn_fmt_rights(f, level, entry);
	struct gn_shadow_key key;

	key.gfn = gpa_to_gfn(gpa(gn_fmt_address(f, level, entry)));
	if (!gn_fmt_is_leaf(f, level, entry))
		key.role = indirect_role(page->key.role, level - 1, access);
	else
		key.role = direct_role(page->key.role, level - 1, access, entry & l->dirty,
				       entry & l->global, gn_fmt_pkey(f, level, entry));
	return key;
}

void gn_shadow_role_paging(const struct gn_vm *vm, union gn_shadow_role role, struct gn_paging *out)
{
	/* By way of registers, so that everything a mode implies (which bits NXE reserves, say) is derived in one
	 * place. */
	const struct gn_regs regs = {
		.cr0 = (role.levels ? X86_CR0_PG : 0) | (role.wp ? X86_CR0_WP : 0),
		.cr4 = role.levels == 5 ? X86_CR4_LA57 : 0,
		.efer = role.nxe ? X86_EFER_NXE : 0,
	};

	gn_paging_derive(&regs, vm->config.guest_phys_bits, out);
}
