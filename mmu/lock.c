/* SPDX-License-Identifier: MIT */
/*
 * lock.c - mutexes whose order is checked.
 *
 * A deadlock needs two threads that take two locks in opposite order; if every thread takes them in
 * rising rank there is none. Debug builds keep, per thread, the stack of locks held and refuse a lock
 * whose rank is not above the top of it. The check costs a thread-local access, so release builds leave
 * it out; the mutex is the adaptive one, since what we hold them for is mostly shorter than a sleep.
 *
 * A mutex is not fair: who lets go of it and takes it again at once has it again before a thread that slept is awake. Work that is
 * done in batches so that others need not wait for all of it has to give way between them, and for that those who wait are
 * counted.
 *
 * Deliberately absent: reader-writer locks (readers use RCU), try-lock, recursion, two locks of one rank.
 */
#include "lock.h"

#include <time.h>

#include "check.h"

#define GIVE_WAY_NS    20000 /* a look at who waits, and the next one */
#define GIVE_WAY_LOOKS 100

#ifdef GN_DEBUG

#define HELD_MAX 8

static _Thread_local const struct gn_lock *held[HELD_MAX];
static _Thread_local unsigned held_count;

static void held_push(const struct gn_lock *lock)
{
	GN_BUG_ON(held_count == HELD_MAX);
	GN_BUG_ON(held_count && held[held_count - 1]->rank >= lock->rank);
	held[held_count++] = lock;
}

/* Locks may be released out of order: remove wherever it stands. */
static void held_drop(const struct gn_lock *lock)
{
	unsigned i = held_count;

	while (i && held[i - 1] != lock)
		i--;
	GN_BUG_ON(!i);
	for (; i < held_count; i++)
		held[i - 1] = held[i];
	held_count--;
}

static bool is_held(const struct gn_lock *lock)
{
	for (unsigned i = 0; i < held_count; i++)
		if (held[i] == lock)
			return true;
	return false;
}

#endif

void gn_lock_init(struct gn_lock *lock, enum gn_lock_rank rank)
{
	pthread_mutexattr_t attr;

	lock->rank = rank;
	lock->waiting = 0;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
	GN_BUG_ON(pthread_mutex_init(&lock->mutex, &attr));
	pthread_mutexattr_destroy(&attr);
}

void gn_lock_fini(struct gn_lock *lock)
{
	GN_BUG_ON(pthread_mutex_destroy(&lock->mutex));
}

void gn_lock(struct gn_lock *lock)
{
#ifdef GN_DEBUG
	held_push(lock); /* before we may block: a wrong order is reported, not waited for */
#endif
	if (!pthread_mutex_trylock(&lock->mutex))
		return;
	__atomic_fetch_add(&lock->waiting, 1, __ATOMIC_RELAXED);
	GN_BUG_ON(pthread_mutex_lock(&lock->mutex));
	__atomic_fetch_sub(&lock->waiting, 1, __ATOMIC_RELAXED);
}

void gn_lock_give_way(const struct gn_lock *lock)
{
	const struct timespec pause = { .tv_nsec = GIVE_WAY_NS };

	for (unsigned i = 0; i < GIVE_WAY_LOOKS; i++) {
		if (!__atomic_load_n(&lock->waiting, __ATOMIC_RELAXED))
			return;
		nanosleep(&pause, NULL);
	}
}

void gn_unlock(struct gn_lock *lock)
{
#ifdef GN_DEBUG
	held_drop(lock);
#endif
	GN_BUG_ON(pthread_mutex_unlock(&lock->mutex));
}

void gn_lock_assert_held(const struct gn_lock *lock)
{
#ifdef GN_DEBUG
	GN_BUG_ON(!is_held(lock));
#else
	(void)lock;
#endif
}
