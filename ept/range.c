/* SPDX-License-Identifier: MIT */
/*
 * range.c - what happens to a range of gfns: zap, write-protect, split, harvest.
 *
 * Zap is three passes: freeze every entry that maps part of the range, post one flush, then clear what was
 * frozen and retire the tables that hung below. Precise: entries of other gfns stay, but for one case: a
 * large leaf that lies partly in the range goes as a whole. Splitting it first would need memory
 * in an operation that must not fail, and the rest of it comes back by one violation for each leaf
 * the p2m still allows.
 *
 * A table whose whole span is in one run is freed with it. One that merely became empty stays: to
 * know it is empty costs reading 512 entries at each zap of a page, and a VM that balloons page by page
 * asks for the same tables again when it deflates. Bound: one table page per 2 MiB of RAM.
 *
 * Write-protect takes W from whole large leaves too (that costs a violation, never correctness), and leaves
 * the splitting to gn_ept_split_all(), which can wait for memory, or to the fault.
 *
 * Harvest reads accessed bits beside everything else that goes on. A large leaf has one bit for all its
 * gfns; it is reported for each gfn in the range, and cleared only by a harvest that covers the leaf's
 * last gfn. So a scan in slices sees it in every slice and clears it in the last; a caller that always asks
 * for the first part only sees "accessed" too often, never too seldom.
 */
#include "builder.h"

/* The gfns one entry stands for. */
struct span {
	uint64_t first, pages;
};

static struct span span_of(unsigned level, uint64_t base, unsigned index)
{
	uint64_t pages = gn_level_pages(level);

	return (struct span){ .first = base + index * pages, .pages = pages };
}

/* Runs of gfns, and how far we are with them. */
struct range {
	struct gn_vm *vm;
	struct gn_ept *ept;
	const struct gn_gfn_run *runs;
	size_t count;
	uint64_t at, end; /* what is left of the first run; at the end of all: NOWHERE */
};
#define NOWHERE UINT64_MAX

/* What lies before @at is done. */
static void advance(struct range *r, uint64_t at)
{
	while (at >= r->end) {
		if (!r->count) {
			r->at = NOWHERE;
			return;
		}
		GN_BUG_ON(r->runs->start.v <
			  r->end); /* not sorted: what we have passed would stay mapped */
		if (at < r->runs->start.v)
			at = r->runs->start.v;
		r->end = r->runs->start.v + r->runs->count;
		r->runs++;
		r->count--;
	}
	r->at = at;
}

static struct range range_of(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count)
{
	struct range r = {
		.vm = vm, .ept = (struct gn_ept *)vm->scheme_data, .runs = runs, .count = count
	};

	advance(&r, 0);
	return r;
}

/* Does the range go on in the table at @level from @base? If so, *index and *s are the next entry. */
static bool next_entry(const struct range *r, unsigned level, uint64_t base, unsigned *index,
		       struct span *s)
{
	if (r->at - base >= gn_level_pages(level) * GN_TABLE_ENTRIES)
		return false;
	*index = (unsigned)((r->at - base) / gn_level_pages(level));
	*s = span_of(level, base, *index);
	return true;
}

static bool covers(const struct range *r, struct span s)
{
	return r->at == s.first && s.first + s.pages <= r->end;
}

static bool zap_freeze(struct range *r, unsigned level, pfn_t table, uint64_t base)
{
	const struct gn_fmt *fmt = r->ept->fmt;
	uint64_t *entries = gn_ept_table(r->vm, table);
	bool must_flush = false;
	struct span s;
	unsigned i;

	while (next_entry(r, level, base, &i, &s)) {
		uint64_t entry = gn_entry_get(&entries[i]);

		if (!gn_fmt_is_present(fmt, level, entry))
			advance(r, s.first + s.pages);
		else if (!gn_fmt_is_leaf(fmt, level, entry) && !covers(r, s))
			must_flush |= zap_freeze(r, level - 1, gn_ept_child(r->ept, level, entry),
						 s.first);
		else {
			must_flush |= gn_ept_freeze(r->vm, r->ept, level, &entries[i]);
			advance(r, s.first + s.pages);
		}
	}
	return must_flush;
}

static void zap_clear(struct range *r, unsigned level, pfn_t table, uint64_t base)
{
	const struct gn_fmt *fmt = r->ept->fmt;
	uint64_t *entries = gn_ept_table(r->vm, table);
	struct span s;
	unsigned i;

	while (next_entry(r, level, base, &i, &s)) {
		uint64_t entry = gn_entry_get(&entries[i]);

		if (gn_fmt_is_present(fmt, level, entry)) {
			zap_clear(r, level - 1, gn_ept_child(r->ept, level, entry), s.first);
			continue;
		}
		if (gn_ept_is_frozen(r->ept, level, entry))
			gn_ept_clear(r->vm, r->ept, level, &entries[i], 0);
		advance(r, s.first + s.pages);
	}
}

