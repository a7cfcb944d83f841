/* SPDX-License-Identifier: MIT */
/*
 * access.h - cpu.h's loads and stores as real ones. cpu.h includes this when the guest is freestanding.
 *
 * Volatile, so each is executed once and in order, and inline: where the kernel's code runs in an emulator, a
 * call and a return would be most of an access.
 */
#ifndef GN_WORKLOADS_GUEST_ACCESS_H
#define GN_WORKLOADS_GUEST_ACCESS_H

#include <stdint.h>

static inline uint64_t cpu_load64(uint64_t va)
{
	return *(const volatile uint64_t *)va;
}

static inline uint32_t cpu_load32(uint64_t va)
{
	return *(const volatile uint32_t *)va;
}

static inline uint8_t cpu_load8(uint64_t va)
{
	return *(const volatile uint8_t *)va;
}

static inline void cpu_store64(uint64_t va, uint64_t value)
{
	*(volatile uint64_t *)va = value;
}

static inline void cpu_store32(uint64_t va, uint32_t value)
{
	*(volatile uint32_t *)va = value;
}

static inline void cpu_store8(uint64_t va, uint8_t value)
{
	*(volatile uint8_t *)va = value;
}

#endif
