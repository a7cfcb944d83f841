/* SPDX-License-Identifier: MIT */
/*
 * batch.c - references in batches: trace replay and streams.
 *
 * The same model as single accesses, to the last count; the overhead per access is less. A read section
 * covers BATCH references. When a good part of the last batch had to walk, the next one is run with a look ahead
 * (ahead.h).
 */
#include "hit.h"

#define BATCH	      128 /* references per read section */
#define WALKS_TO_LOOK (BATCH / 4)
#define GROUP	      8 /* references that are looked ahead for together */
#define WALK_REFS     ((GN_MAX_LEVELS + 1) * (GN_MAX_LEVELS + 1) - 1) /* at most */
_Static_assert(BATCH + WALK_REFS <= GN_CACHE_ROOM, "the queue has room for a batch's data");

static inline uint64_t address_of(const struct gn_soft_ref *ref)
{
	return (uint64_t)((int64_t)((uint64_t)ref->va << 4) >> 4);
}

/* The HPA of the leaf entry of the first dimension, as a guess. */
static inline uint64_t guess_entry(const struct gn_soft_cpu *cpu, uint64_t va)
{
	return gn_ahead_guess(cpu->ahead->guest, va);
}

/* Where it leads: the nested leaf entry; native: into the p2m. */
static inline void look_beyond(const struct gn_soft_cpu *cpu, uint64_t va)
{
	const void *entry = cpu->memory + guess_entry(cpu, va);
	uint64_t frame =
		__atomic_load_n((const uint64_t *)entry, __ATOMIC_RELAXED) & cpu->leaf_address;

	if (cpu->kind == GN_HW_NESTED)
		gn_prefetch(cpu->memory + gn_ahead_guess(cpu->ahead->nested, frame));
	else if (cpu->is_native && frame >> GN_PAGE_SHIFT < cpu->vm->p2m.gfn_count)
		gn_prefetch(&cpu->vm->p2m.words[frame >> GN_PAGE_SHIFT]);
}

/* Before the GROUP references from @i on are run: fetch the entries of those two groups on, and what the entries of the next
 * group lead to. */
static __attribute__((noinline)) void
look_ahead(const struct gn_soft_cpu *cpu, const struct gn_soft_ref *refs, size_t i, size_t count)
{
	if (i + 3 * GROUP > count)
		return;
	for (size_t at = i + 2 * GROUP; at < i + 3 * GROUP; at++)
		gn_prefetch(cpu->memory + guess_entry(cpu, refs[at].va));
	for (size_t at = i + GROUP; at < i + 2 * GROUP; at++)
		look_beyond(cpu, refs[at].va);
}

/* References @i.. until @end or one that faults; how many were done. Read section. */
static inline size_t run(struct gn_soft_cpu *cpu, const struct gn_soft_ref *refs, size_t i,
			 size_t end, size_t count, bool looks_ahead)
{
	unsigned mode = cpu->mode;
	uint64_t last_line_hits = 0, fetches = 0;
	struct gn_access access = { .size = 1, .user = cpu->user, .ac = cpu->ac };
	size_t first = i;

	for (; i < end; i++) {
		uint64_t va = address_of(&refs[i]), hpa;
		unsigned kind = refs[i].kind;
		uint32_t line;

		if (looks_ahead && i % GROUP == 0)
			look_ahead(cpu, refs, i, count);
		if (GN_UNLIKELY(!gn_soft_reach_queueing(cpu, va, kind, mode, &access, &hpa)))
			break;
		line = (uint32_t)(hpa >> GN_LINE_SHIFT);
		if (kind == GN_FETCH)
			fetches++;
		else if (line == cpu->caches.last_line)
			last_line_hits++;
		else
			gn_caches_queue_datum(&cpu->caches, line);
	}
	cpu->counters->accesses += i - first;
	gn_soft_charge_base(cpu, fetches * cpu->cost.access +
					 last_line_hits * cpu->cost.data[GN_CACHE_L1]);
	gn_soft_settle(cpu);
	return i - first;
}

void gn_soft_refs(struct gn_soft_cpu *cpu, const struct gn_soft_ref *refs, size_t count)
{
	bool looks_ahead = false;
	size_t i = 0;

	while (i < count) {
		size_t end = count - i < BATCH ? count : i + BATCH;
		uint64_t walks = cpu->counters->walks;

		gn_soft_enter(cpu);
		i += run(cpu, refs, i, end, count, looks_ahead);
		gn_soft_leave();
		looks_ahead = cpu->counters->walks - walks >= WALKS_TO_LOOK;
		if (i < end) {
			if (!gn_soft_access(cpu, address_of(&refs[i]), refs[i].kind, 1, NULL))
				return;
			i++;
		}
	}
}
