/* SPDX-License-Identifier: MIT */
/*
 * walk_guest.c - the hardware walks the guest's own tables: native, and the guest dimension of nested
 * paging.
 *
 *     CR3 --nested--> table --[index]--> entry --nested--> table ... --> leaf --nested--> datum
 *
 * Both are the same walk; they differ in how a GPA becomes a place in memory. Native: through the
 * p2m, free of cost, since a machine without a hypervisor has its memory. Nested: through walk_nested.h,
 * whose references count here. So a cold walk of g guest and h nested levels makes (g+1)(h+1)-1.
 *
 * The order of things is that of mmu/guest_walk.c, the oracle: entries down to the leaf, the rights of the
 * whole path against the access, then A and D, then the datum's own GPA.
 */
#include "walk_nested.h"

#include <gnomon/x86.h>

#include "mmu/fmt_ept.h"
#include "mmu/fmt_npt.h"
#include "mmu/fmt_x86.h"

static const struct gn_fmt x86_4 = GN_FMT_X86_4_INIT;
static const struct gn_fmt x86_5 = GN_FMT_X86_5_INIT;
static const struct gn_fmt ept_4 = GN_FMT_EPT_4_INIT;
static const struct gn_fmt ept_5 = GN_FMT_EPT_5_INIT;
static const struct gn_fmt npt_4 = GN_FMT_NPT_4_INIT;
static const struct gn_fmt npt_5 = GN_FMT_NPT_5_INIT;

/* The nested dimension, known when compiled; native has none. */
struct nested {
	const struct gn_fmt *fmt; /* NULL: the CPU's, of an embedder's own */
	/* gn_walk_nested() for a guest table's page, out of line */
	bool (*table)(struct gn_soft_cpu *cpu, struct gn_soft_walk *w, gpa_t at,
		      struct gn_soft_nested *out);
};

GN_WALK_INLINE bool walk_nested(struct gn_soft_cpu *cpu, struct gn_soft_walk *w,
				const struct nested *nested, gpa_t at, gn_rights_t need,
				bool is_data, struct gn_soft_nested *out)
{
	return gn_walk_nested(cpu, w, nested->fmt ? nested->fmt : cpu->fmt, at, need, is_data, out);
}

struct path {
	struct gn_walk_path read;
	uint64_t table[GN_MAX_LEVELS + 1];    /* by level: GPA of the table read */
	uint64_t host[GN_MAX_LEVELS + 1];     /* its HPA */
	gn_rights_t outer[GN_MAX_LEVELS + 1]; /* what the nested dimension lets us do to it */
};

/* Where the table of @level is; @offset: of the entry that is wanted. False: w->fault. */
GN_WALK_INLINE bool find_table(struct gn_soft_cpu *cpu, struct gn_soft_walk *w,
			       const struct nested *nested, uint64_t offset, unsigned level,
			       struct path *p)
{
	gpa_t at = gpa(p->table[level] + offset);

	if (nested) {
		struct gn_soft_nested n;

		/* Inline where most walks come by. */
		if (level == 1 ? !walk_nested(cpu, w, nested, at, cpu->table_need, false, &n)
			       : !nested->table(cpu, w, at, &n))
			return false;
		p->host[level] = n.hpa.v & ~(GN_PAGE_SIZE - 1);
		p->outer[level] = n.rights;
	} else {
		p2m_word_t word = gn_p2m_get(&cpu->vm->p2m, gpa_to_gfn(at));

		if (GN_UNLIKELY(!gn_p2m_word_has_frame(word)))
			return gn_walk_nested_fault(w, at, true);
		p->host[level] = pfn_to_hpa(gn_p2m_word_pfn(word)).v;
		p->outer[level] = gn_p2m_word_rights(word);
		if (gn_p2m_word_state(word) != GN_P2M_PRIVATE)
			p->outer[level] &= (gn_rights_t)~GN_W;
	}
	return true;
}

/* Can @entry have a reserved bit set? If so, the rules decide (gn_paging_is_reserved). */
GN_WALK_INLINE bool may_be_reserved(const struct gn_soft_cpu *cpu, const struct gn_fmt *f,
				    unsigned level, uint64_t entry)
{
	const struct gn_fmt_level *l = &f->level[level];

	return (entry & (cpu->reserved | l->reserved_table)) ||
	       (level > 1 && gn_fmt_is_leaf(f, level, entry));
}

