/* SPDX-License-Identifier: MIT */
/*
 * preset_figures.c - names and limits of the figures; finding, checking, copying presets.
 *
 * A preset made at run time (from a file, or by changing one figure) is a heap copy that owns its texts
 * in one block, so that its base may be freed before it.
 */
#include "preset.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/arena.h"
#include "mmu/check.h"

#include "assoc.h"

#define ENTRIES(key_, what_)                                                                       \
	{                                                                                          \
		key_ "_entries", 0, 1 << 20, true, what_ ": entries"                               \
	}
#define WAYS(key_, what_)                                                                          \
	{                                                                                          \
		key_ "_ways", 0, 255, true, what_ ": ways"                                         \
	}
#define FLAG(key_, what_)                                                                          \
	{                                                                                          \
		key_, 0, 1, true, what_                                                            \
	}
#define CYCLES(key_, what_)                                                                        \
	{                                                                                          \
		key_ "_cycles", 0, 1e7, true, what_                                                \
	}

const struct gn_figure_desc gn_figure_desc[GN_FIGURES] = {
	[GN_FIG_DTLB_4K_ENTRIES] = ENTRIES("dtlb_4k", "L1 data TLB, 4 KiB pages"),
	[GN_FIG_DTLB_4K_WAYS] = WAYS("dtlb_4k", "L1 data TLB, 4 KiB pages"),
	[GN_FIG_DTLB_2M_ENTRIES] = ENTRIES("dtlb_2m", "L1 data TLB, 2 MiB pages"),
	[GN_FIG_DTLB_2M_WAYS] = WAYS("dtlb_2m", "L1 data TLB, 2 MiB pages"),
	[GN_FIG_DTLB_1G_ENTRIES] = ENTRIES("dtlb_1g", "L1 data TLB, 1 GiB pages"),
	[GN_FIG_DTLB_1G_WAYS] = WAYS("dtlb_1g", "L1 data TLB, 1 GiB pages"),
	[GN_FIG_DTLB_UNIFIED] = FLAG("dtlb_unified", "L1 data TLB: one array for all page sizes"),
	[GN_FIG_ITLB_4K_ENTRIES] = ENTRIES("itlb_4k", "L1 instruction TLB, 4 KiB pages"),
	[GN_FIG_ITLB_4K_WAYS] = WAYS("itlb_4k", "L1 instruction TLB, 4 KiB pages"),
	[GN_FIG_ITLB_2M_ENTRIES] = ENTRIES("itlb_2m", "L1 instruction TLB, 2 MiB pages"),
	[GN_FIG_ITLB_2M_WAYS] = WAYS("itlb_2m", "L1 instruction TLB, 2 MiB pages"),
	[GN_FIG_ITLB_UNIFIED] =
		FLAG("itlb_unified", "L1 instruction TLB: one array for all page sizes"),
	[GN_FIG_STLB_ENTRIES] = ENTRIES("stlb", "L2 TLB, 4 KiB and 2 MiB pages"),
	[GN_FIG_STLB_WAYS] = WAYS("stlb", "L2 TLB, 4 KiB and 2 MiB pages"),
	[GN_FIG_STLB_1G_ENTRIES] = ENTRIES("stlb_1g", "L2 TLB, 1 GiB pages"),
	[GN_FIG_STLB_1G_WAYS] = WAYS("stlb_1g", "L2 TLB, 1 GiB pages"),
	[GN_FIG_STLB_1G_TAKES_4K] =
		FLAG("stlb_1g_takes_4k", "L2 TLB: the 1 GiB array holds 4 KiB pages too"),
	[GN_FIG_ISTLB_ENTRIES] = ENTRIES("istlb", "L2 TLB of fetches (0: shared)"),
	[GN_FIG_ISTLB_WAYS] = WAYS("istlb", "L2 TLB of fetches"),
	[GN_FIG_PWC_PML5E_ENTRIES] = ENTRIES("pwc_pml5e", "walk cache of PML5 entries"),
	[GN_FIG_PWC_PML5E_WAYS] = WAYS("pwc_pml5e", "walk cache of PML5 entries"),
	[GN_FIG_PWC_PML4E_ENTRIES] = ENTRIES("pwc_pml4e", "walk cache of PML4 entries"),
	[GN_FIG_PWC_PML4E_WAYS] = WAYS("pwc_pml4e", "walk cache of PML4 entries"),
	[GN_FIG_PWC_PDPTE_ENTRIES] = ENTRIES("pwc_pdpte", "walk cache of PDPT entries"),
	[GN_FIG_PWC_PDPTE_WAYS] = WAYS("pwc_pdpte", "walk cache of PDPT entries"),
	[GN_FIG_PWC_PDE_ENTRIES] = ENTRIES("pwc_pde", "walk cache of PD entries"),
	[GN_FIG_PWC_PDE_WAYS] = WAYS("pwc_pde", "walk cache of PD entries"),
	[GN_FIG_PWC_HOLDS_HPA] = FLAG(
		"pwc_holds_hpa", "under nesting, walk caches know the host address of a table"),
	[GN_FIG_NESTED_PWC_PML5E_ENTRIES] = ENTRIES("nested_pwc_pml5e", "nested walk cache"),
	[GN_FIG_NESTED_PWC_PML5E_WAYS] = WAYS("nested_pwc_pml5e", "nested walk cache"),
	[GN_FIG_NESTED_PWC_PML4E_ENTRIES] = ENTRIES("nested_pwc_pml4e", "nested walk cache"),
	[GN_FIG_NESTED_PWC_PML4E_WAYS] = WAYS("nested_pwc_pml4e", "nested walk cache"),
	[GN_FIG_NESTED_PWC_PDPTE_ENTRIES] = ENTRIES("nested_pwc_pdpte", "nested walk cache"),
	[GN_FIG_NESTED_PWC_PDPTE_WAYS] = WAYS("nested_pwc_pdpte", "nested walk cache"),
	[GN_FIG_NESTED_PWC_PDE_ENTRIES] = ENTRIES("nested_pwc_pde", "nested walk cache"),
	[GN_FIG_NESTED_PWC_PDE_WAYS] = WAYS("nested_pwc_pde", "nested walk cache"),
	[GN_FIG_NESTED_PWC_FOR_DATA] = FLAG(
		"nested_pwc_for_data", "the walk of the datum's GPA uses the nested walk cache"),
	[GN_FIG_NESTED_TLB_ENTRIES] = ENTRIES("nested_tlb", "nested TLB (GPA to HPA)"),
	[GN_FIG_NESTED_TLB_WAYS] = WAYS("nested_tlb", "nested TLB (GPA to HPA)"),
	[GN_FIG_NESTED_TLB_FOR_DATA] =
		FLAG("nested_tlb_for_data", "the datum's GPA is looked up in the nested TLB too"),
	[GN_FIG_L1_KIB] = { "l1_kib", 0, 1 << 20, true, "L1 data cache, KiB" },
	[GN_FIG_L1_WAYS] = { "l1_ways", 0, 16, true, "L1 data cache: ways" },
	[GN_FIG_L2_KIB] = { "l2_kib", 0, 1 << 20, true, "L2 cache, KiB" },
	[GN_FIG_L2_WAYS] = { "l2_ways", 0, 16, true, "L2 cache: ways" },
	[GN_FIG_L3_KIB] = { "l3_kib", 0, 1 << 20, true, "L3 cache, KiB" },
	[GN_FIG_L3_WAYS] = { "l3_ways", 0, 16, true, "L3 cache: ways" },
	[GN_FIG_L1_CYCLES] = CYCLES("l1", "L1 hit"),
	[GN_FIG_L2_CYCLES] = CYCLES("l2", "L2 hit"),
	[GN_FIG_L3_CYCLES] = CYCLES("l3", "L3 hit"),
	[GN_FIG_MEMORY_CYCLES] = CYCLES("memory", "memory"),
	[GN_FIG_STLB_CYCLES] = CYCLES("stlb", "L2 TLB lookup after an L1 TLB miss"),
	[GN_FIG_WALK_START_CYCLES] = CYCLES("walk_start", "beginning a page walk"),
	[GN_FIG_PWC_CYCLES] = CYCLES("pwc", "walk cache lookup"),
	[GN_FIG_ACCESS_CYCLES] = CYCLES("access", "load, store or fetch that hits, pipelined"),
	[GN_FIG_INSTRUCTION_CYCLES] = { "instruction_cycles", 0, 1000, false,
					"an instruction without memory" },
	[GN_FIG_SYSCALL_CYCLES] = CYCLES("syscall", "SYSCALL or SYSRET, one way"),
	[GN_FIG_GUEST_FAULT_CYCLES] = CYCLES("guest_fault", "#PF to the guest's handler, and IRET"),
	[GN_FIG_CR3_CYCLES] = CYCLES("cr3", "MOV to CR3, its flush apart"),
	[GN_FIG_CR_CYCLES] = CYCLES("cr", "MOV to CR0 or CR4, WRMSR EFER"),
	[GN_FIG_FLUSH_VA_CYCLES] = CYCLES("flush_va", "invalidation of one page"),
	[GN_FIG_FLUSH_CYCLES] = CYCLES("flush", "wider invalidation"),
	[GN_FIG_EXIT_CYCLES] = CYCLES("exit", "exit to the VMM and back"),
	[GN_FIG_VMM_SHADOW_FAULT_CYCLES] = CYCLES("vmm_shadow_fault", "VMM: a shadow fault"),
	[GN_FIG_VMM_EMULATE_CYCLES] = CYCLES("vmm_emulate", "VMM: emulating a guest table write"),
	[GN_FIG_VMM_NESTED_FAULT_CYCLES] = CYCLES("vmm_nested_fault", "VMM: a nested fault"),
	[GN_FIG_VMM_INJECT_CYCLES] = CYCLES("vmm_inject", "VMM: reflecting a #PF to the guest"),
	[GN_FIG_VMM_CR3_CYCLES] = CYCLES("vmm_cr3", "VMM: an intercepted MOV to CR3"),
	[GN_FIG_VMM_CR_CYCLES] = CYCLES("vmm_cr", "VMM: an intercepted MOV to CR0 or CR4"),
	[GN_FIG_VMM_INVALIDATE_CYCLES] =
		CYCLES("vmm_invalidate", "VMM: an intercepted INVLPG or INVPCID"),
	[GN_FIG_VMM_OTHER_CYCLES] = CYCLES("vmm_other", "VMM: MMIO, hypercall"),
	[GN_FIG_SOFTWARE_WALK_CYCLES] =
		CYCLES("software_walk", "VMM: an access translated in software (interp)"),
	[GN_FIG_CLOCK_GHZ] = { "clock_ghz", 0.001, 100, false, "clock, to turn cycles into time" },
};

