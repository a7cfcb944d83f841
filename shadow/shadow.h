/* SPDX-License-Identifier: MIT */
/*
 * shadow.h - the shadow room: its state, and what its files offer each other.
 *
 * Laws of the room:
 *   1. A shadow entry is no more permissive than guest ∘ p2m, or would be so had the guest's own TLB
 *      been flushed when it should have been (unsync pages, and everything of the vtlb).
 *   2. Tables above the leaves grant everything; all rights are in the leaf, whose role has the AND of
 *      the guest's upper levels.
 *   3. A guest-caused change may leave stale translations in TLBs as the guest itself would: it is *owed* and
 *      paid when something of ours depends on it. Ours (protection, p2m changes, freeing pages) is *due*
 *      before the lock is released.
 *   4. Nothing that can fail happens after the first change of a step.
 *
 * Field tags as in mmu/vm.h; [l] is the VM's scheme_lock.
 */
#ifndef GN_SHADOW_SHADOW_H
#define GN_SHADOW_SHADOW_H

#include "page.h"
#include "rmap.h"

#define GN_SHADOW_CACHED_ROOTS 16
#define GN_SHADOW_VIEWS	       3 /* but for GN_VIEW_BOTH, see gn_shadow_view_of() */

struct gn_shadow {
	struct gn_vm *vm;	  /* (c) */
	const struct gn_fmt *fmt; /* (c) entry layouts; the same at each level for 4 and 5 levels */
	bool is_vtlb;		  /* (c) nothing tracked, pages private to a vCPU */
	bool is_single;		  /* (c) one vCPU: every posted flush has settled */
	unsigned reserved_index;  /* (c) of the backend's entry in a root; none: GN_TABLE_ENTRIES */
	struct gn_shadow_page **buckets;	   /* [l] */
	size_t bucket_count;			   /* [l] a power of two */
	size_t hashed_count;			   /* [l] */
	size_t page_count;			   /* [l] pages in the list */
	struct gn_shadow_list pages;		   /* [l] */
	struct gn_shadow_list doomed;		   /* [l] empty whenever the lock is free */
	_Atomic(struct gn_shadow_page **) *owners; /* (c) by frame / 512, chunks made on demand */
	size_t owner_chunk_count;		   /* (c) */
	struct gn_rmap rmap;			   /* [l], prepared blocks (a) */
	struct gn_shadow_vcpu **vcpus;		   /* [l] by index, NULL before its init */
	bool flush_owed, flush_due;		   /* [l] */
	uint64_t flush_seq,
		settled_seq; /* [l] flushes posted; those a grace period has passed since */
};

struct gn_shadow_vcpu {
	struct gn_shadow_page *root; /* [l] to write; written by the vCPU's thread only */
	struct gn_shadow_page *cache[GN_SHADOW_CACHED_ROOTS]; /* [l] most recent first */
	/* [l] Roots by view, for the CR3 and mode in force: those that have missed none of the guest's flushes
	 * (root.c). Virtual TLB: its trees, one per view or the one there is; they stay. */
	struct gn_shadow_page *views[GN_SHADOW_VIEWS];
	union gn_shadow_role base; /* (v) role bits of the paging mode and view in force */
	union gn_shadow_role
		mode; /* (v) those of the kernel's view, which have all of the mode in them */
	struct gn_shadow_reserve reserve; /* (v) */
};

static inline struct gn_shadow *gn_shadow_of(const struct gn_vm *vm)
{
	return (struct gn_shadow *)vm->scheme_data;
}
static inline struct gn_shadow_vcpu *gn_shadow_vcpu_of(const struct gn_vcpu *vcpu)
{
	return (struct gn_shadow_vcpu *)vcpu->scheme_data;
}

/* The place of @role's view in views[]. */
static inline struct gn_shadow_page **gn_shadow_view_of(struct gn_shadow_vcpu *sv,
							union gn_shadow_role role)
{
	return &sv->views[role.view == GN_VIEW_BOTH ? 0 : role.view - 1];
}

