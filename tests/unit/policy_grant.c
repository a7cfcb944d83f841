/* SPDX-License-Identifier: MIT */
/*
 * policy_grant.c - promises: only what is there, and in which order.
 */
#include <criterion/criterion.h>

#include "balloon/policy_impl.h"
#include "support/policy_world.h"

static void wish(struct policy_world *w, size_t index, uint64_t bytes, enum gn_policy_reason reason)
{
	w->decisions[index] = (struct gn_policy_decision){ .wish_bytes = bytes,
							   .wished_now_bytes = bytes,
							   .reason = reason };
}

static uint64_t target(const struct policy_world *w, size_t index)
{
	return w->decisions[index].target_bytes / MIB;
}

static void grant(struct policy_world *w)
{
	gn_policy_grant(&w->host, w->vms, w->count, w->decisions);
}

static void two_vms(struct policy_world *w, uint64_t budget_mib)
{
	memset(w, 0, sizeof(*w));
	w->host = (struct gn_policy_host){ .budget_bytes = budget_mib * MIB };
	policy_world_add(w, 1024 * MIB, 400 * MIB, 0);
	policy_world_add(w, 1024 * MIB, 400 * MIB, 0);
}

Test(policy_grant, nothing_is_promised_before_it_arrives)
{
	struct policy_world w;

	two_vms(&w, 800);
	wish(&w, 0, 200 * MIB, GN_POLICY_SHARE);
	wish(&w, 1, 600 * MIB, GN_POLICY_ASKED);
	grant(&w);
	cr_assert_eq(target(&w, 0), 200);
	cr_assert_eq(target(&w, 1), 400, "%lu", target(&w, 1));
	cr_assert_eq(w.decisions[1].reason, GN_POLICY_WAITING);

	/* Half of it has arrived. */
	w.vms[0].target_bytes = 200 * MIB;
	w.vms[0].actual_bytes = 300 * MIB;
	wish(&w, 1, 600 * MIB, GN_POLICY_ASKED);
	grant(&w);
	cr_assert_eq(target(&w, 1), 500, "%lu", target(&w, 1));
}

Test(policy_grant, who_asks_comes_before_who_refaults)
{
	struct policy_world w;

	two_vms(&w, 900);
	wish(&w, 0, 500 * MIB, GN_POLICY_REFAULTS);
	wish(&w, 1, 480 * MIB, GN_POLICY_ASKED);
	grant(&w);
	cr_assert_eq(target(&w, 1), 480, "%lu", target(&w, 1));
	cr_assert_eq(target(&w, 0), 420, "%lu", target(&w, 0));
	cr_assert_eq(w.decisions[0].reason, GN_POLICY_WAITING);
}

/* A target lowered before the VM had grown to it: the VM may be growing into it right now. */
Test(policy_grant, a_promise_taken_back_is_not_spent_in_the_same_round)
{
	struct policy_world w;

	two_vms(&w, 900);
	w.vms[0].target_bytes = 500 * MIB;
	wish(&w, 0, 300 * MIB, GN_POLICY_SHARE);
	wish(&w, 1, 600 * MIB, GN_POLICY_SHARE);
	grant(&w);
	cr_assert_eq(target(&w, 0), 300);
	cr_assert_eq(target(&w, 1), 400);
}

Test(policy_grant, reservations_then_the_short_then_the_others)
{
	struct policy_world w;

	two_vms(&w, 1000);
	policy_world_add(&w, 1024 * MIB, 20 * MIB, 0);
	/* 180 MiB in the pool: 44 to the reservation (64), the rest to who asked, nothing to who did not. */
	wish(&w, 0, 500 * MIB, GN_POLICY_SHARE);
	wish(&w, 1, 700 * MIB, GN_POLICY_REFAULTS);
	wish(&w, 2, 64 * MIB, GN_POLICY_SHARE);
	grant(&w);
	cr_assert_eq(target(&w, 2), 64);
	cr_assert_eq(target(&w, 1), 400 + 136, "%lu", target(&w, 1));
	cr_assert_eq(target(&w, 0), 400);
	/* Where the pool is too small for a class, each gets the same part of what it lacks. */
	w.count = 2;
	w.host.budget_bytes = 890 * MIB;
	wish(&w, 0, 460 * MIB, GN_POLICY_SHARE);
	wish(&w, 1, 520 * MIB, GN_POLICY_SHARE);
	grant(&w);
	cr_assert_eq(target(&w, 0), 430);
	cr_assert_eq(target(&w, 1), 460);
}

Test(policy_grant, limits_and_whole_pages)
{
	struct policy_world w;

	two_vms(&w, 4000);
	wish(&w, 0, 1, GN_POLICY_SHARE);
	wish(&w, 1, 4000 * MIB, GN_POLICY_SHARE);
	grant(&w);
	cr_assert_eq(target(&w, 0), 64);
	cr_assert_eq(target(&w, 1), 1024);
	wish(&w, 0, 500 * MIB + 4095, GN_POLICY_SHARE);
	grant(&w);
	cr_assert_eq(w.decisions[0].target_bytes, 500 * MIB);
}

/* The budget was cut below what is handed out: nobody grows, whoever else shrinks. */
Test(policy_grant, over_budget)
{
	struct policy_world w;

	two_vms(&w, 500);
	wish(&w, 0, 100 * MIB, GN_POLICY_OVER_BUDGET);
	wish(&w, 1, 900 * MIB, GN_POLICY_ASKED);
	grant(&w);
	cr_assert_eq(target(&w, 0), 100);
	cr_assert_eq(target(&w, 1), 400);
}

/* A VM was told to shrink and has not yet: a policy that goes by its size must not call it back. */
Test(policy_grant, over_budget_nobody_is_told_to_stop_shrinking)
{
	struct policy_world w;

	two_vms(&w, 700);
	w.vms[0].target_bytes = 250 * MIB;
	wish(&w, 0, 390 * MIB, GN_POLICY_SHARE);
	wish(&w, 1, 400 * MIB, GN_POLICY_STEADY);
	grant(&w);
	cr_assert_eq(target(&w, 0), 250, "%lu", target(&w, 0));
	/* Within the budget it may. */
	w.host.budget_bytes = 800 * MIB;
	grant(&w);
	cr_assert_eq(target(&w, 0), 390);
}
