/* SPDX-License-Identifier: MIT */
/*
 * trace_source.h - where the replayer's records come from.
 *
 * Replay is guest code and knows no files. Hosted, trace_source_file.c reads a trace file; a freestanding
 * image provides the same functions over a blob that the VMM put into its memory.
 */
#ifndef GN_WORKLOADS_TRACE_SOURCE_H
#define GN_WORKLOADS_TRACE_SOURCE_H

#include "trace_format.h"
#include "workload.h"

struct trace_source;

/* Open what @params->argument names. Fails, too, when the trace cannot be replayed in the guest that @params
 * describe: it touches more memory than there is, or addresses that are not a user's. 0, or -1 with *why
 * (valid until the next call of this guest).
 * A guest may be stopped at any time, so nobody is sure to close: opening closes what this guest left open. */
int trace_source_open(const struct workload_params *params, struct trace_source **out,
		      const char **why);
void trace_source_close(struct trace_source *source);

const struct trace_info *trace_source_info(const struct trace_source *source);
/* Ascending; at most TRACE_SOURCE_REGIONS_MAX, small gaps closed. The caller's to read until close. */
#define TRACE_SOURCE_REGIONS_MAX 1024
const struct trace_region *trace_source_regions(const struct trace_source *source, size_t *count);

/* The next records; *count = 0 at the end. 0, or -1 with *why. */
int trace_source_next(struct trace_source *source, const struct trace_record **records,
		      size_t *count, const char **why);

#endif