/* What is done with an entry that has no table below it, absent or not. Returns whether a flush is owed. */
typedef bool leaf_fn(struct range *r, unsigned level, uint64_t *slot, struct span s);

static bool each_leaf(struct range *r, unsigned level, pfn_t table, uint64_t base, leaf_fn *change)
{
	const struct gn_fmt *fmt = r->ept->fmt;
	uint64_t *entries = gn_ept_table(r->vm, table);
	bool must_flush = false;
	struct span s;
	unsigned i;

	while (next_entry(r, level, base, &i, &s)) {
		uint64_t entry = gn_entry_get(&entries[i]);

		if (gn_fmt_is_present(fmt, level, entry) && !gn_fmt_is_leaf(fmt, level, entry)) {
			must_flush |= each_leaf(r, level - 1, gn_ept_child(r->ept, level, entry),
						s.first, change);
		} else {
			must_flush |= change(r, level, &entries[i], s);
			advance(r, s.first + s.pages);
		}
	}
	return must_flush;
}

/* @entry without W. */
static uint64_t without_write(const struct gn_fmt *fmt, unsigned level, uint64_t entry)
{
	gn_rights_t rights = gn_fmt_rights(fmt, level, entry);
	uint64_t bits = gn_fmt_rights_bits(fmt, level, rights);

	return (entry & ~bits) | gn_fmt_rights_bits(fmt, level, rights & (gn_rights_t)~GN_W);
}

static bool protect_leaf(struct range *r, unsigned level, uint64_t *slot, struct span s)
{
	const struct gn_fmt *fmt = r->ept->fmt;
	uint64_t entry = gn_entry_get(slot);
	bool must_flush;

	(void)s;
	while (gn_fmt_is_present(fmt, level, entry) && (gn_fmt_rights(fmt, level, entry) & GN_W))
		if (gn_entry_cmpxchg(r->vm, fmt, level, slot, &entry,
				     without_write(fmt, level, entry), &must_flush))
			return must_flush;
	return false;
}

void gn_ept_range(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
		  enum gn_range_change change)
{
	struct gn_ept *ept = (struct gn_ept *)vm->scheme_data;
	struct range r = range_of(vm, runs, count), again = r;
	struct gn_flush all = { .scope = GN_FLUSH_ALL };
	unsigned top = ept->fmt->levels;
	bool must_flush;

	gn_ept_drain(ept->slots, ept->slot_count);
	gn_rcu_read_lock();
	must_flush = change == GN_RANGE_ZAP ? zap_freeze(&r, top, ept->root, 0)
					    : each_leaf(&r, top, ept->root, 0, protect_leaf);
	if (must_flush)
		gn_vm_flush(vm, &all);
	if (change == GN_RANGE_ZAP)
		zap_clear(&again, top, ept->root, 0);
	gn_rcu_read_unlock();
}

/* ---- Equal contents elsewhere -------------------------------------------------------------------- */

/* @entry of a page goes on with the frame its word names. A large one says more than the words do by now. */
static uint64_t moved_leaf(const struct range *r, unsigned level, uint64_t entry, struct span s)
{
	const uint64_t frame = pfn_to_hpa(gn_p2m_word_pfn(gn_p2m_get(&r->vm->p2m, gfn(s.first)))).v;

	return level > 1 ? 0 : (entry & ~r->ept->fmt->level[1].address) | frame;
}

static bool move_leaf(struct range *r, unsigned level, uint64_t *slot, struct span s)
{
	const struct gn_fmt *fmt = r->ept->fmt;
	uint64_t entry = gn_entry_get(slot);
	bool must_flush = false;

	/* The hardware sets A, a harvest clears it. */
	while (gn_fmt_is_present(fmt, level, entry) &&
	       !gn_entry_cmpxchg(r->vm, fmt, level, slot, &entry, moved_leaf(r, level, entry, s),
				 &must_flush))
		;
	return must_flush;
}

bool gn_ept_moved(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count)
{
	struct gn_ept *ept = (struct gn_ept *)vm->scheme_data;
	struct range r = range_of(vm, runs, count);
	bool must_flush;

	gn_rcu_read_lock();
	must_flush = each_leaf(&r, ept->fmt->levels, ept->root, 0, move_leaf);
	gn_rcu_read_unlock();
	return must_flush;
}

/* ---- Accessed bits ------------------------------------------------------------------------------- */

