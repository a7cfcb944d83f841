/* SPDX-License-Identifier: MIT */
/*
 * translate.c - from an access to a host-physical address: L1 TLB, L2 TLB, walk, fill.
 *
 * A TLB entry carries both dimensions' rights. Whether it permits an access is decided by the
 * architecture's rules (gn_paging_access) once, and remembered in the entry until the registers behind the
 * rules change. An entry that does not permit the access never faults by itself: it may be stale, so it is
 * dropped and the tables are walked (SDM 4.10.4.3); every fault is from a fresh walk. The same way a
 * store through an entry without D walks, to set it.
 */
#include "cpu.h"

#include <gnomon/x86.h>

static bool is_write(uint16_t bit)
{
	return bit & (0xf << (GN_WRITE * 4));
}

static struct gn_access access_of(uint16_t bit)
{
	unsigned index = (unsigned)__builtin_ctz(bit), mode = index & 3;
	struct gn_access a = { .kind = (uint8_t)(index >> 2),
			       .user = mode == GN_MODE_USER,
			       .ac = mode == GN_MODE_KERNEL_AC,
			       .implicit = mode == GN_MODE_IMPLICIT };

	return a;
}

bool gn_soft_decide(const struct gn_soft_cpu *cpu, struct gn_assoc_entry *e, uint16_t bit)
{
	static const gn_rights_t need[] = {
		[GN_READ] = GN_R, [GN_WRITE] = GN_W, [GN_FETCH] = GN_X
	};
	const struct gn_access a = access_of(bit);
	const struct gn_translation t = { .rights = e->rights, .pkey = e->pkey };
	bool allowed = !(need[a.kind] & ~e->outer_rights) &&
		       ((e->flags & GN_ENTRY_DIRTY) || !is_write(bit)) &&
		       !gn_paging_access(&cpu->paging, &t, &a);

	e->known |= bit;
	e->allow = (uint16_t)(allowed ? e->allow | bit : e->allow & ~bit);
	return allowed;
}

static bool is_allowed(const struct gn_soft_cpu *cpu, struct gn_assoc_entry *e, uint16_t bit)
{
	return e->known & bit ? e->allow & bit : gn_soft_decide(cpu, e, bit);
}

static void remember(struct gn_soft_cpu *cpu, unsigned side, uint64_t va, unsigned level,
		     const struct gn_assoc_entry *e)
{
	uint64_t mask = ~(gn_level_bytes(level) - 1);

	cpu->recent[side] = (struct gn_soft_recent){
		.base = va & mask, .mask = mask, .frame = e->frame, .allow = e->allow & e->known
	};
}

/* What an L2 entry or a walk says, put into the L1 TLB. @bit is allowed. */
static void fill_l1(struct gn_soft_cpu *cpu, unsigned side, uint64_t va, unsigned level,
		    const struct gn_assoc_entry *from, uint64_t address, uint16_t bit)
{
	unsigned kept = level;
	struct gn_assoc_entry *e =
		gn_tlb_insert(&cpu->l1[side], va, cpu->tag, from->flags & GN_ENTRY_GLOBAL, &kept);

	*e = *from;
	e->frame = address & ~(gn_level_bytes(kept) - 1);
	e->known = bit;
	e->allow = bit;
	cpu->is_fractured |= kept < level;
	remember(cpu, side, va, kept, e);
}

static void count_walk(struct gn_soft_cpu *cpu, const struct gn_soft_walk *w)
{
	struct gn_counters *c = cpu->counters;
	uint32_t refs = w->refs;

	if (!refs)
		return; /* native with paging off, or a violation before anything was read */
	c->walks++;
	c->walk_refs += refs;
	c->walk_cycles += w->cycles;
	c->cycles += w->cycles;
	if (refs > GN_SOFT_MAX_WALK_REFS)
		refs = GN_SOFT_MAX_WALK_REFS;
	cpu->stats.walk_refs_histogram[refs]++;
}

