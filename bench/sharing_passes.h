/* SPDX-License-Identifier: MIT */
/*
 * sharing_passes.h - domains swept and scanned, pass after pass, until they have converged: whatever their VMs are.
 */
#ifndef GN_BENCH_SHARING_PASSES_H
#define GN_BENCH_SHARING_PASSES_H

#include <gnomon/sharing.h>

#include "sharing.h"

struct sharing_passes {
	struct gn_domain *const *domains; /* the first NULL ends them */
	size_t most_domains;
	uint64_t
		kept_pages; /* that domains count as saved, and that something else takes in return */
	uint64_t (*saved_pages)(void *ctx); /* between passes: frames that sharing has freed */
	double (*cpu_s)(void *ctx);	    /* NULL: CPU time of this thread */
	void *ctx;
};

/* A sweep of all domains and all of its scan, by this thread. -errno. */
int sharing_pass(const struct sharing_passes *passes);
/* Pass after pass until nothing more is found. */
int sharing_converge(const struct sharing_passes *passes, const struct sharing_oracle *oracle,
		     struct sharing_run *run);

#endif