/* Structures whose entries and ways stand next to each other, and caches. */
static const enum gn_figure arrays[] = {
	GN_FIG_DTLB_4K_ENTRIES,		 GN_FIG_DTLB_2M_ENTRIES,
	GN_FIG_DTLB_1G_ENTRIES,		 GN_FIG_ITLB_4K_ENTRIES,
	GN_FIG_ITLB_2M_ENTRIES,		 GN_FIG_STLB_ENTRIES,
	GN_FIG_STLB_1G_ENTRIES,		 GN_FIG_ISTLB_ENTRIES,
	GN_FIG_PWC_PML5E_ENTRIES,	 GN_FIG_PWC_PML4E_ENTRIES,
	GN_FIG_PWC_PDPTE_ENTRIES,	 GN_FIG_PWC_PDE_ENTRIES,
	GN_FIG_NESTED_PWC_PML5E_ENTRIES, GN_FIG_NESTED_PWC_PML4E_ENTRIES,
	GN_FIG_NESTED_PWC_PDPTE_ENTRIES, GN_FIG_NESTED_PWC_PDE_ENTRIES,
	GN_FIG_NESTED_TLB_ENTRIES,
};
static const enum gn_figure caches[] = { GN_FIG_L1_KIB, GN_FIG_L2_KIB, GN_FIG_L3_KIB };

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

