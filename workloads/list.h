/* SPDX-License-Identifier: MIT */
/*
 * list.h - every workload, one a file.
 */
#ifndef GN_WORKLOADS_LIST_H
#define GN_WORKLOADS_LIST_H

#include "workload.h"

extern const struct workload workload_sequential, workload_stride, workload_random, workload_chase;
extern const struct workload workload_hash, workload_btree, workload_bfs, workload_transpose;
extern const struct workload workload_kv;

extern const struct workload workload_demand_zero, workload_fork_exec, workload_cow;
extern const struct workload workload_mmap_churn, workload_mprotect_gc, workload_ctx_switch;
extern const struct workload workload_pipeline, workload_build, workload_phases;

extern const struct workload workload_trace;

#endif
