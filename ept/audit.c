/* SPDX-License-Identifier: MIT */
/*
 * audit.c - the nested tables, held against the p2m.
 *
 * What is proved, reading every table naively and using nothing of the builder but where the root is:
 *   - each leaf names the frame the p2m names for each of its gfns, grants no right the p2m withholds,
 *     and is no larger than the block the p2m vouches for;
 *   - with the dirty log on, a leaf that grants W is a marked 4 KiB page;
 *   - no entry is malformed, points outside the pool, lies beyond guest RAM, or is still frozen;
 *   - each table is referred to once, none is mapped for the guest, and their number is the number
 *     the accounts have.
 */
#include "builder.h"

#include "mmu/audit.h"

struct audit {
	struct gn_vm *vm;
	const struct gn_fmt *fmt;
	struct gn_audit_report *report;
	uint8_t *is_table; /* one bit a host frame */
	uint64_t table_count;
};

static bool test_and_set(uint8_t *bitmap, uint64_t bit)
{
	uint8_t mask = (uint8_t)(1u << (bit % 8));
	bool was = bitmap[bit / 8] & mask;

	bitmap[bit / 8] |= mask;
	return was;
}

static void check_page(struct audit *a, unsigned level, uint64_t entry, uint64_t at, uint64_t frame)
{
	p2m_word_t word = gn_p2m_get(&a->vm->p2m, gfn(at));
	gn_rights_t rights = gn_fmt_rights(a->fmt, level, entry) & GN_RWX;

	if (!gn_p2m_word_has_frame(word))
		gn_audit_fail(a->report, "gfn %#lx is mapped but has no frame (state %u)",
			      (unsigned long)at, gn_p2m_word_state(word));
	else if (gn_p2m_word_pfn(word).v != frame)
		gn_audit_fail(a->report, "gfn %#lx maps frame %#lx, the p2m says %#lx",
			      (unsigned long)at, (unsigned long)frame,
			      (unsigned long)gn_p2m_word_pfn(word).v);
	else if (rights & ~gn_p2m_word_rights(word))
		gn_audit_fail(a->report, "gfn %#lx grants %#x, the p2m only %#x", (unsigned long)at,
			      rights, gn_p2m_word_rights(word));
	else if (level > gn_p2m_word_level(word) || level > a->vm->config.max_leaf_level)
		gn_audit_fail(a->report, "gfn %#lx: a leaf of level %u in a block of level %u",
			      (unsigned long)at, level, gn_p2m_word_level(word));
	else if ((rights & GN_W) && gn_dirty_is_logged(a->vm) &&
		 (level > 1 || !gn_dirty_is_marked(a->vm, gfn(at))))
		gn_audit_fail(a->report, "gfn %#lx is writable behind the dirty log's back",
			      (unsigned long)at);
}

static void check_leaf(struct audit *a, unsigned level, uint64_t entry, uint64_t first)
{
	uint64_t frame = gn_fmt_address(a->fmt, level, entry) >> GN_PAGE_SHIFT;

	for (uint64_t i = 0; i < gn_level_pages(level); i++)
		check_page(a, level, entry, first + i, frame + i);
}

static void check_table(struct audit *a, unsigned level, pfn_t table, uint64_t base);

static void check_entry(struct audit *a, unsigned level, uint64_t entry, uint64_t first)
{
	pfn_t target = hpa_to_pfn(hpa(gn_fmt_address(a->fmt, level, entry)));
	uint64_t last = target.v;

	a->report->entries++;
	if (gn_fmt_is_malformed(a->fmt, level, entry, a->fmt->phys_bits)) {
		gn_audit_fail(a->report, "malformed entry %#lx at level %u for gfn %#lx",
			      (unsigned long)entry, level, (unsigned long)first);
		return;
	}
	if (gn_fmt_is_leaf(a->fmt, level, entry))
		last += gn_level_pages(level) - 1;
	if (!gn_frames_valid(a->vm->frames, pfn(last))) {
		gn_audit_fail(a->report, "entry %#lx at level %u points outside the pool",
			      (unsigned long)entry, level);
		return;
	}
	if (gn_fmt_is_leaf(a->fmt, level, entry))
		check_leaf(a, level, entry, first);
	else
		check_table(a, level - 1, target, first);
}

static void check_table(struct audit *a, unsigned level, pfn_t table, uint64_t base)
{
	const uint64_t *entries = (const uint64_t *)gn_frames_at(a->vm->frames, pfn_to_hpa(table));

	a->report->tables++;
	a->table_count++;
	if (test_and_set(a->is_table, table.v)) {
		gn_audit_fail(a->report, "table %#lx is referred to twice", (unsigned long)table.v);
		return;
	}
	for (unsigned i = 0; i < GN_TABLE_ENTRIES; i++) {
		uint64_t entry = gn_entry_get(&entries[i]);
		uint64_t first = base + i * gn_level_pages(level);

		if (gn_fmt_is_present(a->fmt, level, entry))
			check_entry(a, level, entry, first);
		else if (entry)
			gn_audit_fail(a->report, "entry of level %u for gfn %#lx is still frozen",
				      level, (unsigned long)first);
	}
}

/* Leaves agree with the p2m, so it is enough that the p2m gives no table to the guest. */
static void check_no_table_is_mapped(struct audit *a)
{
	for (uint64_t at = 0; at < a->vm->p2m.gfn_count; at++) {
		p2m_word_t word = gn_p2m_get(&a->vm->p2m, gfn(at));
		uint64_t frame = gn_p2m_word_pfn(word).v;

		if (gn_p2m_word_has_frame(word) && (a->is_table[frame / 8] >> (frame % 8)) & 1)
			gn_audit_fail(a->report, "gfn %#lx is a table of ours", (unsigned long)at);
	}
}

void gn_ept_audit(struct gn_vm *vm, struct gn_audit_report *report)
{
	const struct gn_ept *ept = (const struct gn_ept *)vm->scheme_data;
	size_t bytes = vm->frames->frame_count / 8 + 1;
	struct audit a = { .vm = vm, .fmt = ept->fmt, .report = report };
	uint64_t counted;

	a.is_table = (uint8_t *)gn_arena_zalloc(vm->arena, bytes);
	if (!a.is_table) {
		gn_audit_fail(report, "no memory to audit with");
		return;
	}
	check_table(&a, ept->fmt->levels, ept->root, 0);
	check_no_table_is_mapped(&a);
	counted = atomic_load_explicit(&vm->table_pages, memory_order_relaxed);
	if (counted != a.table_count)
		gn_audit_fail(report, "%lu tables are reachable, %lu are accounted for",
			      (unsigned long)a.table_count, (unsigned long)counted);
	gn_arena_free(vm->arena, a.is_table, bytes);
}
