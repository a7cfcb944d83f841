/* SPDX-License-Identifier: MIT */
/*
 * rcu.h - read sections and grace periods: liburcu's memb flavour, with threads that register themselves.
 *
 * An embedder's threads just call us, so a thread's first read section registers it and its end takes it back. liburcu has
 * a flavour that does so by itself, `bp`, but that one *sleeps for 10 ms* wherever a reader is not through after a hundred
 * looks; this one is woken by the reader.
 */
#ifndef GN_MMU_RCU_H
#define GN_MMU_RCU_H

#include <stdbool.h>

#include "check.h"

/* liburcu's functions are inlined, except under sanitizers: UBSan finds the library's own per-thread record less aligned
 * than its type says, and ThreadSanitizer knows nothing of the library's way with memory. So that one is told that what was
 * done in a read section happens before the end of a later grace period. */
#if defined(__SANITIZE_ADDRESS__)
#define GN_RCU_CALLED
#elif defined(__SANITIZE_THREAD__)
#define GN_TSAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GN_RCU_CALLED
#elif __has_feature(thread_sanitizer)
#define GN_TSAN
#endif
#endif
#ifdef GN_TSAN
#include <sanitizer/tsan_interface.h>
#define GN_RCU_CALLED
extern char gn_rcu_token;
#endif
#ifndef GN_RCU_CALLED
#define _LGPL_SOURCE
#endif
#include <urcu/urcu-memb.h>

extern __thread bool gn_rcu_is_registered;
void gn_rcu_register(void);

/* Sections may be nested. */
static inline void gn_rcu_read_lock(void)
{
	if (GN_UNLIKELY(!gn_rcu_is_registered))
		gn_rcu_register();
	urcu_memb_read_lock();
}

static inline void gn_rcu_read_unlock(void)
{
#ifdef GN_TSAN
	__tsan_release(&gn_rcu_token);
#endif
	urcu_memb_read_unlock();
}

/* Is this thread inside a section? */
static inline bool gn_rcu_is_reading(void)
{
	return urcu_memb_read_ongoing();
}

/* Wait until every section that has begun is over. Outside of any. */
static inline void gn_rcu_synchronize(void)
{
	urcu_memb_synchronize_rcu();
#ifdef GN_TSAN
	__tsan_acquire(&gn_rcu_token);
#endif
}

#endif
