/* SPDX-License-Identifier: MIT */
/*
 * entry.c - the one writer of hardware-walked entries, and table pages.
 *
 * What the one writer guarantees to everyone else: no entry that the hardware would use is malformed,
 * and none points outside the VM's frames. A mistake in a scheme stops here, as a broken invariant,
 * and not as a guest that reads its neighbour.
 *
 * The flush decision is conservative and of the format's bits only. A change needs no flush when the old
 * entry was not present (nothing caches an absence), or when all that happened is: rights were gained
 * (the worst a stale translation can do is a spurious fault), A or D were set, or a software bit
 * changed. Everything else needs one: another address, leaf instead of table, fewer rights, another memory
 * type, key or global mark, and A or D cleared, for the hardware would not set them again from a cached
 * translation.
 */
#include "entry.h"

#include <errno.h>

#include "vm.h"

uint64_t gn_entry_software(const struct gn_fmt *fmt, unsigned level, enum gn_software_bit bit)
{
	uint64_t mask = fmt->level[level].software;

	for (unsigned i = 0; i < (unsigned)bit; i++)
		mask &= mask - 1;
	GN_BUG_ON(!mask);
	return mask & -mask;
}

static bool must_flush(const struct gn_fmt *fmt, unsigned level, uint64_t old, uint64_t entry)
{
	const struct gn_fmt_level *l = &fmt->level[level];
	uint64_t tracked = l->accessed | l->dirty;
	uint64_t harmless = l->software | tracked;

	if (!gn_fmt_is_present(fmt, level, old))
		return false;
	if (!gn_fmt_is_present(fmt, level, entry))
		return true;
	if (gn_fmt_rights(fmt, level, old) & ~gn_fmt_rights(fmt, level, entry))
		return true;
	if (old & ~entry & tracked)
		return true;
	for (unsigned i = 0; i < GN_RIGHTS; i++)
		harmless |= l->grant[i] | l->deny[i];
	return (old ^ entry) & ~harmless;
}

/* Hardware that copies tables is told of each entry that a flush alone would not mend. */
static void tell_changed(struct gn_vm *vm, const uint64_t *slot)
{
	const struct gn_backend_ops *backend = vm->config.backend;

	if (backend && backend->entry_changed)
		backend->entry_changed(vm,
				       hpa((uint64_t)((const uint8_t *)slot - vm->frames->base)));
}

static void check_entry(const struct gn_vm *vm, const struct gn_fmt *fmt, unsigned level,
			uint64_t entry)
{
	uint64_t last;

	if (!gn_fmt_is_present(fmt, level, entry))
		return;
	GN_BUG_ON(gn_fmt_is_malformed(fmt, level, entry, fmt->phys_bits));
	last = gn_fmt_address(fmt, level, entry);
	if (gn_fmt_is_leaf(fmt, level, entry))
		last += gn_level_bytes(level) - 1;
	GN_BUG_ON(!gn_frames_valid(vm->frames, hpa_to_pfn(hpa(last))));
}

struct gn_entry_change gn_entry_set(struct gn_vm *vm, const struct gn_fmt *fmt, unsigned level,
				    uint64_t *slot, uint64_t entry)
{
	struct gn_entry_change change;

	check_entry(vm, fmt, level, entry);
	change.old = __atomic_exchange_n(slot, entry, __ATOMIC_ACQ_REL);
	change.must_flush = must_flush(fmt, level, change.old, entry);
	if (change.must_flush)
		tell_changed(vm, slot);
	return change;
}

bool gn_entry_cmpxchg(struct gn_vm *vm, const struct gn_fmt *fmt, unsigned level, uint64_t *slot,
		      uint64_t *expected, uint64_t entry, bool *flush)
{
	check_entry(vm, fmt, level, entry);
	if (!__atomic_compare_exchange_n(slot, expected, entry, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		return false;
	*flush = must_flush(fmt, level, *expected, entry);
	if (*flush)
		tell_changed(vm, slot);
	return true;
}

/* ---- Table pages -------------------------------------------------------------------------------- */

static void note_peak(struct gn_vm *vm, uint64_t pages)
{
	uint64_t bytes = pages * GN_PAGE_SIZE + gn_arena_bytes(vm->scheme_arena);
	uint64_t peak = atomic_load_explicit(&vm->table_peak_bytes, memory_order_relaxed);

	while (bytes > peak &&
	       !atomic_compare_exchange_weak_explicit(&vm->table_peak_bytes, &peak, bytes,
						      memory_order_relaxed, memory_order_relaxed))
		;
}

/* The page is counted before it is taken, so that two callers cannot both have the budget's last. */
int gn_table_new(struct gn_vm *vm, pfn_t *out)
{
	uint64_t limit = vm->config.scheme_table_limit_bytes;
	uint64_t pages = atomic_fetch_add_explicit(&vm->table_pages, 1, memory_order_relaxed) + 1;
	pfn_t frame;
	int err;

	if (limit && pages * GN_PAGE_SIZE > limit) {
		err = -ENOMEM;
		goto uncount;
	}
	err = gn_frames_alloc_table(vm->frames, &frame);
	if (err)
		goto uncount;
	note_peak(vm, pages);
	*out = frame;
	return 0;

uncount:
	atomic_fetch_sub_explicit(&vm->table_pages, 1, memory_order_relaxed);
	return err;
}

void gn_table_retire(struct gn_vm *vm, pfn_t table)
{
	uint64_t before = atomic_fetch_sub_explicit(&vm->table_pages, 1, memory_order_relaxed);

	GN_BUG_ON(before == 0);
	if (vm->config.backend && vm->config.backend->table_retired)
		vm->config.backend->table_retired(vm, table);
	gn_retire_frame(vm, table);
}

uint64_t *gn_table_entries(struct gn_vm *vm, pfn_t table)
{
	return gn_frames_at(vm->frames, pfn_to_hpa(table));
}