struct harvest {
	struct range r; /* first, for each_leaf() knows no more */
	uint64_t start, end;
	uint8_t *bitmap;
};

static void report(struct harvest *h, struct span s)
{
	uint64_t from = s.first > h->start ? s.first : h->start;
	uint64_t to = s.first + s.pages < h->end ? s.first + s.pages : h->end;

	for (uint64_t bit = from - h->start; bit < to - h->start; bit++)
		h->bitmap[bit / 8] |= (uint8_t)(1u << (bit % 8));
}

/* A fault may just have put a table where nothing was, or in a leaf's place. */
static bool has_accessed_leaf(const struct gn_fmt *fmt, unsigned level, uint64_t entry)
{
	return gn_fmt_is_present(fmt, level, entry) && gn_fmt_is_leaf(fmt, level, entry) &&
	       (entry & fmt->level[level].accessed);
}

static bool harvest_leaf(struct range *r, unsigned level, uint64_t *slot, struct span s)
{
	struct harvest *h = (struct harvest *)r;
	const struct gn_fmt *fmt = r->ept->fmt;
	uint64_t accessed = fmt->level[level].accessed, entry = gn_entry_get(slot);
	bool is_last = s.first + s.pages <= h->end, must_flush = false;

	if (!has_accessed_leaf(fmt, level, entry))
		return false;
	report(h, s);
	while (is_last && has_accessed_leaf(fmt, level, entry))
		if (gn_entry_cmpxchg(r->vm, fmt, level, slot, &entry, entry & ~accessed,
				     &must_flush))
			break;
	return must_flush;
}

/* The engine flushes once for the whole harvest. */
void gn_ept_harvest_accessed(struct gn_vm *vm, gfn_t start, gfn_t end, uint8_t *bitmap)
{
	const struct gn_gfn_run run = { start, end.v - start.v };
	struct gn_ept *ept = (struct gn_ept *)vm->scheme_data;
	struct harvest h = { .start = start.v, .end = end.v, .bitmap = bitmap };

	if (start.v >= end.v)
		return;
	h.r = range_of(vm, &run, 1);
	gn_rcu_read_lock();
	each_leaf(&h.r, ept->fmt->levels, ept->root, 0, harvest_leaf);
	gn_rcu_read_unlock();
}

/* ---- Eager split --------------------------------------------------------------------------------- */

#define SPLIT_BATCH 64

/* Inside the gate: go on from *cursor until a table is needed or @budget entries were looked at. */
static bool split_some(struct gn_vm *vm, struct gn_ept *ept, uint64_t *cursor,
		       struct gn_ept_spare *spare, unsigned budget)
{
	const struct gn_fmt *fmt = ept->fmt;

	while (*cursor < vm->p2m.gfn_count && budget--) {
		unsigned level = fmt->levels;
		pfn_t table = ept->root;
		uint64_t *slot, entry, pages;

		for (;; level--) {
			slot = gn_ept_slot_of(vm, ept, table, level, gfn(*cursor));
			entry = gn_entry_get(slot);
			if (level == 1 || !gn_fmt_is_present(fmt, level, entry) ||
			    gn_fmt_is_leaf(fmt, level, entry))
				break;
			table = gn_ept_child(ept, level, entry);
		}
		if (level > 1 && gn_fmt_is_present(fmt, level, entry) &&
		    (gn_p2m_word_rights(gn_p2m_get(&vm->p2m, gfn(*cursor))) & GN_W)) {
			if (gn_ept_split(vm, ept, level, slot, entry, spare) == GN_EPT_NEED_TABLE)
				return true;
			continue; /* look again: there may be large leaves below */
		}
		/* Below a level-2 table there are only small leaves: on to the next one. */
		pages = gn_level_pages(level > 1 ? level : 2);
		*cursor = (*cursor | (pages - 1)) + 1;
	}
	return false;
}

void gn_ept_split_all(struct gn_vm *vm)
{
	struct gn_ept *ept = (struct gn_ept *)vm->scheme_data;
	struct gn_ept_slot *slot = &ept->slots[ept->slot_count - 1];
	struct gn_ept_spare spare = { .full = false };
	uint64_t cursor = 0;

	while (cursor < vm->p2m.gfn_count && gn_dirty_is_logged(vm)) {
		if (!gn_ept_enter(vm, slot, gn_p2m_begin_read(&vm->p2m)))
			continue;
		bool need_table = split_some(vm, ept, &cursor, &spare, SPLIT_BATCH);

		gn_ept_leave(slot);
		if (need_table && gn_ept_spare_fill(vm, &spare))
			break;
	}
	gn_ept_spare_drop(vm, &spare);
}
