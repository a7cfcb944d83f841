/* SPDX-License-Identifier: MIT */
/*
 * trace_feed.h - a trace on its way into a guest: what GN_GUEST_CALL_TRACE puts into the buffer.
 *
 * GN_GUEST_TRACE_OPEN: a head, and behind it the regions. GN_GUEST_TRACE_NEXT: records. Both as the structs of
 * trace_format.h lie in memory; writer and reader are of one build.
 */
#ifndef GN_WORKLOADS_GUEST_TRACE_FEED_H
#define GN_WORKLOADS_GUEST_TRACE_FEED_H

#include <stdint.h>

struct trace_feed_head {
	uint64_t flags, records; /* of struct trace_info */
	uint64_t regions;	 /* that follow, struct trace_region */
};

#endif
