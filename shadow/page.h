/* SPDX-License-Identifier: MIT */
/*
 * page.h - the shadow page: one host page of shadow entries for one (gfn, role).
 *
 * The key is the guest table's gfn and the *whole* role: everything else an entry of the page is made
 * from. Two pages with different keys never stand in for each other, and a link is followed only after the
 * key of the page behind it was compared, for a guest entry can change between the moment we read it and the
 * moment its link is dropped.
 *
 * A *direct* page shadows no guest table. It maps the part of a large guest page (or, with paging off, of
 * guest-physical memory) that starts at gfn, in smaller pieces. What the large guest entry says of rights,
 * dirtiness, key and global mark is part of its role, so that two large entries which differ in any of it
 * do not share pieces. A direct page is never found when one looks for the shadows of a guest table.
 *
 * In a deprivileged VM a page belongs to one *view*, that is, to one privilege of the guest (link.c says what
 * the leaves of a view are). The pages of a guest table's views are different pages under one gfn, so a trapped
 * write, a zap and a resync find them all.
 *
 * Everything here is guarded by the scheme lock, but for the hardware, which reads entries and sets A and D.
 */
#ifndef GN_SHADOW_PAGE_H
#define GN_SHADOW_PAGE_H

#include "mmu/entry.h"
#include "mmu/vm.h"

#include "slots.h"

struct gn_shadow;

union gn_shadow_role {
	struct {
		uint32_t level : 3;  /* of the entries in the page */
		uint32_t levels : 3; /* of the guest's tables; 0: paging is off */
		uint32_t direct : 1;
		uint32_t
			access : 4; /* AND of the guest's rights above; direct: the guest leaf's too */
		uint32_t nxe : 1;
		uint32_t wp : 1;
		uint32_t smep_without_wp : 1;
		uint32_t user_guard_without_wp : 1;	  /* SMAP or PKE: see fault.c */
		uint32_t dirty : 1, global : 1, pkey : 4; /* of the guest leaf, direct only */
		uint32_t view : 2;			  /* enum gn_view: whose page it is */
		uint32_t view_smep : 1, view_smap : 1;	  /* of the guest, in a kernel's view */
	};
	uint32_t word;
};

struct gn_shadow_key {
	gfn_t gfn;
	union gn_shadow_role role;
};

struct gn_shadow_list {
	struct gn_shadow_list *next, *prev;
};

struct gn_shadow_page {
	struct gn_shadow_list link;   /* in gn_shadow.pages, oldest first, or in .doomed */
	struct gn_shadow_page *chain; /* of the hash bucket; kept when unhashed, so loops go on */
	struct gn_shadow_key key;
	pfn_t table;
	uint64_t *entries; /* of .table */
	uint32_t
		*gfns; /* by index, the gfn of the leaf there; NULL where it follows from the key */
	struct gn_slots parents;
	uint64_t protect_seq;	  /* of the write-protection it relies on: see rmap.h */
	uint64_t unsync_below[8]; /* by index: an unsync page is reachable there */
	uint32_t live_refs;	  /* vCPUs whose root this is now */
	uint32_t cache_refs;	  /* root caches that keep it */
	uint16_t present_count;
	uint8_t flood;	/* trapped guest writes since the page was last used by a fault */
	uint8_t calm;	/* resyncs in a row that found nothing */
	bool used;	/* since reclaim last came by */
	bool is_unsync; /* level 1: the guest writes the table freely, we are a TLB */
	bool is_hashed; /* found by its key; else dead, or private to a vCPU (vtlb) */
	bool is_doomed;
};

