/* SPDX-License-Identifier: MIT */
/*
 * counters.h - what is counted, under one set of names everywhere (the result file, tables, plots).
 *
 * A counter that a backend cannot know is left out of the result file, never written as 0. Counters are
 * per vCPU, written by its thread only, and summed when read.
 */
#ifndef GNOMON_COUNTERS_H
#define GNOMON_COUNTERS_H

#include <stdint.h>

/* Why the guest left to the VMM. Names: gn_exit_reason_name(). */
enum gn_exit_reason {
	GN_EXIT_PAGE_FAULT, /* a #PF intercepted under a software-maintained table */
	GN_EXIT_PT_WRITE, /* a #PF that turned out to be a store to a write-protected guest table */
	GN_EXIT_NESTED,	  /* EPT violation or nested page fault */
	GN_EXIT_CR_ACCESS, /* MOV to CR0 or CR4, WRMSR EFER */
	GN_EXIT_CR3,	   /* MOV to CR3 */
	GN_EXIT_INVLPG,
	GN_EXIT_INVPCID,
	GN_EXIT_SOFTWARE, /* an access that software translates (interp) */
	GN_EXIT_IO,	  /* port or MMIO access */
	GN_EXIT_HYPERCALL,
	GN_EXIT_HLT,
	GN_EXIT_TRAP, /* any other exception or instruction of a guest whose kernel runs at CPL 3 */
	GN_EXIT_REASONS
};

struct gn_counters {
	uint64_t accesses; /* loads, stores and fetches the guest made */
	uint64_t l1_tlb_misses;
	uint64_t walks;	    /* hardware page walks begun */
	uint64_t walk_refs; /* page-table entries read by the hardware walker, both dimensions */
	uint64_t walk_cycles;
	uint64_t guest_faults;	    /* #PF delivered to the guest */
	uint64_t shadow_faults;	    /* #PF exits the scheme resolved by itself */
	uint64_t nested_faults;	    /* nested violations resolved */
	uint64_t pt_writes_trapped; /* guest table writes emulated */
	uint64_t exits;
	uint64_t exits_by[GN_EXIT_REASONS];
	uint64_t cycles;      /* everything */
	uint64_t cycles_base; /* the guest's own work: no TLB miss, walk, exit or VMM work in it */
	uint64_t exit_cycles; /* exits and what the VMM did in them */
	uint64_t flushes;     /* TLB invalidations carried out, of any scope */
};

const char *gn_exit_reason_name(enum gn_exit_reason reason);

/* Every scalar counter by name, for writers of results: walk i from 0 until NULL. */
struct gn_counter_desc {
	const char *name;
	uint16_t offset; /* of a uint64_t in struct gn_counters */
	const char *what;
};
const struct gn_counter_desc *gn_counter_desc(unsigned i);

#endif
