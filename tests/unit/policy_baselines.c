/* SPDX-License-Identifier: MIT */
/*
 * policy_baselines.c - static, MoM and ksmtuned: figures computed by hand from the published rules.
 */
#include <criterion/criterion.h>

#include <math.h>

#include "support/policy_world.h"

static void expect_mib(const struct policy_world *w, size_t index, double want)
{
	double have = (double)w->decisions[index].target_bytes / (double)MIB;

	cr_assert(fabs(have - want) < 0.01, "vm %zu: %.3f, not %.3f", index, have, want);
}

Test(policy_baselines, static_divides_by_shares_and_stays)
{
	struct policy_world w;

	cr_assert_eq(policy_world_init(&w, "static", NULL, 900 * MIB), 0);
	policy_world_add(&w, 1024 * MIB, 300 * MIB, 0)->shares = 2000;
	policy_world_add(&w, 1024 * MIB, 300 * MIB, 300 * MIB);
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	for (int round = 0; round < 20; round++) {
		expect_mib(&w, 0, 600);
		expect_mib(&w, 1, 300);
		w.vms[1].asks_bytes = 500 * MIB;
		w.vms[1].refaults_per_s = 1e6;
		policy_world_obey(&w);
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	}
	policy_world_fini(&w);
}

/* Budget 1000, two VMs of 450: 10 % is free, half of the threshold. Part: 20 % * 0.1 / 0.2 = 10 %.
 * The first uses 200: 200 + 45 = 245 < 450 * 0.95 = 427.5, so the pace decides. The second uses 420:
 * 420 + 45 = 465 > 450: it stays. */
Test(policy_baselines, mom_under_pressure)
{
	struct policy_world w;

	cr_assert_eq(policy_world_init(&w, "mom", NULL, 1000 * MIB), 0);
	policy_world_add(&w, 1024 * MIB, 450 * MIB, 0)->guest_free_bytes = 250 * MIB;
	policy_world_add(&w, 1024 * MIB, 450 * MIB, 0)->guest_free_bytes = 30 * MIB;
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	expect_mib(&w, 0, 427.5);
	expect_mib(&w, 1, 450);
	cr_assert_eq(w.decisions[0].reason, GN_POLICY_HOST_PRESSURE);
	policy_world_obey(&w);
	/* The rules run every ten seconds. */
	for (int round = 0; round < 9; round++) {
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		expect_mib(&w, 0, 427.5);
	}
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	expect_mib(&w, 0, floor(427.5 * 0.95 * 256) / 256);
	policy_world_fini(&w);
}

/* At 3 % free the part is -2 %: 440 - 9.7 = 430.3 of 485. */
Test(policy_baselines, mom_makes_guests_swap_when_it_is_critical)
{
	struct policy_world w;

	cr_assert_eq(policy_world_init(&w, "mom", NULL, 1000 * MIB), 0);
	for (int i = 0; i < 2; i++)
		policy_world_add(&w, 1024 * MIB, 485 * MIB, 0)->guest_free_bytes = 15 * MIB;
	/* Uses 470: 470 - 0.02 * 485 = 460.3; the pace is 460.75. */
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	expect_mib(&w, 0, 460.75);
	policy_world_fini(&w);
}

/* 40 % free: guests grow by 5 %, or at once to what they use and a fifth more. */
Test(policy_baselines, mom_without_pressure)
{
	struct policy_world w;

	cr_assert_eq(policy_world_init(&w, "mom", NULL, 1000 * MIB), 0);
	policy_world_add(&w, 1024 * MIB, 300 * MIB, 0)->guest_free_bytes = 200 * MIB;
	policy_world_add(&w, 1024 * MIB, 300 * MIB, 0)->guest_free_bytes = 0;
	policy_world_add(&w, 1024 * MIB, 64 * MIB, 0); /* tells nothing */
	w.vms[2].actual_bytes = w.vms[2].target_bytes = 64 * MIB;
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	expect_mib(&w, 0, 315);
	expect_mib(&w, 1, 360);
	expect_mib(&w, 2, 64);
	policy_world_fini(&w);
}

/* Threshold 200 of 1000; 100 are free: 300 of 1250 pages at first, 2.4 % of each; then 600: 4.8 %. */
Test(policy_baselines, ksmtuned_gets_more_vigorous)
{
	struct policy_world w;

	cr_assert_eq(policy_world_init(&w, "ksmtuned", NULL, 1000 * MIB), 0);
	policy_world_add(&w, 1024 * MIB, 500 * MIB, 0);
	policy_world_add(&w, 1024 * MIB, 400 * MIB, 0);
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	expect_mib(&w, 0, 488);
	expect_mib(&w, 1, floor(400 * 0.976 * 256) / 256);
	policy_world_obey(&w);
	for (int round = 0; round < 59; round++) {
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		expect_mib(&w, 0, 488);
	}
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	expect_mib(&w, 0, floor(488 * 0.952 * 256) / 256);
	policy_world_fini(&w);
}

/* 500 free: 300 beyond the threshold, of 524 + 1024 - 524 ballooned; in proportion to what each lacks. */
Test(policy_baselines, ksmtuned_gives_back_beyond_the_threshold)
{
	struct policy_world w;

	cr_assert_eq(policy_world_init(&w, "ksmtuned", NULL, 1000 * MIB), 0);
	policy_world_add(&w, 1024 * MIB, 424 * MIB, 0); /* lacks 600 */
	policy_world_add(&w, 400 * MIB, 76 * MIB, 0);	/* lacks 324; part 300 / 924 */
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	expect_mib(&w, 0, floor((424 + 600 * 300.0 / 924) * 256) / 256);
	expect_mib(&w, 1, floor((76 + 324 * 300.0 / 924) * 256) / 256);
	policy_world_fini(&w);
}
