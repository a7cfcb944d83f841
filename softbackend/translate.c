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

static struct gn_access access_of(uint16_t bit)
{
	unsigned index = (unsigned)__builtin_ctz(bit), mode = index & 3;
	struct gn_access a = { .kind = (uint8_t)(index >> 2),
			       .user = mode == GN_MODE_USER,
			       .ac = mode == GN_MODE_KERNEL_AC,
			       .implicit = mode == GN_MODE_IMPLICIT };

	return a;
}

/* May an access of @bit use an entry that says @meta? */
static bool decide(const struct gn_soft_cpu *cpu, uint64_t meta, uint16_t bit)
{
	static const gn_rights_t need[] = {
		[GN_READ] = GN_R, [GN_WRITE] = GN_W, [GN_FETCH] = GN_X
	};
	const struct gn_access a = access_of(bit);
	const struct gn_translation t = { .rights = gn_tlb_rights(meta),
					  .pkey = (meta >> GN_TLB_PKEY_SHIFT) & 0xf };

	return !(need[a.kind] & ~gn_tlb_outer(meta)) &&
	       (a.kind != GN_WRITE || (meta & GN_TLB_DIRTY)) &&
	       !gn_paging_access(&cpu->paging, &t, &a);
}

/* Decided once per entry, and kept in it. */
static bool is_allowed(const struct gn_soft_cpu *cpu, struct gn_assoc_entry *e, uint16_t bit)
{
	if (!(e->meta >> GN_TLB_KNOWN_SHIFT & bit)) {
		e->meta |= (uint64_t)bit << GN_TLB_KNOWN_SHIFT;
		if (decide(cpu, e->meta, bit))
			e->meta |= (uint64_t)bit << GN_TLB_ALLOW_SHIFT;
	}
	return gn_tlb_allowed(e->meta) & bit;
}

static inline void remember(struct gn_soft_cpu *cpu, unsigned side, uint64_t va, unsigned level,
			    uint64_t frame, uint64_t meta)
{
	struct gn_soft_recent *r = &cpu->recent[side];
	uint64_t mask = gn_tlb_mask(level);

	r->base = va & mask;
	r->mask = mask;
	r->frame = frame;
	r->allow = gn_tlb_allowed(meta);
}

/* What an L2 entry or a walk says, put into the L1 TLB; the size of its entry there. @meta has no
 * decisions yet; @bit is allowed. */
static inline __attribute__((always_inline)) unsigned
fill_l1(struct gn_soft_cpu *cpu, unsigned side, uint64_t va, unsigned level, uint64_t meta,
	uint64_t address, uint16_t bit, struct gn_tlb_place *place)
{
	unsigned kept = level;
	struct gn_assoc_entry *e =
		gn_tlb_insert(&cpu->l1[side], va, cpu->tag, meta & GN_TLB_GLOBAL, place, &kept);
	uint64_t frame = address & gn_tlb_mask(kept);

	meta |= (uint64_t)bit << GN_TLB_KNOWN_SHIFT | (uint64_t)bit << GN_TLB_ALLOW_SHIFT;
	e->frame = frame;
	e->meta = meta;
	remember(cpu, side, va, kept, frame, meta);
	return kept;
}

void gn_soft_settle_queue(struct gn_soft_cpu *cpu)
{
	struct gn_counters *c = cpu->counters;
	uint64_t walk_cycles = 0, base_cycles = 0;
	struct gn_cache_served served;

	gn_caches_run(&cpu->caches, &served);
	for (unsigned level = 0; level < GN_CACHE_LEVELS; level++) {
		cpu->stats.cache_refs[level] += served.entries[level];
		walk_cycles += (uint64_t)served.entries[level] * cpu->cost.latency[level];
		base_cycles += (uint64_t)served.data[level] * cpu->cost.data[level];
	}
	c->walk_cycles += walk_cycles;
	c->cycles += walk_cycles;
	gn_soft_charge_base(cpu, base_cycles);
}

/* @refs: how many it made. */
static inline void count_walk(struct gn_soft_cpu *cpu, const struct gn_soft_walk *w, uint64_t refs)
{
	struct gn_counters *c = cpu->counters;

	if (GN_UNLIKELY(!refs))
		return; /* native with paging off, or a violation before anything was read */
	gn_caches_end_walk(&cpu->caches);
	c->walks++;
	c->walk_refs += refs;
	c->walk_cycles += w->cycles;
	c->cycles += w->cycles;
	if (GN_UNLIKELY(refs > GN_SOFT_MAX_WALK_REFS))
		refs = GN_SOFT_MAX_WALK_REFS;
	cpu->stats.walk_refs_histogram[refs]++;
}

/* Where an L2 TLB search ended, and what it found out. */
struct l2_search {
	struct gn_tlb *tlb;
	struct gn_tlb_place place;
};

static inline __attribute__((always_inline)) bool
walk_and_fill(struct gn_soft_cpu *cpu, unsigned side, const struct gn_access *access, uint16_t bit,
	      struct gn_tlb_place *l1_place, struct l2_search *l2, uint64_t *address,
	      struct gn_soft_fault *fault)
{
	struct gn_soft_walk w;
	struct gn_assoc_entry *e;
	uint64_t meta, refs;
	unsigned kept, l1_kept;
	bool done;

