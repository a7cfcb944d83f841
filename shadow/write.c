/* SPDX-License-Identifier: MIT */
/*
 * write.c - guest stores to tables we shadow.
 *
 * A store to a tracked table traps. What then happens to the table:
 *
 *   it is data by now       a write by user code, or by the CPU itself (event delivery: the page is a stack),
 *                           one that fits no entry, or the third to an upper level without the table being
 *                           used in between: unshadow it, and the store runs at full speed
 *   it is a level-1 table   let it go unsync (sync.c)
 *   it is an upper level    emulate the store, then look at the entries it touched
 *
 * "Used in between" is told by a shadow of the table. Views have one each, and only the view that runs uses its own; so
 * there the table is data only when no view has used it.
 *
 * Progress: the first two map the page writable before they return. Unshadowing is no way out for a table that
 * the store's own translation uses (the retry would shadow and protect it again, for ever) nor for a root
 * in force (each fault would rebuild it); those are emulated, which always works: the backend carries the store out
 * on guest memory, and we are told afterwards. Any bytes, aligned or not, may be told.
 */
#include "shadow.h"

#define FLOOD_WRITES 3

/* Not one whole entry, or an aligned half of one. Single bytes at the low end are how systems set and clear a
 * bit of an entry (KVM learned that of Linux's clear_bit). */
static bool is_misfit(const struct gn_access *access)
{
	uint64_t offset = access->va.v % sizeof(uint64_t);

	if (access->size == 1)
		return offset != 0;
	if (access->size < 4)
		return true;
	return offset % access->size || offset + access->size > sizeof(uint64_t);
}

static bool is_on_path(const struct gn_shadow_fill *fill, gfn_t at)
{
	const struct gn_guest_walk *walk = &fill->walk;

	for (unsigned level = walk->t.level; level <= fill->vcpu->paging.levels; level++)
		if (walk->table[level].v == at.v)
			return true;
	return false;
}

void gn_shadow_unshadow(struct gn_shadow *s, gfn_t at)
{
	struct gn_shadow_page *page = gn_shadow_page_first(s, at);

	for (; page; page = gn_shadow_page_next(page))
		gn_shadow_page_zap(s, page);
}

bool gn_shadow_write_to_table(struct gn_shadow *s, const struct gn_shadow_fill *fill)
{
	const struct gn_access *access = fill->access;
	gfn_t at = fill->gfn;
	bool is_data = access->user || access->implicit || is_misfit(access);
	bool only_level_1 = true, is_live = false, is_flooded = false, is_used = false;
	struct gn_shadow_page *page = gn_shadow_page_first(s, at);

	for (; page; page = gn_shadow_page_next(page)) {
		is_live |= page->live_refs != 0;
		if (page->key.role.level == 1)
			continue;
		only_level_1 = false;
		if (page->flood < FLOOD_WRITES)
			page->flood++;
		is_flooded |= page->flood >= FLOOD_WRITES;
		is_used |= page->flood < FLOOD_WRITES && page->key.role.view != GN_VIEW_BOTH;
	}
	is_data |= is_flooded && !is_used;
	if (is_data && !is_live && !is_on_path(fill, at)) {
		gn_shadow_unshadow(s, at);
		return true;
	}
	if (only_level_1) {
		gn_shadow_unsync(s, at);
		return true;
	}
	return false;
}

void gn_shadow_memory_written(struct gn_vm *vm, struct gn_vcpu *vcpu, gpa_t at, unsigned bytes)
{
	struct gn_shadow *s = gn_shadow_of(vm);
	gfn_t table = gpa_to_gfn(at);
	unsigned offset = (unsigned)(at.v & (GN_PAGE_SIZE - 1));
	unsigned first = offset / sizeof(uint64_t);
	unsigned last = (offset + (bytes ? bytes : 1) - 1) / sizeof(uint64_t);

	(void)vcpu;
	gn_shadow_enter(s);
	if (gn_rmap_marks(s, table)) {
		struct gn_shadow_page *page;

		gn_rcu_read_lock();
		page = gn_shadow_page_first(s, table);
		for (; page; page = gn_shadow_page_next(page))
			for (unsigned i = first; i <= last; i++)
				gn_shadow_sync_entry(s, page, i);
		gn_rcu_read_unlock();
	}
	gn_shadow_leave(s);
}
