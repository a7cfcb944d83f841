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
#define NO_AGE	  0x7f /* of a lane that is none, up to 16 ways; else FREE */
#define HOST_LINE 64

static uint8_t *set_at(const struct gn_assoc *a, uint32_t index)
{
	return a->sets + (size_t)index * a->stride;
}

static void init_set(const struct gn_assoc *a, uint8_t *set)
{
	memset(set, FREE, a->lanes);
	memset(set + a->lanes, a->lanes > 16 ? FREE : NO_AGE, a->lanes);
	for (unsigned way = 0; way < a->ways; way++)
		set[a->lanes + way] = (uint8_t)way;
}

/* The lanes whose way has a key, of 16 from @lane on. */
static unsigned taken_lanes(const uint8_t *set, unsigned lane)
{
	__m128i have = _mm_load_si128((const __m128i *)(const void *)(set + lane));

	return ~(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(have, _mm_set1_epi8((char)FREE))) &
	       0xffff;
}

/* Free all ways. Their ages stay: of ways that are all free none is better than another. */
static void clear_set(struct gn_assoc *a, uint8_t *set)
{
	for (unsigned lane = 0; lane < a->lanes; lane += 16) {
		unsigned taken = taken_lanes(set, lane);

		if (!taken)
			continue;
		a->used -= (unsigned)__builtin_popcount(taken);
		memset(set + lane, FREE, 16);
		for (; taken; taken &= taken - 1)
			gn_assoc_entries(a, set)[lane + (unsigned)__builtin_ctz(taken)].key = 0;
	}
}

/* A guest that flushes often has few entries each time: the sets that have any are found, not all of them written. */
void gn_assoc_clear(struct gn_assoc *a)
{
	for (uint32_t i = 0; a->used && i <= a->set_mask; i++)
		clear_set(a, set_at(a, i));
	a->last_key = 0;
}

int gn_assoc_init(struct gn_assoc *a, uint32_t entries, uint32_t ways)
{
	size_t bytes;
	uint32_t sets;

	memset(a, 0, sizeof(*a));
	if (!entries)
		return 0;
	sets = entries / ways;
	a->lanes = (uint8_t)((ways + 15) / 16 * 16);
	bytes = 2 * (size_t)a->lanes + ways * sizeof(struct gn_assoc_entry);
	a->stride = (uint32_t)((bytes + HOST_LINE - 1) / HOST_LINE * HOST_LINE);
	if (gn_alloc_should_fail())
		return -ENOMEM;
	a->sets = aligned_alloc(HOST_LINE, (size_t)sets * a->stride);
	if (!a->sets)
		return -ENOMEM;
	memset(a->sets, 0, (size_t)sets * a->stride);
	a->ways = (uint8_t)ways;
	a->set_mask = sets - 1;
	a->set_bits = (uint8_t)__builtin_ctz(sets);
	a->oldest = _mm_set1_epi8((char)(ways - 1));
	for (uint32_t i = 0; i < sets; i++)
		init_set(a, set_at(a, i));
	return 0;
}

void gn_assoc_fini(struct gn_assoc *a)
{
	free(a->sets);
	memset(a, 0, sizeof(*a));
}

int gn_assoc_find(const struct gn_assoc *a, const struct gn_assoc_place *p)
{
	const struct gn_assoc_entry *entries = gn_assoc_entries(a, p->set);
	__m128i want = _mm_set1_epi8((char)p->fingerprint);

	for (unsigned lane = 0; lane < a->lanes; lane += 16) {
		__m128i have = _mm_load_si128((const __m128i *)(const void *)(p->set + lane));
		unsigned mask = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(have, want));

		for (; mask; mask &= mask - 1) {
			unsigned way = lane + (unsigned)__builtin_ctz(mask);

			if (gn_key_matches(entries[way].key, p->key))
				return (int)way;
		}
	}
	return -1;
}

/* Make @way the one used last: the younger ones age by one. */
static void touch(const struct gn_assoc *a, uint8_t *set, unsigned way)
{
	uint8_t *ages = set + a->lanes;
	__m128i age = _mm_set1_epi8((char)ages[way]);

	for (unsigned lane = 0; lane < a->lanes; lane += 16) {
		__m128i *at = (__m128i *)(void *)(ages + lane);
		__m128i v = _mm_load_si128(at);
		/* 0xff where v >= age: those stay */
		__m128i older = _mm_cmpeq_epi8(_mm_subs_epu8(age, v), _mm_setzero_si128());

		_mm_store_si128(at, _mm_sub_epi8(_mm_add_epi8(v, older), _mm_set1_epi8(-1)));
	}
	ages[way] = 0;
}

struct gn_assoc_entry *gn_assoc_get_wide(struct gn_assoc *a, const struct gn_assoc_place *p)
{
	int way;

	if (p->key == a->last_key)
		return a->last;
	way = gn_assoc_find(a, p);
	if (way < 0)
		return NULL;
	touch(a, p->set, (unsigned)way);
	a->last_key = p->key;
	a->last = &gn_assoc_entries(a, p->set)[way];
	return a->last;
}

/* The way not used for longest. */
static unsigned find_oldest(const struct gn_assoc *a, const uint8_t *set)
{
	for (unsigned lane = 0;; lane += 16) {
		__m128i v = _mm_load_si128((const __m128i *)(const void *)(set + a->lanes + lane));
		unsigned mask = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, a->oldest));

		if (mask)
			return lane + (unsigned)__builtin_ctz(mask);
	}
}

struct gn_assoc_entry *gn_assoc_put_wide(struct gn_assoc *a, const struct gn_assoc_place *p,
					 uint64_t *replaced)
{
	unsigned way = find_oldest(a, p->set);
	struct gn_assoc_entry *e = &gn_assoc_entries(a, p->set)[way];

	touch(a, p->set, way);
	p->set[way] = (uint8_t)p->fingerprint;
	*replaced = e->key;
	a->used += !e->key;
	e->key = p->key;
	a->last_key = p->key;
	a->last = e;
	return e;
}

void gn_assoc_drop(struct gn_assoc *a, uint8_t *set, unsigned way)
{
	uint8_t *ages = set + a->lanes;

	for (unsigned other = 0; other < a->ways; other++)
		if (ages[other] > ages[way])
			ages[other]--;
	ages[way] = (uint8_t)(a->ways - 1);
	set[way] = FREE;
	gn_assoc_entries(a, set)[way].key = 0;
	a->used--;
	a->last_key = 0;
}

void gn_assoc_drop_matching(struct gn_assoc *a, uint64_t mask, uint64_t match,
			    void (*dropped)(void *ctx, uint64_t key), void *ctx)
{
	for (uint32_t i = 0; a->used && i <= a->set_mask; i++) {
		uint8_t *set = set_at(a, i);
		const struct gn_assoc_entry *entries = gn_assoc_entries(a, set);

		for (unsigned way = 0; way < a->ways; way++) {
			uint64_t key = entries[way].key;

			if (!key || (key & mask) != match)
				continue;
			gn_assoc_drop(a, set, way);
			if (dropped)
				dropped(ctx, key);
		}
	}
}

void gn_assoc_clear_meta(struct gn_assoc *a, uint64_t bits)
{
	for (uint32_t i = 0; a->used && i <= a->set_mask; i++)
		for (unsigned way = 0; way < a->ways; way++)
			gn_assoc_entries(a, set_at(a, i))[way].meta &= ~bits;
}
