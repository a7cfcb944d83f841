/* SPDX-License-Identifier: MIT */
/*
 * rmap.h - the reverse map: which shadow leaves map a gfn, and which gfns are guest tables.
 *
 * For each gfn: the set of 4 KiB leaves that map it, and its standing as a guest table:
 *
 *     plain       no shadow page
 *     tracked     shadowed; no leaf maps it writable
 *     unsync      shadowed by level-1 pages only, all of them unsync; leaves may map it writable
 *
 * For each 2 MiB and 1 GiB block: the set of large leaves that map it, and how many shadowed gfns
 * (tracked or unsync) lie in it. Invariant: a block with a shadowed gfn has no large leaf.
 *
 * Memory: 24 bytes per 2 MiB of RAM, and 4 KiB more for each 2 MiB in which a 4 KiB page was ever
 * mapped or a table shadowed (gn_rmap_prepare(), which may fail; all else cannot but for growing a set).
 *
 * Write-protection and time: a vCPU on another thread may finish a store through a translation whose flush is
 * posted, until a grace period has passed. So flushes are numbered, a shadow page carries the number of the
 * last one its write-protection relies on, and no entry is put into it before that one has settled
 * (gn_shadow.settled_seq). With one vCPU everything has settled always.
 */
#ifndef GN_SHADOW_RMAP_H
#define GN_SHADOW_RMAP_H

#include "mmu/atomics.h"
#include "mmu/vm.h"

#include "slots.h"

struct gn_shadow;

#define GN_RMAP_TRACKED ((uintptr_t)2) /* marks of a gfn's set */
#define GN_RMAP_UNSYNC	((uintptr_t)4)

struct gn_rmap_block {			  /* 2 MiB */
	_Atomic(struct gn_slots *) pages; /* one set per gfn; NULL: none needed yet */
	struct gn_slots large;
	uint32_t shadowed_count;
};
struct gn_rmap_giga { /* 1 GiB */
	struct gn_slots large;
	uint32_t shadowed_count;
};
struct gn_rmap {
	uint64_t gfn_count;
	struct gn_rmap_block *blocks;
	struct gn_rmap_giga *gigas;
};

int gn_rmap_init(struct gn_shadow *s);
void gn_rmap_fini(struct gn_shadow *s);

/* The per-gfn set of @at exists. -ENOMEM. Any context but under the lock is wanted, none is required. */
int gn_rmap_prepare(struct gn_shadow *s, gfn_t at);
bool gn_rmap_is_prepared(const struct gn_shadow *s, gfn_t at);

/* The set for leaves at @level that start at @at. Level 1: prepared. */
struct gn_slots *gn_rmap_leaves(struct gn_shadow *s, gfn_t at, unsigned level);
/* NULL: not prepared, so no leaf and not shadowed. */
struct gn_slots *gn_rmap_peek(const struct gn_shadow *s, gfn_t at);

static inline uintptr_t gn_rmap_marks(const struct gn_shadow *s, gfn_t at)
{
	const struct gn_slots *set = gn_rmap_peek(s, at);

	return set ? set->word & GN_SLOTS_MARKS : 0;
}
/* May a leaf of @level (2 or 3) map the block at @at? */
bool gn_rmap_allows_large(const struct gn_shadow *s, gfn_t at, unsigned level);

/* Change the standing of @at. Becoming tracked write-protects it everywhere; becoming shadowed at all
 * removes large leaves above it. Returns the number of the flush that must settle. */
uint64_t gn_rmap_set_standing(struct gn_shadow *s, gfn_t at, uintptr_t marks);

/* Take W from every leaf that maps @at; large leaves over it are removed. True: someone had it. */
bool gn_rmap_protect(struct gn_shadow *s, gfn_t at);
/* Remove every leaf that maps @at, large ones too. */
void gn_rmap_drop(struct gn_shadow *s, gfn_t at);

#endif
