/* SPDX-License-Identifier: MIT */
/*
 * fmt_ept.h - extended page tables of Intel VMX, 4 and 5 levels.
 *
 * Source: Intel SDM vol. 3C 29.3.2 (entries, tables 29-1 to 29-7) and 29.3.3.1 (misconfigurations).
 * An entry is present when it grants any of R, W, X. Execute-only is legal (we assume
 * IA32_VMX_EPT_VPID_CAP bit 0, as every processor with 5-level EPT has it); W without R is a
 * misconfiguration. There is no user bit: U counts as granted.
 *
 * Leaves are write-back with "ignore PAT" set: a guest's RAM is the host's RAM. The three reserved
 * memory types are not checked, since only this engine writes these tables and writes one type.
 * Mode-based execution (bit 10), sub-page protection, supervisor shadow stacks and #VE suppression are
 * not used; their bits stay 0 and are not lent to software.
 */
#ifndef GN_MMU_FMT_EPT_H
#define GN_MMU_FMT_EPT_H

#include "fmt.h"

#define GN_EPT_R	      ((uint64_t)1 << 0)
#define GN_EPT_W	      ((uint64_t)1 << 1)
#define GN_EPT_X	      ((uint64_t)1 << 2)
#define GN_EPT_MEMTYPE_WB     ((uint64_t)6 << 3) /* bits 5:3 of a leaf; 6 is write-back */
#define GN_EPT_IPAT	      ((uint64_t)1 << 6)
#define GN_EPT_PS	      ((uint64_t)1 << 7) /* levels 2 and 3; ignored at level 1 */
#define GN_EPT_A	      ((uint64_t)1 << 8)
#define GN_EPT_D	      ((uint64_t)1 << 9)
#define GN_EPT_XU	      ((uint64_t)1 << 10)
#define GN_EPT_ADDRESS	      ((uint64_t)0x000ffffffffff000)
#define GN_EPT_RESERVED_TABLE ((uint64_t)0xf << 3)	     /* 6:3 of a pointer at levels 2, 3 */
#define GN_EPT_RESERVED_UPPER ((uint64_t)0x1f << 3)	     /* 7:3 at levels 4, 5 */
#define GN_EPT_RESERVED_2M    ((uint64_t)0x00000000001ff000) /* 20:12 */
#define GN_EPT_RESERVED_1G    ((uint64_t)0x000000003ffff000) /* 29:12 */
#define GN_EPT_SOFTWARE	      (((uint64_t)1 << 11) | ((uint64_t)0x1f << 52))
#define GN_EPT_HARDWARE                                                                            \
	(GN_EPT_R | GN_EPT_W | GN_EPT_X | ((uint64_t)7 << 3) | GN_EPT_IPAT | GN_EPT_PS |           \
	 GN_EPT_A | GN_EPT_D | GN_EPT_XU | GN_EPT_ADDRESS |                                        \
	 ((uint64_t)3 << 57) /* verify paging, paging write */ |                                   \
	 ((uint64_t)3 << 60) /* supervisor shadow stack, sub-page */ |                             \
	 ((uint64_t)1 << 63) /* suppress #VE */)

#define GN_EPT_ANY_ENTRY                                                                           \
	.present = GN_EPT_R | GN_EPT_W | GN_EPT_X, .address = GN_EPT_ADDRESS,                      \
	.grant = { [GN_RI_R] = GN_EPT_R, [GN_RI_W] = GN_EPT_W, [GN_RI_X] = GN_EPT_X },             \
	.accessed = GN_EPT_A, .software = GN_EPT_SOFTWARE
#define GN_EPT_MAY_BE_LEAF                                                                         \
	.leaf_allowed = true, .dirty = GN_EPT_D, .fixed_leaf = GN_EPT_MEMTYPE_WB | GN_EPT_IPAT

#define GN_EPT_LEVEL_1                                                                             \
	{                                                                                          \
		.shift = 12, GN_EPT_ANY_ENTRY, GN_EPT_MAY_BE_LEAF                                  \
	}
#define GN_EPT_LEVEL_2                                                                             \
	{                                                                                          \
		.shift = 21, GN_EPT_ANY_ENTRY, GN_EPT_MAY_BE_LEAF, .leaf = GN_EPT_PS,              \
		.reserved_table = GN_EPT_RESERVED_TABLE, .reserved_leaf = GN_EPT_RESERVED_2M       \
	}
#define GN_EPT_LEVEL_3                                                                             \
	{                                                                                          \
		.shift = 30, GN_EPT_ANY_ENTRY, GN_EPT_MAY_BE_LEAF, .leaf = GN_EPT_PS,              \
		.reserved_table = GN_EPT_RESERVED_TABLE, .reserved_leaf = GN_EPT_RESERVED_1G       \
	}
#define GN_EPT_LEVEL_4                                                                             \
	{                                                                                          \
		.shift = 39, GN_EPT_ANY_ENTRY, .reserved_table = GN_EPT_RESERVED_UPPER             \
	}
#define GN_EPT_LEVEL_5                                                                             \
	{                                                                                          \
		.shift = 48, GN_EPT_ANY_ENTRY, .reserved_table = GN_EPT_RESERVED_UPPER             \
	}

#define GN_FMT_EPT_4_INIT                                                                          \
	{                                                                                          \
		.name = "ept-4", .levels = 4, .phys_bits = 52, .rights_need_read = true,           \
		.level = {                                                                         \
			[1] = GN_EPT_LEVEL_1,                                                      \
			[2] = GN_EPT_LEVEL_2,                                                      \
			[3] = GN_EPT_LEVEL_3,                                                      \
			[4] = GN_EPT_LEVEL_4                                                       \
		}                                                                                  \
	}
#define GN_FMT_EPT_5_INIT                                                                          \
	{                                                                                          \
		.name = "ept-5", .levels = 5, .phys_bits = 52, .rights_need_read = true,           \
		.level = {                                                                         \
			[1] = GN_EPT_LEVEL_1,                                                      \
			[2] = GN_EPT_LEVEL_2,                                                      \
			[3] = GN_EPT_LEVEL_3,                                                      \
			[4] = GN_EPT_LEVEL_4,                                                      \
			[5] = GN_EPT_LEVEL_5                                                       \
		}                                                                                  \
	}

#endif