/* The entry of @level. @has_host: its table's place is known already. FAULT: w->fault. */
GN_WALK_INLINE enum gn_walk_step step(struct gn_soft_cpu *cpu, const struct gn_access *access,
				      struct gn_soft_walk *w, const struct gn_fmt *f,
				      const struct nested *nested, unsigned level, bool has_host,
				      gn_rights_t *rights, struct path *p,
				      struct gn_walk_leaf *leaf)
{
	uint64_t offset = gn_fmt_index(f, level, access->va.v) * sizeof(uint64_t), entry;
	uint32_t error_code = 0;

	if (!has_host && !find_table(cpu, w, nested, offset, level, p))
		return GN_STEP_FAULT;
	entry = gn_walk_ref(cpu, p->host[level] + offset, &p->read.slot[level]);
	if (GN_LIKELY(gn_fmt_is_plain(f, level, entry, cpu->reserved))) {
		if (level > 1)
			p->table[level - 1] = entry & f->level[level].address;
		return gn_walk_take(f, level, access->va.v, entry, true, rights, &p->read, leaf);
	}
	if (GN_LIKELY(gn_fmt_is_present(f, level, entry))) {
		if (GN_LIKELY(!may_be_reserved(cpu, f, level, entry) ||
			      !gn_paging_is_reserved(&cpu->paging, level, entry))) {
			if (level > 1)
				p->table[level - 1] = gn_fmt_address(f, level, entry);
			return gn_walk_take(f, level, access->va.v, entry, false, rights, &p->read,
					    leaf);
		}
		error_code = X86_PF_P | X86_PF_RSVD;
	}
	gn_walk_page_fault(w, gn_paging_error_base(&cpu->paging, access) | error_code);
	return GN_STEP_FAULT;
}

GN_WALK_INLINE bool descend(struct gn_soft_cpu *cpu, const struct gn_access *access,
			    struct gn_soft_walk *w, const struct gn_fmt *f,
			    const struct nested *nested, struct path *p, struct gn_walk_leaf *leaf)
{
	const struct gn_assoc_entry *known = NULL;
	gn_rights_t rights = GN_RWXU;
	enum gn_walk_step s = GN_STEP_FAULT;
	unsigned level = f->levels, found;
	bool has_host = false;

	if (cpu->pwc.exists) {
		w->cycles += cpu->cost.pwc;
		known = gn_pwc_find(&cpu->pwc, access->va.v, cpu->tag, f->levels, &found,
				    &p->read.pde);
	}
	p->table[level] = cpu->vcpu->regs.cr3 & f->level[level].address;
	if (known) {
		cpu->stats.pwc_hits++;
		level = found - 1;
		rights = gn_pwc_rights(known);
		has_host = nested && cpu->cost.pwc_holds_hpa;
		p->host[level] = known->frame;
		p->outer[level] = gn_pwc_outer(known);
		p->table[level] = known->frame; /* with has_host: never looked at */
	}
	p->read.top = level;
	p->read.missing = 0;
	switch (level) {
	case 5:
		if (f->levels < 5 || (s = step(cpu, access, w, f, nested, 5, has_host, &rights, p,
					       leaf)) != GN_STEP_DOWN)
			break;
		has_host = false;
		__attribute__((fallthrough));
	case 4:
		s = step(cpu, access, w, f, nested, 4, has_host, &rights, p, leaf);
		if (s != GN_STEP_DOWN)
			break;
		has_host = false;
		__attribute__((fallthrough));
	case 3:
		s = step(cpu, access, w, f, nested, 3, has_host, &rights, p, leaf);
		if (s != GN_STEP_DOWN)
			break;
		has_host = false;
		__attribute__((fallthrough));
	case 2:
		s = step(cpu, access, w, f, nested, 2, has_host, &rights, p, leaf);
		if (s != GN_STEP_DOWN)
			break;
		has_host = false;
		__attribute__((fallthrough));
	default:
		s = step(cpu, access, w, f, nested, 1, has_host, &rights, p, leaf);
	}
	return s == GN_STEP_LEAF;
}

enum set_bits { BITS_SET, BITS_BEATEN, BITS_REFUSED };

