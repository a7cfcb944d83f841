/* SPDX-License-Identifier: MIT */
/*
 * types.h - the words of the engine, as types.
 *
 * Gnomon exists to keep three address spaces apart:
 *
 *     GVA (guest virtual) --guest page tables--> GPA (guest physical) --p2m--> HPA (host physical)
 *
 * so each space is a one-member struct and the compiler refuses a mix-up. A frame number is an
 * address without its low twelve bits: gfn for GPA, pfn for HPA. An HPA is an offset into the host
 * frame pool (mmu/frames.h), not an address of the machine the VMM runs on; an HVA is a plain
 * pointer of this process and has no type of its own.
 */
#ifndef GNOMON_TYPES_H
#define GNOMON_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GN_PAGE_SHIFT	 12
#define GN_PAGE_SIZE	 ((uint64_t)1 << GN_PAGE_SHIFT)
#define GN_INDEX_BITS	 9 /* 512 entries of 8 bytes in a table page, in every format */
#define GN_TABLE_ENTRIES 512
#define GN_MAX_LEVELS	 5 /* levels count from 1 (the 4 KiB leaf) to the root, as in KVM */

typedef struct gva {
	uint64_t v;
} gva_t;
typedef struct gpa {
	uint64_t v;
} gpa_t;
typedef struct hpa {
	uint64_t v;
} hpa_t;
typedef struct gfn {
	uint64_t v;
} gfn_t;
typedef struct pfn {
	uint64_t v;
} pfn_t;

static inline gva_t gva(uint64_t v)
{
	gva_t r = { v };
	return r;
}
static inline gpa_t gpa(uint64_t v)
{
	gpa_t r = { v };
	return r;
}
static inline hpa_t hpa(uint64_t v)
{
	hpa_t r = { v };
	return r;
}
static inline gfn_t gfn(uint64_t v)
{
	gfn_t r = { v };
	return r;
}
static inline pfn_t pfn(uint64_t v)
{
	pfn_t r = { v };
	return r;
}

static inline gfn_t gpa_to_gfn(gpa_t a)
{
	return gfn(a.v >> GN_PAGE_SHIFT);
}
static inline gpa_t gfn_to_gpa(gfn_t f)
{
	return gpa(f.v << GN_PAGE_SHIFT);
}
static inline pfn_t hpa_to_pfn(hpa_t a)
{
	return pfn(a.v >> GN_PAGE_SHIFT);
}
static inline hpa_t pfn_to_hpa(pfn_t f)
{
	return hpa(f.v << GN_PAGE_SHIFT);
}

/* Bytes and 4 KiB pages mapped by one leaf at @level: 4 KiB, 2 MiB, 1 GiB for levels 1, 2, 3. */
static inline unsigned gn_level_shift(unsigned level)
{
	return GN_PAGE_SHIFT + GN_INDEX_BITS * (level - 1);
}
static inline uint64_t gn_level_bytes(unsigned level)
{
	return (uint64_t)1 << gn_level_shift(level);
}
static inline uint64_t gn_level_pages(unsigned level)
{
	return (uint64_t)1 << (GN_INDEX_BITS * (level - 1));
}

/* Portable rights. How a format encodes them is known to mmu/fmt_* alone. */
typedef uint8_t gn_rights_t;
#define GN_R	((gn_rights_t)1)
#define GN_W	((gn_rights_t)2)
#define GN_X	((gn_rights_t)4)
#define GN_U	((gn_rights_t)8) /* reachable from CPL 3 */
#define GN_RWX	((gn_rights_t)7)
#define GN_RWXU ((gn_rights_t)15)

enum gn_access_kind { GN_READ, GN_WRITE, GN_FETCH };

/* One memory access of a guest, as the MMU sees it. */
struct gn_access {
	gva_t va;
	uint8_t kind; /* enum gn_access_kind */
	uint8_t size; /* bytes; an access that crosses a page is presented page by page */
	bool user;    /* executed at CPL 3 */
	bool implicit; /* implicit supervisor access (descriptor tables, event delivery): SMAP ignores AC */
	bool ac; /* RFLAGS.AC */
};

#endif
