/* SPDX-License-Identifier: MIT */
/*
 * kernel_pt.c - editing page tables.
 *
 * Tables are read and written through the direct map, like any memory. pt_set() is the one writer, so
 * a twin test sees every change, in order. A new table is complete (zero) before it is linked. Entries are
 * changed by the loop that visits them, table by table as Linux's pmd and pte loops do, not by a walk per
 * page.
 *
 * Nothing here decides by A or D: a scheme that kept them wrong could otherwise change what the guest
 * does, and the difference would not be a simple one to find.
 */
#include "kernel_state.h"

uint64_t pt_get(uint64_t entry)
{
	return cpu_load64(k_va(entry));
}

void pt_set(uint64_t entry, uint64_t value)
{
	k_now->stats.table_writes++;
	cpu_note_table_write(entry, value);
	cpu_store64(k_va(entry), value);
}

uint64_t pt_table_new(void)
{
	k_now->stats.tables++;
	return k_gpa(k_frame_alloc_cleared());
}

static unsigned level_shift(unsigned level)
{
	return 12 + 9 * (level - 1);
}

unsigned pt_index(uint64_t va, unsigned level)
{
	return (unsigned)(va >> level_shift(level)) & 511;
}

/* May CPL 3 have something below an entry on the way to @va? The image's user window lies in the high half. */
static bool is_for_user(uint64_t va)
{
	return va < k_now->user_end || (k_now->config.user_start && va >= GN_GUEST_USER_VA);
}

uint64_t pt_slot(struct mm *mm, uint64_t va, unsigned level)
{
	uint64_t table = mm->root;
	bool user = is_for_user(va);

	for (unsigned l = k_now->config.levels; l > level; l--) {
		uint64_t entry = table + pt_index(va, l) * 8;
		uint64_t value = pt_get(entry);

		if (!value) {
			value = pt_table_new() | (user ? K_PTE_TABLE_USER : K_PTE_TABLE_KERNEL);
			pt_set(entry, value);
		} else if (value & X86_PTE_PS) {
			cpu_panic("guest kernel: a large page where a table was wanted");
		}
		table = value & X86_PTE_ADDR;
	}
	return table + pt_index(va, level) * 8;
}

void pt_find(struct mm *mm, uint64_t va, struct pt_place *out)
{
	uint64_t table = mm->root;

	for (unsigned l = k_now->config.levels;; l--) {
		out->entry = table + pt_index(va, l) * 8;
		out->level = l;
		out->value = pt_get(out->entry);
		if (l == 1 || !out->value || (out->value & X86_PTE_PS))
			return;
		table = out->value & X86_PTE_ADDR;
	}
}

static void visit_table(uint64_t table, unsigned level, uint64_t start, uint64_t end,
			pt_visit *visit, void *ctx)
{
	uint64_t span = (uint64_t)1 << level_shift(level);

	for (uint64_t va = start; va < end; va = (va & ~(span - 1)) + span) {
		struct pt_place at = { .entry = table + pt_index(va, level) * 8, .level = level };
		uint64_t child_end = (va & ~(span - 1)) + span;

		at.value = pt_get(at.entry);
		if (!at.value)
			continue;
		if (level == 1 || (at.value & X86_PTE_PS))
			visit(ctx, va & ~(span - 1), &at);
		else
			visit_table(at.value & X86_PTE_ADDR, level - 1, va,
				    child_end < end ? child_end : end, visit, ctx);
	}
}

void pt_for_each(struct mm *mm, uint64_t start, uint64_t end, pt_visit *visit, void *ctx)
{
	visit_table(mm->root, k_now->config.levels, start, end, visit, ctx);
}

/* The 512 small entries say what the large one said; refs are counted per frame already. */
void pt_split(struct mm *mm, uint64_t va, const struct pt_place *large)
{
	uint64_t table = pt_table_new();
	uint64_t base = va & ~(K_LARGE_PAGE - 1);

	for (unsigned i = 0; i < 512; i++)
		pt_set(table + i * 8, (large->value & ~X86_PTE_PS) + i * K_PAGE);
	pt_set(large->entry, table | K_PTE_TABLE_USER);
	k_now->stats.splits++;
	k_flush_range(mm, base, base + K_LARGE_PAGE);
}

void pt_split_at(struct mm *mm, uint64_t va)
{
	struct pt_place at;

	if (!(va & (K_LARGE_PAGE - 1)) || va >= k_now->user_end)
		return;
	pt_find(mm, va, &at);
	if (at.level == 2 && at.value)
		pt_split(mm, va, &at);
}

struct table_range {
	uint64_t start, end, floor, ceiling;
};

static void free_below(uint64_t table, unsigned level, const struct table_range *r,
		       struct gather *g)
{
	uint64_t span = (uint64_t)1 << level_shift(level);

	for (uint64_t va = r->start & ~(span - 1); va < r->end; va += span) {
		uint64_t entry = table + pt_index(va, level) * 8;
		uint64_t value = pt_get(entry);

		if (!value || (value & X86_PTE_PS))
			continue;
		if (level > 2) {
			struct table_range inner = *r;

			inner.start = r->start > va ? r->start : va;
			inner.end = r->end < va + span ? r->end : va + span;
			free_below(value & X86_PTE_ADDR, level - 1, &inner, g);
		}
		if (va < r->floor || va + span > r->ceiling)
			continue;
		pt_set(entry, 0);
		k_now->stats.tables--;
		/* Walk caches hold the entry that was cleared: a table needs the flush as a page does. */
		k_gather_range(g, r->start > va ? r->start : va, K_PAGE);
		k_gather_frame(g, k_frame_of(value), false);
	}
}

void pt_free_tables(struct mm *mm, uint64_t start, uint64_t end, uint64_t floor, uint64_t ceiling,
		    struct gather *g)
{
	struct table_range r = { start, end, floor, ceiling };

	free_below(mm->root, k_now->config.levels, &r, g);
}
