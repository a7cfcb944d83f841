/* SPDX-License-Identifier: MIT */
/*
 * policy_fill.c - the division against examples computed by hand and against min-funding revocation, page
 * by page, as the ESX paper describes it.
 */
#include <criterion/criterion.h>

#include <math.h>

#include "balloon/policy_impl.h"
#include "support/cases.h"

#define MB 1e6

static void expect_near(double have, double want, double off, const char *what)
{
	cr_assert(fabs(have - want) <= off, "%s: %.3f, not %.3f", what, have, want);
}

/* OSDI'02, figure 7: two VMs of 256 MB and equal shares, one idle, one busy, converge on 179 MB each without a
 * tax. With a tax of 75 % and 64 MB active in the idle one: P2 = 64 + 4 (P1 - 64) and P1 + P2 = 358. */
Test(policy_fill, idle_tax_of_the_esx_paper)
{
	struct gn_policy_claim c[2] = {
		{ .shares = 1000, .active = 64 * MB, .least = 0, .most = 256 * MB },
		{ .shares = 1000, .active = 256 * MB, .least = 0, .most = 256 * MB },
	};

	gn_policy_fill(c, 2, 1, 358 * MB);
	expect_near(c[0].gets, 179 * MB, 1, "no tax, idle");
	expect_near(c[1].gets, 179 * MB, 1, "no tax, busy");
	gn_policy_fill(c, 2, 4, 358 * MB);
	expect_near(c[0].gets, 110 * MB, 1, "taxed, idle");
	expect_near(c[1].gets, 248 * MB, 1, "taxed, busy");
}

/* The same, busy VM at its maximum: the idle one keeps what nobody can use. */
Test(policy_fill, what_nobody_can_take_stays)
{
	struct gn_policy_claim c[2] = {
		{ .shares = 1000, .active = 10 * MB, .least = 0, .most = 256 * MB },
		{ .shares = 1000, .active = 256 * MB, .least = 0, .most = 256 * MB },
	};

	/* P2 = 10 + 4 (P1 - 10), P1 + P2 = 358: P1 = 77.6, P2 = 280.4: at its most, 256. */
	gn_policy_fill(c, 2, 4, 358 * MB);
	expect_near(c[0].gets, 102 * MB, 1, "idle");
	expect_near(c[1].gets, 256 * MB, 1, "busy");
}

/* A client with twice the shares may have twice the pages, when both use what they have. */
Test(policy_fill, shares)
{
	struct gn_policy_claim c[3] = {
		{ .shares = 2000, .active = 900 * MB, .least = 0, .most = 900 * MB },
		{ .shares = 1000, .active = 900 * MB, .least = 0, .most = 900 * MB },
		{ .shares = 1000, .active = 900 * MB, .least = 200 * MB, .most = 900 * MB },
	};

	gn_policy_fill(c, 2, 4, 600 * MB);
	expect_near(c[0].gets, 400 * MB, 1, "2000 shares");
	expect_near(c[1].gets, 200 * MB, 1, "1000 shares");
	/* The third one's reservation is out of the division: 400 for 2:1. */
	gn_policy_fill(c, 3, 4, 600 * MB);
	expect_near(c[0].gets, 400 * MB * 2 / 3, 1, "2000 shares beside a reservation");
	expect_near(c[1].gets, 400 * MB / 3, 1, "1000 shares beside a reservation");
	expect_near(c[2].gets, 200 * MB, 1, "the reservation");
}

Test(policy_fill, reservations_stand_when_there_is_too_little)
{
	struct gn_policy_claim c[2] = {
		{ .shares = 1, .active = 0, .least = 300 * MB, .most = 400 * MB },
		{ .shares = 1, .active = 0, .least = 300 * MB, .most = 400 * MB },
	};

	gn_policy_fill(c, 2, 4, 500 * MB);
	expect_near(c[0].gets, 300 * MB, 0, "least");
	expect_near(c[1].gets, 300 * MB, 0, "least");
	gn_policy_fill(c, 2, 4, 5000 * MB);
	expect_near(c[0].gets, 400 * MB, 0, "most");
	gn_policy_fill(c, 0, 4, 500 * MB);
}

static double rho(const struct gn_policy_claim *c, double pages, double k)
{
	double f = pages > c->active ? c->active / pages : 1;

	return c->shares / (pages * (f + k * (1 - f)));
}

/* Section 5.2 of the paper: the victim is the client with the lowest adjusted ratio, page after page. */
static void revoke(const struct gn_policy_claim *c, size_t count, double k, double total,
		   double *pages)
{
	double sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += pages[i] = c[i].most;
	while (sum > total) {
		size_t victim = count;

		for (size_t i = 0; i < count; i++)
			if (pages[i] > c[i].least &&
			    (victim == count ||
			     rho(&c[i], pages[i], k) < rho(&c[victim], pages[victim], k)))
				victim = i;
		if (victim == count)
			return;
		pages[victim]--;
		sum--;
	}
}

Test(policy_fill, is_the_fixpoint_of_min_funding_revocation)
{
	struct test_random random = test_random_seed(5);

	for (int round = 0; round < 2000; round++) {
		struct gn_policy_claim c[6];
		double pages[6], k = 1.0 / (1 - (double)test_random_below(&random, 99) / 100),
				 total;
		size_t count = 1 + test_random_below(&random, 6);
		double most = 0;

		for (size_t i = 0; i < count; i++) {
			c[i].shares = 1 + (double)test_random_below(&random, 3000);
			c[i].least = 1 + (double)test_random_below(&random, 100);
			c[i].most = c[i].least + (double)test_random_below(&random, 400);
			c[i].active = (double)test_random_below(&random, 500);
			most += c[i].most;
		}
		total = (double)test_random_below(&random, 1 + (uint64_t)most);
		revoke(c, count, k, total, pages);
		gn_policy_fill(c, count, k, total);
		/* Page-wise the last revocations may fall on a neighbour: a page a claim. */
		for (size_t i = 0; i < count; i++)
			cr_assert(fabs(c[i].gets - pages[i]) <= 1 + (double)count,
				  "round %d claim %zu of %zu: %.2f, page-wise %.0f", round, i,
				  count, c[i].gets, pages[i]);
	}
}
