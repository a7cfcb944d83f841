/* SPDX-License-Identifier: MIT */
/*
 * assoc.h - one set-associative array with exact LRU: every TLB and walk cache is made of these.
 *
 * A set is contiguous memory: a 7-bit fingerprint per way, an age per way (0 = used last, a
 * permutation of 0..ways-1), and the entries:
 *
 *     [fingerprint: lanes][age: lanes][entry: 24 * ways]     lanes = ways rounded up to 16
 *
 * So finding is one vector compare per 16 ways and touching is one vector add; a fully associative TLB of 72
 * entries is five of each. Up to 16 ways are inlined where they are used, more go out of line. The key found
 * last is kept beside: it is the youngest of its set, so finding it again changes nothing.
 *
 * Invariants: ages of a set are a permutation; a free way has key 0 and fingerprint 0xff, which no key
 * has; unused lanes have fingerprint 0xff for ever, and an age that no way has and no addition changes: 0x7f
 * (the signed sum saturates) up to 16 ways, 0xff beyond.
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
#define GN_KEY_LEVEL_MASK  ((uint64_t)3 << GN_KEY_LEVEL_SHIFT)
#define GN_KEY_TAG_SHIFT   4 /* 12 bits */
#define GN_KEY_TAG_MASK	   ((uint64_t)0xfff << GN_KEY_TAG_SHIFT)
#define GN_KEY_PAGE_SHIFT  16
#define GN_KEY_ADDRESS	   (((uint64_t)1 << 57) - 1)

struct gn_assoc_entry {
	uint64_t key;
	uint64_t frame; /* address of the page, or of the next table */
	uint64_t meta;	/* the owner's: see tlb.h, pwc.h */
};

struct gn_assoc {
	__m128i oldest; /* ways - 1 in every byte */
	uint8_t *sets;
	uint64_t last_key; /* found or put in last; 0: none */
	struct gn_assoc_entry *last;
	uint32_t set_mask;
	uint32_t stride;
	uint32_t used; /* ways with a key */
	uint8_t lanes;
	uint8_t ways; /* 0: the array does not exist */
	uint8_t set_bits;
};
#define GN_ASSOC_MAX_WAYS 240

/* @entries / @ways is a power of two, @ways <= GN_ASSOC_MAX_WAYS; 0 entries make an array that never hits.
 * -ENOMEM. */
int gn_assoc_init(struct gn_assoc *a, uint32_t entries, uint32_t ways);
void gn_assoc_fini(struct gn_assoc *a);
void gn_assoc_clear(struct gn_assoc *a);

/* Where a key belongs. */
struct gn_assoc_place {
	uint8_t *set;
	uint64_t key;
	uint32_t fingerprint;
};

static inline struct gn_assoc_place gn_assoc_place(const struct gn_assoc *a, uint64_t page,
						   uint64_t key)
{
	struct gn_assoc_place p = { a->sets + (page & a->set_mask) * a->stride, key,
				    (uint32_t)(page >> a->set_bits) & 0x7f };

	return p;
}
static inline struct gn_assoc_entry *gn_assoc_entries(const struct gn_assoc *a, uint8_t *set)
{
	return (struct gn_assoc_entry *)(void *)(set + 2 * (size_t)a->lanes);
}

static inline bool gn_key_matches(uint64_t key, uint64_t want)
{
	uint64_t difference = key ^ want;

	if (__builtin_expect(!difference, 1))
		return true;
	return (key & GN_KEY_GLOBAL) && !(difference & ~(GN_KEY_TAG_MASK | GN_KEY_GLOBAL));
}

/* The way that holds the key, or -1. Changes nothing. */
int gn_assoc_find(const struct gn_assoc *a, const struct gn_assoc_place *p);

/* As the two below, where there are more than 16 ways. */
struct gn_assoc_entry *gn_assoc_get_wide(struct gn_assoc *a, const struct gn_assoc_place *p);
struct gn_assoc_entry *gn_assoc_put_wide(struct gn_assoc *a, const struct gn_assoc_place *p,
					 uint64_t *replaced);

static inline bool gn_assoc_is_narrow(const struct gn_assoc *a)
{
	return a->lanes == 16;
}

