/* SPDX-License-Identifier: MIT */
/*
 * policy_esx.c - scenes: idle memory flows, spikes are met at once, claims are weighed, nothing flutters.
 */
#include <criterion/criterion.h>

#include "support/policy_world.h"

/* Four VMs of 1 GiB over 2 GiB, 480 MiB each (the reserve is free), each using 100. */
static void four_calm_vms(struct policy_world *w)
{
	cr_assert_eq(policy_world_init(w, "esx", NULL, 2048 * MIB), 0);
	for (int i = 0; i < 4; i++)
		policy_world_add(w, 1024 * MIB, 480 * MIB, 100 * MIB);
	cr_assert_eq(policy_world_round(w, SECOND_NS), 0);
}

static uint64_t mib(const struct policy_world *w, size_t index)
{
	return w->decisions[index].target_bytes / MIB;
}

Test(policy_esx, equals_stay_as_they_are)
{
	struct policy_world w;

	four_calm_vms(&w);
	for (int round = 0; round < 100; round++) {
		for (size_t i = 0; i < 4; i++) {
			cr_assert_eq(w.decisions[i].reason, GN_POLICY_STEADY);
			cr_assert_eq(mib(&w, i), 480);
		}
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	}
	policy_world_fini(&w);
}

/* One becomes busy: by formula it gets what the others leave idle, at the price of an idle page. */
Test(policy_esx, idle_memory_flows_to_the_busy)
{
	struct policy_world w;
	uint64_t sum = 0;

	four_calm_vms(&w);
	for (int round = 0; round < 300; round++) {
		w.vms[0].active_bytes = w.vms[0].actual_bytes;
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		policy_world_obey(&w);
	}
	/* Total 2048 - 122.88 = 1925.12: P0 = 100 + 4 (P - 100), P0 + 3 P = 1925.12: P = 317.9, P0 = 971.5,
	 * each to within the dead band of 16. */
	cr_assert(mib(&w, 0) >= 955 && mib(&w, 0) <= 988, "%lu", mib(&w, 0));
	for (size_t i = 1; i < 4; i++)
		cr_assert(mib(&w, i) >= 301 && mib(&w, i) <= 334, "%lu", mib(&w, i));
	for (size_t i = 0; i < 4; i++)
		sum += mib(&w, i);
	cr_assert_leq(sum, 2048);
	policy_world_fini(&w);
}

/* 100 MiB are in the pool: they are granted in the round of the ask. The rest is taken from idle memory, at
 * once and without regard to the calm pace, and granted as it arrives. */
Test(policy_esx, a_spike_is_met_at_once)
{
	struct policy_world w;

	four_calm_vms(&w);
	w.vms[0].asks_bytes = 256 * MIB;
	cr_assert_eq(policy_world_round(&w, SECOND_NS / 1000), 0);
	cr_assert_eq(mib(&w, 0), 480 + 128, "%lu", mib(&w, 0));
	cr_assert_eq(w.decisions[0].reason, GN_POLICY_WAITING);
	for (size_t i = 1; i < 4; i++) {
		cr_assert_eq(w.decisions[i].reason, GN_POLICY_FOR_OTHERS);
		cr_assert_leq(mib(&w, i), 480 - 128 / 3);
	}
	/* The others have obeyed. The ask is of the same report as the size: it is the same ask. */
	policy_world_obey(&w);
	w.vms[0].actual_bytes = 480 * MIB;
	cr_assert_eq(policy_world_round(&w, SECOND_NS / 1000), 0);
	cr_assert_eq(mib(&w, 0), 480 + 256, "%lu", mib(&w, 0));
	cr_assert_eq(w.decisions[0].reason, GN_POLICY_ASKED);
	policy_world_fini(&w);
}

Test(policy_esx, what_others_use_is_not_given_to_who_asks)
{
	struct policy_world w;

	four_calm_vms(&w);
	for (size_t i = 1; i < 4; i++)
		w.vms[i].active_bytes = 400 * MIB;
	for (int round = 0; round < 50; round++) {
		w.vms[0].asks_bytes = 1024 * MIB - w.vms[0].actual_bytes;
		cr_assert_eq(policy_world_round(&w, SECOND_NS / 10), 0);
		policy_world_obey(&w);
	}
	for (size_t i = 1; i < 4; i++)
		cr_assert_geq(mib(&w, i), 400, "%lu", mib(&w, i));
	cr_assert_geq(mib(&w, 0), 2048 - 3 * 425 - 1, "%lu", mib(&w, 0));
	policy_world_fini(&w);
}

