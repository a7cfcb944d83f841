/* SPDX-License-Identifier: MIT */
/*
 * lock.c - ranks: rising order passes, everything else is reported in debug builds.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdatomic.h>

#include "mmu/lock.h"

static struct gn_lock vm, p2m, frames;

static void set_up(void)
{
	gn_lock_init(&vm, GN_RANK_VM);
	gn_lock_init(&p2m, GN_RANK_P2M);
	gn_lock_init(&frames, GN_RANK_FRAMES);
}

static void tear_down(void)
{
	gn_lock_fini(&vm);
	gn_lock_fini(&p2m);
	gn_lock_fini(&frames);
}

TestSuite(lock, .init = set_up, .fini = tear_down);

Test(lock, rising_order_in_any_subset)
{
	for (unsigned set = 0; set < 8; set++) {
		struct gn_lock *all[] = { &vm, &p2m, &frames };

		for (unsigned i = 0; i < 3; i++)
			if (set >> i & 1)
				gn_lock(all[i]);
		for (unsigned i = 0; i < 3; i++)
			if (set >> i & 1)
				gn_lock_assert_held(all[i]);
		/* Release out of order. */
		for (unsigned i = 0; i < 3; i++)
			if (set >> i & 1)
				gn_unlock(all[i]);
	}
}

Test(lock, excludes)
{
	gn_lock(&p2m);
	cr_assert_neq(pthread_mutex_trylock(&p2m.mutex), 0);
	gn_unlock(&p2m);
	cr_assert_eq(pthread_mutex_trylock(&p2m.mutex), 0);
	pthread_mutex_unlock(&p2m.mutex);
}

static atomic_uint turns;

static void *take_turn(void *ctx)
{
	gn_lock(ctx);
	atomic_fetch_add(&turns, 1);
	gn_unlock(ctx);
	return NULL;
}

/* Who has had it, let go and given way finds that the other one has had it too. */
Test(lock, gives_way_to_who_waits)
{
	for (unsigned i = 0; i < 100; i++) {
		pthread_t thread;

		gn_lock(&p2m);
		cr_assert_eq(pthread_create(&thread, NULL, take_turn, &p2m), 0);
		while (!__atomic_load_n(&p2m.waiting, __ATOMIC_RELAXED))
			;
		gn_unlock(&p2m);
		gn_lock_give_way(&p2m);
		cr_assert_eq(p2m.waiting, 0);
		gn_lock(&p2m);
		cr_assert_eq(atomic_load(&turns), i + 1);
		gn_unlock(&p2m);
		pthread_join(thread, NULL);
	}
}

#ifdef GN_DEBUG
Test(lock, falling_order_is_a_bug, .signal = SIGABRT)
{
	gn_lock(&frames);
	gn_lock(&p2m);
}

Test(lock, twice_is_a_bug, .signal = SIGABRT)
{
	gn_lock(&p2m);
	gn_lock(&p2m);
}

Test(lock, rank_counts_after_release_out_of_order, .signal = SIGABRT)
{
	gn_lock(&vm);
	gn_lock(&frames);
	gn_unlock(&vm);
	gn_lock(&p2m);
}

Test(lock, assert_held_notices, .signal = SIGABRT)
{
	gn_lock(&vm);
	gn_lock_assert_held(&p2m);
}

Test(lock, release_of_what_is_not_held_is_a_bug, .signal = SIGABRT)
{
	gn_lock(&vm);
	gn_unlock(&p2m);
}
#endif