static bool walk_and_fill(struct gn_soft_cpu *cpu, unsigned side, const struct gn_access *access,
			  uint16_t bit, uint64_t *address, struct gn_soft_fault *fault)
{
	struct gn_soft_walk w = { .cycles = cpu->cost.walk_start };
	struct gn_assoc_entry entry, *e;
	unsigned kept;

	if (GN_UNLIKELY(!cpu->walk(cpu, access, &w))) {
		count_walk(cpu, &w);
		/* A page fault drops what the walk caches have on the way to its address (SDM 4.10.4.1), so that
		 * whoever was led astray by a stale entry faults once and not for ever. */
		if (w.fault.kind == GN_SOFT_PF)
			gn_pwc_drop(&cpu->pwc, access->va.v, cpu->tag);
		*fault = w.fault;
		return false;
	}
	count_walk(cpu, &w);
	entry = (struct gn_assoc_entry){ .rights = w.t.rights,
					 .outer_rights = w.outer_rights,
					 .pkey = w.t.pkey,
					 .flags = (w.dirty ? GN_ENTRY_DIRTY : 0) |
						  (w.t.global ? GN_ENTRY_GLOBAL : 0) };
	kept = w.level;
	e = gn_tlb_insert(cpu->l2_of[side], access->va.v, cpu->tag, w.t.global, &kept);
	if (e) {
		*e = entry;
		e->frame = w.address & ~(gn_level_bytes(kept) - 1);
		cpu->is_fractured |= kept < w.t.level;
	}
	cpu->is_fractured |= w.level < w.t.level;
	fill_l1(cpu, side, access->va.v, w.level, &entry, w.address, bit);
	*address = w.address;
	return true;
}

static bool look_in_l2(struct gn_soft_cpu *cpu, unsigned side, uint64_t va, uint16_t bit,
		       uint64_t *address)
{
	struct gn_tlb *l2 = cpu->l2_of[side];
	struct gn_assoc_entry *e, copy;
	unsigned level;

	cpu->counters->l1_tlb_misses++;
	cpu->counters->cycles += cpu->cost.stlb;
	cpu->stats.tlb_cycles += cpu->cost.stlb;
	e = gn_tlb_find(l2, va, cpu->tag, &level);
	if (!e) {
		cpu->stats.l2_tlb_misses++;
		return false;
	}
	copy = *e;
	if (GN_UNLIKELY(!gn_soft_decide(cpu, &copy, bit))) {
		cpu->stats.l2_tlb_misses++;
		gn_tlb_drop(l2, va, cpu->tag);
		return false;
	}
	cpu->stats.l2_tlb_hits++;
	*address = e->frame | (va & (gn_level_bytes(level) - 1));
	fill_l1(cpu, side, va, level, &copy, *address, bit);
	return true;
}

bool gn_soft_translate(struct gn_soft_cpu *cpu, const struct gn_access *access, uint16_t bit,
		       bool l1_missed, uint64_t *address, struct gn_soft_fault *fault)
{
	unsigned side = access->kind == GN_FETCH, level;
	uint64_t va = access->va.v;
	struct gn_assoc_entry *e;
	bool found = false;

	if (cpu->kind == GN_HW_SOFTWARE) {
		*fault = (struct gn_soft_fault){ .kind = GN_SOFT_SOFTWARE };
		return false;
	}
	if (GN_UNLIKELY((uint64_t)((int64_t)(va << cpu->spare_bits) >> cpu->spare_bits) != va)) {
		/* With paging off there is no canonical form, and no memory up there either. */
		*fault = (struct gn_soft_fault){ .kind = cpu->vcpu->paging.levels ? GN_SOFT_GP
										  : GN_SOFT_NESTED,
						 .gpa = gpa(va) };
		return false;
	}
	e = l1_missed ? NULL : gn_tlb_find(&cpu->l1[side], va, cpu->tag, &level);
	if (e && is_allowed(cpu, e, bit)) {
		*address = e->frame | (va & (gn_level_bytes(level) - 1));
		remember(cpu, side, va, level, e);
		found = true;
	} else if (e) {
		gn_soft_forget_recent(cpu);
		gn_tlb_drop(&cpu->l1[side], va, cpu->tag);
		gn_tlb_drop(cpu->l2_of[side], va, cpu->tag);
	} else {
		found = look_in_l2(cpu, side, va, bit, address);
	}
	if (!found && !walk_and_fill(cpu, side, access, bit, address, fault))
		return false;
	if (!cpu->is_native || GN_LIKELY(gn_soft_native(cpu, access->kind, address)))
		return true;
	*fault = (struct gn_soft_fault){ .kind = GN_SOFT_NESTED, .gpa = gpa(*address) };
	return false;
}
