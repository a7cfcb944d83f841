/* SPDX-License-Identifier: MIT */
/*
 * balloond_trust.c - which contradictions between a guest and sampling cost it its word, and for how long.
 */
#include <criterion/criterion.h>

#include "balloon/daemon_trust.h"
#include "balloon/policy.h"

#define S   ((uint64_t)1000000000)
#define MIB ((uint64_t)1 << 20)

static const struct gn_trust_report honest = { .actual_bytes = 100 * MIB,
					       .active_bytes = 60 * MIB,
					       .recent_bytes = 60 * MIB,
					       .free_bytes = 40 * MIB };

/* Hear @r each second of [from, to); the first second in which it is not believed, or @to. */
static uint64_t doubted_at(struct gn_trust *trust, uint64_t from, uint64_t to,
			   const struct gn_trust_report *r)
{
	for (uint64_t s = from; s < to; s++)
		if (!gn_trust_hear(trust, s * S, r))
			return s;
	return to;
}

Test(balloond_trust, who_says_what_sampling_sees_is_believed)
{
	struct gn_trust trust = { 0 };
	struct gn_trust_report asks = honest;

	asks.claims_need = true; /* more than half in use: it may well need more */
	cr_assert_eq(doubted_at(&trust, 1, 200, &honest), 200);
	cr_assert_eq(doubted_at(&trust, 200, 400, &asks), 400);
}

Test(balloond_trust, more_free_than_unused_must_stand_and_is_forgiven)
{
	struct gn_trust trust = { 0 };
	struct gn_trust_report lie = honest;

	lie.free_bytes = 70 * MIB; /* 70 + 60 of 100, a quarter is allowed for */
	cr_assert_eq(doubted_at(&trust, 1, 60, &lie), 12, "after more than ten seconds");
	for (uint64_t s = 13; s <= 42; s++)
		cr_assert_not(gn_trust_hear(&trust, s * S, &honest), "second %d", (int)s);
	cr_assert(gn_trust_hear(&trust, 43 * S, &honest), "forgiven");
}

Test(balloond_trust, a_lie_that_is_taken_back_begins_anew)
{
	struct gn_trust trust = { 0 };
	struct gn_trust_report lie = honest;

	lie.free_bytes = 70 * MIB;
	for (uint64_t s = 1; s < 200; s += 10) {
		cr_assert_eq(doubted_at(&trust, s, s + 9, &lie), s + 9);
		cr_assert(gn_trust_hear(&trust, (s + 9) * S, &honest));
	}
}

/* Memory just unmapped still looks used by the slow average; the fast one counts. */
Test(balloond_trust, the_smaller_average_counts)
{
	struct gn_trust trust = { 0 };
	struct gn_trust_report unmapped = honest;

	unmapped.free_bytes = 90 * MIB;
	unmapped.recent_bytes = 10 * MIB;
	cr_assert_eq(doubted_at(&trust, 1, 60, &unmapped), 60);
	unmapped.recent_bytes = GN_POLICY_UNKNOWN;
	cr_assert_eq(doubted_at(&trust, 60, 120, &unmapped), 71);
}

Test(balloond_trust, asking_idly_counts_from_the_first_ask)
{
	struct gn_trust trust = { 0 };
	struct gn_trust_report idle = honest, asks;

	idle.active_bytes = idle.recent_bytes = 20 * MIB;
	asks = idle;
	asks.claims_need = true;
	cr_assert_eq(doubted_at(&trust, 1, 30, &idle), 30, "idleness alone is no lie");
	cr_assert(gn_trust_hear(&trust, 30 * S, &asks));
	cr_assert_eq(doubted_at(&trust, 31, 60, &idle), 60, "nothing is asked");
	cr_assert_not(gn_trust_hear(&trust, 60 * S, &asks), "again, and it never used it");
}

Test(balloond_trust, an_ask_is_borne_out_by_use)
{
	struct gn_trust trust = { 0 };
	struct gn_trust_report asks = honest;

	asks.active_bytes = asks.recent_bytes = 20 * MIB;
	asks.claims_need = true;
	for (uint64_t s = 1; s < 100; s += 10) {
		cr_assert_eq(doubted_at(&trust, s, s + 9, &asks), s + 9);
		cr_assert(gn_trust_hear(&trust, (s + 9) * S, &honest));
	}
}

Test(balloond_trust, without_sampling_nothing_is_held_against_a_guest)
{
	struct gn_trust trust = { 0 };
	struct gn_trust_report unseen = honest;

	unseen.active_bytes = unseen.recent_bytes = GN_POLICY_UNKNOWN;
	unseen.free_bytes = 100 * MIB;
	unseen.claims_need = true;
	cr_assert_eq(doubted_at(&trust, 1, 100, &unseen), 100);
}