/* Memory that has been idle for some seconds waits for its owner, but not while another is in need. */
Test(policy_esx, what_was_used_only_earlier_is_given_to_who_asks)
{
	struct policy_world w;

	four_calm_vms(&w);
	for (size_t i = 1; i < 4; i++) {
		w.vms[i].active_bytes = 400 * MIB;
		w.vms[i].recent_bytes = 100 * MIB;
	}
	w.vms[0].asks_bytes = 500 * MIB;
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(policy_world_round(&w, SECOND_NS / 100), 0);
		policy_world_obey(&w);
		w.vms[0].asks_bytes = 980 * MIB - w.vms[0].actual_bytes;
	}
	cr_assert_eq(mib(&w, 0), 980, "%lu", mib(&w, 0));
	policy_world_fini(&w);
}

/* Sampling saw all of it used, and a part has been freed since: that is known, and not doubted as an estimate is. */
Test(policy_esx, what_was_freed_is_given_to_who_asks)
{
	const uint64_t in_use = 400 * MIB, untold = 1024 * MIB / 64;
	struct policy_world w;

	four_calm_vms(&w);
	for (int round = 0; round < 3; round++) {
		w.vms[0].asks_bytes = 1024 * MIB - w.vms[0].actual_bytes;
		for (size_t i = 1; i < 4; i++) {
			w.vms[i].active_bytes = 480 * MIB;
			w.vms[i].guest_free_bytes = w.vms[i].actual_bytes - in_use;
			w.vms[i].guest_available_bytes = w.vms[i].guest_free_bytes;
		}
		cr_assert_eq(policy_world_round(&w, SECOND_NS / 100), 0);
		policy_world_obey(&w);
	}
	for (size_t i = 1; i < 4; i++)
		cr_assert_geq(w.decisions[i].target_bytes, in_use, "%lu", mib(&w, i));
	cr_assert_geq(w.decisions[0].target_bytes, 2048 * MIB - 3 * (in_use + untold + MIB), "%lu",
		      mib(&w, 0));
	policy_world_fini(&w);
}

/* It takes seconds until sampling sees that what was granted is used; until then the next in need must not have it. */
Test(policy_esx, what_was_granted_a_moment_ago_is_not_taken_at_once)
{
	struct policy_world w;
	uint64_t granted;

	four_calm_vms(&w);
	for (size_t i = 2; i < 4; i++)
		w.vms[i].active_bytes = w.vms[i].recent_bytes = 350 * MIB;
	w.vms[0].asks_bytes = 300 * MIB;
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(policy_world_round(&w, SECOND_NS / 100), 0);
		policy_world_obey(&w);
		w.vms[0].asks_bytes =
			w.vms[0].actual_bytes < 780 * MIB ? 780 * MIB - w.vms[0].actual_bytes : 0;
	}
	granted = mib(&w, 0);
	cr_assert_gt(granted, 700);
	w.vms[1].asks_bytes = 300 * MIB;
	cr_assert_eq(policy_world_round(&w, SECOND_NS / 10), 0);
	cr_assert_geq(mib(&w, 0) + 8, granted, "%lu, not %lu", mib(&w, 0), granted); /* it fades */
	policy_world_fini(&w);
}

/* When all are short and what they need does not fit, shares divide. */
/* Needs do not fit: others have evicted what they used. Their refaults do not take back a grant that is under way. */
Test(policy_esx, what_one_who_asks_was_granted_stays_while_others_refault)
{
	struct policy_world w;

	four_calm_vms(&w);
	w.vms[0].asks_bytes = 500 * MIB;
	cr_assert_eq(policy_world_round(&w, SECOND_NS / 1000), 0);
	cr_assert_eq(mib(&w, 0), 480 + 128);
	for (size_t i = 1; i < 4; i++) {
		w.vms[i].target_bytes = 480 * MIB;
		w.vms[i].active_bytes = 480 * MIB;
		w.vms[i].refaults_per_s = 1e4;
	}
	for (int round = 0; round < 200; round++) {
		w.vms[0].actual_bytes = 608 * MIB;
		w.vms[0].asks_bytes = (980 - 608) * MIB;
		cr_assert_eq(policy_world_round(&w, SECOND_NS / 100), 0);
		cr_assert_geq(mib(&w, 0), 608, "%lu in round %d", mib(&w, 0), round);
	}
	/* Later it is to prove itself like all. */
	for (int round = 0; round < 10; round++) {
		w.vms[0].asks_bytes = 980 * MIB - w.vms[0].actual_bytes;
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		policy_world_obey(&w);
	}
	cr_assert_leq(mib(&w, 0), 520, "%lu", mib(&w, 0));
	policy_world_fini(&w);
}

