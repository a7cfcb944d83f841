/* SPDX-License-Identifier: MIT */
/*
 * audit.c - proof that every shadow table is right.
 *
 * Three passes, none of which uses the code that builds tables:
 *   pages    each page of the list by itself: whose it is, its entries, counts, parents, references
 *   gfns     each gfn: does the reverse map name exactly the leaves there are, is its standing what its
 *            shadow pages make it, is a tracked one writable nowhere, are the counts of blocks right
 *   roots    each root in force or cached is walked from the top; for each leaf the guest's tables are walked
 *            at that address, and the leaf may allow no more and must show the p2m's frame
 *
 * In a view, what a leaf may allow is not derived again but asked: each kind of access it lets the hardware make is held,
 * as one of the view's privilege, against the architecture's rules (gn_paging_access) and the guest's translation.
 *
 * What an unsync page or a virtual TLB says may be stale as to the guest's tables, never as to the p2m: the
 * frame behind a leaf belongs to the gfn it was made for.
 */
#include "mmu/audit.h"

#include <errno.h>

#include "shadow.h"

#include <gnomon/x86.h>

struct audit {
	struct gn_shadow *s;
	struct gn_audit_report *report;
	uint64_t leaves, links, leaves_named, links_named;
	uint16_t *shadow_count; /* by gfn */
	const struct gn_shadow_page *root;
	struct gn_paging paging; /* of the root's mode, to walk with */
	struct gn_paging rules;	 /* the same with the view's SMEP and SMAP */
};

#define ULL(x) ((unsigned long long)(x))

/* ---- Pages ------------------------------------------------------------------------------------------------ */

/* Frame, p2m rights, no table of ours. */
static void check_leaf(struct audit *a, const struct gn_shadow_page *page, unsigned index,
		       uint64_t entry)
{
	struct gn_shadow *s = a->s;
	unsigned level = page->key.role.level;
	gn_rights_t rights = gn_fmt_rights(s->fmt, level, entry);
	gfn_t at = gn_shadow_leaf_gfn(page, index);
	p2m_word_t word = gn_p2m_get(&s->vm->p2m, at);
	uint64_t frame = gn_fmt_address(s->fmt, level, entry) >> GN_PAGE_SHIFT;

	if (!gn_p2m_word_has_frame(word) || gn_p2m_word_pfn(word).v != frame)
		gn_audit_fail(a->report,
			      "shadow leaf of gfn 0x%llx shows frame 0x%llx, not the p2m's",
			      ULL(at.v), ULL(frame));
	else if (gn_p2m_word_level(word) < level)
		gn_audit_fail(a->report, "shadow leaf of gfn 0x%llx is larger than the p2m's block",
			      ULL(at.v));
	if (rights & ~gn_p2m_word_rights(word) & GN_RWX)
		gn_audit_fail(a->report, "shadow leaf of gfn 0x%llx allows more than the p2m",
			      ULL(at.v));
	if ((rights & GN_W) && gn_dirty_is_logged(s->vm) && !gn_dirty_is_marked(s->vm, at))
		gn_audit_fail(a->report, "gfn 0x%llx is writable and not in the dirty log",
			      ULL(at.v));
	if (level > 1 && at.v % gn_level_pages(level))
		gn_audit_fail(a->report, "large shadow leaf of gfn 0x%llx is misaligned",
			      ULL(at.v));
	for (uint64_t i = 0; i < gn_level_pages(level); i++)
		if (gn_shadow_page_of(s, pfn(frame + i)))
			gn_audit_fail(a->report, "gfn 0x%llx maps a table page of ours",
				      ULL(at.v + i));
	if (!gn_slots_contain(gn_rmap_leaves(s, at, level), &page->entries[index]))
		gn_audit_fail(a->report, "the reverse map of gfn 0x%llx misses a leaf", ULL(at.v));
	if (page->key.role.view != GN_VIEW_BOTH &&
	    (!(rights & GN_U) || (entry & s->fmt->level[level].global) ||
	     gn_fmt_pkey(s->fmt, level, entry)))
		gn_audit_fail(a->report,
			      "gfn 0x%llx in a view: no user page, global, or with a key",
			      ULL(at.v));
}