	gn_soft_make_room(cpu);
	refs = gn_caches_total(&cpu->caches);
	w.cycles = cpu->cost.walk_start;
	done = cpu->walk(cpu, access, &w);
	count_walk(cpu, &w, gn_caches_total(&cpu->caches) - refs);
	if (GN_UNLIKELY(!done)) {
		/* A page fault drops what the walk caches have on the way to its address (SDM 4.10.4.1), so that
		 * whoever was led astray by a stale entry faults once and not for ever. */
		if (w.fault.kind == GN_SOFT_PF)
			gn_pwc_drop(&cpu->pwc, access->va.v, cpu->tag);
		*fault = w.fault;
		return false;
	}
	meta = w.meta;
	kept = w.level;
	e = gn_tlb_insert(l2->tlb, access->va.v, cpu->tag, meta & GN_TLB_GLOBAL, &l2->place, &kept);
	if (e) {
		e->frame = w.address & gn_tlb_mask(kept);
		e->meta = meta;
	}
	l1_kept = fill_l1(cpu, side, access->va.v, w.level, meta, w.address, bit, l1_place);
	if (GN_UNLIKELY(kept < w.guest_level || l1_kept < w.guest_level))
		cpu->is_fractured = true;
	*address = w.address;
	return true;
}

/* After an L1 miss. */
static inline bool look_in_l2(struct gn_soft_cpu *cpu, unsigned side, uint64_t va, uint16_t bit,
			      struct gn_tlb_place *l1_place, struct l2_search *l2,
			      uint64_t *address)
{
	struct gn_assoc_entry *e;

	cpu->counters->l1_tlb_misses++;
	cpu->counters->cycles += cpu->cost.stlb;
	cpu->stats.tlb_cycles += cpu->cost.stlb;
	e = gn_tlb_find(l2->tlb, va, cpu->tag, &l2->place);
	if (e && GN_LIKELY(decide(cpu, e->meta, bit))) {
		unsigned level = l2->place.level;

		cpu->stats.l2_tlb_hits++;
		*address = e->frame | (va & ~gn_tlb_mask(level));
		if (fill_l1(cpu, side, va, level, e->meta, *address, bit, l1_place) < level)
			cpu->is_fractured = true;
		return true;
	}
	cpu->stats.l2_tlb_misses++;
	if (e) {
		gn_tlb_drop(l2->tlb, va, cpu->tag);
		l2->place.level = 0;
	}
	return false;
}

/* An L1 entry does not permit the access: it may be stale, so it goes, and L2's too. */
static void drop_stale(struct gn_soft_cpu *cpu, unsigned side, uint64_t va)
{
	gn_soft_forget_recent(cpu);
	gn_tlb_drop(&cpu->l1[side], va, cpu->tag);
	gn_tlb_drop(cpu->l2_of[side], va, cpu->tag);
}

/* An address that is not canonical. With paging off there is no such form, and no memory up there either. */
static bool refuse(const struct gn_soft_cpu *cpu, uint64_t va, struct gn_soft_fault *fault)
{
	*fault = (struct gn_soft_fault){ .kind = cpu->vcpu->paging.levels ? GN_SOFT_GP
									  : GN_SOFT_NESTED,
					 .gpa = gpa(va) };
	return false;
}

bool gn_soft_translate_queueing(struct gn_soft_cpu *cpu, const struct gn_access *access,
				uint16_t bit, struct gn_tlb_place *missed, uint64_t *address,
				struct gn_soft_fault *fault)
{
	unsigned side = access->kind == GN_FETCH;
	struct l2_search l2;
	struct gn_tlb_place here, *place = missed ? missed : &here;
	uint64_t va = access->va.v;
	struct gn_assoc_entry *e = NULL;
	bool found = false;

	if (cpu->kind == GN_HW_SOFTWARE) {
		*fault = (struct gn_soft_fault){ .kind = GN_SOFT_SOFTWARE };
		return false;
	}
	l2.tlb = cpu->l2_of[side];
	if (!missed) {
		if (GN_UNLIKELY(!gn_soft_is_canonical(cpu, va)))
			return refuse(cpu, va, fault);
		e = gn_tlb_find(&cpu->l1[side], va, cpu->tag, place);
	}
	if (e && is_allowed(cpu, e, bit)) {
		*address = e->frame | (va & ~gn_tlb_mask(place->level));
		remember(cpu, side, va, place->level, e->frame, e->meta);
		found = true;
	} else if (e) {
		drop_stale(cpu, side, va);
		l2.place.level = place->level = 0; /* nowhere: located when it is put */
	} else {
		found = look_in_l2(cpu, side, va, bit, place, &l2, address);
	}
	if (!found && !walk_and_fill(cpu, side, access, bit, place, &l2, address, fault))
		return false;
	if (!cpu->is_native || GN_LIKELY(gn_soft_native(cpu, access->kind, address)))
		return true;
	*fault = (struct gn_soft_fault){ .kind = GN_SOFT_NESTED, .gpa = gpa(*address) };
	return false;
}
