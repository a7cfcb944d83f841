/* SPDX-License-Identifier: MIT */
/*
 * measured.c - where the time of a measured run went, and what its guest was.
 *
 * A person wants the two or three reasons that matter, not eleven columns of zeros: reasons are ranked by time and
 * listed until nine tenths of the exits' time are named.
 */
#include "measured.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli.h"

enum { MOST_REASONS = 3 };

double measured_exit_share(const struct results_run *run)
{
	if (!run->kvm.has_exit_time || !(run->kvm.exit_of_s > 0))
		return -1;
	return results_exit_seconds(run) / run->kvm.exit_of_s;
}

/* What a reason weighs: seconds, or exits where times are not known. */
static double weight_of(const struct results_run *run, unsigned reason)
{
	return run->kvm.has_exit_time ? run->kvm.exit_s[reason]
				      : (double)run->counters.exits_by[reason];
}

/* The heaviest reason not in @taken; GN_EXIT_REASONS: none is left that weighs anything. */
static unsigned heaviest(const struct results_run *run, unsigned taken)
{
	unsigned best = GN_EXIT_REASONS;

	for (unsigned i = 0; i < GN_EXIT_REASONS; i++)
		if (!(taken >> i & 1) && weight_of(run, i) > 0 &&
		    (best == GN_EXIT_REASONS || weight_of(run, i) > weight_of(run, best)))
			best = i;
	return best;
}

const char *measured_exits_text(const struct results_run *run, char *out, size_t bytes)
{
	double all = 0, named = 0;
	unsigned taken = 0;
	size_t used = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < GN_EXIT_REASONS; i++)
		all += weight_of(run, i);
	for (int n = 0; n < MOST_REASONS && named < 0.9 * all; n++) {
		unsigned reason = heaviest(run, taken);

		if (reason == GN_EXIT_REASONS || used >= bytes)
			break;
		taken |= 1u << reason;
		named += weight_of(run, reason);
		used += (size_t)snprintf(out + used, bytes - used, "%s%s %" PRIu64, n ? ", " : "",
					 gn_exit_reason_name((enum gn_exit_reason)reason),
					 run->counters.exits_by[reason]);
		if (run->kvm.has_exit_time && run->kvm.exit_of_s > 0 && used < bytes)
			used += (size_t)snprintf(out + used, bytes - used, " (%.0f %%)",
						 100 * run->kvm.exit_s[reason] /
							 run->kvm.exit_of_s);
	}
	return out;
}

const char *measured_guest_text(const struct results_run *run, char *out, size_t bytes)
{
	const struct results_params *p = &run->params;
	char mem[32];

	snprintf(out, bytes, "%s, %u-level tables%s, PCID %s, SMEP %s, SMAP %s",
		 cli_format_bytes(run->mem_bytes, mem, sizeof(mem)), p->guest_levels,
		 p->large_pages ? ", 2 MiB user pages" : "", p->pcid ? "on" : "off",
		 run->kvm.smep ? "on" : "off", run->kvm.smap ? "on" : "off");
	return out;
}
