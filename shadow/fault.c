/* SPDX-License-Identifier: MIT */
/*
 * fault.c - a page fault under our tables.
 *
 *     read the p2m's sequence
 *     walk the guest's tables, setting A and D        not allowed: the fault is the guest's
 *     ask the p2m for the frame                       none: not memory, or denied
 *     lock; has the p2m or a guest entry changed?     walk again
 *     pages on the way, leaf
 *
 * The walk runs without the lock. Under it, every guest entry of the walk is read again: tables that have a
 * shadow page are write-protected, and a store that slipped in before was or will be reported to us, under
 * the same lock. The virtual TLB needs none of that: like a TLB it may cache what it read.
 *
 * Where hardware, which runs with CR0.WP=1, cannot be given an entry that allows what the guest's CR0.WP=0
 * allows, the store is emulated: a kernel write to a read-only user page under SMAP or protection keys
 * (U=0, as used otherwise, would lift both guards), and one that a key write-disables under WP alone.
 *
 * In a deprivileged VM the tables in force are of one view, and serve explicit accesses of its privilege. Any other
 * access is made by the VMM on the guest's behalf (a descriptor load, a stack it pushes to); it is answered
 * by software, and nothing is installed. So is the one thing a view cannot say: a kernel's fetch from a user
 * page under SMAP without SMEP, for there is no entry that is executable and not readable.
 *
 * A guest that changes its entries under our eyes could keep a fault from ever finding them unchanged; after
 * some attempts the instruction is simply run again, and faults again, at the guest's own cost.
 */
#include "shadow.h"

#include "mmu/software_access.h"

#define MAX_ATTEMPTS 16

static const gn_rights_t need[] = { [GN_READ] = GN_R, [GN_WRITE] = GN_W, [GN_FETCH] = GN_X };

static bool is_path_current(const struct gn_shadow *s, const struct gn_shadow_fill *fill)
{
	const struct gn_guest_walk *walk = &fill->walk;

	for (unsigned level = fill->vcpu->paging.levels; level >= walk->t.level && level; level--) {
		unsigned index = gn_fmt_index(s->fmt, level, fill->access->va.v);
		const uint64_t *entry = (const uint64_t *)gn_p2m_pointer(
			s->vm, gpa(gfn_to_gpa(walk->table[level]).v + index * sizeof(*entry)));

		if (!entry || __atomic_load_n(entry, __ATOMIC_ACQUIRE) != walk->entry[level])
			return false;
	}
	return true;
}

/* A block that holds a table of this very walk will be shadowed in a moment. */
static bool maps_own_table(const struct gn_shadow_fill *fill, unsigned leaf_level)
{
	uint64_t block = ~(gn_level_pages(leaf_level) - 1);

	for (unsigned l = fill->walk.t.level; l <= fill->vcpu->paging.levels; l++)
		if ((fill->walk.table[l].v & block) == (fill->gfn.v & block))
			return true;
	return false;
}

static uint8_t choose_leaf_level(struct gn_shadow *s, const struct gn_shadow_fill *fill)
{
	unsigned level = 1;

	if (!gn_dirty_is_logged(s->vm))
		level = gn_vm_leaf_level(s->vm, fill->word);
	if (level > fill->walk.t.level)
		level = fill->walk.t.level;
	while (level > 1 && !s->is_vtlb &&
	       (!gn_rmap_allows_large(s, fill->gfn, level) || maps_own_table(fill, level)))
		level--;
	return (uint8_t)level;
}

static bool is_supervisor(const struct gn_access *access)
{
	return !access->user || access->implicit;
}

/* May this leaf be writable, as far as the dirty log goes? Then it is marked. */
static bool log_write(struct gn_vm *vm, gfn_t at, bool is_write)
{
	if (GN_LIKELY(!gn_dirty_is_logged(vm)))
		return true;
	if (is_write)
		gn_dirty_mark(vm, at);
	return is_write;
}

/* Only asked under CR0.WP=0: else the hardware judges as the guest would. */
static bool hardware_allows(const struct gn_shadow *s, const struct gn_shadow_fill *fill,
			    uint64_t entry)
{
	struct gn_paging hardware = fill->vcpu->paging;
	struct gn_translation t = fill->walk.t;

	hardware.wp = true;
	t.rights = gn_fmt_rights(s->fmt, fill->leaf_level, entry);
	return !gn_paging_access(&hardware, &t, fill->access);
}

static int map_leaf(struct gn_shadow *s, struct gn_shadow_fill *fill, struct gn_shadow_page *page,
		    struct gn_fix *fix)
{
	const struct gn_translation *t = &fill->walk.t;
	bool is_write = fill->access->kind == GN_WRITE;
	bool tracked = gn_rmap_marks(s, fill->gfn) & GN_RMAP_TRACKED;
	unsigned index = gn_fmt_index(s->fmt, fill->leaf_level, fill->access->va.v);
	struct gn_shadow_leaf leaf = {
		.gfn = gfn(fill->gfn.v & ~(gn_level_pages(fill->leaf_level) - 1)),
		.rights = t->rights,
		.dirty = t->dirty,
		.global = t->global,
		.pkey = t->pkey,
	};
	uint64_t entry;
	int err;

