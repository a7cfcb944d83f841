/* SPDX-License-Identifier: MIT */
/*
 * walk_nested.h - the nested dimension: GPA to HPA through EPT or NPT tables.
 *
 * Asked for the page of each guest table and for the datum. A guest table's page goes through the nested
 * TLB and the nested walk caches; whether the datum's does is a figure of the CPU.
 *
 * Rights are the scheme's (R, W, X, and U where the format walks as user) and are kept apart from the
 * guest's: a lack of them is a nested violation and no #PF. With nested A/D bits on, a page of guest tables
 * counts as written (Intel SDM 3C 29.3.2); NPT always asks for W and U on them (APM 2 15.25.5).
 */
#ifndef GN_SOFT_WALK_NESTED_H
#define GN_SOFT_WALK_NESTED_H

#include "walk.h"

GN_WALK_INLINE void gn_nested_keep_level(struct gn_soft_cpu *cpu, const struct gn_fmt *f,
					 const struct gn_walk_path *p, unsigned leaf_level,
					 unsigned level, uint64_t at)
{
	if (level <= p->top && level > leaf_level)
		gn_pwc_insert(&cpu->nested_pwc, at, 0, level, &p->pde,
			      gn_fmt_address(f, level, p->entry[level]), p->rights[level], GN_RWXU);
}

GN_WALK_INLINE void gn_nested_keep_path(struct gn_soft_cpu *cpu, const struct gn_fmt *f,
					const struct gn_walk_path *p, unsigned leaf_level,
					uint64_t at)
{
	gn_nested_keep_level(cpu, f, p, leaf_level, 2, at);
	if (GN_LIKELY(p->top < 3))
		return;
	gn_nested_keep_level(cpu, f, p, leaf_level, 3, at);
	gn_nested_keep_level(cpu, f, p, leaf_level, 4, at);
	if (f->levels == 5)
		gn_nested_keep_level(cpu, f, p, leaf_level, 5, at);
}

/* The entry of @level in *@table, which becomes the next table. */
GN_WALK_INLINE enum gn_walk_step gn_nested_step(struct gn_soft_cpu *cpu, const struct gn_fmt *f,
						unsigned level, uint64_t at, uint64_t *table,
						gn_rights_t *rights, struct gn_walk_path *p,
						struct gn_walk_leaf *leaf)
{
	uint64_t entry = gn_walk_ref(cpu, *table + gn_fmt_index(f, level, at) * sizeof(uint64_t),
				     &p->slot[level]);

	if (GN_LIKELY(gn_fmt_is_plain(f, level, entry, 0))) {
		gn_walk_take(f, level, at, entry, true, rights, p, leaf);
		if (level == 1)
			return GN_STEP_LEAF;
	} else {
		if (!gn_fmt_is_present(f, level, entry) ||
		    gn_fmt_is_malformed(f, level, entry, f->phys_bits))
			return GN_STEP_FAULT;
		if (gn_walk_take(f, level, at, entry, false, rights, p, leaf) == GN_STEP_LEAF)
			return GN_STEP_LEAF;
	}
	*table = entry & f->level[level].address;
	if (GN_UNLIKELY(!gn_frames_valid(cpu->vm->frames, hpa_to_pfn(hpa(*table)))))
		return GN_STEP_FAULT;
	return GN_STEP_DOWN;
}

/* Read down to the leaf. False: a violation. */
GN_WALK_INLINE bool gn_nested_descend(struct gn_soft_cpu *cpu, struct gn_soft_walk *w,
				      const struct gn_fmt *f, uint64_t at, bool use_pwc,
				      struct gn_walk_path *p, struct gn_walk_leaf *leaf)
{
	uint64_t table;
	gn_rights_t rights;
	enum gn_walk_step s = GN_STEP_FAULT;
	unsigned level = gn_walk_begin(cpu, w, use_pwc ? &cpu->nested_pwc : NULL, 0, f->levels, at,
				       &table, &rights, p);

