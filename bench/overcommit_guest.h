/* SPDX-License-Identifier: MIT */
/*
 * overcommit_guest.h - a modelled guest under memory pressure, stepped in milliseconds.
 */
#ifndef GN_BENCH_OVERCOMMIT_GUEST_H
#define GN_BENCH_OVERCOMMIT_GUEST_H

#include "overcommit.h"

struct overcommit_guest {
	const struct overcommit_demand *demand;
	double kernel;
	/* Memory, in bytes: kernel + anonymous + resident + stale + free = actual. */
	double actual, target;
	double anonymous;	/* what the workload has allocated */
	double resident;	/* file pages of the working set */
	double stale;		/* file pages cached of earlier phases */
	bool is_high, is_short; /* short: an anonymous allocation waits */
	double short_since_s;
	bool is_killed; /* for the rest of this phase */
	unsigned oom_kills;
	double wanted; /* the working set now */
	double work;   /* seconds of full speed done */
	double refaults;
	/* Working set as the host samples it: averages of what was touched. */
	double fast, slow;
};

void overcommit_guest_init(struct overcommit_guest *guest, const struct overcommit_demand *demand,
			   double mem_bytes, double actual_bytes);
/* From @t_s on for @step_s. */
void overcommit_guest_step(struct overcommit_guest *guest, double t_s, double step_s);
double overcommit_guest_free(const struct overcommit_guest *guest);
/* What it lacks for all of its working set. */
double overcommit_guest_lack(const struct overcommit_guest *guest);

#endif
