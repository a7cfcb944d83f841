/* SPDX-License-Identifier: MIT */
/*
 * walk_nested.c - the nested dimension: GPA to HPA through EPT or NPT tables.
 *
 * Asked for the page of each guest table and for the datum. A guest table's page goes through the nested
 * TLB and the nested walk caches; whether the datum's does is a figure of the CPU.
 *
 * Rights are the scheme's (R, W, X, and U where the format walks as user) and are kept apart from the
 * guest's: a lack of them is a nested violation and no #PF. With nested A/D bits on, a page of guest tables
 * counts as written (Intel SDM 3C 29.3.2); NPT always asks for W and U on them (APM 2 15.25.5).
 */
#include "walk.h"

#include "mmu/fmt_ept.h"
#include "mmu/fmt_npt.h"

static const struct gn_fmt ept_4 = GN_FMT_EPT_4_INIT;
static const struct gn_fmt ept_5 = GN_FMT_EPT_5_INIT;
static const struct gn_fmt npt_4 = GN_FMT_NPT_4_INIT;
static const struct gn_fmt npt_5 = GN_FMT_NPT_5_INIT;

GN_WALK_INLINE void keep_path(struct gn_soft_cpu *cpu, const struct gn_fmt *f,
			      const struct gn_walk_path *p, uint64_t at)
{
	for (unsigned level = p->top; level > p->leaf; level--)
		gn_pwc_insert(&cpu->nested_pwc, at, 0, level,
			      gn_fmt_address(f, level, p->entry[level]), p->rights[level], GN_RWXU);
}

/* The entry of @level in *@table, which becomes the next table. */
GN_WALK_INLINE enum gn_walk_step step(struct gn_soft_cpu *cpu, struct gn_soft_walk *w,
				      const struct gn_fmt *f, unsigned level, uint64_t at,
				      uint64_t *table, gn_rights_t *rights, struct gn_walk_path *p)
{
	uint64_t entry = gn_walk_ref(cpu, w, *table + gn_fmt_index(f, level, at) * sizeof(uint64_t),
				     &p->slot[level]);
	enum gn_walk_step took;

	if (GN_UNLIKELY(!gn_fmt_is_present(f, level, entry) ||
			gn_fmt_is_malformed(f, level, entry, f->phys_bits)))
		return GN_STEP_FAULT;
	took = gn_walk_take(f, level, entry, *rights, p);
	*rights = p->rights[level];
	*table = gn_fmt_address(f, level, entry);
	if (took == GN_STEP_DOWN &&
	    GN_UNLIKELY(!gn_frames_valid(cpu->vm->frames, hpa_to_pfn(hpa(*table)))))
		return GN_STEP_FAULT;
	return took;
}

/* Read down to the leaf. False: a violation. */
GN_WALK_INLINE bool descend(struct gn_soft_cpu *cpu, struct gn_soft_walk *w, const struct gn_fmt *f,
			    uint64_t at, bool use_pwc, struct gn_walk_path *p)
{
	const struct gn_assoc_entry *known = NULL;
	uint64_t table = cpu->vcpu->hw.root.v;
	gn_rights_t rights = GN_RWXU;
	enum gn_walk_step s = GN_STEP_FAULT;
	unsigned level = f->levels, found;

	if (use_pwc && cpu->nested_pwc.exists) {
		w->cycles += cpu->cost.pwc;
		known = gn_pwc_find(&cpu->nested_pwc, at, 0, f->levels, &found);
	}
	if (known) {
		cpu->stats.pwc_hits++;
		table = known->frame;
		rights = known->rights;
		level = found - 1;
	}
	p->top = level;
	p->missing = 0;
	switch (level) {
	case 5:
		if (f->levels < 5 ||
		    (s = step(cpu, w, f, 5, at, &table, &rights, p)) != GN_STEP_DOWN)
			break;
		__attribute__((fallthrough));
	case 4:
		s = step(cpu, w, f, 4, at, &table, &rights, p);
		if (s != GN_STEP_DOWN)
			break;
		__attribute__((fallthrough));
	case 3:
		s = step(cpu, w, f, 3, at, &table, &rights, p);
		if (s != GN_STEP_DOWN)
			break;
		__attribute__((fallthrough));
	case 2:
		s = step(cpu, w, f, 2, at, &table, &rights, p);
		if (s != GN_STEP_DOWN)
			break;
		__attribute__((fallthrough));
	default:
		s = step(cpu, w, f, 1, at, &table, &rights, p);
	}
	return s == GN_STEP_LEAF;
}

