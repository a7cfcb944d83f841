/* SPDX-License-Identifier: MIT */
/*
 * guest_walk.h - the guest's page walk, with the architecture's full rights logic. The oracle.
 *
 * Source: Intel SDM vol. 3A 4.5-4.7 and 4.10; AMD APM vol. 2 ch. 5. Long mode with 4 or 5 levels, and
 * paging off (identity). 32-bit and PAE paging are not modelled: no scheme of this engine runs such
 * guests.
 *
 * gn_paging_access() is the one place where the rights of a translation meet an access; the software
 * machine's walker, which has its own traversal (walk caches, two dimensions), uses it too.
 */
#ifndef GN_MMU_GUEST_WALK_H
#define GN_MMU_GUEST_WALK_H

#include <gnomon/engine.h>
#include <gnomon/x86.h>

#include "fmt.h"

/* Paging mode, derived from registers once and not at each walk. */
struct gn_paging {
	const struct gn_fmt *fmt; /* NULL: paging is off, gpa = gva */
	uint8_t levels;		  /* 0, 4, 5 */
	uint8_t phys_bits;
	bool wp, smep, smap, nxe, pke, pge, pcide;
	uint32_t pkru;
	uint64_t reserved; /* what NXE and MAXPHYADDR reserve in every entry, beside the format */
	/* All bits that decide whether an entry points at a table, or is a 4 KiB leaf: reserved, P, and PS. */
	uint64_t pointer_mask, leaf_mask;
};
void gn_paging_derive(const struct gn_regs *regs, unsigned phys_bits, struct gn_paging *out);
static inline bool gn_paging_is_canonical(const struct gn_paging *paging, gva_t va)
{
	return !paging->levels || gn_fmt_extend(paging->fmt, va.v) == va.v;
}

/* What the entries of a walk amount to. */
struct gn_translation {
	gn_rights_t rights; /* ANDed; with NXE off X is always granted */
	uint8_t level;	    /* of the leaf; GN_MAX_LEVELS with paging off (any size is right) */
	uint8_t pkey;
	bool global;
	bool dirty; /* D of the leaf */
	gpa_t gpa;  /* with the offset */
};

/* The rules of access: SDM 4.6.1 and 4.6.2, sentence by sentence. Inlined, for they stand on the path of
 * every TLB hit of the software machine.
 *
 * An access is a supervisor-mode access when it was made at CPL < 3 or when it is implicit, whatever the
 * CPL (a segment-descriptor load by user code is one). A page is a user page when every entry on the way
 * has U. */
GN_FMT_INLINE bool gn_access_is_supervisor(const struct gn_access *access)
{
	return !access->user || access->implicit;
}

/* SDM 4.6.1: what the rights deny. With NXE off X is granted everywhere (NX would be reserved). */
GN_FMT_INLINE bool gn_paging_rights_deny(const struct gn_paging *paging, gn_rights_t rights,
					 const struct gn_access *access)
{
	if (!gn_access_is_supervisor(access)) {
		if (!(rights & GN_U))
			return true;
		if (access->kind == GN_READ)
			return false;
		return !(rights & (access->kind == GN_WRITE ? GN_W : GN_X));
	}
	if (access->kind == GN_FETCH)
		return !(rights & GN_X) || ((rights & GN_U) && paging->smep);
	/* SMAP: user pages are out of reach, unless an explicit access runs with RFLAGS.AC. */
	if ((rights & GN_U) && paging->smap && (access->implicit || !access->ac))
		return true;
	return access->kind == GN_WRITE && paging->wp && !(rights & GN_W);
}

/* SDM 4.6.2: what the protection key denies. PKRU bit 2i is AD of key i, bit 2i+1 its WD. Keys guard user
 * pages against data accesses, also the supervisor's; WD binds the supervisor only under CR0.WP. */