static void check_link(struct audit *a, const struct gn_shadow_page *page, unsigned index)
{
	const struct gn_shadow_page *child = gn_shadow_child(a->s, page, index);
	bool marked = page->unsync_below[index / 64] >> (index % 64) & 1;
	gfn_t at = page->key.gfn;

	if (!child) {
		gn_audit_fail(a->report, "shadow of gfn 0x%llx links to no page of ours",
			      ULL(at.v));
		return;
	}
	if (child->key.role.level + 1 != page->key.role.level ||
	    (child->key.role.access & ~page->key.role.access))
		gn_audit_fail(a->report, "shadow of gfn 0x%llx links to a page of another role",
			      ULL(at.v));
	if (!a->s->is_vtlb && !child->is_hashed)
		gn_audit_fail(a->report, "shadow of gfn 0x%llx links to a dead page", ULL(at.v));
	if (!gn_slots_contain(&child->parents, &page->entries[index]))
		gn_audit_fail(a->report, "shadow of gfn 0x%llx does not know a parent",
			      ULL(child->key.gfn.v));
	if (gn_shadow_has_unsync(child) && !marked)
		gn_audit_fail(a->report, "shadow of gfn 0x%llx does not know of an unsync page",
			      ULL(at.v));
}

static bool has_view(const struct gn_shadow_vcpu *sv, const struct gn_shadow_page *page)
{
	bool has = false;

	for (unsigned v = 0; v < GN_SHADOW_VIEWS; v++)
		has |= sv->views[v] == page;
	return has;
}

/* Exactly the backend's entry where it belongs. */
static void check_reserved(struct audit *a, const struct gn_shadow_page *page)
{
	const struct gn_vm *vm = a->s->vm;
	unsigned level = page->key.role.level;
	unsigned top = page->key.role.levels == 5 ? 5 : 4;
	uint64_t want = level == 5 ? vm->root_slot.entry5 : vm->root_slot.entry4;
	uint64_t accessed = a->s->fmt->level[level].accessed;

	if (vm->has_root_slot && level == top &&
	    ((gn_entry_get(&page->entries[vm->root_slot.index]) ^ want) & ~accessed))
		gn_audit_fail(a->report, "root of gfn 0x%llx: the reserved entry is another",
			      ULL(page->key.gfn.v));
}

static bool is_reserved(const struct audit *a, const struct gn_shadow_page *page, unsigned index)
{
	const struct gn_vm *vm = a->s->vm;

	return vm->has_root_slot && index == vm->root_slot.index &&
	       page->key.role.level == (page->key.role.levels == 5 ? 5 : 4);
}

static void check_references(struct audit *a, const struct gn_shadow_page *page)
{
	const struct gn_shadow *s = a->s;
	uint32_t live = 0, cached = 0;

	for (unsigned v = 0; v < s->vm->config.vcpus; v++) {
		const struct gn_shadow_vcpu *sv = s->vcpus[v];

		live += sv && (s->is_vtlb ? has_view(sv, page) : sv->root == page);
		for (unsigned i = 0; sv && i < GN_SHADOW_CACHED_ROOTS; i++)
			cached += sv->cache[i] == page;
	}
	if (live != page->live_refs || cached != page->cache_refs)
		gn_audit_fail(a->report, "shadow of gfn 0x%llx: references are miscounted",
			      ULL(page->key.gfn.v));
	if (!s->is_vtlb && !page->is_hashed && (!live || cached || page->present_count))
		gn_audit_fail(a->report, "dead shadow of gfn 0x%llx is not an empty root",
			      ULL(page->key.gfn.v));
}

static void check_page(struct audit *a, struct gn_shadow_page *page)
{
	struct gn_shadow *s = a->s;
	unsigned level = page->key.role.level, present = 0;

	for (unsigned i = 0; i < GN_TABLE_ENTRIES; i++) {
		uint64_t entry = gn_entry_get(&page->entries[i]);

		if (!gn_fmt_is_present(s->fmt, level, entry) || is_reserved(a, page, i))
			continue;
		present++;
		if (gn_fmt_is_leaf(s->fmt, level, entry)) {
			a->leaves++;
			check_leaf(a, page, i, entry);
		} else {
			a->links++;
			check_link(a, page, i);
		}
	}
	a->links_named += gn_slots_count(&page->parents);
	if (present != page->present_count)
		gn_audit_fail(a->report, "shadow of gfn 0x%llx: entries are miscounted",
			      ULL(page->key.gfn.v));
	if (gn_shadow_page_of(s, page->table) != page)
		gn_audit_fail(a->report, "shadow of gfn 0x%llx: its frame is another page's",
			      ULL(page->key.gfn.v));
	if (page->is_hashed && gn_shadow_page_find(s, &page->key) != page)
		gn_audit_fail(a->report, "shadow of gfn 0x%llx is hidden by another of its key",
			      ULL(page->key.gfn.v));
	if (page->is_hashed && !page->key.role.direct && page->key.gfn.v < s->vm->p2m.gfn_count) {
		bool unsync = gn_rmap_marks(s, page->key.gfn) == GN_RMAP_UNSYNC;

		a->shadow_count[page->key.gfn.v]++;
		if (unsync != page->is_unsync || (unsync && level != 1))
			gn_audit_fail(a->report, "shadow of gfn 0x%llx: out of step with its gfn",
				      ULL(page->key.gfn.v));
	}
	check_references(a, page);
	check_reserved(a, page);
}