static inline void gn_shadow_enter(struct gn_shadow *s)
{
	gn_lock(&s->vm->scheme_lock);
}
void gn_shadow_leave_slow(struct gn_shadow *s);
/* Post what is due, bury the doomed, unlock. */
static inline void gn_shadow_leave(struct gn_shadow *s)
{
	if (GN_UNLIKELY(s->flush_due || !gn_shadow_list_is_empty(&s->doomed)))
		gn_shadow_leave_slow(s);
	gn_unlock(&s->vm->scheme_lock);
}

/* ---- link.c: entries, what they are made of, put in and taken out ----------------------------------- */

/* What a guest leaf says, as far as a shadow leaf is made from it. */
struct gn_shadow_leaf {
	gfn_t gfn; /* first of the shadow leaf */
	gn_rights_t rights;
	bool dirty, global;
	uint8_t pkey;
	bool kernel_write; /* CR0.WP=0: give the kernel its write to a read-only user page */
	bool may_write;	   /* as far as protection and dirty log go */
};
/* 0: the view that @role is of may not use the page. */
uint64_t gn_shadow_leaf_entry(const struct gn_shadow *s, union gn_shadow_role role,
			      const struct gn_shadow_leaf *leaf, p2m_word_t word);
/* What a page of the guest's rights @guest allows the privilege whose view @role is of, as rights of a user page;
 * 0: nothing. The one place where this is decided. */
gn_rights_t gn_shadow_view_rights(union gn_shadow_role role, gn_rights_t guest);
/* -ENOMEM: nothing is mapped there. */
int gn_shadow_leaf_set(struct gn_shadow *s, struct gn_shadow_page *page, unsigned index, gfn_t at,
		       uint64_t entry);
/* @parents of the child have room (gn_slots_reserve). The entry is absent. */
void gn_shadow_link(struct gn_shadow *s, struct gn_shadow_page *page, unsigned index,
		    struct gn_shadow_page *child);
/* Remove one entry. A child left without parents is zapped if it is direct. Returns the child, if any. */
struct gn_shadow_page *gn_shadow_entry_drop(struct gn_shadow *s, struct gn_shadow_page *page,
					    unsigned index);
/* Take W away. True: it was there. */
bool gn_shadow_entry_protect(struct gn_shadow *s, uint64_t *slot, unsigned level);
/* The page behind a table entry; NULL for an absent entry or a leaf. */
struct gn_shadow_page *gn_shadow_child(struct gn_shadow *s, const struct gn_shadow_page *page,
				       unsigned index);
bool gn_shadow_is_orphan(const struct gn_shadow_page *page);

/* ---- key.c ------------------------------------------------------------------------------------------- */
union gn_shadow_role gn_shadow_role_base(const struct gn_paging *paging, enum gn_view view);
struct gn_shadow_key gn_shadow_root_key(const struct gn_vcpu *vcpu, union gn_shadow_role base);
/* The page of @level that a walk passes, below the root. */
struct gn_shadow_key gn_shadow_walk_key(union gn_shadow_role base, const struct gn_guest_walk *walk,
					unsigned level);
/* The page that @entry of an indirect @page leads to. */
struct gn_shadow_key gn_shadow_entry_key(const struct gn_shadow_page *page, uint64_t entry);
/* The paging mode of a role, to judge guest entries with. */
void gn_shadow_role_paging(const struct gn_vm *vm, union gn_shadow_role role,
			   struct gn_paging *out);

/* ---- sync.c ------------------------------------------------------------------------------------------- */

/* Make entry @index of an indirect page what the guest's entry says, or remove it. True: it changed. Inside an
 * RCU read section. */
bool gn_shadow_sync_entry(struct gn_shadow *s, struct gn_shadow_page *page, unsigned index);
/* Resync every unsync page reachable from @page (itself too). */
void gn_shadow_sync_below(struct gn_shadow *s, struct gn_shadow_page *page);
/* Let the guest write the table @at freely: all its pages are level 1. */
void gn_shadow_unsync(struct gn_shadow *s, gfn_t at);
static inline bool gn_shadow_has_unsync(const struct gn_shadow_page *page)
{
	const uint64_t *b = page->unsync_below;

	return page->is_unsync || (b[0] | b[1] | b[2] | b[3] | b[4] | b[5] | b[6] | b[7]);
}
/* @child below @page's entry @index has unsync pages: mark the way to it. */
void gn_shadow_mark_unsync(struct gn_shadow *s, struct gn_shadow_page *page, unsigned index);

