/* SPDX-License-Identifier: MIT */
/*
 * sync.c - making shadow entries agree with guest entries again; tables out of sync.
 *
 * A level-1 table may go *unsync*: the guest writes it without a trap, and our page of it becomes what a TLB
 * is: right at the last flush, and since then as stale as the guest has left it. Absent entries are
 * never stale, for a fault reads the guest's table. So a resync looks at present entries only and needs
 * no snapshot: it makes each anew from the guest's entry and compares.
 *
 * When: a page is resynced
 *   - when its root is loaded, or flushed by the guest while in force (also roots of a cache, whose
 *     INVLPGs of global pages passed unseen: they are resynced when they are loaded again; when a mere change of
 *     privilege loads one, root.c has the rule);
 *   - one entry, on INVLPG;
 *   - before it is linked somewhere new: absent to present owes the guest no flush, so stale entries would
 *     come to life there.
 * It stays unsync: to protect it again would cost an exit at the next write and a flush of everything.
 * Only when several resyncs in a row found nothing to do is it taken back, for it then costs more than it
 * saves. To take it back, the order is: protect, let the flush settle, resync, and only then trust it.
 *
 * How unsync pages are found: each page knows by index which of its children lead to one.
 */
#include "shadow.h"

#define CALM_RESYNCS 3

/* The guest entry a shadow entry is made from. False: not even memory any more. */
static bool guest_entry(struct gn_shadow *s, const struct gn_shadow_page *page, unsigned index,
			uint64_t *out)
{
	gpa_t at = gpa(gfn_to_gpa(page->key.gfn).v + index * sizeof(uint64_t));
	const uint64_t *entry = gn_p2m_pointer(s->vm, at);

	if (!entry)
		return false;
	*out = __atomic_load_n(entry, __ATOMIC_ACQUIRE);
	return true;
}

/* Would the hardware, with nothing cached, use @entry without setting A? */
static bool is_usable(const struct gn_paging *paging, unsigned level, uint64_t entry)
{
	const struct gn_fmt_level *l = &paging->fmt->level[level];

	return gn_fmt_is_present(paging->fmt, level, entry) && (entry & l->accessed) &&
	       !gn_paging_is_reserved(paging, level, entry);
}

/* The leaf that @entry of the guest allows at @index now; 0: none. */
static uint64_t leaf_of(struct gn_shadow *s, const struct gn_shadow_page *page, unsigned index,
			const struct gn_paging *paging, uint64_t entry)
{
	const struct gn_fmt *f = paging->fmt;
	unsigned level = page->key.role.level;
	const struct gn_fmt_level *l = &f->level[level];
	uint64_t had = gn_entry_get(&page->entries[index]);
	struct gn_shadow_leaf leaf;
	p2m_word_t word;

	if (!gn_fmt_is_leaf(f, level, entry))
		return 0;
	leaf.gfn = gpa_to_gfn(gpa(gn_fmt_address(f, level, entry)));
	if (leaf.gfn.v != gn_shadow_leaf_gfn(page, index).v)
		return 0;
	word = gn_p2m_get(&s->vm->p2m, leaf.gfn);
	if (!gn_p2m_word_has_frame(word) || !(gn_p2m_word_rights(word) & GN_R) ||
	    gn_vm_leaf_level(s->vm, word) < level)
		return 0;
	leaf.rights = page->key.role.access & gn_fmt_rights(f, level, entry);
	leaf.dirty = entry & l->dirty;
	leaf.global = entry & l->global;
	leaf.pkey = (uint8_t)gn_fmt_pkey(f, level, entry);
	leaf.kernel_write = false;
	leaf.may_write = !(gn_rmap_marks(s, leaf.gfn) & GN_RMAP_TRACKED) &&
			 (!gn_dirty_is_logged(s->vm) || (gn_fmt_rights(s->fmt, level, had) & GN_W));
	return gn_shadow_leaf_entry(s, page->key.role, &leaf, word);
}

static bool sync_leaf(struct gn_shadow *s, struct gn_shadow_page *page, unsigned index,
		      const struct gn_paging *paging, uint64_t entry, bool usable)
{
	const struct gn_fmt_level *l = &s->fmt->level[page->key.role.level];
	uint64_t had = gn_entry_get(&page->entries[index]);
	uint64_t want = usable ? leaf_of(s, page, index, paging, entry) : 0;

	if (!want) {
		gn_shadow_entry_drop(s, page, index);
		return true;
	}
	if (!((had ^ want) & ~(l->accessed | l->dirty)))
		return false;
	/* In place: the slot is in the reverse map already, so it cannot fail. */
	GN_BUG_ON(gn_shadow_leaf_set(s, page, index, gn_shadow_leaf_gfn(page, index), want));
	return true;
}

/* A table that the guest unlinked is about to be freed and used for something else, as a rule. Its shadow
 * goes with it, or each of those writes would trap. */
