/* SPDX-License-Identifier: MIT */
/*
 * layout.h - what lies where, for the C file and the two images of tiny-vmm.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

/* The guest's image begins at guest-physical address 0. */
#define GUEST_ROOT 0x1000 /* its page tables, one page for each level */
#define GUEST_LEAF 0x4000 /* the last of them */
#define GUEST_CODE 0x5000

/* The monitor lives in a root slot of every table that the engine builds; only CPL 0 can use it. */
#define MONITOR_SLOT  480
#define MONITOR	      0xfffff00000000000 /* the slot's first address; three pages: */
#define MONITOR_IDT   MONITOR
#define MONITOR_STUBS (MONITOR + 0x1000)
#define MONITOR_DESK  (MONITOR + 0x2000) /* GDT, TSS, stack */
#define MONITOR_TSS   (MONITOR_DESK + 0x80)
#define MONITOR_STACK (MONITOR_DESK + 0xff0)
#define STUB_BYTES    16 /* 256 of them fill a page */

#ifndef __ASSEMBLER__
#include <stdint.h>
extern const uint8_t guest_image[], guest_image_end[], monitor_image[];
#endif
#endif
