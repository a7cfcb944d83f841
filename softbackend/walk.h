/* SPDX-License-Identifier: MIT */
/*
 * walk.h - what the hardware walkers have in common: a reference, a bit set in an entry, a fault.
 *
 * The walkers read the tables that guests and schemes really wrote, in host frames, atomically; each read is
 * one walk reference and goes through the data caches. A and D are set by compare-and-exchange against
 * what was read, as a locked read-modify-write of the hardware would: a plain OR could set A in an
 * entry that was cleared in between. When it fails, the walk starts again.
 */
#ifndef GN_SOFT_WALK_H
#define GN_SOFT_WALK_H

#include "cpu.h"

#define GN_WALK_INLINE static inline __attribute__((always_inline))

GN_WALK_INLINE uint64_t gn_walk_ref(struct gn_soft_cpu *cpu, uint64_t hpa, uint64_t **slot)
{
	gn_caches_queue_entry(&cpu->caches, (uint32_t)(hpa >> GN_LINE_SHIFT));
	*slot = (uint64_t *)(void *)(cpu->memory + hpa);
	return __atomic_load_n(*slot, __ATOMIC_ACQUIRE);
}

/* Beaten: walk again, with room for it. True. */
static inline bool gn_walk_again(struct gn_soft_cpu *cpu)
{
	gn_caches_end_walk(&cpu->caches);
	gn_soft_make_room(cpu);
	return true;
}

GN_WALK_INLINE uint64_t gn_walk_place(const struct gn_soft_cpu *cpu, const uint64_t *slot)
{
	return (uint64_t)((const uint8_t *)slot - cpu->memory);
}

/* False: the entry is no longer @entry. */
GN_WALK_INLINE bool gn_walk_set_bits(uint64_t *slot, uint64_t entry, uint64_t bits)
{
	return __atomic_compare_exchange_n(slot, &entry, entry | bits, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_ACQUIRE);
}

/* What one dimension's walk read: levels top..leaf. */
struct gn_walk_path {
	uint64_t *slot[GN_MAX_LEVELS + 1];
	uint64_t entry[GN_MAX_LEVELS + 1];
	gn_rights_t rights[GN_MAX_LEVELS + 1]; /* granted so far, the entry's own included */
	uint64_t missing;		       /* A bits that are not set */
	struct gn_assoc_place pde;	       /* where the walk cache keeps the entry of level 2 */
	unsigned top;
};

/* Where it ended; worked out where the level is a constant, and never in memory. */
struct gn_walk_leaf {
	unsigned level;
	uint64_t entry;
	bool is_dirty;	  /* it has D, or the format has none */
	uint64_t address; /* translated, with the offset */
	gn_rights_t rights;
};

enum gn_walk_step { GN_STEP_DOWN, GN_STEP_LEAF, GN_STEP_FAULT };

/* A present, well-formed @entry of @level on the way to @at: take it in. @is_plain: gn_fmt_is_plain() says so. */
GN_WALK_INLINE enum gn_walk_step gn_walk_take(const struct gn_fmt *f, unsigned level, uint64_t at,
					      uint64_t entry, bool is_plain, gn_rights_t *rights,
					      struct gn_walk_path *p, struct gn_walk_leaf *leaf)
{
	p->entry[level] = entry;
	if (!is_plain) {
		*rights &= gn_fmt_rights(f, level, entry);
		p->missing |= ~entry & f->level[level].accessed;
	}
	if (is_plain ? level > 1 : !gn_fmt_is_leaf(f, level, entry)) {
		p->rights[level] = *rights;
		return GN_STEP_DOWN;
	}
	leaf->level = level;
	leaf->entry = entry;
	leaf->is_dirty = !f->level[level].dirty || (entry & f->level[level].dirty);
	leaf->rights = *rights;
	leaf->address = gn_fmt_address(f, level, entry) | (at & (gn_level_bytes(level) - 1));
	return GN_STEP_LEAF;
}

/* Where a walk of the tables below hw.root to @at begins: under the lowest entry that @pwc (NULL: not asked) has, else at the
 * root. Returns the level of *@table. */
GN_WALK_INLINE unsigned gn_walk_begin(struct gn_soft_cpu *cpu, struct gn_soft_walk *w,
				      struct gn_pwc *pwc, uint64_t tag, unsigned levels,
				      uint64_t at, uint64_t *table, gn_rights_t *rights,
				      struct gn_walk_path *p)
{
	const struct gn_assoc_entry *known = NULL;
	unsigned level = levels, found;

	*table = cpu->vcpu->hw.root.v;
	*rights = GN_RWXU;
	if (pwc && pwc->exists) {
		w->cycles += cpu->cost.pwc;
		known = gn_pwc_find(pwc, at, tag, levels, &found, &p->pde);
	}
	if (known) {
		cpu->stats.pwc_hits++;
		*table = known->frame;
		*rights = gn_pwc_rights(known);
		level = found - 1;
	}
	p->top = level;
	p->missing = 0;
	return level;
}

/* Does the walk owe A or D bits? */
GN_WALK_INLINE bool gn_walk_owes_bits(const struct gn_walk_path *p, const struct gn_walk_leaf *leaf,
				      bool is_write)
{
	return p->missing || (is_write && !leaf->is_dirty);
}

/* What a level's entry must have: A, and D in a leaf that is written. */
GN_WALK_INLINE uint64_t gn_walk_wanted(const struct gn_fmt *f, unsigned level, unsigned leaf_level,
				       bool is_write)
{
	return f->level[level].accessed |
	       (level == leaf_level && is_write ? f->level[level].dirty : 0);
}
/* Set them in @level's. False: beaten, walk again. */
GN_WALK_INLINE bool gn_walk_set_level(struct gn_walk_path *p, unsigned level, uint64_t want)
{
	if (!gn_walk_set_bits(p->slot[level], p->entry[level], want))
		return false;
	p->entry[level] |= want;
	return true;
}

/* In the whole path. Not inlined: it is once per entry's life. */
static __attribute__((noinline, unused)) bool gn_walk_set_accessed_dirty(const struct gn_fmt *f,
									 struct gn_walk_path *p,
									 unsigned leaf_level,
									 bool is_write)
{
	for (unsigned level = p->top; level >= leaf_level; level--) {
		uint64_t want = gn_walk_wanted(f, level, leaf_level, is_write);

		if ((p->entry[level] & want) != want && !gn_walk_set_level(p, level, want))
			return false;
	}
	return true;
}

GN_WALK_INLINE bool gn_walk_page_fault(struct gn_soft_walk *w, uint32_t error_code)
{
	w->fault = (struct gn_soft_fault){ .kind = GN_SOFT_PF, .error_code = error_code };
	return false;
}
GN_WALK_INLINE bool gn_walk_nested_fault(struct gn_soft_walk *w, gpa_t at, bool on_table)
{
	w->fault =
		(struct gn_soft_fault){ .kind = GN_SOFT_NESTED, .gpa = at, .on_table = on_table };
	return false;
}

#endif
