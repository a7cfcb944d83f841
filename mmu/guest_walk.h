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

#include "fmt.h"

/* Paging mode, derived from registers once and not at each walk. */
struct gn_paging {
	const struct gn_fmt *fmt; /* NULL: paging is off, gpa = gva */
	uint8_t levels;		  /* 0, 4, 5 */
	uint8_t phys_bits;
	bool wp, smep, smap, nxe, pke, pge, pcide;
	uint32_t pkru;
};
void gn_paging_derive(const struct gn_regs *regs, unsigned phys_bits, struct gn_paging *out);
bool gn_paging_is_canonical(const struct gn_paging *paging, gva_t va);

/* What the entries of a walk amount to. */
struct gn_translation {
	gn_rights_t rights; /* ANDed; with NXE off X is always granted */
	uint8_t level;	    /* of the leaf */
	uint8_t pkey;
	bool global;
	bool dirty; /* D of the leaf */
	gpa_t gpa;  /* with the offset */
};

/* 0: allowed. Otherwise the #PF error code (P set) of @access to @translation. */
uint32_t gn_paging_access(const struct gn_paging *paging, const struct gn_translation *translation,
			  const struct gn_access *access);
/* Error code bits that follow from the access alone (W, U, I), for not-present and reserved faults. */
uint32_t gn_paging_error_base(const struct gn_paging *paging, const struct gn_access *access);

/* A guest entry with what NXE and MAXPHYADDR make reserved. */
bool gn_paging_is_reserved(const struct gn_paging *paging, unsigned level, uint64_t entry);

enum gn_guest_walk_end {
	GN_GW_OK,
	GN_GW_PF, /* #PF with .error_code */
	GN_GW_GP, /* not canonical */
	GN_GW_NO_TABLE, /* a table's gfn is not readable (or not writable, for A/D) memory: .gpa, .level */
};

struct gn_guest_walk {
	enum gn_guest_walk_end end;
	uint32_t error_code;
	struct gn_translation t; /* GN_GW_OK; partial otherwise (rights so far, level reached) */
	gpa_t gpa;		 /* GN_GW_NO_TABLE: the entry that could not be read */
	uint8_t refs;		 /* entries read */
	gfn_t table[GN_MAX_LEVELS + 1];	   /* by level: the table page read at that level */
	uint64_t entry[GN_MAX_LEVELS + 1]; /* by level: what was read (after A/D) */
	gn_rights_t
		above[GN_MAX_LEVELS + 1]; /* by level: AND of the rights of the entries above it */
};

enum {
	GN_GW_SET_AD = 1
}; /* set A on the way and D on a write, by cmpxchg, restarting when beaten */

/* Walk the tables of @vm from regs.cr3. The caller is inside an RCU read section. Never faults in
 * host frames: an unbacked table gfn reads as zeros (not present). */
void gn_guest_walk(struct gn_vm *vm, const struct gn_paging *paging, uint64_t cr3,
		   const struct gn_access *access, unsigned flags, struct gn_guest_walk *out);

#endif
