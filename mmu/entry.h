/* SPDX-License-Identifier: MIT */
/*
 * entry.h - the one writer of hardware-walked entries, and table pages.
 *
 * All stores to a table the hardware walks for us go through gn_entry_set() or gn_entry_cmpxchg():
 * accounting and the flush decision are made here. Each change is an atomic exchange, since the
 * hardware sets A and D behind our back; the old entry comes back with the bits it had at the end.
 * Children are complete before they are published (release); a replaced table is flushed, then retired.
 *
 * Software bits of entries and their owners:
 *   GN_SW_FIRST   ept/: frozen (an entry being replaced)          - see gn_entry_software()
 *   GN_SW_SECOND  shadow/: the guest's translation allows writes, we removed W (write-protected page)
 *   GN_SW_THIRD   free
 */
#ifndef GN_MMU_ENTRY_H
#define GN_MMU_ENTRY_H

#include "fmt.h"
#include "frames.h"

struct gn_vm;

enum gn_software_bit { GN_SW_FIRST, GN_SW_SECOND, GN_SW_THIRD, GN_SW_BITS };

/* The mask of our nth software bit in @fmt at @level: the nth lowest of .software. */
uint64_t gn_entry_software(const struct gn_fmt *fmt, unsigned level, enum gn_software_bit bit);

struct gn_entry_change {
	uint64_t old;
	bool must_flush; /* the old translation was usable and the new one allows less or differs */
};

struct gn_entry_change gn_entry_set(struct gn_vm *vm, const struct gn_fmt *fmt, unsigned level,
				    uint64_t *slot, uint64_t entry);
/* Fails (false, *expected updated) when the entry is no longer *expected. */
bool gn_entry_cmpxchg(struct gn_vm *vm, const struct gn_fmt *fmt, unsigned level, uint64_t *slot,
		      uint64_t *expected, uint64_t entry, bool *must_flush);
static inline uint64_t gn_entry_get(const uint64_t *slot)
{
	return __atomic_load_n(slot, __ATOMIC_ACQUIRE);
}

/* A zeroed table page from the VM's pool, counted in its table bytes. -ENOMEM, also when the scheme's
 * table budget is spent (*out untouched). */
int gn_table_new(struct gn_vm *vm, pfn_t *out);
/* After unlinking and posting the flush. */
void gn_table_retire(struct gn_vm *vm, pfn_t table);
uint64_t *gn_table_entries(struct gn_vm *vm, pfn_t table);

#endif