/* Set A on the way and D in the leaf. REFUSED: a table's page may not be written; w->fault. BEATEN: an entry is
 * not what it was. One entry may stand on two levels (a table that maps itself): then the second one is beaten by
 * the first, once. */
static __attribute__((noinline)) enum set_bits
set_accessed_dirty(struct gn_soft_walk *w, const struct gn_fmt *f, const struct gn_access *access,
		   struct path *p, unsigned leaf_level)
{
	struct gn_walk_path *r = &p->read;

	for (unsigned level = r->top; level >= leaf_level; level--) {
		uint64_t want = gn_walk_wanted(f, level, leaf_level, access->kind == GN_WRITE);

		if ((r->entry[level] & want) == want)
			continue;
		if (GN_UNLIKELY(!(p->outer[level] & GN_W))) {
			uint64_t offset = gn_fmt_index(f, level, access->va.v) * sizeof(uint64_t);

			gn_walk_nested_fault(w, gpa(p->table[level] + offset), true);
			return BITS_REFUSED;
		}
		if (!gn_walk_set_level(r, level, want))
			return BITS_BEATEN;
	}
	return BITS_SET;
}

GN_WALK_INLINE void keep_level(struct gn_soft_cpu *cpu, const struct gn_fmt *f,
			       const struct nested *nested, const struct path *p,
			       unsigned leaf_level, unsigned level, uint64_t va)
{
	const struct gn_walk_path *r = &p->read;
	bool has_host = nested && cpu->cost.pwc_holds_hpa;

	if (level > r->top || level <= leaf_level)
		return;
	/* Where A could not be set, a violation must name the table's GPA: walk there. */
	if (has_host && GN_UNLIKELY(!(p->outer[level - 1] & GN_W)))
		return;
	gn_pwc_insert(&cpu->pwc, va, cpu->tag, level, &r->pde,
		      has_host ? p->host[level - 1] : gn_fmt_address(f, level, r->entry[level]),
		      r->rights[level], p->outer[level - 1]);
}

GN_WALK_INLINE void keep_path(struct gn_soft_cpu *cpu, const struct gn_fmt *f,
			      const struct nested *nested, const struct path *p,
			      unsigned leaf_level, uint64_t va)
{
	keep_level(cpu, f, nested, p, leaf_level, 2, va);
	if (GN_LIKELY(p->read.top < 3))
		return;
	keep_level(cpu, f, nested, p, leaf_level, 3, va);
	keep_level(cpu, f, nested, p, leaf_level, 4, va);
	if (f->levels == 5)
		keep_level(cpu, f, nested, p, leaf_level, 5, va);
}

/* The datum's GPA, and what the TLB is to know. */
GN_WALK_INLINE bool finish(struct gn_soft_cpu *cpu, const struct gn_access *access,
			   struct gn_soft_walk *w, const struct nested *nested,
			   const struct gn_translation *t)
{
	static const gn_rights_t need[] = {
		[GN_READ] = GN_R | GN_U, [GN_WRITE] = GN_W | GN_U, [GN_FETCH] = GN_X | GN_U
	};
	struct gn_soft_nested n = { hpa(t->gpa.v), GN_RWXU, t->level, true };

	if (nested && !walk_nested(cpu, w, nested, t->gpa, need[access->kind], true, &n))
		return false;
	w->address = n.hpa.v;
	w->guest_level = t->level;
	w->level = n.level < t->level ? n.level : t->level;
	w->meta = gn_tlb_meta(t->rights, n.rights, t->pkey, t->dirty && n.dirty, t->global);
	return true;
}