/* Find, and make it the youngest: the younger ones age by one. NULL: not there. At most 16 ways. */
static inline __attribute__((always_inline)) struct gn_assoc_entry *
gn_assoc_get_narrow(struct gn_assoc *a, const struct gn_assoc_place *p)
{
	__m128i *fingerprints = (__m128i *)(void *)p->set, ages, age, stay;
	struct gn_assoc_entry *e;
	unsigned mask, way;

	if (p->key == a->last_key)
		return a->last;
	mask = (unsigned)_mm_movemask_epi8(
		_mm_cmpeq_epi8(_mm_load_si128(fingerprints), _mm_set1_epi8((char)p->fingerprint)));
	for (;; mask &= mask - 1) {
		if (!mask)
			return NULL;
		way = (unsigned)__builtin_ctz(mask);
		e = (struct gn_assoc_entry *)(void *)(fingerprints + 2) + way;
		if (gn_key_matches(e->key, p->key))
			break;
	}
	ages = _mm_load_si128(fingerprints + 1);
	age = _mm_set1_epi8((char)p->set[16 + way]);
	stay = _mm_cmpeq_epi8(_mm_subs_epu8(age, ages), _mm_setzero_si128());
	ages = _mm_andnot_si128(_mm_cmpeq_epi8(ages, age),
				_mm_subs_epi8(_mm_add_epi8(ages, stay), _mm_set1_epi8(-1)));
	_mm_store_si128(fingerprints + 1, ages);
	a->last_key = p->key;
	a->last = e;
	return e;
}

/* Put the key, which is not there, in the place of the oldest, as the youngest; all others age by one: -1 is taken
 * away, the cheaper constant. The caller fills in frame and meta. *@replaced: the key that had to go, 0 if none.
 * Whole vectors are stored: a single byte's address would be known last, and the host makes later loads wait for
 * that. At most 16 ways. */
static inline __attribute__((always_inline)) struct gn_assoc_entry *
gn_assoc_put_narrow(struct gn_assoc *a, const struct gn_assoc_place *p, uint64_t *replaced)
{
	__m128i *fingerprints = (__m128i *)(void *)p->set, ages, victim, want;
	struct gn_assoc_entry *e;

	ages = _mm_load_si128(fingerprints + 1);
	victim = _mm_cmpeq_epi8(ages, a->oldest);
	want = _mm_and_si128(victim, _mm_set1_epi8((char)p->fingerprint));
	_mm_store_si128(fingerprints,
			_mm_or_si128(_mm_andnot_si128(victim, _mm_load_si128(fingerprints)), want));
	_mm_store_si128(fingerprints + 1,
			_mm_andnot_si128(victim, _mm_subs_epi8(ages, _mm_set1_epi8(-1))));
	e = (struct gn_assoc_entry *)(void *)(fingerprints + 2) +
	    __builtin_ctz((unsigned)_mm_movemask_epi8(victim));
	*replaced = e->key;
	a->used += !e->key;
	e->key = p->key;
	a->last_key = p->key;
	a->last = e;
	return e;
}

/* The two above, with any number of ways. */
static inline __attribute__((always_inline)) struct gn_assoc_entry *
gn_assoc_get(struct gn_assoc *a, const struct gn_assoc_place *p)
{
	return __builtin_expect(gn_assoc_is_narrow(a), 1) ? gn_assoc_get_narrow(a, p)
							  : gn_assoc_get_wide(a, p);
}
static inline __attribute__((always_inline)) struct gn_assoc_entry *
gn_assoc_put(struct gn_assoc *a, const struct gn_assoc_place *p, uint64_t *replaced)
{
	return __builtin_expect(gn_assoc_is_narrow(a), 1) ? gn_assoc_put_narrow(a, p, replaced)
							  : gn_assoc_put_wide(a, p, replaced);
}

/* Free @way of @set. */
void gn_assoc_drop(struct gn_assoc *a, uint8_t *set, unsigned way);
/* Free every entry whose key has (key & mask) == match, and call @dropped (may be NULL) with its key. */
void gn_assoc_drop_matching(struct gn_assoc *a, uint64_t mask, uint64_t match,
			    void (*dropped)(void *ctx, uint64_t key), void *ctx);
/* Clear @bits of every entry's meta. */
void gn_assoc_clear_meta(struct gn_assoc *a, uint64_t bits);

#endif
