/* SPDX-License-Identifier: MIT */
/*
 * fmt_x86.h - page-table entries of x86-64 long mode, 4 and 5 levels.
 *
 * Source: Intel SDM vol. 3A 4.5, tables 4-14 to 4-20 (one per level and kind of entry); 4.6.2 and
 * table 4-20 for the protection key. Where Intel and AMD differ (bit 8 of a PML4E must be zero on AMD,
 * is ignored on Intel) this is Intel.
 *
 * What depends on a guest's registers is not of the format: NX is reserved while EFER.NXE is 0 and
 * physical addresses are narrower than 52 bits; see gn_paging_is_reserved().
 *
 * The initialisers are macros, so that a walk can keep a `static const` copy that folds into its code.
 */
#ifndef GN_MMU_FMT_X86_H
#define GN_MMU_FMT_X86_H

#include "fmt.h"

#define GN_X86_P	   ((uint64_t)1 << 0)
#define GN_X86_W	   ((uint64_t)1 << 1)
#define GN_X86_U	   ((uint64_t)1 << 2)
#define GN_X86_A	   ((uint64_t)1 << 5)
#define GN_X86_D	   ((uint64_t)1 << 6)
#define GN_X86_PS	   ((uint64_t)1 << 7) /* levels 2 and 3; at level 1 the bit is PAT */
#define GN_X86_G	   ((uint64_t)1 << 8)
#define GN_X86_ADDRESS	   ((uint64_t)0x000ffffffffff000)
#define GN_X86_PKEY	   ((uint64_t)0xf << 59)
#define GN_X86_NX	   ((uint64_t)1 << 63)
#define GN_X86_RESERVED_2M ((uint64_t)0x00000000001fe000) /* 20:13; bit 12 is PAT */
#define GN_X86_RESERVED_1G ((uint64_t)0x000000003fffe000) /* 29:13 */
#define GN_X86_SOFTWARE	   (((uint64_t)7 << 9) | ((uint64_t)0x7f << 52))
#define GN_X86_HARDWARE                                                                            \
	(GN_X86_P | GN_X86_W | GN_X86_U | ((uint64_t)3 << 3) /* PWT, PCD */ | GN_X86_A |           \
	 GN_X86_D | GN_X86_PS | GN_X86_G | GN_X86_ADDRESS | GN_X86_PKEY | GN_X86_NX)

/* What a table pointer and a leaf have in common. */
#define GN_X86_ANY_ENTRY                                                                           \
	.present = GN_X86_P, .address = GN_X86_ADDRESS,                                            \
	.grant = { [GN_RI_R] = GN_X86_P, [GN_RI_W] = GN_X86_W, [GN_RI_U] = GN_X86_U },             \
	.deny = { [GN_RI_X] = GN_X86_NX }, .accessed = GN_X86_A, .software = GN_X86_SOFTWARE
#define GN_X86_MAY_BE_LEAF                                                                         \
	.leaf_allowed = true, .dirty = GN_X86_D, .global = GN_X86_G, .pkey = GN_X86_PKEY

/* Level 1: PTE. 2: PDE, 2 MiB page. 3: PDPTE, 1 GiB page. 4, 5: PML4E, PML5E, where PS is reserved. */
#define GN_X86_LEVEL_1                                                                             \
	{                                                                                          \
		.shift = 12, GN_X86_ANY_ENTRY, GN_X86_MAY_BE_LEAF                                  \
	}
#define GN_X86_LEVEL_2                                                                             \
	{                                                                                          \
		.shift = 21, GN_X86_ANY_ENTRY, GN_X86_MAY_BE_LEAF, .leaf = GN_X86_PS,              \
		.reserved_leaf = GN_X86_RESERVED_2M                                                \
	}
#define GN_X86_LEVEL_3                                                                             \
	{                                                                                          \
		.shift = 30, GN_X86_ANY_ENTRY, GN_X86_MAY_BE_LEAF, .leaf = GN_X86_PS,              \
		.reserved_leaf = GN_X86_RESERVED_1G                                                \
	}
#define GN_X86_LEVEL_4                                                                             \
	{                                                                                          \
		.shift = 39, GN_X86_ANY_ENTRY, .reserved_table = GN_X86_PS                         \
	}
#define GN_X86_LEVEL_5                                                                             \
	{                                                                                          \
		.shift = 48, GN_X86_ANY_ENTRY, .reserved_table = GN_X86_PS                         \
	}

/* The rights bits stand at one place at every level, so a walk can AND whole entries, NX turned into
 * "may execute" by GN_X86_FLIP, and decode rights from the result: rotated by one, the four bits are
 * neighbours (X, P, W, U from the lowest). */
#define GN_X86_FLIP GN_X86_NX
static inline gn_rights_t gn_x86_rights(uint64_t granted)
{
	static const gn_rights_t rights[16] = { 0,
						GN_X,
						GN_R,
						GN_R | GN_X,
						GN_W,
						GN_W | GN_X,
						GN_W | GN_R,
						GN_RWX,
						GN_U,
						GN_U | GN_X,
						GN_U | GN_R,
						GN_U | GN_R | GN_X,
						GN_U | GN_W,
						GN_U | GN_W | GN_X,
						GN_U | GN_W | GN_R,
						GN_RWXU };

	return rights[(granted << 1 | granted >> 63) & 15];
}

#define GN_FMT_X86_4_INIT                                                                          \
	{                                                                                          \
		.name = "x86-4", .levels = 4, .phys_bits = 52, .sign_extended = true, .level = {   \
			[1] = GN_X86_LEVEL_1,                                                      \
			[2] = GN_X86_LEVEL_2,                                                      \
			[3] = GN_X86_LEVEL_3,                                                      \
			[4] = GN_X86_LEVEL_4                                                       \
		}                                                                                  \
	}
#define GN_FMT_X86_5_INIT                                                                          \
	{                                                                                          \
		.name = "x86-5", .levels = 5, .phys_bits = 52, .sign_extended = true, .level = {   \
			[1] = GN_X86_LEVEL_1,                                                      \
			[2] = GN_X86_LEVEL_2,                                                      \
			[3] = GN_X86_LEVEL_3,                                                      \
			[4] = GN_X86_LEVEL_4,                                                      \
			[5] = GN_X86_LEVEL_5                                                       \
		}                                                                                  \
	}

#endif
