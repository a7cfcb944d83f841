/* SPDX-License-Identifier: MIT */
/*
 * rcu.c - read sections of threads that nobody registered: they hold a grace period up, and their ends are no trap for the next one.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include <gnomon/engine.h>

#include "mmu/rcu.h"

enum { THREADS = 256, GENERATIONS = 4, PATIENCE_US = 20000 };

static atomic_bool may_leave, is_inside, is_over;

static void *read_until_told(void *ctx)
{
	(void)ctx;
	gn_read_lock();
	gn_rcu_read_lock();
	gn_rcu_read_unlock();
	atomic_store(&is_inside, gn_rcu_is_reading());
	while (!atomic_load(&may_leave))
		usleep(100);
	gn_read_unlock();
	cr_assert_not(gn_rcu_is_reading());
	return NULL;
}

static void *wait_for_readers(void *ctx)
{
	(void)ctx;
	gn_rcu_synchronize();
	atomic_store(&is_over, true);
	return NULL;
}

static pthread_t start(void *(*function)(void *))
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, function, NULL), 0);
	return thread;
}

Test(rcu, a_grace_period_waits_for_the_outermost_section)
{
	pthread_t reader = start(read_until_told), waiter;

	while (!atomic_load(&is_inside))
		usleep(100);
	waiter = start(wait_for_readers);
	usleep(PATIENCE_US);
	cr_assert_not(atomic_load(&is_over));
	atomic_store(&may_leave, true);
	pthread_join(waiter, NULL);
	cr_assert(atomic_load(&is_over));
	pthread_join(reader, NULL);
}

Test(rcu, who_never_read_is_not_inside)
{
	cr_assert_not(gn_rcu_is_reading());
	gn_rcu_synchronize();
}

static void *read_once(void *ctx)
{
	(void)ctx;
	gn_rcu_read_lock();
	gn_rcu_read_unlock();
	return NULL;
}

/* What a thread leaves behind is memory that the next one is given, or nobody has any more. */
Test(rcu, threads_come_and_go)
{
	pthread_t threads[THREADS];

	for (unsigned generation = 0; generation < GENERATIONS; generation++) {
		for (unsigned i = 0; i < THREADS; i++) {
			threads[i] = start(read_once);
			if (i % 16 == 0)
				gn_rcu_synchronize();
		}
		for (unsigned i = 0; i < THREADS; i++)
			pthread_join(threads[i], NULL);
		gn_rcu_synchronize();
	}
}

static pthread_key_t key;
static atomic_uint destroyed;

static void read_at_the_end(void *value)
{
	(void)value;
	read_once(NULL);
	atomic_fetch_add(&destroyed, 1);
}

static void *read_and_end(void *ctx)
{
	cr_assert_eq(pthread_setspecific(key, &key), 0);
	return read_once(ctx);
}

/* The key is made after the engine's, so its destructor is called after the thread was taken back. */
Test(rcu, a_destructor_may_read)
{
	read_once(NULL);
	cr_assert_eq(pthread_key_create(&key, read_at_the_end), 0);
	pthread_join(start(read_and_end), NULL);
	cr_assert_eq(atomic_load(&destroyed), 1);
	gn_rcu_synchronize();
	pthread_join(start(read_once), NULL);
	gn_rcu_synchronize();
}
