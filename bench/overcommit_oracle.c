/* SPDX-License-Identifier: MIT */
/*
 * overcommit_oracle.c - the best static division, by someone who knows what will run.
 *
 * A VM with a fixed size suffers the same whatever the others do. So each VM's slowdown is modelled for a row of
 * sizes once, and then the least slowdown is sought (by halving) at which the sizes that all VMs need for it
 * fit into the budget. What is left over is divided in proportion.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "overcommit_guest.h"

#define STEP_S	    0.02
#define KILL_S	    1e3 /* a killed VM is no candidate */
#define SHARES_MOST 1e6
enum { SIZES = 64, HALVINGS = 60 };

static double size_at(const struct overcommit_setup *setup, unsigned index)
{
	double least = (double)setup->min_bytes, most = (double)setup->mem_bytes;

	return least + (most - least) * index / (SIZES - 1);
}

static double work_at(const struct overcommit_setup *setup, unsigned vm, double bytes)
{
	struct overcommit_guest guest;

	overcommit_guest_init(&guest, &setup->demand[vm], (double)setup->mem_bytes, bytes);
	for (uint64_t step = 0; (double)step * STEP_S < setup->phases_s; step++)
		overcommit_guest_step(&guest, (double)step * STEP_S, STEP_S);
	return guest.oom_kills ? guest.work / KILL_S : guest.work;
}

/* The least size at which the VM is slowed down by no more than @slowdown, between the sizes modelled. */
static double size_for(const struct overcommit_setup *setup, const double *slowdowns,
		       double slowdown)
{
	for (unsigned s = 0; s < SIZES; s++) {
		double between;

		if (slowdowns[s] > slowdown)
			continue;
		if (!s)
			return size_at(setup, 0);
		between = (slowdowns[s - 1] - slowdown) / (slowdowns[s - 1] - slowdowns[s]);
		return size_at(setup, s - 1) +
		       between * (size_at(setup, s) - size_at(setup, s - 1));
	}
	return (double)setup->mem_bytes;
}

int overcommit_model_oracle(const struct overcommit_setup *setup, uint32_t *shares)
{
	double(*slowdowns)[SIZES] = calloc(setup->vms, sizeof(*slowdowns));
	double low = 1, high = 1;

	if (!slowdowns)
		return -ENOMEM;
	for (unsigned i = 0; i < setup->vms; i++) {
		double best = work_at(setup, i, (double)setup->mem_bytes);

		for (unsigned s = 0; s < SIZES; s++) {
			slowdowns[i][s] = best / fmax(work_at(setup, i, size_at(setup, s)), 1e-9);
			high = fmax(high, slowdowns[i][s]);
		}
	}
	for (int n = 0; n < HALVINGS; n++) {
		double middle = (low + high) / 2, sum = 0;

		for (unsigned i = 0; i < setup->vms; i++)
			sum += size_for(setup, slowdowns[i], middle);
		if (sum > (double)setup->budget_bytes)
			low = middle;
		else
			high = middle;
	}
	for (unsigned i = 0; i < setup->vms; i++)
		shares[i] = (uint32_t)(size_for(setup, slowdowns[i], high) /
				       (double)setup->mem_bytes * SHARES_MOST);
	free(slowdowns);
	return 0;
}
