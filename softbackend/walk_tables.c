/* SPDX-License-Identifier: MIT */
/*
 * walk_tables.c - one dimension: the hardware walks tables the scheme keeps (shadow paging).
 *
 * As a CPU walks its CR3, and the tables happen to be ours: present, reserved, rights, A and D, #PF. The
 * rules are the guest's registers with the paging bits a shadowing VMM fixes: CR0.WP and EFER.NXE are on and
 * all 52 address bits are legal (gn_soft_refresh). An address the format cannot express, which the guest
 * can only name with paging off, is not present.
 *
 * A deprivileged machine runs the guest at CPL 3, so that is who walks, whatever privilege the guest believes to have.
 */
#include "walk.h"

#include <gnomon/x86.h>

#include "mmu/fmt_x86.h"

static const struct gn_fmt x86_4 = GN_FMT_X86_4_INIT;
static const struct gn_fmt x86_5 = GN_FMT_X86_5_INIT;

/* The entry of @level in *@table, which becomes the next table. FAULT: w->fault. */
GN_WALK_INLINE enum gn_walk_step step(struct gn_soft_cpu *cpu, const struct gn_access *access,
				      struct gn_soft_walk *w, const struct gn_fmt *f,
				      unsigned level, uint64_t *table, gn_rights_t *rights,
				      struct gn_walk_path *p, struct gn_walk_leaf *leaf)
{
	uint64_t offset = gn_fmt_index(f, level, access->va.v) * sizeof(uint64_t);
	uint64_t entry = gn_walk_ref(cpu, *table + offset, &p->slot[level]);
	uint32_t error_code = 0;

	if (GN_LIKELY(gn_fmt_is_present(f, level, entry))) {
		*table = gn_fmt_address(f, level, entry);
		if (GN_LIKELY(!gn_fmt_is_malformed(f, level, entry, f->phys_bits) &&
			      gn_frames_valid(cpu->vm->frames, hpa_to_pfn(hpa(*table))))) {
			return gn_walk_take(f, level, access->va.v, entry, false, rights, p, leaf);
		}
		error_code = X86_PF_P | X86_PF_RSVD;
	}
	gn_walk_page_fault(w, gn_paging_error_base(&cpu->paging, access) | error_code);
	return GN_STEP_FAULT;
}

/* False: a #PF that knows nothing of rights; w->fault is set. */
GN_WALK_INLINE bool descend(struct gn_soft_cpu *cpu, const struct gn_access *access,
			    struct gn_soft_walk *w, const struct gn_fmt *f, struct gn_walk_path *p,
			    struct gn_walk_leaf *leaf)
{
	uint64_t table;
	gn_rights_t rights;
	enum gn_walk_step s = GN_STEP_FAULT;
	unsigned level = gn_walk_begin(cpu, w, &cpu->pwc, cpu->tag, f->levels, access->va.v, &table,
				       &rights, p);

	switch (level) {
	case 5:
		if (f->levels < 5 ||
		    (s = step(cpu, access, w, f, 5, &table, &rights, p, leaf)) != GN_STEP_DOWN)
			break;
		__attribute__((fallthrough));
	case 4:
		s = step(cpu, access, w, f, 4, &table, &rights, p, leaf);
		if (s != GN_STEP_DOWN)
			break;
		__attribute__((fallthrough));
	case 3:
		s = step(cpu, access, w, f, 3, &table, &rights, p, leaf);
		if (s != GN_STEP_DOWN)
			break;
		__attribute__((fallthrough));
	case 2:
		s = step(cpu, access, w, f, 2, &table, &rights, p, leaf);
		if (s != GN_STEP_DOWN)
			break;
		__attribute__((fallthrough));
	default:
		s = step(cpu, access, w, f, 1, &table, &rights, p, leaf);
	}
	return s == GN_STEP_LEAF;
}

GN_WALK_INLINE void keep_path(struct gn_soft_cpu *cpu, const struct gn_fmt *f,
			      const struct gn_walk_path *p, unsigned leaf_level, uint64_t va)
{
	for (unsigned level = p->top; level > leaf_level; level--)
		gn_pwc_insert(&cpu->pwc, va, cpu->tag, level, &p->pde,
			      gn_fmt_address(f, level, p->entry[level]), p->rights[level], GN_RWXU);
}

GN_WALK_INLINE bool walk(struct gn_soft_cpu *cpu, const struct gn_access *access,
			 struct gn_soft_walk *w, const struct gn_fmt *f)
{
	uint64_t va = access->va.v;
	bool is_write = access->kind == GN_WRITE;
	struct gn_walk_path p;
	struct gn_walk_leaf leaf;
	struct gn_translation t;
	uint32_t denied;

	if (GN_UNLIKELY(!gn_paging_is_canonical(&cpu->paging, access->va)))
		return gn_walk_page_fault(w, gn_paging_error_base(&cpu->paging, access));
	do {
		if (GN_UNLIKELY(!descend(cpu, access, w, f, &p, &leaf)))
			return false;
		t.rights = leaf.rights;
		t.pkey = (uint8_t)gn_fmt_pkey(f, leaf.level, leaf.entry);
		denied = gn_paging_access(&cpu->paging, &t, access);
		if (GN_UNLIKELY(denied))
			return gn_walk_page_fault(w, denied);
	} while (GN_UNLIKELY(gn_walk_owes_bits(&p, &leaf, is_write)) &&
		 !gn_walk_set_accessed_dirty(f, &p, leaf.level, is_write) && gn_walk_again(cpu));
	keep_path(cpu, f, &p, leaf.level, va);

	if (leaf.level == 1)
		gn_ahead_note(cpu->ahead->guest, va, gn_walk_place(cpu, p.slot[1]));
	w->guest_level = w->level = (uint8_t)leaf.level;
	w->meta = gn_tlb_meta(t.rights, GN_RWXU, t.pkey, leaf.is_dirty || is_write,
			      cpu->paging.pge && (leaf.entry & f->level[leaf.level].global));
	w->address = leaf.address;
	return true;
}

static bool walk_x86_4(struct gn_soft_cpu *cpu, const struct gn_access *access,
		       struct gn_soft_walk *w)
{
	return walk(cpu, access, w, &x86_4);
}

static bool walk_x86_5(struct gn_soft_cpu *cpu, const struct gn_access *access,
		       struct gn_soft_walk *w)
{
	return walk(cpu, access, w, &x86_5);
}

static bool walk_other(struct gn_soft_cpu *cpu, const struct gn_access *access,
		       struct gn_soft_walk *w)
{
	return walk(cpu, access, w, cpu->fmt);
}

/* Only the rights of the access are looked at, and whether it is a store. */
static bool walk_as_user(struct gn_soft_cpu *cpu, const struct gn_access *access,
			 struct gn_soft_walk *w)
{
	const struct gn_access as_user = {
		.va = access->va, .kind = access->kind, .size = access->size, .user = true
	};

	return gn_soft_table_walker(cpu->fmt, false)(cpu, &as_user, w);
}

gn_soft_walk_fn *gn_soft_table_walker(const struct gn_fmt *fmt, bool as_user)
{
	if (as_user)
		return walk_as_user;
	if (fmt == &gn_fmt_x86_4)
		return walk_x86_4;
	return fmt == &gn_fmt_x86_5 ? walk_x86_5 : walk_other;
}
