/* SPDX-License-Identifier: MIT */
/*
 * trace_serve.h - the VMM's side of a trace in a guest: answers GN_GUEST_CALL_TRACE from a trace file.
 *
 * Threads: one at a time for each trace_serve.
 */
#ifndef GN_WORKLOADS_TRACE_SERVE_H
#define GN_WORKLOADS_TRACE_SERVE_H

#include <stddef.h>
#include <stdint.h>

#include <gnomon/engine.h>

#include "workload.h"

#ifdef __cplusplus
extern "C" {
#endif

struct trace_serve;

/* Fill @buffer for @what (enum gn_guest_trace). *serve: NULL at first; opening opens what @params->argument names and
 * checks that it fits a guest whose first @reserved_bytes are taken.
 * What call_result is to be; GN_GUEST_TRACE_FAILED with *why (valid until this thread's next call). */
uint64_t trace_serve(struct trace_serve **serve, const struct workload_params *params,
		     uint64_t reserved_bytes, uint64_t what, void *buffer, size_t bytes,
		     const char **why);
/* Answer a guest that has just made GN_GUEST_CALL_TRACE: buffer and answer are in its memory. What it asks wrongly it
 * is told as a failure; -errno: its memory cannot be reached. */
int trace_serve_call(struct trace_serve **serve, const struct workload_params *params,
		     struct gn_vm *vm);
void trace_serve_close(struct trace_serve *serve); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