	if (is_write && tracked)
		tracked = !gn_shadow_write_to_table(s, fill);
	fix->kind = is_write && tracked ? GN_FIX_EMULATE : GN_FIX_RETRY;
	fix->gpa = t->gpa;
	leaf.may_write = !tracked && t->dirty && log_write(s->vm, fill->gfn, is_write);
	leaf.kernel_write = is_write && leaf.may_write && is_supervisor(fill->access) &&
			    !page->key.role.user_guard_without_wp; /* no view asks */
	entry = gn_shadow_leaf_entry(s, page->key.role, &leaf, fill->word);
	err = gn_shadow_leaf_set(s, page, index, leaf.gfn, entry);
	if (GN_UNLIKELY(!page->key.role.wp && is_write && page->key.role.view == GN_VIEW_BOTH &&
			!hardware_allows(s, fill, entry)))
		fix->kind = GN_FIX_EMULATE;
	return err;
}

/* A gn_shadow_step or -ENOMEM. */
static int fill_locked(struct gn_shadow *s, struct gn_shadow_fill *fill, struct gn_fix *fix)
{
	const struct gn_shadow_page *root = gn_shadow_vcpu_of(fill->vcpu)->root;
	struct gn_shadow_page *page;
	int step;

	if (GN_UNLIKELY(!s->is_vtlb && !root->is_hashed))
		return GN_STEP_ROOT;
	if (gn_p2m_retry(&s->vm->p2m, fill->p2m_sequence))
		return GN_STEP_AGAIN;
	if (!s->is_vtlb && !is_path_current(s, fill))
		return GN_STEP_AGAIN;
	fill->leaf_level = choose_leaf_level(s, fill);
	step = gn_shadow_path(s, fill, &page);
	return step ? step : map_leaf(s, fill, page, fix);
}

/* Wait until no vCPU can be using a translation whose flush was posted up to now. */
static void settle(struct gn_shadow *s)
{
	uint64_t sequence;

	gn_shadow_enter(s);
	sequence = s->flush_seq;
	gn_shadow_leave(s);
	gn_vm_synchronize(s->vm);
	gn_shadow_enter(s);
	if (s->settled_seq < sequence)
		s->settled_seq = sequence;
	gn_shadow_leave(s);
}

static int supply(struct gn_shadow *s, const struct gn_shadow_fill *fill)
{
	struct gn_vcpu *vcpu = fill->vcpu;

	for (unsigned l = fill->walk.t.level; !s->is_vtlb && l <= vcpu->paging.levels; l++) {
		int err = gn_rmap_prepare(s, fill->walk.table[l]);

		if (err)
			return err;
	}
	return gn_shadow_reserve_need(s, &gn_shadow_vcpu_of(vcpu)->reserve, fill->need_pages,
				      fill->need_gfns);
}

static int fill(struct gn_shadow *s, struct gn_shadow_fill *fill, struct gn_fix *fix)
{
	int err = gn_rmap_prepare(s, fill->gfn), step;

	if (GN_UNLIKELY(err))
		return err;
	gn_shadow_enter(s);
	gn_rcu_read_lock();
	step = fill_locked(s, fill, fix);
	gn_rcu_read_unlock();
	gn_shadow_leave(s);
	switch (step) {
	case GN_STEP_PAGES:
		err = supply(s, fill);
		return err ? err : GN_STEP_AGAIN;
	case GN_STEP_SETTLE:
		settle(s);
		return GN_STEP_AGAIN;
	case GN_STEP_ROOT:
		err = gn_shadow_load_root(fill->vcpu);
		return err ? err : GN_STEP_AGAIN;
	default:
		return step;
	}
}

/* The walk ended at a table that could not be read, or written for A and D. True: walk again. */
static int resolve_table(struct gn_vm *vm, const struct gn_guest_walk *walk, struct gn_fix *fix)
{
	p2m_word_t word;
	int err = gn_p2m_resolve(vm, gpa_to_gfn(walk->gpa), true, &word, fix);

	fix->gpa = walk->gpa;
	if (!err && fix->kind == GN_FIX_MMIO)
		fix->why = "a page table of the guest lies outside its memory";
	if (!err && fix->kind != GN_FIX_RETRY) /* never DENIED: that answers for the datum */
		fix->kind = GN_FIX_STOP;
	return err;
}

