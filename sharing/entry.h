/* SPDX-License-Identifier: MIT */
/*
 * entry.h - what a domain's index knows of a tag: where there is a page that has it.
 *
 * A candidate is a page of some VM, as it was when it was hashed. A frame is immutable, and the index has a reference of it.
 * Pending is a candidate that is about to become a frame: its number is the domain's own. One in a block of another process
 * would be a candidate if that were split.
 */
#ifndef GN_SHARING_ENTRY_H
#define GN_SHARING_ENTRY_H

#include <stdint.h>

enum gn_entry_kind {
	GN_ENTRY_CANDIDATE = 2, /* 0 and 1 are the index's (GN_INDEX_VALUE_MIN) */
	GN_ENTRY_FRAME,
	GN_ENTRY_PENDING,
	GN_ENTRY_IN_BLOCK,
};

/* The value's bits: kind 0-2, number 3-42, VM 43-55, check 56-63. */
#define GN_ENTRY_NUMBER_SHIFT 3
#define GN_ENTRY_NUMBER_BITS  40 /* a gfn, a frame, or a pending one */
#define GN_ENTRY_VM_SHIFT     (GN_ENTRY_NUMBER_SHIFT + GN_ENTRY_NUMBER_BITS)
#define GN_ENTRY_VM_BITS      13
#define GN_ENTRY_CHECK_SHIFT  (GN_ENTRY_VM_SHIFT + GN_ENTRY_VM_BITS)
#define GN_ENTRY_VMS	      ((unsigned)1 << GN_ENTRY_VM_BITS)

static inline uint64_t gn_entry_value(enum gn_entry_kind kind, unsigned vm, uint64_t number,
				      uint8_t check)
{
	return (uint64_t)kind | number << GN_ENTRY_NUMBER_SHIFT |
	       (uint64_t)vm << GN_ENTRY_VM_SHIFT | (uint64_t)check << GN_ENTRY_CHECK_SHIFT;
}
static inline enum gn_entry_kind gn_entry_kind_of(uint64_t value)
{
	return (enum gn_entry_kind)(value & (((uint64_t)1 << GN_ENTRY_NUMBER_SHIFT) - 1));
}
static inline uint64_t gn_entry_number_of(uint64_t value)
{
	return value >> GN_ENTRY_NUMBER_SHIFT & (((uint64_t)1 << GN_ENTRY_NUMBER_BITS) - 1);
}
static inline unsigned gn_entry_vm_of(uint64_t value)
{
	return (unsigned)(value >> GN_ENTRY_VM_SHIFT) & (GN_ENTRY_VMS - 1);
}
static inline uint8_t gn_entry_check_of(uint64_t value)
{
	return (uint8_t)(value >> GN_ENTRY_CHECK_SHIFT);
}

#endif