static bool sync_link(struct gn_shadow *s, struct gn_shadow_page *page, unsigned index,
		      const struct gn_paging *paging, uint64_t entry, bool usable)
{
	unsigned level = page->key.role.level;
	struct gn_shadow_page *child = gn_shadow_child(s, page, index);
	struct gn_shadow_key key;

	if (usable) {
		key = gn_shadow_entry_key(page, entry);
		if (gn_shadow_key_equal(&key, &child->key))
			return false;
	}
	child = gn_shadow_entry_drop(s, page, index);
	if (!child->is_doomed && !gn_fmt_is_present(paging->fmt, level, entry) &&
	    gn_shadow_is_orphan(child))
		gn_shadow_page_zap(s, child);
	return true;
}

static bool sync_one(struct gn_shadow *s, struct gn_shadow_page *page, unsigned index,
		     const struct gn_paging *paging)
{
	unsigned level = page->key.role.level;
	uint64_t had = gn_entry_get(&page->entries[index]), entry = 0;
	bool usable;

	if (!gn_fmt_is_present(s->fmt, level, had) || gn_shadow_is_reserved(s, page, index))
		return false;
	usable = guest_entry(s, page, index, &entry) && is_usable(paging, level, entry);
	if (gn_fmt_is_leaf(s->fmt, level, had))
		return sync_leaf(s, page, index, paging, entry, usable);
	return sync_link(s, page, index, paging, entry, usable);
}

bool gn_shadow_sync_entry(struct gn_shadow *s, struct gn_shadow_page *page, unsigned index)
{
	struct gn_paging paging;

	gn_shadow_role_paging(s->vm, page->key.role, &paging);
	return sync_one(s, page, index, &paging);
}

static bool sync_all(struct gn_shadow *s, struct gn_shadow_page *page)
{
	struct gn_paging paging;
	bool changed = false;

	gn_shadow_role_paging(s->vm, page->key.role, &paging);
	for (unsigned i = 0; page->present_count && i < GN_TABLE_ENTRIES; i++)
		changed |= sync_one(s, page, i, &paging);
	return changed;
}

/* Nobody can write the table @at untrapped any more, not even through a translation whose flush is on its
 * way. */
static bool is_sealed(struct gn_shadow *s, struct gn_shadow_page *page, gfn_t at)
{
	if (s->is_single) /* the flush comes before the guest's next access */
		return true;
	if (gn_rmap_protect(s, at) || s->flush_owed) {
		s->flush_due = true;
		page->protect_seq = s->flush_seq + 1;
	}
	return page->protect_seq <= s->settled_seq;
}

static void take_back(struct gn_shadow *s, struct gn_shadow_page *page)
{
	gfn_t at = page->key.gfn;
	uint64_t sequence;

	/* A change or the dirty log took W already, and nothing tells here whether its flush has settled. It has when the sequence is even. */
	if (atomic_load_explicit(&s->vm->p2m.sequence, memory_order_acquire) & 1)
		return;
	if (!is_sealed(s, page, at))
		return;
	sequence = gn_rmap_set_standing(s, at, GN_RMAP_TRACKED);
	for (page = gn_shadow_page_first(s, at); page; page = gn_shadow_page_next(page)) {
		page->is_unsync = false;
		page->protect_seq = sequence;
		sync_all(s, page);
	}
}

static void sync_unsync(struct gn_shadow *s, struct gn_shadow_page *page)
{
	if (sync_all(s, page)) {
		page->calm = 0;
	} else if (++page->calm >= CALM_RESYNCS) {
		page->calm = 0;
		take_back(s, page);
	}
}

void gn_shadow_sync_below(struct gn_shadow *s, struct gn_shadow_page *page)
{
	if (page->is_unsync) {
		sync_unsync(s, page);
		return;
	}
	for (unsigned word = 0; word < 8; word++) {
		for (uint64_t left = page->unsync_below[word]; left; left &= left - 1) {
			unsigned bit = (unsigned)__builtin_ctzll(left);
			struct gn_shadow_page *child = gn_shadow_child(s, page, word * 64 + bit);

			if (child)
				gn_shadow_sync_below(s, child);
			if (!child || !gn_shadow_has_unsync(child))
				page->unsync_below[word] &= ~((uint64_t)1 << bit);
		}
	}
}

void gn_shadow_mark_unsync(struct gn_shadow *s, struct gn_shadow_page *page, unsigned index)
{
	bool marked = gn_shadow_has_unsync(page);
	uint32_t count = gn_slots_count(&page->parents);

	page->unsync_below[index / 64] |= (uint64_t)1 << (index % 64);
	if (marked) /* and so are all above it */
		return;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t *slot = gn_slots_at(&page->parents, i);

		gn_shadow_mark_unsync(s, gn_shadow_page_of_slot(s, slot),
				      gn_shadow_slot_index(slot));
	}
}

void gn_shadow_unsync(struct gn_shadow *s, gfn_t at)
{
	struct gn_shadow_page *page = gn_shadow_page_first(s, at);

	gn_rmap_set_standing(s, at, GN_RMAP_UNSYNC);
	for (; page; page = gn_shadow_page_next(page)) {
		uint32_t count = gn_slots_count(&page->parents);

		GN_BUG_ON(page->key.role.level != 1);
		page->is_unsync = true;
		page->calm = 0;
		for (uint32_t i = 0; i < count; i++) {
			uint64_t *slot = gn_slots_at(&page->parents, i);

			gn_shadow_mark_unsync(s, gn_shadow_page_of_slot(s, slot),
					      gn_shadow_slot_index(slot));
		}
	}
}
