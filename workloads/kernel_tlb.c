/* SPDX-License-Identifier: MIT */
/*
 * kernel_tlb.c - address-space switches, PCIDs and TLB flushes, by Linux's rules for one CPU.
 *
 * Without PCIDs a switch is MOV CR3, which drops everything but global entries. With them six slots are
 * handed out in turn, as Linux's dynamic ASIDs (arch/x86/mm/tlb.c); a space that still owns its slot, and
 * whose translations nobody dropped meanwhile (generation), is loaded with bit 63: its TLB entries survive.
 *
 * What must be flushed: any entry that was present and now allows less, maps elsewhere, or is a table
 * that goes. Present from not-present needs nothing. Up to 33 pages by INVLPG, more by dropping the
 * whole space (Linux's tlb_single_page_flush_ceiling). Pages are counted in 4 KiB, so a change of a 2 MiB page
 * always drops the space: INVLPG is promised to drop every fragment of a large page only while the tables
 * still map one there (SDM vol. 3A 4.10.4.1), and by then they do not.
 *
 * A frame is given back after the flush that ends its last translation: the gather sees to it.
 */
#include "kernel_state.h"

#define FLUSH_CEILING_PAGES 33

static uint16_t pcid_of(const struct mm *mm)
{
	for (unsigned i = 0; i < K_PCID_SLOTS; i++)
		if (mm != &k_now->init_mm && k_now->pcid[i].context_id == mm->context_id)
			return (uint16_t)(i + 1);
	return 0; /* the kernel's own space, which has no user entries to tag */
}

static uint64_t cr3_with_pcid(struct mm *mm)
{
	struct kernel *k = k_now;
	uint16_t pcid = pcid_of(mm);
	bool fresh = !pcid && mm != &k->init_mm;

	if (fresh) {
		k->next_pcid_slot = k->next_pcid_slot % K_PCID_SLOTS + 1;
		pcid = (uint16_t)k->next_pcid_slot;
		k->pcid[pcid - 1].context_id = mm->context_id;
	} else if (!pcid || k->pcid[pcid - 1].generation == mm->tlb_generation) {
		k->stats.switches_noflush++;
		return mm->root | pcid | X86_CR3_NOFLUSH;
	}
	k->pcid[pcid - 1].generation = mm->tlb_generation;
	return mm->root | pcid;
}

void k_load_mm(struct mm *mm)
{
	struct kernel *k = k_now;

	if (mm == k->loaded)
		return;
	k->loaded = mm;
	cpu_write_cr3(k->config.pcid ? cr3_with_pcid(mm) : mm->root);
}

void k_flush_range(struct mm *mm, uint64_t start, uint64_t end)
{
	struct kernel *k = k_now;

	if (mm != k->loaded) {
		mm->tlb_generation++; /* nothing of it is usable before its next load */
		return;
	}
	if ((end - start) / K_PAGE > FLUSH_CEILING_PAGES) {
		k->stats.full_flushes++;
		if (k->config.pcid)
			cpu_invpcid(X86_INVPCID_SINGLE, pcid_of(mm), 0);
		else
			cpu_write_cr3(mm->root);
		return;
	}
	for (uint64_t va = start; va < end; va += K_PAGE) {
		k->stats.invlpg++;
		cpu_invlpg(va);
	}
}

void k_gather_init(struct gather *g, struct mm *mm)
{
	g->mm = mm;
	g->start = g->end = 0;
	g->count = 0;
}

void k_gather_range(struct gather *g, uint64_t va, uint64_t bytes)
{
	if (g->start == g->end) {
		g->start = va;
		g->end = va + bytes;
		return;
	}
	if (va < g->start)
		g->start = va;
	if (va + bytes > g->end)
		g->end = va + bytes;
}

void k_gather_frame(struct gather *g, uint32_t frame, bool large)
{
	g->frames[g->count] = frame;
	g->large[g->count] = large;
	if (++g->count == K_GATHER_FRAMES)
		k_gather_flush(g);
}

void k_gather_flush(struct gather *g)
{
	if (g->start != g->end)
		k_flush_range(g->mm, g->start, g->end);
	for (uint32_t i = 0; i < g->count; i++) {
		if (g->large[i])
			k_large_put(g->frames[i]);
		else
			k_frame_put(g->frames[i]);
	}
	k_gather_init(g, g->mm);
}
