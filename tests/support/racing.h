/* SPDX-License-Identifier: MIT */
/*
 * racing.h - what threads of a stress test share: failures, counted by all and told by the first few, and a random number
 * of each thread's own (xorshift64, Marsaglia 2003; @x is never 0).
 */
#ifndef GN_TESTS_RACING_H
#define GN_TESTS_RACING_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#define RACING_TOLD 10

static atomic_ulong failures;

__attribute__((format(printf, 1, 2))) static inline void fail(const char *format, ...)
{
	va_list args;

	if (atomic_fetch_add(&failures, 1) >= RACING_TOLD)
		return;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

static inline uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

#endif