/* ---- gfns --------------------------------------------------------------------------------------------------- */

static void check_set(struct audit *a, uint64_t at, unsigned level, const struct gn_slots *set)
{
	uint32_t count = gn_slots_count(set);
	bool tracked = set->word & GN_RMAP_TRACKED;

	a->leaves_named += count;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t *slot = gn_slots_at(set, i), entry = gn_entry_get(slot);
		const struct gn_shadow_page *page = gn_shadow_page_of_slot(a->s, slot);

		if (!page || page->key.role.level != level ||
		    !gn_fmt_is_present(a->s->fmt, level, entry) ||
		    !gn_fmt_is_leaf(a->s->fmt, level, entry) ||
		    gn_shadow_leaf_gfn(page, gn_shadow_slot_index(slot)).v != at) {
			gn_audit_fail(a->report,
				      "the reverse map of gfn 0x%llx names no leaf of it", ULL(at));
			continue;
		}
		if (tracked && (gn_fmt_rights(a->s->fmt, level, entry) & GN_W))
			gn_audit_fail(a->report, "gfn 0x%llx is a shadowed table and writable",
				      ULL(at));
	}
}

/* The set of a block's large leaves, and the count of what is shadowed in it. */
static void check_block(struct audit *a, uint64_t at, unsigned level, const struct gn_slots *set,
			uint32_t counted)
{
	uint64_t end = at + gn_level_pages(level);
	uint32_t shadowed = 0;

	if (end > a->s->rmap.gfn_count)
		end = a->s->rmap.gfn_count;
	for (uint64_t i = at; i < end; i++)
		shadowed += a->shadow_count[i] != 0;
	if (shadowed != counted)
		gn_audit_fail(a->report, "block of gfn 0x%llx: shadowed tables are miscounted",
			      ULL(at));
	if (shadowed && !gn_slots_is_empty(set))
		gn_audit_fail(a->report,
			      "block of gfn 0x%llx has a shadowed table and a large leaf", ULL(at));
	check_set(a, at, level, set);
}

static void check_gfns(struct audit *a)
{
	struct gn_shadow *s = a->s;
	const struct gn_rmap *r = &s->rmap;

	for (uint64_t at = 0; at < r->gfn_count; at++) {
		const struct gn_slots *set = gn_rmap_peek(s, gfn(at));

		if (at % gn_level_pages(2) == 0)
			check_block(a, at, 2, gn_rmap_leaves(s, gfn(at), 2),
				    r->blocks[at / gn_level_pages(2)].shadowed_count);
		if (at % gn_level_pages(3) == 0)
			check_block(a, at, 3, gn_rmap_leaves(s, gfn(at), 3),
				    r->gigas[at / gn_level_pages(3)].shadowed_count);
		if (set)
			check_set(a, at, 1, set);
		if (!gn_rmap_marks(s, gfn(at)) != !a->shadow_count[at])
			gn_audit_fail(a->report,
				      "gfn 0x%llx: its standing is not that of its shadows",
				      ULL(at));
	}
}

/* ---- Roots -------------------------------------------------------------------------------------------------- */

/* Every access that a leaf of a view lets through must be the privilege's to make. */
static bool view_may_have(const struct audit *a, gn_rights_t have, const struct gn_translation *t)
{
	static const gn_rights_t lets[] = {
		[GN_READ] = GN_R, [GN_WRITE] = GN_W, [GN_FETCH] = GN_X
	};
	enum gn_view view = (enum gn_view)a->root->key.role.view;

	for (unsigned kind = GN_READ; kind <= GN_FETCH; kind++) {
		const struct gn_access access = { .kind = (uint8_t)kind,
						  .size = 1,
						  .user = view == GN_VIEW_USER,
						  .ac = view == GN_VIEW_KERNEL_AC };

		if ((have & lets[kind]) && gn_paging_access(&a->rules, t, &access))
			return false;
	}
	return true;
}