Test(policy_esx, when_all_are_short_shares_divide)
{
	struct policy_world w;

	four_calm_vms(&w);
	w.vms[3].shares = 2000;
	for (int round = 0; round < 100; round++) {
		for (size_t i = 0; i < 4; i++) {
			w.vms[i].active_bytes = w.vms[i].actual_bytes;
			w.vms[i].asks_bytes = 1024 * MIB - w.vms[i].actual_bytes;
		}
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		policy_world_obey(&w);
	}
	for (size_t i = 0; i < 3; i++)
		cr_assert(mib(&w, i) > 400 && mib(&w, i) < 420, "%lu", mib(&w, i)); /* 2048 / 5 */
	cr_assert(mib(&w, 3) > 800 && mib(&w, 3) < 830, "%lu", mib(&w, 3));
	policy_world_fini(&w);
}

Test(policy_esx, refaults_bring_memory_and_stop_bringing_it)
{
	struct policy_world w;
	uint64_t before;

	four_calm_vms(&w);
	w.vms[0].active_bytes = 480 * MIB;
	w.vms[0].refaults_per_s = 2000;
	before = mib(&w, 0);
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	/* At least what the formula gives a busy VM, at once. */
	cr_assert_gt(mib(&w, 0), before + 100);
	cr_assert(w.decisions[0].reason == GN_POLICY_REFAULTS ||
		  w.decisions[0].reason == GN_POLICY_WAITING);
	/* A rate is a second old: ten rounds in this second do not raise the floor ten times. */
	policy_world_obey(&w);
	before = w.decisions[0].wish_bytes;
	for (int round = 0; round < 10; round++)
		cr_assert_eq(policy_world_round(&w, SECOND_NS / 20), 0);
	cr_assert(w.decisions[0].wish_bytes <= before + MIB);
	policy_world_fini(&w);
}

Test(policy_esx, a_proved_need_fades_when_it_is_not_used)
{
	struct policy_world w;

	four_calm_vms(&w);
	for (size_t i = 1; i < 4; i++)
		w.vms[i].active_bytes = 380 * MIB;
	w.vms[0].asks_bytes = 300 * MIB;
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	policy_world_obey(&w);
	w.vms[0].asks_bytes = 0;
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	policy_world_obey(&w);
	cr_assert_geq(mib(&w, 0), 700);
	for (int round = 0; round < 120; round++) {
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		policy_world_obey(&w);
	}
	cr_assert_lt(mib(&w, 0), 600, "%lu", mib(&w, 0));
	policy_world_fini(&w);
}

Test(policy_esx, claims_that_are_not_trusted_prove_nothing)
{
	struct policy_world w;

	four_calm_vms(&w);
	w.vms[0].claims_trusted = false;
	w.vms[0].asks_bytes = 500 * MIB;
	w.vms[0].refaults_per_s = 1e9;
	w.vms[0].guest_available_bytes = 0;
	for (int round = 0; round < 20; round++) {
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		for (size_t i = 0; i < 4; i++)
			cr_assert_eq(mib(&w, i), 480);
	}
	policy_world_fini(&w);
}

/* Idle anonymous memory cannot be freed by the guest: up to its division by shares it is not taxed. */
Test(policy_esx, what_cannot_be_freed_is_not_taxed_within_ones_shares)
{
	struct policy_world w;

	four_calm_vms(&w);
	w.vms[1].guest_available_bytes = 30 * MIB;
	for (int round = 0; round < 300; round++) {
		w.vms[0].active_bytes = w.vms[0].actual_bytes;
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		w.vms[0].actual_bytes = w.vms[0].target_bytes;
		w.vms[2].actual_bytes = w.vms[2].target_bytes;
		w.vms[3].actual_bytes = w.vms[3].target_bytes;
	}
	cr_assert_geq(mib(&w, 1), 450, "%lu", mib(&w, 1));
	cr_assert_lt(mib(&w, 2), 313, "%lu", mib(&w, 2));
	policy_world_fini(&w);
}

