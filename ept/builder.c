/* SPDX-License-Identifier: MIT */
/*
 * builder.c - install, split, collapse, freeze and clear: every way an entry changes its kind.
 *
 * Why frozen entries, when p2m changes already have the tables to themselves: a collapse runs beside
 * other faults. Between "the table is unlinked" and "its leaf is in" a second fault must neither put
 * a new table in the same place (two sizes of translation of one address, and for the old one no flush was
 * posted) nor fill the unlinked table (an entry no later zap would find). So the parent is frozen first,
 * then each child entry, absent ones too; a fault that meets one starts again at the root.
 *
 * Why no flush after a split: the children say what the leaf said, so the old translation in a TLB is as
 * good as the new ones. Whoever then takes rights away flushes everything of this VM anyway, for nested
 * translations are not kept by guest-physical address in any hardware we know of (INVEPT has no finer
 * scope than a whole EPTP).
 *
 * When a collapse happens: at a fault that would install a large leaf and finds a table in its place. That
 * is after pages of a block went one by one and came back as a block, and after the dirty log was
 * stopped, at the first write to a block that the log had split. There is no thread that looks for such
 * blocks; a table that nobody faults on stays.
 *
 * Deliberately absent: execute-only and user/supervisor nested rights (the p2m knows neither),
 * sub-page rights, memory types other than write-back.
 */
#include "builder.h"

#include <errno.h>

/* Two marks beside the address: the freeze bit, and for an entry that had nothing below it, the table's own
 * frame as "child" (a table is never its own child). */
static uint64_t frozen_from(const struct gn_ept *ept, unsigned level, uint64_t entry, pfn_t self)
{
	const struct gn_fmt_level *l = &ept->fmt->level[level];
	uint64_t frozen = gn_entry_software(ept->fmt, level, GN_SW_FIRST);

	if (entry == 0)
		return frozen | pfn_to_hpa(self).v;
	return frozen | (entry & (l->address | l->leaf));
}

/* The table that a frozen entry hides, if any. */
static bool frozen_child(const struct gn_ept *ept, unsigned level, uint64_t entry, pfn_t self,
			 pfn_t *child)
{
	if (level == 1 || (entry & ept->fmt->level[level].leaf))
		return false;
	*child = gn_ept_child(ept, level, entry);
	return child->v != self.v;
}

static uint64_t table_entry(const struct gn_ept *ept, unsigned level, pfn_t table)
{
	return gn_fmt_table(ept->fmt, level, table, GN_RWXU) | ept->fmt->level[level].accessed;
}

/* Leaves are born accessed, and dirty when writable, so that the hardware need not write them. */
static uint64_t leaf_entry(const struct gn_ept *ept, unsigned level, pfn_t frame,
			   gn_rights_t rights)
{
	const struct gn_fmt_level *l = &ept->fmt->level[level];

	return gn_fmt_leaf(ept->fmt, level, frame, rights | GN_U) | l->accessed |
	       (rights & GN_W ? l->dirty : 0);
}

int gn_ept_new(struct gn_vm *vm, const struct gn_fmt *fmt, struct gn_ept **out)
{
	unsigned slot_count = vm->config.vcpus + 1;
	struct gn_ept *ept = (struct gn_ept *)gn_arena_zalloc(
		vm->scheme_arena, sizeof(*ept) + slot_count * sizeof(ept->slots[0]));
	int err;

	if (!ept)
		return -ENOMEM;
	ept->fmt = fmt;
	ept->slot_count = slot_count;
	err = gn_table_new(vm, &ept->root);
	if (err) {
		gn_arena_free(vm->scheme_arena, ept,
			      sizeof(*ept) + slot_count * sizeof(ept->slots[0]));
		return err;
	}
	*out = ept;
	return 0;
}

int gn_ept_spare_fill(struct gn_vm *vm, struct gn_ept_spare *spare)
{
	const uint64_t drains = gn_retire_drains(vm);
	int err;

	if (spare->full)
		return 0;
	err = gn_table_new(vm, &spare->table);
	if (err && gn_retire_drain_since(vm, drains))
		err = gn_table_new(vm, &spare->table);
	spare->full = !err;
	return err;
}

void gn_ept_spare_drop(struct gn_vm *vm, struct gn_ept_spare *spare)
{
	if (spare->full)
		gn_table_retire(vm, spare->table);
	spare->full = false;
}

/* ---- Freeze and clear ---------------------------------------------------------------------------- */

/* Everything below an entry that is frozen already. Absent entries too: a fault that still has its foot in
 * this table must not find room. */