/* CR0.WP=0 is the one place where a leaf may say what the guest's entries do not (link.c). */
static bool may_have(const struct audit *a, gn_rights_t have, const struct gn_translation *t)
{
	const union gn_shadow_role role = a->root->key.role;
	gn_rights_t guest = t->rights, extra = have & ~guest;

	if (role.view != GN_VIEW_BOTH)
		return view_may_have(a, have, t);
	if (!extra)
		return true;
	if (extra != GN_W || role.wp || (have & GN_U))
		return false;
	return !(guest & GN_U) ||
	       (!role.user_guard_without_wp && !(role.smep_without_wp && (have & GN_X)));
}

static void check_against_guest(struct audit *a, unsigned level, uint64_t address, uint64_t entry)
{
	const struct gn_access read = { .va = gva(address), .kind = GN_READ, .size = 1 };
	const struct gn_fmt *f = a->paging.fmt;
	gn_rights_t have = gn_fmt_rights(a->s->fmt, level, entry);
	struct gn_guest_walk walk;
	p2m_word_t word;

	gn_rcu_read_lock();
	gn_guest_walk(a->s->vm, &a->paging, gfn_to_gpa(a->root->key.gfn).v, &read, 0, &walk);
	gn_rcu_read_unlock();
	if (walk.end != GN_GW_OK) {
		gn_audit_fail(a->report, "0x%llx is mapped, though not by the guest (error 0x%x)",
			      ULL(address), walk.error_code);
		return;
	}
	word = gn_p2m_get(&a->s->vm->p2m, gpa_to_gfn(walk.t.gpa));
	if (gn_fmt_address(a->s->fmt, level, entry) != pfn_to_hpa(gn_p2m_word_pfn(word)).v)
		gn_audit_fail(a->report,
			      "0x%llx leads to another frame than the guest's gpa 0x%llx",
			      ULL(address), ULL(walk.t.gpa.v));
	if (walk.t.level < level)
		gn_audit_fail(a->report, "0x%llx: a leaf larger than the guest's", ULL(address));
	if (!may_have(a, have, &walk.t))
		gn_audit_fail(a->report, "0x%llx has rights 0x%x, the guest gives 0x%x",
			      ULL(address), have, walk.t.rights);
	if ((have & GN_W) && !walk.t.dirty)
		gn_audit_fail(a->report, "0x%llx is writable, though D of the guest is clear",
			      ULL(address));
	if ((have & GN_U) && a->root->key.role.view == GN_VIEW_BOTH &&
	    gn_fmt_pkey(a->s->fmt, level, entry) != walk.t.pkey)
		gn_audit_fail(a->report, "0x%llx has another protection key", ULL(address));
	if ((entry & a->s->fmt->level[level].global) && !walk.t.global)
		gn_audit_fail(a->report, "0x%llx is global, though not to the guest", ULL(address));
	for (unsigned l = walk.t.level; l <= f->levels; l++)
		if (!(walk.entry[l] & f->level[l].accessed))
			gn_audit_fail(a->report, "0x%llx is mapped, though A of the guest is clear",
				      ULL(address));
}

static void visit(void *ctx, unsigned level, uint64_t address, uint64_t *slot, uint64_t entry)
{
	struct audit *a = ctx;
	const struct gn_shadow_page *page = gn_shadow_page_of_slot(a->s, slot);

	if (!gn_fmt_is_leaf(a->s->fmt, level, entry))
		return;
	if (!a->root->key.role.levels) { /* paging is off: the identity */
		if (page && gn_shadow_leaf_gfn(page, gn_shadow_slot_index(slot)).v !=
				    address >> GN_PAGE_SHIFT)
			gn_audit_fail(a->report, "0x%llx is not the identity", ULL(address));
	} else if (page && !page->is_unsync && !a->s->is_vtlb) {
		check_against_guest(a, level, address, entry);
	}
}

static void check_root(struct audit *a, const struct gn_shadow_page *root)
{
	struct gn_vm *vm = a->s->vm;
	union gn_shadow_role role = root->key.role;

	a->root = root;
	/* The mode the root's role stands for, derived as a register write would. */
	const struct gn_regs regs = { .cr0 = X86_CR0_PG | (role.wp ? X86_CR0_WP : 0),
				      .cr4 = role.levels == 5 ? X86_CR4_LA57 : 0,
				      .efer = role.nxe ? X86_EFER_NXE : 0 };

	gn_paging_derive(&regs, vm->config.guest_phys_bits, &a->paging);
	a->rules = a->paging;
	a->rules.smep = role.view_smep;
	a->rules.smap = role.view_smap;
	gn_audit_walk_table_but(vm, a->paging.fmt, pfn_to_hpa(root->table), a->s->reserved_index,
				visit, a, a->report);
}

