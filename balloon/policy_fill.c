/* SPDX-License-Identifier: MIT */
/*
 * policy_fill.c - the fixpoint of min-funding revocation, found directly.
 *
 * Min-funding revocation (ESX, OSDI'02, section 5) takes page after page from the client with the lowest
 * adjusted ratio
 *
 *	rho = S / (P * (f + k * (1 - f)))		k = 1 / (1 - tau)
 *
 * until the ratios are equal or a client is at its minimum. With A = f * P active bytes the denominator is
 * the *price* of P:
 *
 *	price(P) = P			for P <= A	(all of it active)
 *		 = A + k * (P - A)	beyond		(an idle page costs k)
 *
 * so equal ratios mean price_i(P_i) = S_i * level for one level common to all. Each P_i rises with the level,
 * so does their sum, and the level at which the sum is what there is to divide is found by bisection: the
 * same answer as page-wise revocation (tests/unit/policy_fill.c holds them together) at once and without
 * its path. With k = 1 this is a division by shares under limits.
 */
#include "policy_impl.h"

/* Doublings of the start and halvings after: past the precision of a double. */
enum { LEVEL_STEPS = 128 };

static double bytes_at(const struct gn_policy_claim *claim, double k, double level)
{
	double price = claim->shares * level;
	double bytes = price <= claim->active ? price : claim->active + (price - claim->active) / k;

	return bytes < claim->least ? claim->least : bytes > claim->most ? claim->most : bytes;
}

static double sum_at(const struct gn_policy_claim *claims, size_t count, double k, double level)
{
	double sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += bytes_at(&claims[i], k, level);
	return sum;
}

void gn_policy_fill(struct gn_policy_claim *claims, size_t count, double k, double total_bytes)
{
	double low = 0, high = 0;

	/* At this level every claim is at its most. */
	for (size_t i = 0; i < count; i++) {
		double most = claims[i].most * k / claims[i].shares;

		high = most > high ? most : high;
	}
	for (int step = 0; step < LEVEL_STEPS && sum_at(claims, count, k, high) > total_bytes;
	     step++) {
		double middle = low + (high - low) / 2;

		if (!(middle > low && middle < high)) {
			high = low;
			break;
		}
		if (sum_at(claims, count, k, middle) > total_bytes)
			high = middle;
		else
			low = middle;
	}
	/* The lower bound never divides more than there is. */
	if (sum_at(claims, count, k, high) > total_bytes)
		high = low;
	for (size_t i = 0; i < count; i++)
		claims[i].gets = bytes_at(&claims[i], k, high);
}
