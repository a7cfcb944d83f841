/* SPDX-License-Identifier: MIT */
/*
 * image_word.c - what is in an executable: a formula that its kernel fills pages by and its user checks them by.
 */
#include "kernel.h"

#define RET_OPCODE 0xc3u

uint64_t kernel_image_word(uint64_t seed, uint64_t page, unsigned line)
{
	uint64_t x = seed ^ (page << 8 | line) * (uint64_t)0x9e3779b97f4a7c15;

	x = (x ^ x >> 32) * (uint64_t)0xd6e8feb86659fd93;
	x ^= x >> 32;
	return (x & ~(uint64_t)0xff) | RET_OPCODE;
}