/* Is the root that is in force the one of the guest's mode and privilege, and is each remembered one held? */
static void check_vcpu(struct audit *a, const struct gn_vcpu *vcpu)
{
	const struct gn_shadow_vcpu *sv = gn_shadow_vcpu_of(vcpu);
	const union gn_shadow_role role = sv->root->key.role;
	bool on = vcpu->regs.cr0 & X86_CR0_PG, wp = !on || (vcpu->regs.cr0 & X86_CR0_WP);
	enum gn_view view = vcpu->view;

	if (view == GN_VIEW_KERNEL_AC && !(vcpu->regs.cr4 & X86_CR4_SMAP))
		view = GN_VIEW_KERNEL;
	if (view != GN_VIEW_BOTH && !on)
		view = GN_VIEW_USER;
	wp |= view == GN_VIEW_USER;
	if (role.view != view || role.wp != wp ||
	    role.nxe != (on && (vcpu->regs.efer & X86_EFER_NXE)) ||
	    role.levels != (!on				    ? 0
			    : vcpu->regs.cr4 & X86_CR4_LA57 ? 5
							    : 4) ||
	    pfn_to_hpa(sv->root->table).v != vcpu->hw.root.v)
		gn_audit_fail(a->report, "vCPU %u: the root of another mode or view is in force",
			      vcpu->index);
	for (unsigned v = 0; v < GN_SHADOW_VIEWS; v++) {
		const struct gn_shadow_page *page = sv->views[v];
		bool held = !page || page == sv->root || a->s->is_vtlb;

		for (unsigned i = 0; i < GN_SHADOW_CACHED_ROOTS; i++)
			held |= sv->cache[i] == page;
		if (!held || (page && view != GN_VIEW_BOTH && page->key.role.view != v + 1))
			gn_audit_fail(a->report, "vCPU %u: the root of view %u is not held",
				      vcpu->index, v + 1);
	}
}

/* ---- All ------------------------------------------------------------------------------------------------------ */

static void check_totals(struct audit *a)
{
	struct gn_shadow *s = a->s;
	uint64_t pages = s->page_count;

	for (unsigned v = 0; v < s->vm->config.vcpus; v++)
		pages += s->vcpus[v] ? s->vcpus[v]->reserve.page_count : 0;
	if (pages != atomic_load_explicit(&s->vm->table_pages, memory_order_relaxed))
		gn_audit_fail(a->report, "%llu shadow pages, but %llu table pages are counted",
			      ULL(pages), ULL(atomic_load(&s->vm->table_pages)));
	if (a->leaves != a->leaves_named)
		gn_audit_fail(a->report, "%llu shadow leaves, but the reverse map names %llu",
			      ULL(a->leaves), ULL(a->leaves_named));
	if (a->links != a->links_named)
		gn_audit_fail(a->report, "%llu links, but pages know %llu parents", ULL(a->links),
			      ULL(a->links_named));
	if (!gn_shadow_list_is_empty(&s->doomed))
		gn_audit_fail(a->report, "doomed shadow pages were not given back");
}

void gn_shadow_audit(struct gn_vm *vm, struct gn_audit_report *report)
{
	struct gn_shadow *s = gn_shadow_of(vm);
	size_t bytes = s->rmap.gfn_count * sizeof(uint16_t);
	struct audit a = { .s = s, .report = report };
	struct gn_shadow_list *at;

	a.shadow_count = gn_arena_zalloc(vm->arena, bytes);
	if (!a.shadow_count) {
		gn_audit_fail(report, "no memory for the audit");
		return;
	}
	gn_shadow_enter(s);
	for (at = s->pages.next; at != &s->pages; at = at->next)
		check_page(&a, (struct gn_shadow_page *)at);
	check_gfns(&a);
	for (at = s->pages.next; at != &s->pages; at = at->next) {
		const struct gn_shadow_page *page = (const struct gn_shadow_page *)at;

		if (page->live_refs || page->cache_refs)
			check_root(&a, page);
	}
	for (unsigned v = 0; v < vm->config.vcpus; v++)
		if (s->vcpus[v])
			check_vcpu(&a, &vm->vcpus[v]);
	check_totals(&a);
	gn_shadow_leave(s);
	gn_arena_free(vm->arena, a.shadow_count, bytes);
}
