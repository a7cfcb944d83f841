/* SPDX-License-Identifier: MIT */
/*
 * hit.h - the common case of every access: the L1 TLB has it, and it is allowed. Inlined where it is used.
 *
 * The entry used last is kept aside: the next access to the same page needs no lookup, and since it is the
 * first of its set's LRU order already, leaving the TLB alone is exact.
 */
#ifndef GN_SOFT_HIT_H
#define GN_SOFT_HIT_H

#include "cpu.h"

/* The L1 TLB beyond the entry used last. False: *@place->array is NULL if there is something to look at
 * closely, else the address has no entry and that is where it would be. */
static inline __attribute__((always_inline)) bool gn_soft_hit_l1(struct gn_soft_cpu *cpu,
								 uint64_t va, unsigned side,
								 uint16_t bit, uint64_t *address,
								 struct gn_tlb_place *place)
{
	struct gn_soft_recent *r = &cpu->recent[side];
	struct gn_assoc_entry *e;
	uint64_t mask;

	place->array = NULL;
	if (GN_UNLIKELY(!gn_soft_is_canonical(cpu, va) || cpu->kind == GN_HW_SOFTWARE))
		return false;
	e = gn_tlb_find(&cpu->l1[side], va, cpu->tag, place);
	if (!e)
		return false;
	if (GN_UNLIKELY(!(gn_tlb_allowed(e->meta) & bit))) {
		place->array = NULL;
		return false;
	}
	mask = gn_tlb_mask(place->level);
	r->base = va & mask;
	r->mask = mask;
	r->frame = e->frame;
	r->allow = gn_tlb_allowed(e->meta);
	*address = e->frame | (va & ~mask);
	return true;
}

/* False: as gn_soft_hit_l1(). */
static inline __attribute__((always_inline)) bool gn_soft_hit(struct gn_soft_cpu *cpu, uint64_t va,
							      unsigned kind, unsigned mode,
							      uint64_t *address,
							      struct gn_tlb_place *place)
{
	unsigned side = kind == GN_FETCH;
	const struct gn_soft_recent *r = &cpu->recent[side];
	uint16_t bit = gn_soft_access_bit(kind, mode);

	if (GN_LIKELY(((va ^ r->base) & r->mask) == 0 && (r->allow & bit)))
		*address = r->frame | (va & ~r->mask);
	else if (!gn_soft_hit_l1(cpu, va, side, bit, address, place))
		return false;
	if (!cpu->is_native || gn_soft_native(cpu, kind, address))
		return true;
	place->array = NULL;
	return false;
}

/* The guest's own part of an access whose line is at @hpa. */
static inline uint32_t gn_soft_data_cycles(struct gn_soft_cpu *cpu, unsigned kind, uint64_t hpa)
{
	if (kind == GN_FETCH)
		return cpu->cost.access;
	return cpu->cost.data[gn_caches_use(&cpu->caches, hpa)];
}

/* The running guest's access to one page: by the L1 TLB or by the long way, all but faults. Read section.
 * References of a walk stay queued. @access: all but va and kind is filled in. */
static inline __attribute__((always_inline)) bool
gn_soft_reach_queueing(struct gn_soft_cpu *cpu, uint64_t va, unsigned kind, unsigned mode,
		       struct gn_access *access, uint64_t *hpa)
{
	struct gn_soft_fault fault;
	struct gn_tlb_place place;

	if (GN_LIKELY(gn_soft_hit(cpu, va, kind, mode, hpa, &place)))
		return true;
	access->va = gva(va);
	access->kind = (uint8_t)kind;
	return gn_soft_translate_queueing(cpu, access, gn_soft_access_bit(kind, mode),
					  place.array ? &place : NULL, hpa, &fault);
}

static inline __attribute__((always_inline)) bool
gn_soft_reach(struct gn_soft_cpu *cpu, uint64_t va, unsigned kind, unsigned mode, uint64_t *hpa)
{
	struct gn_access access = { .size = 1, .user = cpu->user, .ac = cpu->ac };
	bool done = gn_soft_reach_queueing(cpu, va, kind, mode, &access, hpa);

	gn_soft_settle(cpu);
	return done;
}

/* One access of the guest that runs, by the long way. @value NULL: translate only. False: the guest was
 * stopped, outside gn_soft_run(). */
bool gn_soft_access(struct gn_soft_cpu *cpu, uint64_t va, unsigned kind, unsigned bytes,
		    uint64_t *value);

#endif