static int resolve_frame(struct gn_shadow_fill *fill, struct gn_fix *fix)
{
	int err = gn_p2m_resolve(fill->vcpu->vm, fill->gfn, fill->access->kind == GN_WRITE,
				 &fill->word, fix);

	fix->gpa = fill->walk.t.gpa;
	if (!err && fix->kind == GN_FIX_RETRY &&
	    GN_UNLIKELY(!(gn_p2m_word_rights(fill->word) & need[fill->access->kind]))) {
		fix->kind = GN_FIX_DENIED;
		fix->why = "the p2m does not grant this access";
	}
	return err;
}

/* The guest maps something where the backend's own entry is. */
static bool is_taken(const struct gn_shadow *s, const struct gn_shadow_fill *f)
{
	unsigned top = f->vcpu->paging.levels == 5 ? 5 : 4;

	return GN_UNLIKELY(s->reserved_index < GN_TABLE_ENTRIES) &&
	       gn_fmt_index(s->fmt, top, f->access->va.v) == s->reserved_index;
}

/* May the tables in force ever be asked for @access? */
static bool is_of_view(const struct gn_vcpu *vcpu, const struct gn_access *access)
{
	bool lifts_smap = vcpu->view == GN_VIEW_KERNEL_AC;

	if (GN_LIKELY(vcpu->view == GN_VIEW_BOTH))
		return true;
	if (access->implicit || access->user != (vcpu->view == GN_VIEW_USER))
		return false;
	return access->user || !vcpu->paging.smap || access->ac == lifts_smap;
}

/* Can they be made to allow it? The guest's do. */
static bool view_has(const struct gn_shadow_fill *f)
{
	union gn_shadow_role base = gn_shadow_vcpu_of(f->vcpu)->base;

	return GN_LIKELY(base.view == GN_VIEW_BOTH) ||
	       (gn_shadow_view_rights(base, f->walk.t.rights) & need[f->access->kind]);
}

/* By the guest's tables and the p2m. A store may be to a table, so gn_vcpu_store() is to do it. */
static int answer_by_software(struct gn_vcpu *vcpu, const struct gn_access *access,
			      struct gn_fix *fix)
{
	uint64_t filled = 0;
	int err = gn_software_access(vcpu, access, fix, &filled);

	if (!err && fix->kind == GN_FIX_ACCESS && access->kind == GN_WRITE)
		fix->kind = GN_FIX_EMULATE;
	return err;
}

/* One attempt. GN_STEP_DONE: @fix is the answer. */
static int attempt(struct gn_shadow *s, struct gn_shadow_fill *f, struct gn_fix *fix)
{
	struct gn_vcpu *vcpu = f->vcpu;
	int err;

	f->p2m_sequence = gn_p2m_begin_read(&s->vm->p2m);
	gn_rcu_read_lock();
	gn_guest_walk(s->vm, &vcpu->paging, vcpu->regs.cr3, f->access, GN_GW_SET_AD, &f->walk);
	gn_rcu_read_unlock();
	switch (f->walk.end) {
	case GN_GW_OK:
		break;
	case GN_GW_PF:
		fix->kind = GN_FIX_INJECT;
		fix->error_code = f->walk.error_code;
		return GN_STEP_DONE;
	case GN_GW_GP:
		fix->kind = GN_FIX_INJECT_GP;
		return GN_STEP_DONE;
	default:
		err = resolve_table(s->vm, &f->walk, fix);
		return err || fix->kind != GN_FIX_RETRY ? err : GN_STEP_AGAIN;
	}
	f->gfn = gpa_to_gfn(f->walk.t.gpa);
	err = resolve_frame(f, fix);
	if (err || fix->kind != GN_FIX_RETRY)
		return err;
	if (is_taken(s, f)) {
		fix->kind = GN_FIX_STOP;
		fix->why = "the guest uses the addresses the monitor lives at";
		return GN_STEP_DONE;
	}
	if (GN_UNLIKELY(!view_has(f)))
		return answer_by_software(vcpu, f->access, fix);
	err = fill(s, f, fix);
	vcpu->counters.shadow_faults += err == GN_STEP_DONE && fix->kind == GN_FIX_RETRY;
	return err;
}

int gn_shadow_fault(struct gn_vcpu *vcpu, const struct gn_fault *fault, struct gn_fix *fix)
{
	struct gn_shadow *s = gn_shadow_of(vcpu->vm);
	struct gn_shadow_fill f;
	int step = GN_STEP_AGAIN;

	if (GN_UNLIKELY(!is_of_view(vcpu, &fault->access)))
		return answer_by_software(vcpu, &fault->access, fix);
	f.vcpu = vcpu;
	f.access = &fault->access;
	for (unsigned i = 0; step == GN_STEP_AGAIN && i < MAX_ATTEMPTS; i++)
		step = attempt(s, &f, fix);
	if (step == GN_STEP_AGAIN)
		fix->kind = GN_FIX_RETRY;
	return step < 0 ? step : 0;
}
