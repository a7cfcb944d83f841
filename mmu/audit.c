/* SPDX-License-Identifier: MIT */
/*
 * audit.c - the auditor: what can be proved of any VM, and the tools a scheme's own proof uses.
 *
 * Generic part, about the p2m: every word is one the p2m could have written; every frame it names is
 * in the pool, is referenced at least as often as it is named, and a private one is named once; a
 * word that claims a large block is part of one; the counts of backed and of ballooned pages are those of
 * the words.
 *
 * Naive on purpose: a linear pass with nothing remembered but how often each frame was named. The auditor
 * must be too simple to have the bugs it looks for.
 */
#include "audit.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void gn_audit_fail(struct gn_audit_report *report, const char *format, ...)
{
	va_list args;

	if (report->violations++)
		return;
	va_start(args, format);
	vsnprintf(report->first, sizeof(report->first), format, args);
	va_end(args);
	gn_log(GN_LOG_ERROR, "audit: %s", report->first);
}

/* ---- Tables ---------------------------------------------------------------------------------------- */

struct table_walk {
	struct gn_vm *vm;
	const struct gn_fmt *fmt;
	unsigned skipped; /* index in the root */
	gn_audit_visit *visit;
	void *ctx;
	struct gn_audit_report *report;
};

/* Bounded by the format's levels, so a table that points back at an ancestor ends too. */
static void walk_table(const struct table_walk *w, unsigned level, hpa_t table, uint64_t base)
{
	const struct gn_fmt *f = w->fmt;
	uint64_t *slots;

	if (!gn_frames_is_own(w->vm->frames, hpa_to_pfn(table))) {
		gn_audit_fail(w->report, "%s level %u table at 0x%llx is outside the pool", f->name,
			      level, (unsigned long long)table.v);
		return;
	}
	if (!gn_frames_refs(w->vm->frames, hpa_to_pfn(table)))
		gn_audit_fail(w->report, "%s level %u table at 0x%llx is a free frame", f->name,
			      level, (unsigned long long)table.v);
	w->report->tables++;
	slots = gn_frames_at(w->vm->frames, table);
	for (unsigned i = 0; i < GN_TABLE_ENTRIES; i++) {
		uint64_t entry = __atomic_load_n(&slots[i], __ATOMIC_ACQUIRE);
		uint64_t address = gn_fmt_extend(f, base | ((uint64_t)i << f->level[level].shift));

		if (!gn_fmt_is_present(f, level, entry) || (level == f->levels && i == w->skipped))
			continue;
		w->report->entries++;
		if (gn_fmt_is_malformed(f, level, entry, f->phys_bits)) {
			gn_audit_fail(w->report, "%s level %u entry 0x%llx at 0x%llx is malformed",
				      f->name, level, (unsigned long long)entry,
				      (unsigned long long)address);
			continue;
		}
		w->visit(w->ctx, level, address, &slots[i], entry);
		if (!gn_fmt_is_leaf(f, level, entry))
			walk_table(w, level - 1, hpa(gn_fmt_address(f, level, entry)), address);
	}
}

void gn_audit_walk_table(struct gn_vm *vm, const struct gn_fmt *fmt, hpa_t root,
			 gn_audit_visit *visit, void *ctx, struct gn_audit_report *report)
{
	gn_audit_walk_table_but(vm, fmt, root, GN_TABLE_ENTRIES, visit, ctx, report);
}

void gn_audit_walk_table_but(struct gn_vm *vm, const struct gn_fmt *fmt, hpa_t root,
			     unsigned skipped, gn_audit_visit *visit, void *ctx,
			     struct gn_audit_report *report)
{
	const struct table_walk w = { .vm = vm,
				      .fmt = fmt,
				      .skipped = skipped,
				      .visit = visit,
				      .ctx = ctx,
				      .report = report };

	walk_table(&w, fmt->levels, root, 0);
}

/* ---- The p2m --------------------------------------------------------------------------------------- */

