/* SPDX-License-Identifier: MIT */
/*
 * assoc.c - the parts of a set-associative array that are not on every access.
 */
#include "assoc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/arena.h"

#define FREE	  0xff /* fingerprint of a free way, and of a lane that is none */
#define HOST_LINE 64

static uint8_t *set_at(const struct gn_assoc *a, uint32_t index)
{
	return a->sets + (size_t)index * a->stride;
}

static void clear_set(const struct gn_assoc *a, uint8_t *set)
{
	memset(set, FREE, 2 * (size_t)a->lanes);
	for (unsigned way = 0; way < a->ways; way++)
		set[a->lanes + way] = (uint8_t)way;
	memset(gn_assoc_keys(a, set), 0, a->ways * sizeof(uint64_t));
}

void gn_assoc_clear(struct gn_assoc *a)
{
	if (!a->ways)
		return;
	for (uint32_t i = 0; i <= a->set_mask; i++)
		clear_set(a, set_at(a, i));
	a->used = 0;
}

int gn_assoc_init(struct gn_assoc *a, uint32_t entries, uint32_t ways)
{
	uint32_t sets;

	memset(a, 0, sizeof(*a));
	if (!entries)
		return 0;
	sets = entries / ways;
	a->lanes = (uint16_t)((ways + 15) / 16 * 16);
	a->stride = (uint32_t)((2 * a->lanes + ways * sizeof(uint64_t) + HOST_LINE - 1) /
			       HOST_LINE * HOST_LINE);
	if (gn_alloc_should_fail())
		return -ENOMEM;
	a->sets = aligned_alloc(HOST_LINE, (size_t)sets * a->stride);
	a->entries = calloc(entries, sizeof(*a->entries));
	if (!a->sets || !a->entries) {
		gn_assoc_fini(a);
		return -ENOMEM;
	}
	a->ways = (uint16_t)ways;
	a->set_mask = sets - 1;
	a->set_bits = (uint8_t)__builtin_ctz(sets);
	gn_assoc_clear(a);
	return 0;
}

void gn_assoc_fini(struct gn_assoc *a)
{
	free(a->sets);
	free(a->entries);
	memset(a, 0, sizeof(*a));
}

/* The way whose age is the highest becomes the one used last, and all others age by one. Lanes that are
 * no way stay at 0xff: the addition saturates. */
static unsigned recycle_oldest(const struct gn_assoc *a, uint8_t *set)
{
	const __m128i last = _mm_set1_epi8((char)(a->ways - 1)), one = _mm_set1_epi8(1);
	uint8_t *ages = set + a->lanes;
	unsigned way = 0;

	for (unsigned lane = 0; lane < a->lanes; lane += 16) {
		__m128i *at = (__m128i *)(void *)(ages + lane);
		__m128i v = _mm_load_si128(at);
		unsigned mask = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, last));

		if (mask)
			way = lane + (unsigned)__builtin_ctz(mask);
		_mm_store_si128(at, _mm_adds_epu8(v, one));
	}
	ages[way] = 0;
	return way;
}

struct gn_assoc_entry *gn_assoc_insert(struct gn_assoc *a, uint64_t page, uint64_t key,
				       uint64_t *replaced)
{
	struct gn_assoc_slot s = gn_assoc_slot(a, page);
	unsigned way = recycle_oldest(a, s.set);
	uint64_t *keys = gn_assoc_keys(a, s.set);

	*replaced = keys[way];
	a->used += !keys[way];
	keys[way] = key;
	s.set[way] = s.fingerprint;
	return &s.entries[way];
}

void gn_assoc_drop(struct gn_assoc *a, const struct gn_assoc_slot *s, unsigned way)
{
	uint8_t *ages = s->set + a->lanes;

	for (unsigned other = 0; other < a->ways; other++)
		if (ages[other] > ages[way])
			ages[other]--;
	ages[way] = (uint8_t)(a->ways - 1);
	s->set[way] = FREE;
	gn_assoc_keys(a, s->set)[way] = 0;
	a->used--;
}

void gn_assoc_drop_matching(struct gn_assoc *a, uint64_t mask, uint64_t match,
			    void (*dropped)(void *ctx, uint64_t key), void *ctx)
{
	for (uint32_t i = 0; a->used && i <= a->set_mask; i++) {
		struct gn_assoc_slot s = { .set = set_at(a, i) };
		const uint64_t *keys = gn_assoc_keys(a, s.set);

		for (unsigned way = 0; way < a->ways; way++) {
			uint64_t key = keys[way];

			if (!key || (key & mask) != match)
				continue;
			gn_assoc_drop(a, &s, way);
			if (dropped)
				dropped(ctx, key);
		}
	}
}

void gn_assoc_forget_decisions(struct gn_assoc *a)
{
	if (!a->ways)
		return;
	for (size_t i = 0; i < ((size_t)a->set_mask + 1) * a->ways; i++)
		a->entries[i].known = 0;
}
