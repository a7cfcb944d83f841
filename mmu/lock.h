/* SPDX-License-Identifier: MIT */
/*
 * lock.h - mutexes with a rank. A thread takes locks in rising rank; debug builds (GN_DEBUG) check it.
 */
#ifndef GN_MMU_LOCK_H
#define GN_MMU_LOCK_H

#include <pthread.h>

/* Outermost first. */
enum gn_lock_rank {
	GN_RANK_VM =
		1, /* operations from outside the vCPUs: range changes, scheme switch, dirty log */
	GN_RANK_P2M,	/* writers of the p2m */
	GN_RANK_DRAIN,	/* one drain of retired frames at a time */
	GN_RANK_SCHEME, /* a scheme's tables */
	GN_RANK_GIVE,	/* one who gives many frames back to the host at a time */
	GN_RANK_FRAMES, /* the host frame pool */
	GN_RANK_RETIRE, /* frames waiting for a grace period */
};

struct gn_lock {
	pthread_mutex_t mutex;
	enum gn_lock_rank rank;
	unsigned waiting; /* (a) threads that found it taken */
};

void gn_lock_init(struct gn_lock *lock, enum gn_lock_rank rank);
void gn_lock_fini(struct gn_lock *lock);
void gn_lock(struct gn_lock *lock);
void gn_unlock(struct gn_lock *lock);
/* For who takes the lock again and again, between two times: those who wait for it get it first, some milliseconds long. */
void gn_lock_give_way(const struct gn_lock *lock);
void gn_lock_assert_held(const struct gn_lock *lock); /* debug builds; nothing otherwise */

#endif