/* A word of a block of level 2 or 3 is its neighbour's with the next frame. */
static bool is_in_block(struct gn_vm *vm, gfn_t at, p2m_word_t word)
{
	uint64_t pages = gn_level_pages(gn_p2m_word_level(word));
	uint64_t index = at.v & (pages - 1);
	uint64_t step = (uint64_t)1 << GN_P2M_PFN_SHIFT;

	if (at.v - index + pages > vm->p2m.gfn_count)
		return false;
	if ((gn_p2m_word_pfn(word).v & (pages - 1)) != index)
		return false;
	if (index && gn_p2m_get(&vm->p2m, gfn(at.v - 1)).v + step != word.v)
		return false;
	return index + 1 == pages || gn_p2m_get(&vm->p2m, gfn(at.v + 1)).v == word.v + step;
}

static void audit_word(struct gn_vm *vm, gfn_t at, p2m_word_t word, uint32_t *named,
		       struct gn_audit_report *report)
{
	unsigned long long where = at.v, value = word.v;
	enum gn_p2m_state state = gn_p2m_word_state(word);
	pfn_t frame = gn_p2m_word_pfn(word);
	unsigned level = gn_p2m_word_level(word);

	if (state >= GN_P2M_STATES) {
		gn_audit_fail(report, "p2m: gfn 0x%llx has no valid state (0x%llx)", where, value);
	} else if (!gn_p2m_word_has_frame(word)) {
		if (level)
			gn_audit_fail(report, "p2m: gfn 0x%llx has a level but no frame (0x%llx)",
				      where, value);
	} else if (!gn_frames_valid(vm->frames, frame)) {
		gn_audit_fail(report, "p2m: gfn 0x%llx is outside the pool (0x%llx)", where, value);
	} else {
		if (++named[frame.v] > gn_frames_refs(vm->frames, frame))
			gn_audit_fail(report,
				      "p2m: gfn 0x%llx names frame 0x%llx, once more than it is "
				      "referenced",
				      where, (unsigned long long)frame.v);
		if (state != GN_P2M_SHARED && !gn_frames_is_own(vm->frames, frame))
			gn_audit_fail(report,
				      "p2m: gfn 0x%llx has another pool's frame for its own",
				      where);
		if (state == GN_P2M_PRIVATE && named[frame.v] > 1)
			gn_audit_fail(report, "p2m: private frame of gfn 0x%llx is named twice",
				      where);
		if (state != GN_P2M_PRIVATE && (gn_p2m_word_rights(word) & GN_W))
			gn_audit_fail(report, "p2m: gfn 0x%llx is writable in its state (0x%llx)",
				      where, value);
		if (level == 0 || (level > 1 && !is_in_block(vm, at, word)))
			gn_audit_fail(report, "p2m: gfn 0x%llx is in no block of level %u (0x%llx)",
				      where, level, value);
	}
}

static void compare_counts(struct gn_audit_report *report, const char *what, uint64_t have,
			   const _Atomic(uint64_t) *counter)
{
	uint64_t counted = atomic_load_explicit(counter, memory_order_relaxed);

	if (have != counted)
		gn_audit_fail(report, "p2m: %llu gfns %s, %llu are counted",
			      (unsigned long long)have, what, (unsigned long long)counted);
}

static int audit_p2m(struct gn_vm *vm, struct gn_audit_report *report)
{
	size_t bytes = vm->frames->frame_count * sizeof(uint32_t);
	uint32_t *named = gn_arena_zalloc(vm->arena, bytes);
	uint64_t backed = 0, ballooned = 0;

	if (!named)
		return -ENOMEM;
	for (uint64_t i = 0; i < vm->p2m.gfn_count; i++) {
		p2m_word_t word = gn_p2m_get(&vm->p2m, gfn(i));

		backed += gn_p2m_word_has_frame(word);
		ballooned += gn_p2m_word_state(word) == GN_P2M_BALLOONED;
		if ((word.v & ~GN_P2M_LENT) != GN_P2M_UNBACKED)
			audit_word(vm, gfn(i), word, named, report);
	}
	compare_counts(report, "have a frame", backed, &vm->p2m.backed_pages);
	compare_counts(report, "are ballooned", ballooned, &vm->p2m.ballooned_pages);
	gn_arena_free(vm->arena, named, bytes);
	return 0;
}

int gn_audit(struct gn_vm *vm, struct gn_audit_report *report)
{
	int err;

	memset(report, 0, sizeof(*report));
	err = audit_p2m(vm, report);
	if (err)
		return err;
	if (vm->ops->audit)
		vm->ops->audit(vm, report);
	return report->violations ? -EBADMSG : 0;
}
