/* SPDX-License-Identifier: MIT */
/*
 * churn.c - the limit of ping-pong.
 *
 * A guest that inflates and deflates the same pages for ever keeps the host busy with nothing.
 * Inflation alone ends by itself, so what is counted is pages that *leave* the balloon, by
 * deflation, by a reset or by a touch that was granted: each uses up a page of an allowance, which
 * grows by pages_per_s up to burst_pages. Leaving is never refused, for a guest in need must not
 * wait; while nothing of the allowance is left it is the next inflation that is answered by policy.
 * A granted page comes back by being named again, and is found by that at the latest, so it is
 * enough to have them charged when an inflation begins.
 */
#include "device.h"

#define NS_PER_S 1000000000

void gn_churn_init(struct gn_churn *churn, const struct gn_balloon_config *config, uint64_t now_ns)
{
	*churn = (struct gn_churn){ .pages_per_s = config->churn_pages_per_s,
				    .burst_pages = config->churn_burst_pages,
				    .allowance = config->churn_burst_pages,
				    .since_ns = now_ns };
}

static bool is_limited(const struct gn_churn *churn)
{
	return churn->pages_per_s || churn->burst_pages;
}

/* Whole pages only; what is left of the time counts the next time. */
static void grow(struct gn_churn *churn, uint64_t now_ns)
{
	uint64_t elapsed_ns = now_ns > churn->since_ns ? now_ns - churn->since_ns : 0;
	__uint128_t grown = (__uint128_t)elapsed_ns * churn->pages_per_s / NS_PER_S;

	if (grown >= churn->burst_pages - churn->allowance) {
		churn->allowance = churn->burst_pages;
		churn->since_ns = now_ns;
	} else if (grown) {
		churn->allowance += (uint64_t)grown;
		churn->since_ns += (uint64_t)(grown * NS_PER_S / churn->pages_per_s);
	}
}

void gn_churn_spend(struct gn_churn *churn, uint64_t pages, uint64_t now_ns)
{
	if (!is_limited(churn))
		return;
	grow(churn, now_ns);
	churn->allowance -= pages < churn->allowance ? pages : churn->allowance;
}

bool gn_churn_is_over(struct gn_churn *churn, uint64_t now_ns)
{
	if (!is_limited(churn))
		return false;
	grow(churn, now_ns);
	return !churn->allowance;
}
