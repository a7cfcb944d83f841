/* SPDX-License-Identifier: MIT */
/*
 * batch.c - references in batches: trace replay and streams.
 *
 * The same model as single accesses, to the last count; the overhead per access is less. A read section
 * covers BATCH references. When most of the last batch had to walk, the next one is run with a look ahead
 * (ahead.h).
 */
#include "hit.h"

#define BATCH	      64 /* references per read section */
#define WALKS_TO_LOOK (BATCH / 4)
#define AHEAD_ENTRY   20 /* how many references ahead each stage works */
#define AHEAD_NESTED  13
#define AHEAD_LINES   6

static inline uint64_t address_of(const struct gn_soft_ref *ref)
{
	return (uint64_t)((int64_t)((uint64_t)ref->va << 4) >> 4);
}

static inline uint64_t frame_at(const struct gn_soft_cpu *cpu, uint64_t entry)
{
	return __atomic_load_n((const uint64_t *)(const void *)(cpu->memory + entry),
			       __ATOMIC_RELAXED) &
	       cpu->leaf_address;
}

static inline void prefetch_line(const struct gn_soft_cpu *cpu, uint64_t hpa)
{
	uint32_t line = (uint32_t)(hpa >> GN_LINE_SHIFT);

	gn_prefetch(gn_cache_set(cpu->caches.l3, line, true));
	gn_prefetch(gn_cache_set(&cpu->caches.l2, line, false));
}

/* Stage 1: the leaf entry of the first dimension. */
static inline void look_entry(struct gn_soft_cpu *cpu, uint64_t va, struct gn_ahead_slot *slot)
{
	slot->entry = gn_ahead_guess(cpu->ahead->guest, va);
	gn_prefetch(cpu->memory + slot->entry);
}

/* Stage 2: where it leads. Native: into the p2m. */
static inline void look_nested(struct gn_soft_cpu *cpu, struct gn_ahead_slot *slot)
{
	slot->frame = frame_at(cpu, slot->entry);
	if (cpu->kind == GN_HW_NESTED) {
		slot->nested_entry = gn_ahead_guess(cpu->ahead->nested, slot->frame);
		gn_prefetch(cpu->memory + slot->nested_entry);
	} else if (cpu->is_native && slot->frame >> GN_PAGE_SHIFT < cpu->vm->p2m.gfn_count) {
		gn_prefetch(&cpu->vm->p2m.words[slot->frame >> GN_PAGE_SHIFT]);
	}
}

/* Stage 3: sets of the TLB and of the cache model, for both entries and the datum. */
static inline void look_lines(struct gn_soft_cpu *cpu, uint64_t va, struct gn_ahead_slot *slot)
{
	uint64_t frame = slot->frame;

	gn_tlb_prefetch(&cpu->l2, va);
	prefetch_line(cpu, slot->entry);
	if (cpu->kind == GN_HW_NESTED) {
		frame = frame_at(cpu, slot->nested_entry);
		prefetch_line(cpu, slot->nested_entry);
	} else if (cpu->is_native) {
		frame = pfn_to_hpa(
				gn_p2m_word_pfn(gn_p2m_get(&cpu->vm->p2m, gpa_to_gfn(gpa(frame)))))
				.v;
	}
	prefetch_line(cpu, frame | (va & (GN_PAGE_SIZE - 1)));
}

static inline void look_ahead(struct gn_soft_cpu *cpu, const struct gn_soft_ref *refs, size_t i,
			      size_t count)
{
	struct gn_ahead_slot *ring = cpu->ahead->ring;

	if (i + AHEAD_ENTRY < count)
		look_entry(cpu, address_of(&refs[i + AHEAD_ENTRY]),
			   &ring[(i + AHEAD_ENTRY) % GN_AHEAD_RING]);
	if (i + AHEAD_NESTED < count)
		look_nested(cpu, &ring[(i + AHEAD_NESTED) % GN_AHEAD_RING]);
	if (i + AHEAD_LINES < count)
		look_lines(cpu, address_of(&refs[i + AHEAD_LINES]),
			   &ring[(i + AHEAD_LINES) % GN_AHEAD_RING]);
}

/* References @i.. until @end or one that faults; how many were done. Read section. */
static inline size_t run(struct gn_soft_cpu *cpu, const struct gn_soft_ref *refs, size_t i,
			 size_t end, size_t count, bool looks_ahead)
{
	unsigned mode = cpu->mode;
	uint64_t cycles = 0;
	size_t first = i;

	for (; i < end; i++) {
		uint64_t va = address_of(&refs[i]), hpa;
		unsigned kind = refs[i].kind;

		if (looks_ahead)
			look_ahead(cpu, refs, i, count);
		if (GN_UNLIKELY(!gn_soft_reach(cpu, va, kind, mode, &hpa)))
			break;
		cycles += gn_soft_data_cycles(cpu, kind, hpa);
	}
	cpu->counters->accesses += i - first;
	gn_soft_charge_base(cpu, cycles);
	return i - first;
}

static __attribute__((noinline)) size_t run_looking_ahead(struct gn_soft_cpu *cpu,
							  const struct gn_soft_ref *refs, size_t i,
							  size_t end, size_t count)
{
	return run(cpu, refs, i, end, count, true);
}

/* Every cache and TLB that is prefetched exists. */
static bool can_look_ahead(const struct gn_soft_cpu *cpu)
{
	return cpu->caches.l3->sets && cpu->caches.l2.sets && cpu->l2.of[1]->ways;
}

void gn_soft_refs(struct gn_soft_cpu *cpu, const struct gn_soft_ref *refs, size_t count)
{
	bool looks_ahead = false;
	size_t i = 0;

	while (i < count) {
		size_t end = count - i < BATCH ? count : i + BATCH;
		uint64_t walks = cpu->counters->walks;

		gn_soft_enter(cpu);
		i += looks_ahead ? run_looking_ahead(cpu, refs, i, end, count)
				 : run(cpu, refs, i, end, count, false);
		gn_soft_leave();
		looks_ahead = cpu->counters->walks - walks >= WALKS_TO_LOOK && can_look_ahead(cpu);
		if (i < end) {
			if (!gn_soft_access(cpu, address_of(&refs[i]), refs[i].kind, 1, NULL))
				return;
			i++;
		}
	}
}
