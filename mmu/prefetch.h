/* SPDX-License-Identifier: MIT */
/*
 * prefetch.h - have the host fetch what will be looked at, for its sake alone.
 */
#ifndef GN_MMU_PREFETCH_H
#define GN_MMU_PREFETCH_H

/* Any address will do. Spelled in assembly because gcc 12 takes a function that does nothing but __builtin_prefetch for
 * one without effects, and drops calls of it. */
static inline void gn_prefetch(const void *p)
{
	__asm__ volatile("prefetcht0 %0" : : "m"(*(const char *)p));
}

#endif
