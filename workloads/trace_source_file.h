/* SPDX-License-Identifier: MIT */
/*
 * trace_source_file.h - a trace file as a source that belongs to its opener, not to the guest of a thread.
 */
#ifndef GN_WORKLOADS_TRACE_SOURCE_FILE_H
#define GN_WORKLOADS_TRACE_SOURCE_FILE_H

#include "trace_source.h"

/* As trace_source_open(), but nobody else closes it. */
int trace_source_new(const struct workload_params *params, struct trace_source **out,
		     const char **why);

#endif