int gn_figure_find(const char *key)
{
	for (int f = 0; f < GN_FIGURES; f++)
		if (strcmp(gn_figure_desc[f].key, key) == 0)
			return f;
	return -1;
}

static bool is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static int check_array(const struct gn_cpu_preset *p, enum gn_figure f, char *why, size_t why_bytes)
{
	uint32_t entries = gn_cpu_preset_count(p, f);
	uint32_t ways = gn_cpu_preset_count(p, (enum gn_figure)(f + 1));

	if (!entries || (ways && entries % ways == 0 && is_power_of_two(entries / ways)))
		return 0;
	snprintf(why, why_bytes,
		 "%s = %u with %s = %u: entries / ways must be a whole power of two",
		 gn_figure_desc[f].key, entries, gn_figure_desc[f + 1].key, ways);
	return -EINVAL;
}

/* L1 and L2 are indexed by address bits; the L3 by a hash, so its sets may be any number. */
static int check_cache(const struct gn_cpu_preset *p, enum gn_figure f, char *why, size_t why_bytes)
{
	uint64_t lines = (uint64_t)gn_cpu_preset_count(p, f) * 1024 / 64;
	uint32_t ways = gn_cpu_preset_count(p, (enum gn_figure)(f + 1));

	if (!lines || (ways && lines % ways == 0 &&
		       (f == GN_FIG_L3_KIB || is_power_of_two((uint32_t)(lines / ways)))))
		return 0;
	snprintf(why, why_bytes, "%s = %.0f with %s = %u: lines / ways must be a whole %s",
		 gn_figure_desc[f].key, p->figure[f].value, gn_figure_desc[f + 1].key, ways,
		 f == GN_FIG_L3_KIB ? "number" : "power of two");
	return -EINVAL;
}

