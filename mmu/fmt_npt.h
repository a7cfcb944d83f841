/* SPDX-License-Identifier: MIT */
/*
 * fmt_npt.h - nested page tables of AMD SVM, 4 and 5 levels.
 *
 * Source: AMD APM vol. 2 15.25 (nested paging) and 5.3.3, 5.3.4 (entries). The bits are those of long
 * mode, but the hardware walks as user (15.25.5: every nested access is a user access), so an entry
 * without U grants nothing; builders always grant U. Unlike Intel's, bits 8:7 of the two upper levels
 * must be zero. G and protection keys mean nothing in a nested table. The host runs with NXE on.
 * Addresses are guest-physical and therefore not sign-extended.
 */
#ifndef GN_MMU_FMT_NPT_H
#define GN_MMU_FMT_NPT_H

#include "fmt.h"

#define GN_NPT_P	      ((uint64_t)1 << 0)
#define GN_NPT_W	      ((uint64_t)1 << 1)
#define GN_NPT_U	      ((uint64_t)1 << 2)
#define GN_NPT_A	      ((uint64_t)1 << 5)
#define GN_NPT_D	      ((uint64_t)1 << 6)
#define GN_NPT_PS	      ((uint64_t)1 << 7)
#define GN_NPT_ADDRESS	      ((uint64_t)0x000ffffffffff000)
#define GN_NPT_NX	      ((uint64_t)1 << 63)
#define GN_NPT_RESERVED_2M    ((uint64_t)0x00000000001fe000)
#define GN_NPT_RESERVED_1G    ((uint64_t)0x000000003fffe000)
#define GN_NPT_RESERVED_UPPER ((uint64_t)3 << 7)
#define GN_NPT_SOFTWARE	      (((uint64_t)7 << 9) | ((uint64_t)0x7f << 52))
#define GN_NPT_HARDWARE                                                                            \
	(GN_NPT_P | GN_NPT_W | GN_NPT_U | ((uint64_t)3 << 3) /* PWT, PCD */ | GN_NPT_A |           \
	 GN_NPT_D | GN_NPT_PS | ((uint64_t)1 << 8) | GN_NPT_ADDRESS | ((uint64_t)0xf << 59) |      \
	 GN_NPT_NX)

#define GN_NPT_ANY_ENTRY                                                                           \
	.present = GN_NPT_P, .address = GN_NPT_ADDRESS,                                            \
	.grant = { [GN_RI_R] = GN_NPT_P, [GN_RI_W] = GN_NPT_W, [GN_RI_U] = GN_NPT_U },             \
	.deny = { [GN_RI_X] = GN_NPT_NX }, .accessed = GN_NPT_A, .software = GN_NPT_SOFTWARE

#define GN_NPT_LEVEL_1                                                                             \
	{                                                                                          \
		.shift = 12, GN_NPT_ANY_ENTRY, .leaf_allowed = true, .dirty = GN_NPT_D             \
	}
#define GN_NPT_LEVEL_2                                                                             \
	{                                                                                          \
		.shift = 21, GN_NPT_ANY_ENTRY, .leaf_allowed = true, .dirty = GN_NPT_D,            \
		.leaf = GN_NPT_PS, .reserved_leaf = GN_NPT_RESERVED_2M                             \
	}
#define GN_NPT_LEVEL_3                                                                             \
	{                                                                                          \
		.shift = 30, GN_NPT_ANY_ENTRY, .leaf_allowed = true, .dirty = GN_NPT_D,            \
		.leaf = GN_NPT_PS, .reserved_leaf = GN_NPT_RESERVED_1G                             \
	}
#define GN_NPT_LEVEL_4                                                                             \
	{                                                                                          \
		.shift = 39, GN_NPT_ANY_ENTRY, .reserved_table = GN_NPT_RESERVED_UPPER             \
	}
#define GN_NPT_LEVEL_5                                                                             \
	{                                                                                          \
		.shift = 48, GN_NPT_ANY_ENTRY, .reserved_table = GN_NPT_RESERVED_UPPER             \
	}

#define GN_FMT_NPT_4_INIT                                                                          \
	{                                                                                          \
		.name = "npt-4", .levels = 4, .phys_bits = 52, .level = {                          \
			[1] = GN_NPT_LEVEL_1,                                                      \
			[2] = GN_NPT_LEVEL_2,                                                      \
			[3] = GN_NPT_LEVEL_3,                                                      \
			[4] = GN_NPT_LEVEL_4                                                       \
		}                                                                                  \
	}
#define GN_FMT_NPT_5_INIT                                                                          \
	{                                                                                          \
		.name = "npt-5", .levels = 5, .phys_bits = 52, .level = {                          \
			[1] = GN_NPT_LEVEL_1,                                                      \
			[2] = GN_NPT_LEVEL_2,                                                      \
			[3] = GN_NPT_LEVEL_3,                                                      \
			[4] = GN_NPT_LEVEL_4,                                                      \
			[5] = GN_NPT_LEVEL_5                                                       \
		}                                                                                  \
	}

#endif