/* ---- write.c ------------------------------------------------------------------------------------------ */

struct gn_shadow_fill;
/* The store of @fill, allowed by the guest, goes to a tracked table. True: it is tracked no longer, map it
 * writable. False: the store must be emulated. */
bool gn_shadow_write_to_table(struct gn_shadow *s, const struct gn_shadow_fill *fill);
/* Zap all shadows of the table @at. */
void gn_shadow_unshadow(struct gn_shadow *s, gfn_t at);
void gn_shadow_memory_written(struct gn_vm *vm, struct gn_vcpu *vcpu, gpa_t at, unsigned bytes);

/* ---- fault.c, path.c ------------------------------------------------------------------------------------ */

enum gn_shadow_step {
	GN_STEP_DONE,
	GN_STEP_AGAIN,	/* something changed under us: walk again */
	GN_STEP_PAGES,	/* fill the reserve: fill->need_* */
	GN_STEP_SETTLE, /* a write-protection must settle first */
	GN_STEP_ROOT,	/* the root is dead: load it again */
};
struct gn_shadow_fill {
	struct gn_vcpu *vcpu;
	const struct gn_access *access;
	struct gn_guest_walk walk;
	uint8_t leaf_level;
	uint64_t p2m_sequence;
	p2m_word_t word;
	gfn_t gfn; /* of the access */
	unsigned need_pages, need_gfns;
};
int gn_shadow_fault(struct gn_vcpu *vcpu, const struct gn_fault *fault, struct gn_fix *fix);
/* The page that holds the leaf; pages missing on the way are made. Under the lock, RCU read section. A
 * gn_shadow_step or -ENOMEM. */
int gn_shadow_path(struct gn_shadow *s, struct gn_shadow_fill *fill, struct gn_shadow_page **out);

/* ---- root.c --------------------------------------------------------------------------------------------- */
int gn_shadow_vcpu_init(struct gn_vcpu *vcpu);
void gn_shadow_vcpu_fini(struct gn_vcpu *vcpu);
int gn_shadow_load_root(struct gn_vcpu *vcpu);
void gn_shadow_invlpg(struct gn_vcpu *vcpu, gva_t va);
void gn_shadow_flush_guest(struct gn_vcpu *vcpu, const struct gn_flush *what);
/* Forget @page in every root cache. */
void gn_shadow_roots_forget(struct gn_shadow *s, struct gn_shadow_page *page);
/* False: what the root of @key is loaded for is a change of privilege, at most. */
bool gn_shadow_has_moved(const struct gn_vcpu *vcpu, const struct gn_shadow_key *key);
/* @root is in force, for @base: hardware registers, and what the next load compares with. The tables are made for CR0.WP=1 and EFER.NXE=1, and
 * for the guest's own SMEP, SMAP, PKE, PGE and PKRU; those of a view for none of these, CPL 3, and a hardware that
 * flushes all its translations when the root changes (no PCIDs). */
void gn_shadow_in_force(struct gn_vcpu *vcpu, union gn_shadow_role base,
			const struct gn_shadow_page *root);

/* ---- vtlb.c ---------------------------------------------------------------------------------------------- */
int gn_shadow_vtlb_load_root(struct gn_vcpu *vcpu);
void gn_shadow_vtlb_invlpg(struct gn_vcpu *vcpu, gva_t va);
void gn_shadow_vtlb_flush_guest(struct gn_vcpu *vcpu, const struct gn_flush *what);

/* ---- reclaim.c ------------------------------------------------------------------------------------------- */
/* gn_shadow_reserve_fill() that makes room by zapping old pages when memory or budget is short. */
int gn_shadow_reserve_need(struct gn_shadow *s, struct gn_shadow_reserve *reserve,
			   unsigned page_count, unsigned gfns_count);

/* ---- range.c, audit.c -------------------------------------------------------------------------------------- */
bool gn_shadow_moved(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count);
void gn_shadow_range(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
		     enum gn_range_change change);
void gn_shadow_harvest_accessed(struct gn_vm *vm, gfn_t start, gfn_t end, uint8_t *bitmap);
void gn_shadow_audit(struct gn_vm *vm, struct gn_audit_report *report);

#endif
