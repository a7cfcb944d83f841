/* SPDX-License-Identifier: MIT */
/*
 * fmt_fake.h - a format no hardware has, for tests: three levels, and at each level every bit stands
 * elsewhere and some rights are granted where others are denied.
 *
 * Code that knows a bit, a polarity, a number of levels or "the same mask at every level" by heart works
 * with the real formats and fails with this one. Only the address keeps its place (gn_fmt_address() is a
 * mask, not a shift), and the indices theirs (gn_level_shift()).
 */
#ifndef GN_MMU_FMT_FAKE_H
#define GN_MMU_FMT_FAKE_H

#include "fmt.h"

#define GN_FAKE_BIT(n)	((uint64_t)1 << (n))
#define GN_FAKE_ADDRESS ((uint64_t)0x000ffffffffff000)

#define GN_FAKE_SOFTWARE_1 (GN_FAKE_BIT(5) | GN_FAKE_BIT(6) | GN_FAKE_BIT(7))
#define GN_FAKE_SOFTWARE_2 (GN_FAKE_BIT(9) | GN_FAKE_BIT(10) | GN_FAKE_BIT(59) | GN_FAKE_BIT(60))
#define GN_FAKE_SOFTWARE_3 ((uint64_t)7 << 61)

#define GN_FAKE_LEVEL_1                                                                            \
	{                                                                                          \
		.shift = 12, .leaf_allowed = true, .present = GN_FAKE_BIT(60),                     \
		.address = GN_FAKE_ADDRESS,                                                        \
		.grant = { [GN_RI_R] = GN_FAKE_BIT(60), [GN_RI_X] = GN_FAKE_BIT(3) },              \
		.deny = { [GN_RI_W] = GN_FAKE_BIT(61), [GN_RI_U] = GN_FAKE_BIT(4) },               \
		.fixed_leaf = GN_FAKE_BIT(10), .accessed = GN_FAKE_BIT(9),                         \
		.dirty = GN_FAKE_BIT(52), .global = GN_FAKE_BIT(53), .pkey = (uint64_t)0xf << 54,  \
		.reserved_leaf = GN_FAKE_BIT(11), .software = GN_FAKE_SOFTWARE_1                   \
	}
#define GN_FAKE_LEVEL_2                                                                            \
	{                                                                                          \
		.shift = 21, .leaf_allowed = true,                                                 \
		.present = GN_FAKE_BIT(0) | GN_FAKE_BIT(1) | GN_FAKE_BIT(2),                       \
		.leaf = GN_FAKE_BIT(56), .address = GN_FAKE_ADDRESS,                               \
		.grant = { [GN_RI_R] = GN_FAKE_BIT(2),                                             \
			   [GN_RI_W] = GN_FAKE_BIT(0),                                             \
			   [GN_RI_X] = GN_FAKE_BIT(1) },                                           \
		.deny = { [GN_RI_U] = GN_FAKE_BIT(63) }, .fixed = GN_FAKE_BIT(5),                  \
		.fixed_leaf = GN_FAKE_BIT(6), .accessed = GN_FAKE_BIT(57),                         \
		.dirty = GN_FAKE_BIT(58), .global = GN_FAKE_BIT(8), .pkey = (uint64_t)0xf << 52,   \
		.reserved_table = GN_FAKE_BIT(11), .reserved_leaf = (uint64_t)0x1ff000,            \
		.software = GN_FAKE_SOFTWARE_2                                                     \
	}
#define GN_FAKE_LEVEL_3                                                                            \
	{                                                                                          \
		.shift = 30, .leaf_allowed = true, .present = GN_FAKE_BIT(55),                     \
		.leaf = GN_FAKE_BIT(0), .address = GN_FAKE_ADDRESS,                                \
		.grant = { [GN_RI_R] = GN_FAKE_BIT(55),                                            \
			   [GN_RI_W] = GN_FAKE_BIT(54),                                            \
			   [GN_RI_U] = GN_FAKE_BIT(52) },                                          \
		.deny = { [GN_RI_X] = GN_FAKE_BIT(53) }, .fixed = GN_FAKE_BIT(4),                  \
		.fixed_leaf = GN_FAKE_BIT(5), .accessed = GN_FAKE_BIT(1), .dirty = GN_FAKE_BIT(2), \
		.global = GN_FAKE_BIT(3), .pkey = (uint64_t)0xf << 56,                             \
		.reserved_table = GN_FAKE_BIT(6), .reserved_leaf = (uint64_t)0x3ffff000,           \
		.software = GN_FAKE_SOFTWARE_3                                                     \
	}

#define GN_FMT_FAKE_INIT                                                                           \
	{                                                                                          \
		.name = "fake", .levels = 3, .phys_bits = 52, .level = {                           \
			[1] = GN_FAKE_LEVEL_1,                                                     \
			[2] = GN_FAKE_LEVEL_2,                                                     \
			[3] = GN_FAKE_LEVEL_3                                                      \
		}                                                                                  \
	}

#endif
