/* SPDX-License-Identifier: MIT */
/*
 * check.h - broken invariants and log text.
 *
 * GN_BUG_ON is for the engine's own mistakes and is always compiled in; nothing a guest does may reach
 * it. The log goes to the embedder's hook; without one it costs a test of a pointer.
 */
#ifndef GN_MMU_CHECK_H
#define GN_MMU_CHECK_H

#include <gnomon/engine.h>

#define GN_LIKELY(x)   __builtin_expect(!!(x), 1)
#define GN_UNLIKELY(x) __builtin_expect(!!(x), 0)

#define GN_BUG_ON(cond)                                                                            \
	do {                                                                                       \
		if (GN_UNLIKELY(cond))                                                             \
			gn_bug(__FILE__, __LINE__, #cond);                                         \
	} while (0)

__attribute__((noreturn)) void gn_bug(const char *file, int line, const char *what);

__attribute__((format(printf, 2, 3))) void gn_log(enum gn_log_level level, const char *format, ...);

#endif
