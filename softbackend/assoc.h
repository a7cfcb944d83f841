/* SPDX-License-Identifier: MIT */
/*
 * assoc.h - one set-associative array with exact LRU: every TLB and walk cache is made of these.
 *
 * A set is contiguous memory: a 7-bit fingerprint per way, an age per way (0 = used last, a
 * permutation of 0..ways-1), then the keys:
 *
 *     [fingerprint: lanes bytes][age: lanes bytes][key: ways * 8 bytes]     lanes = ways rounded up to 16
 *
 * So finding is one vector compare per 16 ways and touching is one vector add; a set of 4 ways is one host
 * cache line, and a fully associative TLB of 72 entries is five compares. What an entry says stands apart.
 *
 * Invariants: ages of a set are a permutation; a free way has key 0, fingerprint 0xff (which no key has) and
 * an age older than every used way; unused lanes have fingerprint and age 0xff for ever.
 *
 * Key 0 means free, so keys carry a bit that is always set. A key with GN_KEY_GLOBAL matches under any tag.
 */
#ifndef GN_SOFT_ASSOC_H
#define GN_SOFT_ASSOC_H

#include <emmintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A key: page number of the entry's own size, tag (PCID), level, global, valid. 45 bits of page number
 * hold a 57-bit address. */
#define GN_KEY_VALID	   ((uint64_t)1 << 0)
#define GN_KEY_GLOBAL	   ((uint64_t)1 << 1)
#define GN_KEY_LEVEL_SHIFT 2 /* 2 bits */
#define GN_KEY_TAG_SHIFT   4 /* 12 bits */
#define GN_KEY_TAG_MASK	   ((uint64_t)0xfff << GN_KEY_TAG_SHIFT)
#define GN_KEY_PAGE_SHIFT  16
#define GN_KEY_ADDRESS	   (((uint64_t)1 << 57) - 1)

struct gn_assoc_entry {
	uint64_t frame;	      /* address of the page, or of the next table */
	uint16_t known;	      /* which of `allow` are decided */
	uint16_t allow;	      /* accesses the entry permits: a bit per gn_soft_access_bit() */
	uint8_t rights;	      /* of the dimension the entry translates (gn_rights_t) */
	uint8_t outer_rights; /* of the nested dimension below it */
	uint8_t pkey;
	uint8_t flags;
};
#define GN_ENTRY_DIRTY	((uint8_t)1) /* D is set wherever a write needs it */
#define GN_ENTRY_GLOBAL ((uint8_t)2)

struct gn_assoc {
	uint8_t *sets;
	struct gn_assoc_entry *entries;
	uint32_t set_mask;
	uint32_t stride;
	uint16_t ways; /* 0: the array does not exist */
	uint16_t lanes;
	uint8_t set_bits;
	uint32_t used; /* ways with a key */
};

/* @entries / @ways is a power of two, @ways <= 255; 0 entries make an array that never hits. -ENOMEM. */
int gn_assoc_init(struct gn_assoc *a, uint32_t entries, uint32_t ways);
void gn_assoc_fini(struct gn_assoc *a);
void gn_assoc_clear(struct gn_assoc *a);

struct gn_assoc_slot {
	uint8_t *set;
	struct gn_assoc_entry *entries; /* of the set */
	uint64_t page;
	uint8_t fingerprint;
};

static inline struct gn_assoc_slot gn_assoc_slot(const struct gn_assoc *a, uint64_t page)
{
	uint64_t index = page & a->set_mask, rest = page >> a->set_bits;
	struct gn_assoc_slot s = { a->sets + index * a->stride, a->entries + index * a->ways, page,
				   (uint8_t)((rest ^ (rest >> 7)) & 0x7f) };

	return s;
}
static inline uint64_t *gn_assoc_keys(const struct gn_assoc *a, uint8_t *set)
{
	return (uint64_t *)(void *)(set + 2 * (size_t)a->lanes);
}

static inline bool gn_key_matches(uint64_t key, uint64_t want)
{
	uint64_t difference = key ^ want;

	if (__builtin_expect(!difference, 1))
		return true;
	return (key & GN_KEY_GLOBAL) && !(difference & ~(GN_KEY_TAG_MASK | GN_KEY_GLOBAL));
}

/* Fingerprints of 16 ways from @lane on that match: a bit each. */
static inline unsigned gn_assoc_match(const struct gn_assoc_slot *s, unsigned lane)
{
	__m128i have = _mm_load_si128((const __m128i *)(const void *)(s->set + lane));

	return (unsigned)_mm_movemask_epi8(
		_mm_cmpeq_epi8(have, _mm_set1_epi8((char)s->fingerprint)));
}

/* The way that holds @key, or -1. Changes nothing. */
static inline int gn_assoc_find(const struct gn_assoc *a, const struct gn_assoc_slot *s,
				uint64_t key)
{
	const uint64_t *keys = gn_assoc_keys(a, s->set);
	unsigned lane = 0;

	do {
		for (unsigned mask = gn_assoc_match(s, lane); mask; mask &= mask - 1) {
			unsigned way = lane + (unsigned)__builtin_ctz(mask);

			if (gn_key_matches(keys[way], key))
				return (int)way;
		}
		lane += 16;
	} while (__builtin_expect(lane < a->lanes, 0));
	return -1;
}

/* Make @way the one used last. */
static inline void gn_assoc_touch(const struct gn_assoc *a, const struct gn_assoc_slot *s,
				  unsigned way)
{
	uint8_t *ages = s->set + a->lanes;
	__m128i age = _mm_set1_epi8((char)ages[way]);
	unsigned lane = 0;

	if (!ages[way])
		return;
	do {
		__m128i *at = (__m128i *)(void *)(ages + lane);
		__m128i v = _mm_load_si128(at);
		/* 0xff where v >= age: those stay; the younger ones age by one */
		__m128i older = _mm_cmpeq_epi8(_mm_subs_epu8(age, v), _mm_setzero_si128());

		_mm_store_si128(at, _mm_add_epi8(_mm_add_epi8(v, older), _mm_set1_epi8(1)));
		lane += 16;
	} while (__builtin_expect(lane < a->lanes, 0));
	ages[way] = 0;
}

/* Put @key in the place of the entry not used for longest, as the one used last. The caller fills in what
 * is returned. *@replaced: the key that had to go, 0 if none. @key is not in the array. */
struct gn_assoc_entry *gn_assoc_insert(struct gn_assoc *a, uint64_t page, uint64_t key,
				       uint64_t *replaced);
/* Free @way of the set @page belongs to. */
void gn_assoc_drop(struct gn_assoc *a, const struct gn_assoc_slot *s, unsigned way);
/* Free every entry whose key has (key & mask) == match, and call @dropped (may be NULL) with its key. */
void gn_assoc_drop_matching(struct gn_assoc *a, uint64_t mask, uint64_t match,
			    void (*dropped)(void *ctx, uint64_t key), void *ctx);
/* Forget every decision on accesses (`known`), because the registers it was made under changed. */
void gn_assoc_forget_decisions(struct gn_assoc *a);

#endif
