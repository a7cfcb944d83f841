/* SPDX-License-Identifier: MIT */
/*
 * preset.h - a model CPU as data: a value, a source and an honesty flag per figure.
 *
 * The figures are listed once (enum gn_figure here, names and limits in preset_figures.c); a preset
 * gives every figure a value and says where it comes from. Nothing else of the machine holds a number
 * that came from the world.
 *
 * Sizes are entries and ways; a structure with 0 entries does not exist. Costs are cycles of the core.
 */
#ifndef GN_SOFT_PRESET_H
#define GN_SOFT_PRESET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gnomon/soft.h>

enum gn_figure {
	/* L1 TLBs by page size; `unified`: the 4 KiB array takes all sizes and the others don't exist */
	GN_FIG_DTLB_4K_ENTRIES,
	GN_FIG_DTLB_4K_WAYS,
	GN_FIG_DTLB_2M_ENTRIES,
	GN_FIG_DTLB_2M_WAYS,
	GN_FIG_DTLB_1G_ENTRIES,
	GN_FIG_DTLB_1G_WAYS,
	GN_FIG_DTLB_UNIFIED,
	GN_FIG_ITLB_4K_ENTRIES,
	GN_FIG_ITLB_4K_WAYS,
	GN_FIG_ITLB_2M_ENTRIES,
	GN_FIG_ITLB_2M_WAYS,
	GN_FIG_ITLB_UNIFIED,
	/* L2 TLB: 4 KiB and 2 MiB pages; a second array for 1 GiB pages, which may take 4 KiB too */
	GN_FIG_STLB_ENTRIES,
	GN_FIG_STLB_WAYS,
	GN_FIG_STLB_1G_ENTRIES,
	GN_FIG_STLB_1G_WAYS,
	GN_FIG_STLB_1G_TAKES_4K,
	GN_FIG_ISTLB_ENTRIES, /* L2 TLB of fetches; 0: the one above */
	GN_FIG_ISTLB_WAYS,
	/* Page-walk caches, by the entry they keep (PDE: skips to the last level) */
	GN_FIG_PWC_PML5E_ENTRIES,
	GN_FIG_PWC_PML5E_WAYS,
	GN_FIG_PWC_PML4E_ENTRIES,
	GN_FIG_PWC_PML4E_WAYS,
	GN_FIG_PWC_PDPTE_ENTRIES,
	GN_FIG_PWC_PDPTE_WAYS,
	GN_FIG_PWC_PDE_ENTRIES,
	GN_FIG_PWC_PDE_WAYS,
	GN_FIG_PWC_HOLDS_HPA, /* 1: under nesting an entry knows the table's HPA; 0: its GPA */
	/* The nested dimension */
	GN_FIG_NESTED_PWC_PML5E_ENTRIES,
	GN_FIG_NESTED_PWC_PML5E_WAYS,
	GN_FIG_NESTED_PWC_PML4E_ENTRIES,
	GN_FIG_NESTED_PWC_PML4E_WAYS,
	GN_FIG_NESTED_PWC_PDPTE_ENTRIES,
	GN_FIG_NESTED_PWC_PDPTE_WAYS,
	GN_FIG_NESTED_PWC_PDE_ENTRIES,
	GN_FIG_NESTED_PWC_PDE_WAYS,
	GN_FIG_NESTED_PWC_FOR_DATA, /* 1: also in the walk of the datum's GPA; 0: only of tables' */
	GN_FIG_NESTED_TLB_ENTRIES,
	GN_FIG_NESTED_TLB_WAYS,
	GN_FIG_NESTED_TLB_FOR_DATA,
	/* Data caches, 64-byte lines */
	GN_FIG_L1_KIB,
	GN_FIG_L1_WAYS,
	GN_FIG_L2_KIB,
	GN_FIG_L2_WAYS,
	GN_FIG_L3_KIB,
	GN_FIG_L3_WAYS,
	/* Latencies */
	GN_FIG_L1_CYCLES,
	GN_FIG_L2_CYCLES,
	GN_FIG_L3_CYCLES,
	GN_FIG_MEMORY_CYCLES,
	GN_FIG_STLB_CYCLES,	  /* an L1 TLB miss that asks the L2 TLB */
	GN_FIG_WALK_START_CYCLES, /* beginning a walk, its references apart */
	GN_FIG_PWC_CYCLES,	  /* asking the walk caches of one dimension, once */
	/* The guest's own work */
	GN_FIG_ACCESS_CYCLES,	   /* a load, store or fetch that hits everywhere, pipelined */
	GN_FIG_INSTRUCTION_CYCLES, /* any other instruction */
	GN_FIG_SYSCALL_CYCLES,	   /* SYSCALL or SYSRET, one way */
	GN_FIG_GUEST_FAULT_CYCLES, /* #PF to the guest's handler and IRET back */
	GN_FIG_CR3_CYCLES,	   /* MOV to CR3, its flush apart */
	GN_FIG_CR_CYCLES,	   /* MOV to CR0 or CR4, WRMSR EFER */
	GN_FIG_FLUSH_VA_CYCLES,	   /* INVLPG */
	GN_FIG_FLUSH_CYCLES,	   /* INVPCID and wider */
	/* Exits, and what the VMM does in them */
	GN_FIG_EXIT_CYCLES, /* round trip: exit, bare dispatch, entry */
	GN_FIG_VMM_SHADOW_FAULT_CYCLES,
	GN_FIG_VMM_EMULATE_CYCLES,
	GN_FIG_VMM_NESTED_FAULT_CYCLES,
	GN_FIG_VMM_INJECT_CYCLES, /* a #PF that turned out to be the guest's own */
	GN_FIG_VMM_CR3_CYCLES,
	GN_FIG_VMM_CR_CYCLES,
	GN_FIG_VMM_INVALIDATE_CYCLES, /* INVLPG, INVPCID */
	GN_FIG_VMM_OTHER_CYCLES,      /* MMIO, hypercall */
	GN_FIG_SOFTWARE_WALK_CYCLES,  /* interp: walking both tables and doing the access */
	/* To turn cycles into time, for people */
	GN_FIG_CLOCK_GHZ,
	GN_FIGURES
};

struct gn_preset_entry {
	double value;
	const char *source;
	bool estimate;
};

struct gn_cpu_preset {
	const char *name;
	const char *summary;
	struct gn_preset_entry figure[GN_FIGURES];
	char *owned_text; /* name, summary and source of a preset that was made at run time; else NULL */
};

/* What a figure is called and may be. */
struct gn_figure_desc {
	const char *key;
	double low, high;
	bool whole;
	const char *what;
};
extern const struct gn_figure_desc gn_figure_desc[GN_FIGURES];

int gn_figure_find(const char *key); /* -1: no such key */
/* 0, or -EINVAL with one line in @why: a figure out of its limits, or sets that are no power of two. */
int gn_cpu_preset_check(const struct gn_cpu_preset *preset, char *why, size_t why_bytes);
/* A heap copy with texts of its own. NULL: no memory. */
struct gn_cpu_preset *gn_cpu_preset_copy(const struct gn_cpu_preset *base, const char *name,
					 const char *summary, const char *source);

static inline uint32_t gn_cpu_preset_count(const struct gn_cpu_preset *preset, enum gn_figure f)
{
	return (uint32_t)preset->figure[f].value;
}

#endif