Test(policy_esx, a_late_vm_is_counted_at_what_it_has)
{
	struct policy_world w;

	four_calm_vms(&w);
	w.vms[1].actual_bytes = 900 * MIB;
	w.vms[1].target_bytes = 200 * MIB;
	w.vms[1].is_late = true;
	for (size_t i = 2; i < 4; i++)
		w.vms[i].actual_bytes = w.vms[i].target_bytes = 300 * MIB;
	for (int round = 0; round < 60; round++) {
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		cr_assert_eq(mib(&w, 1), 200);
		w.vms[0].actual_bytes = w.vms[0].target_bytes;
		w.vms[2].actual_bytes = w.vms[2].target_bytes;
		w.vms[3].actual_bytes = w.vms[3].target_bytes;
	}
	/* 2048 - 900 for three. */
	cr_assert_leq(mib(&w, 0) + mib(&w, 2) + mib(&w, 3), 1148);
	cr_assert_geq(mib(&w, 2), 300);
	cr_assert_lt(mib(&w, 0), 420);
	policy_world_fini(&w);
}

Test(policy_esx, pressure_of_the_host_shrinks_all_and_passes)
{
	struct policy_world w;
	uint64_t mild, hard;

	four_calm_vms(&w);
	w.host.psi_some = 0.12;
	for (int round = 0; round < 5; round++) {
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		policy_world_obey(&w);
	}
	mild = mib(&w, 0);
	cr_assert_lt(mild, 480);
	policy_world_fini(&w);

	four_calm_vms(&w);
	w.host.psi_some = 0.5;
	w.host.psi_full = 0.2;
	for (int round = 0; round < 5; round++) {
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		policy_world_obey(&w);
	}
	hard = mib(&w, 0);
	cr_assert_lt(hard, mild);
	cr_assert_eq(w.decisions[0].wish_bytes / MIB, hard);
	w.host.psi_some = w.host.psi_full = 0;
	for (int round = 0; round < 400; round++) {
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		policy_world_obey(&w);
	}
	cr_assert_geq(mib(&w, 0), 464);
	policy_world_fini(&w);
}

Test(policy_esx, a_cut_budget_is_met_at_once)
{
	struct policy_world w;

	four_calm_vms(&w);
	w.host.budget_bytes = 1000 * MIB;
	cr_assert_eq(policy_world_round(&w, SECOND_NS / 1000), 0);
	for (size_t i = 0; i < 4; i++) {
		cr_assert_eq(w.decisions[i].reason, GN_POLICY_OVER_BUDGET);
		cr_assert_leq(mib(&w, i), 250);
	}
	policy_world_fini(&w);
}

/* Estimates swing by half around a mean every few seconds; nobody asks. */
Test(policy_esx, a_calm_vm_turns_at_most_twice_a_minute)
{
	struct policy_world w;
	uint64_t turned_at[4][512];
	unsigned turns[4] = { 0 };
	int direction[4] = { 0 };

	four_calm_vms(&w);
	for (int round = 0; round < 600; round++) {
		uint64_t before[4];

		for (size_t i = 0; i < 4; i++) {
			before[i] = w.vms[i].target_bytes;
			w.vms[i].active_bytes =
				((round / 7 + i) % 2 ? 100 + 50 * i : 200 + 100 * i) * MIB;
			if (w.vms[i].active_bytes > w.vms[i].actual_bytes)
				w.vms[i].active_bytes = w.vms[i].actual_bytes;
		}
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		for (size_t i = 0; i < 4; i++) {
			int now = (w.vms[i].target_bytes > before[i]) -
				  (w.vms[i].target_bytes < before[i]);

			if (now && direction[i] == -now)
				turned_at[i][turns[i]++] = w.now_ns;
			direction[i] = now ? now : direction[i];
		}
		policy_world_obey(&w);
	}
	for (size_t i = 0; i < 4; i++)
		for (unsigned t = 2; t < turns[i]; t++)
			cr_assert(turned_at[i][t] - turned_at[i][t - 2] > 60 * SECOND_NS,
				  "vm %zu turn %u", i, t);
	cr_assert_gt(turns[0] + turns[1] + turns[2] + turns[3], 4, "the swing was not felt at all");
	policy_world_fini(&w);
}

/* After a restart nothing is remembered, but the VMs bring what they have and were told: no jump. */
Test(policy_esx, a_new_policy_takes_over_without_a_jump)
{
	struct policy_world w;
	uint64_t before[4];

	four_calm_vms(&w);
	w.vms[0].active_bytes = 480 * MIB;
	for (int round = 0; round < 100; round++) {
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		policy_world_obey(&w);
	}
	for (size_t i = 0; i < 4; i++)
		before[i] = w.vms[i].target_bytes;
	gn_policy_destroy(w.policy);
	cr_assert_eq(gn_policy_create(gn_policy_find("esx"), NULL, &w.policy), 0);
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	for (size_t i = 0; i < 4; i++)
		cr_assert_eq(w.vms[i].target_bytes, before[i]);
	policy_world_fini(&w);
}