static bool freeze_below(struct gn_vm *vm, struct gn_ept *ept, unsigned level, pfn_t table)
{
	uint64_t *entries = gn_ept_table(vm, table);
	bool must_flush = false;

	for (unsigned i = 0; i < GN_TABLE_ENTRIES; i++) {
		uint64_t seen = gn_entry_get(&entries[i]), old;
		bool flush_one;

		do /* until neither a fault nor the hardware was quicker */
			old = seen;
		while (!gn_entry_cmpxchg(vm, ept->fmt, level, &entries[i], &seen,
					 frozen_from(ept, level, old, table), &flush_one));
		must_flush |= flush_one;
		if (gn_fmt_is_present(ept->fmt, level, old) &&
		    !gn_fmt_is_leaf(ept->fmt, level, old))
			must_flush |=
				freeze_below(vm, ept, level - 1, gn_ept_child(ept, level, old));
	}
	return must_flush;
}

bool gn_ept_freeze(struct gn_vm *vm, struct gn_ept *ept, unsigned level, uint64_t *slot)
{
	uint64_t entry = gn_entry_get(slot);
	struct gn_entry_change change =
		gn_entry_set(vm, ept->fmt, level, slot, frozen_from(ept, level, entry, ept->root));
	bool must_flush = change.must_flush;

	if (!gn_fmt_is_leaf(ept->fmt, level, entry))
		must_flush |= freeze_below(vm, ept, level - 1, gn_ept_child(ept, level, entry));
	return must_flush;
}

static void retire_below(struct gn_vm *vm, struct gn_ept *ept, unsigned level, pfn_t table)
{
	uint64_t *entries = gn_ept_table(vm, table);
	pfn_t child;

	for (unsigned i = 0; level > 1 && i < GN_TABLE_ENTRIES; i++)
		if (frozen_child(ept, level, gn_entry_get(&entries[i]), table, &child))
			retire_below(vm, ept, level - 1, child);
	gn_table_retire(vm, table);
}

void gn_ept_clear(struct gn_vm *vm, struct gn_ept *ept, unsigned level, uint64_t *slot,
		  uint64_t entry)
{
	pfn_t child;
	bool has_child = frozen_child(ept, level, gn_entry_get(slot), ept->root, &child);

	gn_entry_set(vm, ept->fmt, level, slot, entry);
	if (has_child)
		retire_below(vm, ept, level - 1, child);
}

void gn_ept_destroy(struct gn_vm *vm, struct gn_ept *ept)
{
	freeze_below(vm, ept, ept->fmt->levels, ept->root);
	retire_below(vm, ept, ept->fmt->levels, ept->root);
	gn_arena_free(vm->scheme_arena, ept,
		      sizeof(*ept) + ept->slot_count * sizeof(ept->slots[0]));
}

/* ---- Split and collapse -------------------------------------------------------------------------- */

enum gn_ept_step gn_ept_split(struct gn_vm *vm, struct gn_ept *ept, unsigned level, uint64_t *slot,
			      uint64_t entry, struct gn_ept_spare *spare)
{
	const struct gn_fmt_level *l = &ept->fmt->level[level], *below = l - 1;
	gn_rights_t rights = gn_fmt_rights(ept->fmt, level, entry);
	uint64_t frame = gn_fmt_address(ept->fmt, level, entry) >> GN_PAGE_SHIFT;
	uint64_t marks, *entries;
	bool must_flush;

	if (!spare->full)
		return GN_EPT_NEED_TABLE;
	entries = gn_ept_table(vm, spare->table);
	marks = (entry & l->accessed ? below->accessed : 0) | (entry & l->dirty ? below->dirty : 0);
	for (unsigned i = 0; i < GN_TABLE_ENTRIES; i++)
		gn_entry_set(vm, ept->fmt, level - 1, &entries[i],
			     gn_fmt_leaf(ept->fmt, level - 1,
					 pfn(frame + i * gn_level_pages(level - 1)), rights) |
				     marks);
	/* A or D set meanwhile, or another split: the spare is stale, but will be filled anew. */
	if (!gn_entry_cmpxchg(vm, ept->fmt, level, slot, &entry,
			      table_entry(ept, level, spare->table), &must_flush))
		return GN_EPT_BUSY;
	spare->full = false;
	return GN_EPT_DONE;
}

enum gn_ept_step gn_ept_collapse(struct gn_vm *vm, struct gn_ept *ept, unsigned level,
				 uint64_t *slot, uint64_t entry, uint64_t leaf)
{
	struct gn_flush all = { .scope = GN_FLUSH_ALL };
	pfn_t child = gn_ept_child(ept, level, entry);
	bool must_flush;

	if (!gn_entry_cmpxchg(vm, ept->fmt, level, slot, &entry,
			      frozen_from(ept, level, entry, ept->root), &must_flush))
		return GN_EPT_BUSY;
	freeze_below(vm, ept, level - 1, child);
	/* Always: walk caches may hold the unlinked table even if it was empty. */
	gn_vm_flush(vm, &all);
	gn_ept_clear(vm, ept, level, slot, leaf);
	return GN_EPT_DONE;
}

/* ---- Map ----------------------------------------------------------------------------------------- */

/* What the entry may grant now. With the dirty log on, W is given only to a page that is marked, and a
 * write marks it: inside the gate, so a harvest that clears the mark will also find the entry. */
