/* SPDX-License-Identifier: MIT */
/*
 * overcommit.c - the parts of `gnomon overcommit`: working sets fit, the modelled guest keeps its books, quantiles and
 * turns are counted as they are told.
 */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/overcommit_guest.h"

#define MIB ((uint64_t)1 << 20)

static struct overcommit_setup setup_of(unsigned vms, double overcommit, uint64_t seed)
{
	struct overcommit_setup setup = { .vms = vms,
					  .mem_bytes = 1024 * MIB,
					  .overcommit = overcommit,
					  .phases_s = 40.0 * vms,
					  .rest_s = 60,
					  .seed = seed };

	gn_policy_config_init(&setup.policy);
	overcommit_setup_demand(&setup);
	return setup;
}

Test(overcommit, working_sets_fit_but_no_turn_fits_into_an_equal_part)
{
	for (unsigned vms = 2; vms <= 16; vms++)
		for (unsigned n = 0; n < 60; n++) {
			struct overcommit_setup setup = setup_of(vms, 1.25 + 0.25 * (n % 8), n);
			double kernels = vms * (double)setup.mem_bytes / 32;

			for (double t_s = 0.5; t_s < setup.phases_s + 10; t_s += 7) {
				double sum = kernels;
				unsigned turns = 0;

				for (unsigned i = 0; i < vms; i++) {
					bool is_high;

					sum += (double)overcommit_demand_at(&setup.demand[i], t_s,
									    &is_high);
					turns += is_high;
				}
				cr_assert(sum <= (double)setup.budget_bytes,
					  "%u VMs, %.2fx, at %.1f s: %.2f", vms, setup.overcommit,
					  t_s, sum / (double)setup.budget_bytes);
				cr_assert_eq(turns, t_s < setup.phases_s);
			}
			for (unsigned i = 0; i < vms && setup.overcommit >= 2; i++)
				cr_assert_gt(setup.demand[i].high_bytes + setup.mem_bytes / 32,
					     setup.budget_bytes / vms);
		}
}

Test(overcommit, the_modelled_guest_keeps_its_books)
{
	struct overcommit_setup setup = setup_of(2, 2, 3);
	struct overcommit_guest guest;
	double refaults = 0, work = 0;

	overcommit_guest_init(&guest, &setup.demand[0], 1024.0 * MIB, 700.0 * MIB);
	for (unsigned step = 0; step < 60000; step++) {
		/* A target that wanders from a quarter to all. */
		guest.target = (256 + step / 7 % 768) * (double)MIB;
		overcommit_guest_step(&guest, step * 1e-3, 1e-3);
		cr_assert(guest.anonymous >= 0 && guest.resident >= -1 && guest.stale >= -1);
		cr_assert(guest.kernel + guest.anonymous + guest.resident + guest.stale <=
				  guest.actual + 1,
			  "step %u: more used than there is", step);
		cr_assert(guest.refaults >= refaults && guest.work >= work &&
			  guest.work <= work + 1.001e-3);
		refaults = guest.refaults;
		work = guest.work;
	}
	cr_assert_gt(refaults, 1000);
}

/* With all of its memory nothing is read but the first time, and work goes at full speed after. */
Test(overcommit, a_guest_with_all_its_memory_is_fast)
{
	struct overcommit_setup setup = setup_of(2, 2, 3);
	struct overcommit_guest guest;
	double before;

	overcommit_guest_init(&guest, &setup.demand[0], 1024.0 * MIB, 1024.0 * MIB);
	for (unsigned step = 0; step < 18000; step++)
		overcommit_guest_step(&guest, step * 1e-3, 1e-3);
	before = guest.work;
	for (unsigned step = 18000; step < 19000; step++)
		overcommit_guest_step(&guest, step * 1e-3, 1e-3);
	cr_assert(fabs(guest.work - before - 1) < 0.01, "%.3f", guest.work - before);
	cr_assert_eq(guest.oom_kills, 0);
}

/* Anonymous memory that cannot be had stops the guest, and after a while somebody dies. */
Test(overcommit, a_guest_without_memory_kills)
{
	struct overcommit_setup setup = setup_of(2, 2, 3);
	struct overcommit_guest guest;
	uint64_t anonymous = setup.demand[1].high_bytes / 2;

	overcommit_guest_init(&guest, &setup.demand[1], 1024.0 * MIB,
			      (double)anonymous + 31.0 * MIB); /* the kernel has 32 */
	for (unsigned step = 0; step < 30000; step++)
		overcommit_guest_step(&guest, step * 1e-3, 1e-3);
	cr_assert_eq(guest.oom_kills, 1);
}

Test(overcommit, waits_of_unmet_asks_are_for_ever)
{
	struct overcommit_results *r = calloc(1, sizeof(*r));
	struct overcommit_run *run = &r->runs[0];

	r->run_count = 1;
	cr_assert(isnan(overcommit_wait_ms(run, 0.5)));
	for (unsigned i = 100; i > 0; i--)
		cr_assert_eq(overcommit_add_wait(run, i), 0);
	cr_assert(fabs(overcommit_wait_ms(run, 0.5) - 50) < 1e-9);
	cr_assert(fabs(overcommit_wait_ms(run, 0.99) - 99) < 1e-9);
	cr_assert(fabs(overcommit_wait_ms(run, 1) - 100) < 1e-9);
	run->asks_unmet = 2;
	cr_assert(isinf(overcommit_wait_ms(run, 0.99)));
	cr_assert(fabs(overcommit_wait_ms(run, 0.5) - 51) < 1e-9);
	overcommit_results_fini(r);
	free(r);
}

Test(overcommit, turns_within_a_minute)
{
	static const struct {
		double t_s;
		uint64_t target;
	} moves[] = { { 1, 5 }, { 2, 9 }, { 10, 7 }, { 50, 8 }, { 69, 3 }, { 71, 4 }, { 200, 3 } };
	struct overcommit_turns turns = { 0 };
	uint64_t target = 1;

	for (size_t i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
		overcommit_turns_note(&turns, moves[i].t_s, target, moves[i].target,
				      moves[i].t_s > 5);
		target = moves[i].target;
	}
	/* Turns at 10, 50, 69, 71, 200: 10 to 69 is a minute, 50 to 71 too. */
	cr_assert_eq(turns.count, 5);
	cr_assert(fabs(overcommit_turns_most(&turns) - 3) < 1e-9);
}

/* Of two equal VMs the oracle makes no difference; one that needs more gets more. */
Test(overcommit, the_oracle_knows_who_needs_more)
{
	struct overcommit_setup setup = setup_of(2, 2, 1);
	uint32_t shares[2];

	setup.demand[1] = setup.demand[0];
	cr_assert_eq(overcommit_model_oracle(&setup, shares), 0);
	cr_assert(fabs((double)shares[0] / shares[1] - 1) < 0.01);
	setup.demand[1].high_bytes = setup.demand[1].high_bytes * 5 / 4;
	cr_assert_eq(overcommit_model_oracle(&setup, shares), 0);
	cr_assert_gt(shares[1], shares[0] * 1.05);
}