GN_FMT_INLINE bool gn_paging_key_denies(const struct gn_paging *paging,
					const struct gn_translation *translation,
					const struct gn_access *access)
{
	uint32_t key_bits;

	if (!paging->pke || access->kind == GN_FETCH || !(translation->rights & GN_U))
		return false;
	key_bits = paging->pkru >> (2 * translation->pkey);
	return (key_bits & 1) || ((key_bits & 2) && access->kind == GN_WRITE &&
				  (!gn_access_is_supervisor(access) || paging->wp));
}

/* Error code bits that follow from the access alone (W, U, I), for not-present and reserved faults. */
uint32_t gn_paging_error_base(const struct gn_paging *paging, const struct gn_access *access);
/* The whole code of a denied access. */
uint32_t gn_paging_error_present(const struct gn_paging *paging, const struct gn_access *access,
				 bool by_key);

/* 0: allowed. Otherwise the #PF error code (P set) of @access to @translation. PK says that the key alone
 * would have denied the access, whatever else did (SDM 4.7). */
GN_FMT_INLINE uint32_t gn_paging_access(const struct gn_paging *paging,
					const struct gn_translation *translation,
					const struct gn_access *access)
{
	bool by_key = gn_paging_key_denies(paging, translation, access);

	if (__builtin_expect(!by_key && !gn_paging_rights_deny(paging, translation->rights, access),
			     1))
		return 0;
	return gn_paging_error_present(paging, access, by_key);
}

/* A guest entry with what NXE and MAXPHYADDR make reserved. */
bool gn_paging_is_reserved(const struct gn_paging *paging, unsigned level, uint64_t entry);

enum gn_guest_walk_end {
	GN_GW_OK,
	GN_GW_PF, /* #PF with .error_code */
	GN_GW_GP, /* not canonical */
	/* A table's gfn is not memory, or not writable memory where A or D must be set: .gpa of the
	 * entry, .t.level. The caller resolves it as a write (gn_p2m_resolve) and walks again. */
	GN_GW_NO_TABLE,
};

struct gn_guest_walk {
	enum gn_guest_walk_end end;
	uint32_t error_code;
	struct gn_translation t; /* GN_GW_OK; partial otherwise (rights so far, level reached) */
	gpa_t gpa;		 /* GN_GW_NO_TABLE: the entry that could not be read */
	uint8_t refs;		 /* entries read */
	gfn_t table[GN_MAX_LEVELS + 1];	   /* by level: the table page read at that level */
	uint64_t entry[GN_MAX_LEVELS + 1]; /* by level: what was read (after A/D) */
	/* By level: AND of the rights of the entries above it. All three arrays are filled from
	 * paging.levels down to t.level (entry: not where the walk ended in NO_TABLE). */
	gn_rights_t above[GN_MAX_LEVELS + 1];
};

enum gn_guest_walk_flag {
	GN_GW_SET_AD =
		1 << 0, /* set A on the way and D on a write, by cmpxchg, restarting when beaten */
	/* The caller wants the answer and not the way to it: .end, .error_code, .gpa and t.gpa; the rest holds
	 * nothing of use. A quarter faster. */
	GN_GW_BRIEF = 1 << 1,
};

/* Walk the tables of @vm from @cr3. One rule for A and D, here and in the software machine: they are set
 * when the access is allowed and not before, A in every entry used, D in the leaf on a write. (SDM 4.8
 * sets A "whenever the processor uses an entry as part of a translation" and lets an access that
 * faults leave A set or not.) The frames of tables change under the caller's eyes only after a grace
 * period, so a p2m writer that takes W away lets one pass before it copies a frame. The caller is
 * inside an RCU read section. Never faults in host frames: an unbacked table gfn reads as zeros (not present). */
void gn_guest_walk(struct gn_vm *vm, const struct gn_paging *paging, uint64_t cr3,
		   const struct gn_access *access, unsigned flags, struct gn_guest_walk *out);

#endif
