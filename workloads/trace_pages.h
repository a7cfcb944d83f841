/* SPDX-License-Identifier: MIT */
/*
 * trace_pages.h - the set of pages a trace accesses, gathered while it is written.
 *
 * Gives the file its working-set figures and its regions: a plain lackey or ChampSim trace says nothing
 * of mappings, so replay derives them from the pages that were used.
 */
#ifndef GN_WORKLOADS_TRACE_PAGES_H
#define GN_WORKLOADS_TRACE_PAGES_H

#include "trace_format.h"

struct trace_pages {
	uint64_t *slots;   /* page number << 3 | rights; 0: empty */
	size_t slot_count; /* a power of two, or 0 */
	size_t used;
	uint64_t last[2]; /* the last slot value seen, by fetch or data: most accesses end here */
};

int trace_pages_add(struct trace_pages *pages, const struct trace_record *record); /* -ENOMEM */
void trace_pages_fini(struct trace_pages *pages);

/* Sort the set and merge neighbours. Ends the gathering: nothing may be added afterwards.
 * *regions is to be freed. -ENOMEM. */
int trace_pages_finish(struct trace_pages *pages, struct trace_region **regions, size_t *count,
		       uint64_t *large_pages);

/* Close the smallest gaps between regions of one sort (instructions or not) until at most @limit regions
 * are left, where possible; the new count. Needs no memory of its own. */
size_t trace_regions_coalesce(struct trace_region *regions, size_t count, size_t limit);

#endif