GN_WALK_INLINE bool nested_walk(struct gn_soft_cpu *cpu, struct gn_soft_walk *w,
				const struct gn_fmt *f, gpa_t at, gn_rights_t need, bool is_data,
				struct gn_soft_nested *out)
{
	bool use_tlb = cpu->nested_tlb.array[0].ways && (!is_data || cpu->cost.nested_tlb_for_data);
	bool use_pwc = !is_data || cpu->cost.nested_pwc_for_data;
	bool has_ad = cpu->vcpu->hw.nested_ad;
	struct gn_assoc_entry *e;
	struct gn_walk_path p;
	unsigned level;

	if (use_tlb) {
		e = gn_tlb_find(&cpu->nested_tlb, at.v, 0, &level);
		if (e && !(need & ~e->rights) && (!(need & GN_W) || (e->flags & GN_ENTRY_DIRTY))) {
			cpu->stats.nested_tlb_hits++;
			*out = (struct gn_soft_nested){
				.hpa = hpa(e->frame | (at.v & (gn_level_bytes(level) - 1))),
				.rights = e->rights,
				.level = (uint8_t)level,
				.dirty = e->flags & GN_ENTRY_DIRTY,
			};
			return true;
		}
		if (e)
			gn_tlb_drop(&cpu->nested_tlb, at.v, 0);
		cpu->stats.nested_tlb_misses++;
	}
	if (GN_UNLIKELY(at.v >> (GN_PAGE_SHIFT + GN_INDEX_BITS * f->levels)))
		return gn_walk_nested_fault(w, at, !is_data);
	do {
		if (GN_UNLIKELY(!descend(cpu, w, f, at.v, use_pwc, &p) ||
				(need & ~p.rights[p.leaf])))
			return gn_walk_nested_fault(w, at, !is_data);
	} while (has_ad && GN_UNLIKELY(gn_walk_owes_bits(f, &p, need & GN_W)) &&
		 !gn_walk_set_accessed_dirty(f, &p, need & GN_W));
	if (use_pwc)
		keep_path(cpu, f, &p, at.v);

	if (p.leaf == 1)
		gn_ahead_note(cpu->ahead->nested, at.v, p.slot[1]);
	out->hpa = hpa(gn_fmt_address(f, p.leaf, p.entry[p.leaf]) |
		       (at.v & (gn_level_bytes(p.leaf) - 1)));
	out->rights = p.rights[p.leaf];
	out->level = (uint8_t)p.leaf;
	out->dirty = !has_ad || (p.entry[p.leaf] & f->level[p.leaf].dirty);
	if (use_tlb) {
		level = p.leaf;
		e = gn_tlb_insert(&cpu->nested_tlb, at.v, 0, false, &level);
		*e = (struct gn_assoc_entry){ .frame = out->hpa.v & ~(gn_level_bytes(level) - 1),
					      .rights = out->rights,
					      .flags = out->dirty ? GN_ENTRY_DIRTY : 0 };
	}
	return true;
}

static bool walk_ept_4(struct gn_soft_cpu *cpu, struct gn_soft_walk *w, gpa_t at, gn_rights_t need,
		       bool is_data, struct gn_soft_nested *out)
{
	return nested_walk(cpu, w, &ept_4, at, need, is_data, out);
}

static bool walk_ept_5(struct gn_soft_cpu *cpu, struct gn_soft_walk *w, gpa_t at, gn_rights_t need,
		       bool is_data, struct gn_soft_nested *out)
{
	return nested_walk(cpu, w, &ept_5, at, need, is_data, out);
}

static bool walk_npt_4(struct gn_soft_cpu *cpu, struct gn_soft_walk *w, gpa_t at, gn_rights_t need,
		       bool is_data, struct gn_soft_nested *out)
{
	return nested_walk(cpu, w, &npt_4, at, need, is_data, out);
}

static bool walk_npt_5(struct gn_soft_cpu *cpu, struct gn_soft_walk *w, gpa_t at, gn_rights_t need,
		       bool is_data, struct gn_soft_nested *out)
{
	return nested_walk(cpu, w, &npt_5, at, need, is_data, out);
}

/* A format of an embedder's own. */
static bool walk_other(struct gn_soft_cpu *cpu, struct gn_soft_walk *w, gpa_t at, gn_rights_t need,
		       bool is_data, struct gn_soft_nested *out)
{
	return nested_walk(cpu, w, cpu->fmt, at, need, is_data, out);
}

gn_soft_nested_walk_fn *gn_soft_nested_walker(const struct gn_fmt *fmt)
{
	if (fmt == &gn_fmt_ept_4)
		return walk_ept_4;
	if (fmt == &gn_fmt_ept_5)
		return walk_ept_5;
	if (fmt == &gn_fmt_npt_4)
		return walk_npt_4;
	return fmt == &gn_fmt_npt_5 ? walk_npt_5 : walk_other;
}