/* One that may be a root: the hardware's top level. */
static inline bool gn_shadow_role_is_top(union gn_shadow_role role)
{
	return role.level == (role.levels == 5 ? 5 : 4);
}
static inline bool gn_shadow_key_equal(const struct gn_shadow_key *a, const struct gn_shadow_key *b)
{
	return a->gfn.v == b->gfn.v && a->role.word == b->role.word;
}
/* Leaves of an indirect page name any gfn; higher than 1 GiB there are no leaves. */
static inline bool gn_shadow_key_needs_gfns(const struct gn_shadow_key *key)
{
	return !key->role.direct && key->role.level <= 3;
}
static inline gfn_t gn_shadow_leaf_gfn(const struct gn_shadow_page *page, unsigned index)
{
	if (page->gfns)
		return gfn(page->gfns[index]);
	return gfn(page->key.gfn.v + index * gn_level_pages(page->key.role.level));
}
static inline unsigned gn_shadow_slot_index(const uint64_t *slot)
{
	return ((uintptr_t)slot & (GN_PAGE_SIZE - 1)) / sizeof(*slot);
}

/* ---- Making and ending (page.c) -------------------------------------------------------------------- */

/* Pages a fault may need, made before the lock is taken. */
struct gn_shadow_reserve {
	struct gn_shadow_page *page[GN_MAX_LEVELS];
	uint32_t *gfns[GN_MAX_LEVELS];
	unsigned page_count, gfns_count;
};
/* -ENOMEM: what could be had is in the reserve. No lock held. */
int gn_shadow_reserve_fill(struct gn_shadow *s, struct gn_shadow_reserve *reserve,
			   unsigned page_count, unsigned gfns_count);
void gn_shadow_reserve_drop(struct gn_shadow *s, struct gn_shadow_reserve *reserve);

/* A page from the reserve, empty, linked nowhere. With @hash it can be found by its key, and the gfn of an
 * indirect one is write-protected from now on. */
struct gn_shadow_page *gn_shadow_page_take(struct gn_shadow *s, struct gn_shadow_reserve *reserve,
					   const struct gn_shadow_key *key, bool hash);
/* Unlink @page everywhere and forget all it maps. It is gone once the lock is released, or, when a vCPU has
 * it as its root, once that vCPU has loaded another. */
void gn_shadow_page_zap(struct gn_shadow *s, struct gn_shadow_page *page);
/* Put the backend's own entry into @page, if that is a root and there is one (gn_vm_set_root_slot). It is no entry
 * of ours: not counted, not in any set, never dropped. */
void gn_shadow_page_set_reserved(struct gn_shadow *s, struct gn_shadow_page *page);
bool gn_shadow_is_reserved(const struct gn_shadow *s, const struct gn_shadow_page *page,
			   unsigned index);
/* Remove every entry of @page; it stays what and where it is. */
void gn_shadow_page_empty(struct gn_shadow *s, struct gn_shadow_page *page);
/* gn_shadow_page_zap() without the search in root caches, for who drops the last reference. */
void gn_shadow_page_doom(struct gn_shadow *s, struct gn_shadow_page *page);
/* Give doomed pages back. Their flush has been posted. */
void gn_shadow_pages_bury(struct gn_shadow *s);

/* ---- Finding ----------------------------------------------------------------------------------------- */

struct gn_shadow_page *gn_shadow_page_find(struct gn_shadow *s, const struct gn_shadow_key *key);
/* Shadows of the guest table @at, direct pages left out: first, then next until NULL. Pages may be zapped on
 * the way. */
struct gn_shadow_page *gn_shadow_page_first(struct gn_shadow *s, gfn_t at);
struct gn_shadow_page *gn_shadow_page_next(struct gn_shadow_page *page);
/* The page that owns a table frame, or NULL. */
struct gn_shadow_page *gn_shadow_page_of(struct gn_shadow *s, pfn_t table);
struct gn_shadow_page *gn_shadow_page_of_slot(struct gn_shadow *s, const uint64_t *slot);

int gn_shadow_pages_init(struct gn_shadow *s);
void gn_shadow_pages_fini(struct gn_shadow *s);

static inline void gn_shadow_list_init(struct gn_shadow_list *list)
{
	list->next = list->prev = list;
}
static inline bool gn_shadow_list_is_empty(const struct gn_shadow_list *list)
{
	return list->next == list;
}
static inline void gn_shadow_list_remove(struct gn_shadow_list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
}
static inline void gn_shadow_list_append(struct gn_shadow_list *list, struct gn_shadow_list *node)
{
	node->prev = list->prev;
	node->next = list;
	list->prev->next = node;
	list->prev = node;
}

#endif
