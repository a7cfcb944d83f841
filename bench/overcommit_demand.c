/* SPDX-License-Identifier: MIT */
/*
 * overcommit_demand.c - working sets that move: VMs take turns at being large.
 *
 * With n VMs of M bytes and a budget of n * M / overcommit, each VM's equal part is a = M / overcommit. At rest
 * it uses half of that; in its turn, all but a fifth of the budget is in use: high = low + 0.6 * (n*a - n*low), at
 * most 0.85 M. So at any time the working sets fit, while no VM's turn fits into its equal part. Turns follow
 * each other without a gap: when one VM's turn ends, the next one's begins. Each VM's sizes differ by up to
 * a tenth, by the seed, so that the best static division is not simply the equal one.
 *
 * Half of a working set is anonymous memory, the rest file pages. At the end nothing moves for a while, which
 * is where turns of the targets are counted.
 */
#include <math.h>

#include "overcommit.h"

#define TURN_S		   20.0
#define LOW_PART	   0.5
#define SPREAD		   0.10
#define HIGH_PART	   0.6
#define HIGH_MOST	   0.85
#define ANONYMOUS_FRACTION 0.5
#define PAGE_MASK	   (~(uint64_t)4095)

/* splitmix64 (Steele, Lea, Flood 2014): -1..1 by @seed. */
static double scatter(uint64_t seed)
{
	uint64_t z = seed * UINT64_C(0x9e3779b97f4a7c15) + UINT64_C(0x632be59bd9b4e019);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (double)((z ^ z >> 31) >> 11) * 0x1p-52 - 1;
}

void overcommit_setup_demand(struct overcommit_setup *setup)
{
	double mem = (double)setup->mem_bytes, n = setup->vms, part = mem / setup->overcommit;
	double low = LOW_PART * part,
	       high = fmin(HIGH_MOST * mem, low + HIGH_PART * n * (part - low));

	setup->budget_bytes = (uint64_t)(n * part) & PAGE_MASK;
	setup->min_bytes = (uint64_t)(part / 4) & PAGE_MASK;
	for (unsigned i = 0; i < setup->vms; i++) {
		struct overcommit_demand *demand = &setup->demand[i];

		demand->low_bytes =
			(uint64_t)(low * (1 + SPREAD * scatter(setup->seed * 131 + i * 2)));
		demand->high_bytes =
			(uint64_t)(high * (1 - SPREAD / 2 +
					   SPREAD / 2 * scatter(setup->seed * 131 + i * 2 + 1)));
		demand->period_s = TURN_S * n;
		demand->turn_s = TURN_S;
		demand->offset_s = TURN_S * i;
		demand->anonymous_fraction = ANONYMOUS_FRACTION;
		demand->rest_s = setup->phases_s;
	}
}

uint64_t overcommit_demand_at(const struct overcommit_demand *demand, double t_s, bool *is_high)
{
	double in_period = fmod(t_s, demand->period_s) - demand->offset_s;

	*is_high = t_s < demand->rest_s && in_period >= 0 && in_period < demand->turn_s;
	return *is_high ? demand->high_bytes : demand->low_bytes;
}
