/* SPDX-License-Identifier: MIT */
/*
 * rcu.c - a thread's registration, and the public names of a read section.
 */
#include "rcu.h"

#include <pthread.h>

#include <gnomon/engine.h>

__thread bool gn_rcu_is_registered;
#ifdef GN_TSAN
char gn_rcu_token;
#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t at_end; /* its value is only there for the destructor to be called */

/* A destructor of somebody else's that reads after this one registers the thread anew, and so this is called again. */
static void unregister(void *value)
{
	(void)value;
	urcu_memb_unregister_thread();
	gn_rcu_is_registered = false;
}

/* No keys left, or no memory for its value: as in liburcu itself, which ends the process too. */
static void make_key(void)
{
	GN_BUG_ON(pthread_key_create(&at_end, unregister));
}

void gn_rcu_register(void)
{
	pthread_once(&once, make_key);
	GN_BUG_ON(pthread_setspecific(at_end, &gn_rcu_is_registered));
	urcu_memb_register_thread();
	gn_rcu_is_registered = true;
}

void gn_read_lock(void)
{
	gn_rcu_read_lock();
}

void gn_read_unlock(void)
{
	gn_rcu_read_unlock();
}
