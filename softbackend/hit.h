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

/* L1 TLB beyond the entry used last; false: *@missed, or something to look at closely. */
static inline bool gn_soft_hit_l1(struct gn_soft_cpu *cpu, uint64_t va, unsigned side, uint16_t bit,
				  uint64_t *address, bool *missed)
{
	struct gn_soft_recent *r = &cpu->recent[side];
	struct gn_assoc_entry *e;
	unsigned level;
	uint64_t mask;

	if ((uint64_t)((int64_t)(va << cpu->spare_bits) >> cpu->spare_bits) != va)
		return false;
	e = gn_tlb_find(&cpu->l1[side], va, cpu->tag, &level);
	*missed = !e;
	if (!e || !(e->known & e->allow & bit))
		return false;
	mask = ~(gn_level_bytes(level) - 1);
	r->base = va & mask;
	r->mask = mask;
	r->frame = e->frame;
	r->allow = e->allow & e->known;
	*address = e->frame | (va & ~mask);
	return true;
}

static inline bool gn_soft_hit(struct gn_soft_cpu *cpu, uint64_t va, unsigned kind, unsigned mode,
			       uint64_t *address, bool *missed)
{
	unsigned side = kind == GN_FETCH;
	const struct gn_soft_recent *r = &cpu->recent[side];
	uint16_t bit = gn_soft_access_bit(kind, mode);

	*missed = false;
	if (GN_LIKELY(((va ^ r->base) & r->mask) == 0 && (r->allow & bit)))
		*address = r->frame | (va & ~r->mask);
	else if (!gn_soft_hit_l1(cpu, va, side, bit, address, missed))
		return false;
	return !cpu->is_native || gn_soft_native(cpu, kind, address);
}

/* The guest's own part of an access whose line is at @hpa. */
static inline uint32_t gn_soft_data_cycles(struct gn_soft_cpu *cpu, unsigned kind, uint64_t hpa)
{
	if (kind == GN_FETCH)
		return cpu->cost.access;
	return cpu->cost.data[gn_caches_use(&cpu->caches, hpa)];
}

/* The running guest's access to one page: by the L1 TLB or by the long way, all but faults. Read section. */
static inline bool gn_soft_reach(struct gn_soft_cpu *cpu, uint64_t va, unsigned kind, unsigned mode,
				 uint64_t *hpa)
{
	struct gn_access access;
	struct gn_soft_fault fault;
	bool missed;

	if (GN_LIKELY(gn_soft_hit(cpu, va, kind, mode, hpa, &missed)))
		return true;
	access = (struct gn_access){
		.va = gva(va), .kind = (uint8_t)kind, .size = 1, .user = cpu->user, .ac = cpu->ac
	};
	return gn_soft_translate(cpu, &access, gn_soft_access_bit(kind, mode), missed, hpa, &fault);
}

/* One access of the guest that runs, by the long way. @value NULL: translate only. False: the guest was
 * stopped, outside gn_soft_run(). */
bool gn_soft_access(struct gn_soft_cpu *cpu, uint64_t va, unsigned kind, unsigned bytes,
		    uint64_t *value);

#endif