GN_WALK_INLINE bool walk(struct gn_soft_cpu *cpu, const struct gn_access *access,
			 struct gn_soft_walk *w, const struct gn_fmt *f,
			 const struct nested *nested)
{
	bool is_write = access->kind == GN_WRITE;
	uint64_t va = access->va.v;
	const struct gn_walk_path *r;
	enum set_bits bits;
	struct gn_walk_leaf leaf;
	struct path p;
	struct gn_translation t;
	uint32_t denied;

	r = &p.read;
	do {
		bits = BITS_SET;
		if (GN_UNLIKELY(!descend(cpu, access, w, f, nested, &p, &leaf)))
			return false;
		t.rights = leaf.rights;
		t.pkey = (uint8_t)gn_fmt_pkey(f, leaf.level, leaf.entry);
		denied = gn_paging_access(&cpu->paging, &t, access);
		if (GN_UNLIKELY(denied))
			return gn_walk_page_fault(w, denied);
		if (GN_UNLIKELY(gn_walk_owes_bits(r, &leaf, is_write)))
			bits = set_accessed_dirty(w, f, access, &p, leaf.level);
		if (GN_UNLIKELY(bits == BITS_REFUSED))
			return false;
	} while (GN_UNLIKELY(bits == BITS_BEATEN) && gn_walk_again(cpu));
	keep_path(cpu, f, nested, &p, leaf.level, va);

	if (leaf.level == 1)
		gn_ahead_note(cpu->ahead->guest, va, gn_walk_place(cpu, r->slot[1]));
	t.level = (uint8_t)leaf.level;
	t.global = cpu->paging.pge && (leaf.entry & f->level[1].global);
	t.dirty = leaf.is_dirty || is_write;
	t.gpa = gpa(leaf.address);
	return finish(cpu, access, w, nested, &t);
}

/* Paging off: the guest dimension is the identity and makes no reference. */
GN_WALK_INLINE bool walk_identity(struct gn_soft_cpu *cpu, const struct gn_access *access,
				  struct gn_soft_walk *w, const struct nested *nested)
{
	const struct gn_translation t = {
		.rights = GN_RWXU, .level = GN_TLB_LEVELS, .dirty = true, .gpa = gpa(access->va.v)
	};
	return finish(cpu, access, w, nested, &t);
}

#define WALKERS(name, nested)                                                                      \
	static bool name##_off(struct gn_soft_cpu *cpu, const struct gn_access *access,            \
			       struct gn_soft_walk *w)                                             \
	{                                                                                          \
		return walk_identity(cpu, access, w, nested);                                      \
	}                                                                                          \
	static bool name##_4(struct gn_soft_cpu *cpu, const struct gn_access *access,              \
			     struct gn_soft_walk *w)                                               \
	{                                                                                          \
		return walk(cpu, access, w, &x86_4, nested);                                       \
	}                                                                                          \
	static bool name##_5(struct gn_soft_cpu *cpu, const struct gn_access *access,              \
			     struct gn_soft_walk *w)                                               \
	{                                                                                          \
		return walk(cpu, access, w, &x86_5, nested);                                       \
	}
#define NESTED_WALKERS(name, fmt)                                                                  \
	static const struct nested name##_nested;                                                  \
	static __attribute__((noinline)) bool name##_table(struct gn_soft_cpu *cpu,                \
							   struct gn_soft_walk *w, gpa_t at,       \
							   struct gn_soft_nested *out)             \
	{                                                                                          \
		return walk_nested(cpu, w, &name##_nested, at, cpu->table_need, false, out);       \
	}                                                                                          \
	static const struct nested name##_nested = { fmt, name##_table };                          \
	WALKERS(name, &name##_nested)

WALKERS(native, NULL)
NESTED_WALKERS(ept_4, &ept_4)
NESTED_WALKERS(ept_5, &ept_5)
NESTED_WALKERS(npt_4, &npt_4)
NESTED_WALKERS(npt_5, &npt_5)
NESTED_WALKERS(other, NULL)
#undef WALKERS
#undef NESTED_WALKERS

static const struct {
	const struct gn_fmt *nested;
	gn_soft_walk_fn *off, *levels_4, *levels_5;
} walkers[] = { { NULL, native_off, native_4, native_5 },
		{ &gn_fmt_ept_4, ept_4_off, ept_4_4, ept_4_5 },
		{ &gn_fmt_ept_5, ept_5_off, ept_5_4, ept_5_5 },
		{ &gn_fmt_npt_4, npt_4_off, npt_4_4, npt_4_5 },
		{ &gn_fmt_npt_5, npt_5_off, npt_5_4, npt_5_5 } };

gn_soft_walk_fn *gn_soft_guest_walker(unsigned levels, const struct gn_fmt *nested)
{
	for (size_t i = 0; i < sizeof(walkers) / sizeof(walkers[0]); i++)
		if (walkers[i].nested == nested)
			return !levels	     ? walkers[i].off
			       : levels == 4 ? walkers[i].levels_4
					     : walkers[i].levels_5;
	return !levels ? other_off : levels == 4 ? other_4 : other_5;
}
