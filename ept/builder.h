/* SPDX-License-Identifier: MIT */
/*
 * builder.h - the nested tables of one VM, in any nested format.
 *
 * EPT and NPT differ in the bits of an entry and in nothing else that a builder cares for, so there is
 * one builder and the format is an argument. The tables are a cache of the p2m: what is absent is filled
 * at the next violation, so dropping too much is slow and never wrong; keeping too much is a hole.
 *
 * An entry is absent (0), a table, a leaf, or *frozen*: not present for the hardware, and for
 * software a sign that someone is replacing it. A frozen entry still names its child, so that a removed
 * subtree can be found and freed without a list on the side.
 *
 *	                 install (cmpxchg)
 *	      absent ---------------------> leaf, table
 *	        ^                            |   |  ^
 *	        |  clear           freeze    |   |  | split: child filled first, then cmpxchg
 *	        +-------- frozen <-----------+   +--+
 *	                   |  collapse: freeze, flush, leaf
 *	                   +---------------> leaf
 *
 * Who may do what:
 *   inside the gate (gn_ept_enter): install, raise rights, split, collapse; concurrently, each by cmpxchg;
 *   in range(), gate drained and p2m lock held: freeze, clear, remove W;
 *   in an RCU read section only: clear accessed bits.
 * The hardware sets A and D at any time, also in a table that was unlinked but not flushed; hence every
 * store is an exchange, and a table is retired after the flush was posted.
 */
#ifndef GN_EPT_BUILDER_H
#define GN_EPT_BUILDER_H

#include "mmu/entry.h"
#include "mmu/vm.h"

#include "gate.h"

struct gn_ept {
	const struct gn_fmt *fmt; /* (c) */
	pfn_t root;		  /* (c) one for all vCPUs */
	unsigned slot_count;	  /* (c) one a vCPU, and the last for threads that are none */
	struct gn_ept_slot slots[];
};

/* The tables with an empty root. -ENOMEM. */
int gn_ept_new(struct gn_vm *vm, const struct gn_fmt *fmt, struct gn_ept **out);
/* No vCPU inside, and none runs on these tables any more. */
void gn_ept_destroy(struct gn_vm *vm, struct gn_ept *ept);

enum gn_ept_step {
	GN_EPT_DONE,	   /* the access is allowed now */
	GN_EPT_BUSY,	   /* someone else is changing an entry on the way: start again */
	GN_EPT_NEED_TABLE, /* leave, get a spare table, start again */
};

/* A table in hand, allocated before the gate is entered. */
struct gn_ept_spare {
	pfn_t table;
	bool full;
};
int gn_ept_spare_fill(struct gn_vm *vm, struct gn_ept_spare *spare); /* no-op when full; -ENOMEM */
void gn_ept_spare_drop(struct gn_vm *vm, struct gn_ept_spare *spare);

/* Inside the gate: make the tables allow @need (a subset of the rights of @word) at @at, with the
 * largest leaf everyone agrees to. Marks the dirty log before it grants W. */
enum gn_ept_step gn_ept_map(struct gn_vm *vm, struct gn_ept *ept, gfn_t at, p2m_word_t word,
			    gn_rights_t need, struct gn_ept_spare *spare);

/* Inside the gate: replace the large leaf *@slot (which reads @entry) by a table of the next smaller
 * leaves with the same rights. */
enum gn_ept_step gn_ept_split(struct gn_vm *vm, struct gn_ept *ept, unsigned level, uint64_t *slot,
			      uint64_t entry, struct gn_ept_spare *spare);
/* Inside the gate: replace the table in *@slot by @leaf, which maps the same frames. */
enum gn_ept_step gn_ept_collapse(struct gn_vm *vm, struct gn_ept *ept, unsigned level,
				 uint64_t *slot, uint64_t entry, uint64_t leaf);

/* The zap protocol, for a subtree or a leaf. freeze: *slot and all below it; true: a flush is due.
 * clear, once that flush was posted: *slot becomes @entry, the tables below are retired. */
bool gn_ept_freeze(struct gn_vm *vm, struct gn_ept *ept, unsigned level, uint64_t *slot);
void gn_ept_clear(struct gn_vm *vm, struct gn_ept *ept, unsigned level, uint64_t *slot,
		  uint64_t entry);

/* scheme ops (range.c, audit.c) */
bool gn_ept_moved(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count);
void gn_ept_range(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
		  enum gn_range_change change);
void gn_ept_harvest_accessed(struct gn_vm *vm, gfn_t start, gfn_t end, uint8_t *bitmap);
void gn_ept_audit(struct gn_vm *vm, struct gn_audit_report *report);
/* Split every large leaf that the guest may come to write, in batches; other threads fault and
 * change the p2m in between. Gives up quietly without memory: faults split what is left. */
void gn_ept_split_all(struct gn_vm *vm);

static inline uint64_t *gn_ept_table(struct gn_vm *vm, pfn_t table)
{
	return (uint64_t *)gn_frames_at(vm->frames, pfn_to_hpa(table));
}
static inline bool gn_ept_is_frozen(const struct gn_ept *ept, unsigned level, uint64_t entry)
{
	return !gn_fmt_is_present(ept->fmt, level, entry) && entry != 0;
}
static inline pfn_t gn_ept_child(const struct gn_ept *ept, unsigned level, uint64_t entry)
{
	return hpa_to_pfn(hpa(entry & ept->fmt->level[level].address));
}
static inline uint64_t *gn_ept_slot_of(struct gn_vm *vm, const struct gn_ept *ept, pfn_t table,
				       unsigned level, gfn_t at)
{
	return &gn_ept_table(vm, table)[gn_fmt_index(ept->fmt, level, gfn_to_gpa(at).v)];
}

#endif