int gn_cpu_preset_check(const struct gn_cpu_preset *p, char *why, size_t why_bytes)
{
	int err = 0;

	for (int f = 0; f < GN_FIGURES; f++) {
		const struct gn_figure_desc *d = &gn_figure_desc[f];
		double v = p->figure[f].value;

		if (!(v >= d->low && v <= d->high) || (d->whole && v != floor(v))) {
			snprintf(why, why_bytes, "%s = %g: must be %s from %g to %g", d->key, v,
				 d->whole ? "a whole number" : "a number", d->low, d->high);
			return -EINVAL;
		}
	}
	for (size_t i = 0; i < COUNT(arrays) && !err; i++)
		err = check_array(p, arrays[i], why, why_bytes);
	for (size_t i = 0; i < COUNT(caches) && !err; i++)
		err = check_cache(p, caches[i], why, why_bytes);
	if (!err && (!p->figure[GN_FIG_DTLB_4K_ENTRIES].value ||
		     !p->figure[GN_FIG_ITLB_4K_ENTRIES].value)) {
		snprintf(why, why_bytes, "dtlb_4k_entries and itlb_4k_entries must not be 0");
		err = -EINVAL;
	}
	return err;
}

struct gn_cpu_preset *gn_cpu_preset_copy(const struct gn_cpu_preset *base, const char *name,
					 const char *summary, const char *source)
{
	const char *parts[GN_FIGURES + 3];
	char *at;
	size_t bytes = 0;
	struct gn_cpu_preset *copy;

	parts[0] = name;
	parts[1] = summary;
	parts[2] = source;
	for (int f = 0; f < GN_FIGURES; f++)
		parts[3 + f] = base->figure[f].source;
	for (size_t i = 0; i < COUNT(parts); i++)
		bytes += strlen(parts[i]) + 1;
	if (gn_alloc_should_fail())
		return NULL;
	copy = malloc(sizeof(*copy));
	at = malloc(bytes);
	if (!copy || !at) {
		free(copy);
		free(at);
		return NULL;
	}
	*copy = *base;
	copy->owned_text = at;
	for (size_t i = 0; i < COUNT(parts); i++) {
		size_t length = strlen(parts[i]) + 1;

		memcpy(at, parts[i], length);
		parts[i] = at;
		at += length;
	}
	copy->name = parts[0];
	copy->summary = parts[1];
	for (int f = 0; f < GN_FIGURES; f++)
		copy->figure[f].source = parts[3 + f];
	return copy;
}

void gn_cpu_preset_free(struct gn_cpu_preset *preset)
{
	if (!preset)
		return;
	free(preset->owned_text);
	free(preset);
}

/* The source of a changed figure stands third in the copy's texts. */
static const char *changed_source(const struct gn_cpu_preset *copy)
{
	const char *summary = copy->owned_text + strlen(copy->owned_text) + 1;

	return summary + strlen(summary) + 1;
}

int gn_cpu_preset_vary(const struct gn_cpu_preset *base, const char *key, double value,
		       struct gn_cpu_preset **out)
{
	int f = gn_figure_find(key);
	struct gn_cpu_preset *copy;
	char why[160];

	if (f < 0)
		return -EINVAL;
	copy = gn_cpu_preset_copy(base, base->name, base->summary, "varied");
	if (!copy)
		return -ENOMEM;
	copy->figure[f] = (struct gn_preset_entry){ value, changed_source(copy), false };
	if (gn_cpu_preset_check(copy, why, sizeof(why))) {
		gn_log(GN_LOG_ERROR, "preset %s: %s", base->name, why);
		gn_cpu_preset_free(copy);
		return -EINVAL;
	}
	*out = copy;
	return 0;
}

const char *gn_cpu_preset_name(const struct gn_cpu_preset *preset)
{
	return preset->name;
}

const char *gn_cpu_preset_summary(const struct gn_cpu_preset *preset)
{
	return preset->summary;
}

bool gn_cpu_preset_figure(const struct gn_cpu_preset *preset, unsigned i,
			  struct gn_preset_figure *out)
{
	if (i >= GN_FIGURES)
		return false;
	out->key = gn_figure_desc[i].key;
	out->value = preset->figure[i].value;
	out->source = preset->figure[i].source;
	out->estimate = preset->figure[i].estimate;
	return true;
}