static gn_rights_t rights_to_grant(struct gn_vm *vm, gfn_t at, p2m_word_t word, gn_rights_t need,
				   bool is_logged)
{
	gn_rights_t rights = gn_p2m_word_rights(word);

	if (!is_logged || !(rights & GN_W))
		return rights;
	if (need & GN_W)
		gn_dirty_mark(vm, at);
	else if (!gn_dirty_is_marked(vm, at))
		rights &= (gn_rights_t)~GN_W;
	return rights;
}

static uint64_t leaf_for(struct gn_vm *vm, struct gn_ept *ept, unsigned level, gfn_t at,
			 p2m_word_t word, gn_rights_t need, bool is_logged)
{
	uint64_t first = gn_p2m_word_pfn(word).v - (at.v & (gn_level_pages(level) - 1));

	return leaf_entry(ept, level, pfn(first), rights_to_grant(vm, at, word, need, is_logged));
}

static enum gn_ept_step install(struct gn_vm *vm, struct gn_ept *ept, unsigned level,
				uint64_t *slot, uint64_t entry, uint64_t leaf)
{
	bool must_flush;

	return gn_entry_cmpxchg(vm, ept->fmt, level, slot, &entry, leaf, &must_flush) ? GN_EPT_DONE
										      : GN_EPT_BUSY;
}

/* An absent entry above the leaf: hang the spare in. */
static enum gn_ept_step link_table(struct gn_vm *vm, struct gn_ept *ept, unsigned level,
				   uint64_t *slot, struct gn_ept_spare *spare)
{
	enum gn_ept_step step;
	uint64_t *entries;

	if (!spare->full)
		return GN_EPT_NEED_TABLE;
	/* A split that lost its race may have left leaves in it. */
	entries = gn_ept_table(vm, spare->table);
	if (GN_UNLIKELY(gn_entry_get(&entries[0])))
		for (unsigned i = 0; i < GN_TABLE_ENTRIES; i++)
			gn_entry_set(vm, ept->fmt, level - 1, &entries[i], 0);
	step = install(vm, ept, level, slot, 0, table_entry(ept, level, spare->table));
	spare->full = step != GN_EPT_DONE;
	return step;
}

/* A leaf is there. Either it allows the access (the violation was stale: another vCPU was first),
 * or it lacks W because of the dirty log. */
static enum gn_ept_step raise_leaf(struct gn_vm *vm, struct gn_ept *ept, unsigned level,
				   unsigned target, uint64_t *slot, uint64_t entry, gfn_t at,
				   p2m_word_t word, gn_rights_t need, struct gn_ept_spare *spare,
				   bool is_logged)
{
	enum gn_ept_step step;
	uint64_t leaf;

	if ((gn_fmt_rights(ept->fmt, level, entry) & need) == need)
		return GN_EPT_DONE;
	if (level > target) {
		step = gn_ept_split(vm, ept, level, slot, entry, spare);
		return step == GN_EPT_DONE ? GN_EPT_BUSY : step; /* start again, below */
	}
	leaf = leaf_for(vm, ept, level, at, word, need, is_logged);
	/* Another frame would mean that a p2m change did not sweep this entry away. */
	GN_BUG_ON(gn_fmt_address(ept->fmt, level, entry) != gn_fmt_address(ept->fmt, level, leaf));
	return install(vm, ept, level, slot, entry, leaf);
}

enum gn_ept_step gn_ept_map(struct gn_vm *vm, struct gn_ept *ept, gfn_t at, p2m_word_t word,
			    gn_rights_t need, struct gn_ept_spare *spare)
{
	const struct gn_fmt *fmt = ept->fmt;
	bool is_logged = gn_dirty_is_logged(vm);
	unsigned target = is_logged ? 1 : gn_vm_leaf_level(vm, word);
	unsigned level = fmt->levels;
	pfn_t table = ept->root;

	for (;;) {
		uint64_t *slot = gn_ept_slot_of(vm, ept, table, level, at);
		uint64_t entry = gn_entry_get(slot);

		if (!gn_fmt_is_present(fmt, level, entry)) {
			enum gn_ept_step step;

			if (entry != 0)
				return GN_EPT_BUSY;
			if (level == target)
				return install(vm, ept, level, slot, 0,
					       leaf_for(vm, ept, level, at, word, need, is_logged));
			step = link_table(vm, ept, level, slot, spare);
			if (step != GN_EPT_DONE)
				return step;
			continue; /* read it back: it has a child now */
		}
		if (gn_fmt_is_leaf(fmt, level, entry))
			return raise_leaf(vm, ept, level, target, slot, entry, at, word, need,
					  spare, is_logged);
		if (level == target)
			return gn_ept_collapse(vm, ept, level, slot, entry,
					       leaf_for(vm, ept, level, at, word, need, is_logged));
		table = gn_ept_child(ept, level, entry);
		level--;
	}
}
