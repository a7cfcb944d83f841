/* SPDX-License-Identifier: MIT */
/*
 * hostile_dice.h - the dice that hostile guests are made of, and what falls: addresses, page-table entries, values of
 * registers; most of them near where something breaks. A seed draws the same everywhere.
 *
 * The guest's memory is laid out here, too: the dice aim at it.
 */
#ifndef GN_TESTS_KVM_HOSTILE_DICE_H
#define GN_TESTS_KVM_HOSTILE_DICE_H

#include <stdbool.h>
#include <stdint.h>

#include <gnomon/x86.h>

enum {
	RAM_BYTES = 16 << 20,
	CODE = 0x100000, /* one page, at the same virtual address */
	DATA = 0x200000, /* 2 MiB that small pages map */
	SMALL_VA = 0x40000000,
	TABLES = 0x2000, /* eight pages */
	TABLE_COUNT = 8,
	DESCRIPTORS = 0x10000, /* IDT, GDT, TSS: a page each */
	HANDLER = DESCRIPTORS + 0x3000,
	CHUNKS = 8, /* of code; chunk i at CODE + i * CHUNK_BYTES */
	CHUNK_BYTES = 128,
};
#define MONITOR_VA ((uint64_t)0xfffff00000000000)

static uint64_t rng_state;

static inline uint64_t draw(void)
{
	uint64_t z = rng_state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static inline unsigned below(unsigned n)
{
	return (unsigned)(draw() % n);
}

static inline bool one_in(unsigned n)
{
	return below(n) == 0;
}

static inline uint64_t interesting_address(void)
{
	static const uint64_t some[] = {
		CODE,
		DATA,
		SMALL_VA,
		TABLES,
		DESCRIPTORS,
		MONITOR_VA,
		0,
		0xfee00000,
		(uint64_t)RAM_BYTES - 4,
		RAM_BYTES,
		0x800000000000,
		0xffff800000000000,
		0x7ffffffffff8,
		~(uint64_t)0,
		~(uint64_t)7,
	};
	uint64_t base = some[below(sizeof(some) / sizeof(some[0]))];

	switch (below(4)) {
	case 0:
		return base;
	case 1:
		return base + below(0x8000);
	case 2:
		return base + (uint64_t)below(4096) * 8;
	default:
		return one_in(4) ? draw() : base + below(64) - 32;
	}
}

static inline uint64_t random_entry(void)
{
	uint64_t flags = draw() & 0x1ff, frame;

	if (!one_in(8))
		flags |= X86_PTE_P | X86_PTE_W | X86_PTE_U;
	if (!one_in(3))
		flags &= ~X86_PTE_PS;
	switch (below(6)) {
	case 0: /* a table, or itself */
		frame = TABLES + below(TABLE_COUNT) * 0x1000;
		break;
	case 1:
		frame = draw() & X86_PTE_ADDR;
		break;
	case 2: /* beyond RAM, the local APIC */
		frame = one_in(2) ? RAM_BYTES + below(64) * 0x1000u : 0xfee00000;
		break;
	case 3:
		frame = below(RAM_BYTES >> 21) * ((uint64_t)2 << 20);
		break;
	default:
		frame = below(RAM_BYTES >> 12) * (uint64_t)0x1000;
	}
	return frame | flags | (one_in(6) ? X86_PTE_NX : 0) | (one_in(12) ? draw() : 0);
}

static inline uint64_t interesting_value(void)
{
	static const uint64_t some[] = {
		0,
		1,
		0xc0000080,
		0xc0000082,
		0x1b,
		0x277,
		0xc0000100, /* MSRs */
		0x80050033,
		0x80010001,
		0x11,
		0x6a0,
		0x20,
		0x1000a0,
		0x3006a0,
		0x4006a0,
		0x1020,
		TABLES,
		TABLES + 0x1000,
		CODE,
		0xf4,
		0x5c0,
		0x3f8,
		8,
		0x10,
		0x1b,
		0x23,
		0x33,
		(uint64_t)1 << 63,
	};

	if (one_in(4))
		return one_in(2) ? random_entry() : interesting_address();
	if (one_in(8))
		return draw();
	return some[below(sizeof(some) / sizeof(some[0]))] |
	       (one_in(10) ? (uint64_t)1 << below(64) : 0);
}

#endif