	switch (level) {
	case 5:
		if (f->levels < 5 ||
		    (s = gn_nested_step(cpu, f, 5, at, &table, &rights, p, leaf)) != GN_STEP_DOWN)
			break;
		__attribute__((fallthrough));
	case 4:
		s = gn_nested_step(cpu, f, 4, at, &table, &rights, p, leaf);
		if (s != GN_STEP_DOWN)
			break;
		__attribute__((fallthrough));
	case 3:
		s = gn_nested_step(cpu, f, 3, at, &table, &rights, p, leaf);
		if (s != GN_STEP_DOWN)
			break;
		__attribute__((fallthrough));
	case 2:
		s = gn_nested_step(cpu, f, 2, at, &table, &rights, p, leaf);
		if (s != GN_STEP_DOWN)
			break;
		__attribute__((fallthrough));
	default:
		s = gn_nested_step(cpu, f, 1, at, &table, &rights, p, leaf);
	}
	return s == GN_STEP_LEAF;
}

/* A hit of the nested TLB that allows @need; what doesn't is dropped. */
GN_WALK_INLINE bool gn_nested_find_in_tlb(struct gn_soft_cpu *cpu, gpa_t at, gn_rights_t need,
					  struct gn_tlb_place *place, struct gn_soft_nested *out)
{
	struct gn_assoc_entry *e = gn_tlb_find(&cpu->nested_tlb, at.v, 0, place);

	if (e && !(need & ~gn_tlb_rights(e->meta)) &&
	    (!(need & GN_W) || (e->meta & GN_TLB_DIRTY))) {
		cpu->stats.nested_tlb_hits++;
		out->hpa = hpa(e->frame | (at.v & ~gn_tlb_mask(place->level)));
		out->rights = gn_tlb_rights(e->meta);
		out->level = (uint8_t)place->level;
		out->dirty = e->meta & GN_TLB_DIRTY;
		return true;
	}
	cpu->stats.nested_tlb_misses++;
	if (GN_UNLIKELY(e != NULL)) {
		gn_tlb_drop(&cpu->nested_tlb, at.v, 0);
		place->level = 0;
	}
	return false;
}

/* Where @at is, for an access that has @need of rights. @is_data: the datum's page, not a guest table's. False: w->fault. */
GN_WALK_INLINE bool gn_walk_nested(struct gn_soft_cpu *cpu, struct gn_soft_walk *w,
				   const struct gn_fmt *f, gpa_t at, gn_rights_t need, bool is_data,
				   struct gn_soft_nested *out)
{
	bool use_tlb = cpu->nested_tlb.array[0].ways && (!is_data || cpu->cost.nested_tlb_for_data);
	bool use_pwc = !is_data || cpu->cost.nested_pwc_for_data;
	bool has_ad = cpu->vcpu->hw.nested_ad, is_write = need & GN_W;
	struct gn_tlb_place place;
	struct gn_walk_path p;
	struct gn_walk_leaf leaf;

	if (use_tlb && gn_nested_find_in_tlb(cpu, at, need, &place, out))
		return true;
	if (GN_UNLIKELY(at.v >> (GN_PAGE_SHIFT + GN_INDEX_BITS * f->levels)))
		return gn_walk_nested_fault(w, at, !is_data);
	do {
		if (GN_UNLIKELY(!gn_nested_descend(cpu, w, f, at.v, use_pwc, &p, &leaf) ||
				(need & ~leaf.rights)))
			return gn_walk_nested_fault(w, at, !is_data);
	} while (GN_UNLIKELY(gn_walk_owes_bits(&p, &leaf, is_write) && has_ad) &&
		 !gn_walk_set_accessed_dirty(f, &p, leaf.level, is_write) && gn_walk_again(cpu));
	if (use_pwc)
		gn_nested_keep_path(cpu, f, &p, leaf.level, at.v);
	if (is_data && leaf.level == 1)
		gn_ahead_note(cpu->ahead->nested, at.v, gn_walk_place(cpu, p.slot[1]));
	out->hpa = hpa(leaf.address);
	out->rights = leaf.rights;
	out->level = (uint8_t)leaf.level;
	out->dirty = !has_ad || leaf.is_dirty || is_write;
	if (use_tlb) {
		unsigned level = leaf.level;
		struct gn_assoc_entry *e =
			gn_tlb_insert(&cpu->nested_tlb, at.v, 0, false, &place, &level);

		e->frame = leaf.address & gn_tlb_mask(level);
		e->meta = gn_tlb_meta(leaf.rights, 0, 0, out->dirty, false);
	}
	return true;
}

#endif
