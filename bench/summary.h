/* SPDX-License-Identifier: MIT */
/*
 * summary.h - a result file as a grid of workloads x schemes, and what can be said of it.
 *
 * The terminal table, the web page and the plots all read results through this, so they agree.
 */
#ifndef GN_BENCH_SUMMARY_H
#define GN_BENCH_SUMMARY_H

#include "results.h"

struct summary {
	const struct results *results;
	const char **workloads, **schemes; /* in order of first appearance; workloads by group */
	size_t workload_count, scheme_count;
	const struct results_run **grid; /* [workload * scheme_count + scheme], NULL: no run */
	bool has_baseline;		 /* a native run exists */
};

/* @results must outlive it. -ENOMEM. */
int summary_init(struct summary *s, const struct results *results);
void summary_fini(struct summary *s);

const struct results_run *summary_run(const struct summary *s, size_t workload, size_t scheme);
const char *summary_group(const struct summary *s, size_t workload);
const char *summary_group_title(const char *group);
/* Cycles over native cycles; 0: not known. */
double summary_ratio(const struct summary *s, size_t workload, size_t scheme);
/* Geometric mean of the ratios over the workloads of @group (NULL: all) that have one under every
 * scheme that ran; 0: none. */
double summary_geomean(const struct summary *s, size_t scheme, const char *group);
/* Its mean is the least of the virtualized schemes', as printed. */
bool summary_is_best_mean(const struct summary *s, size_t scheme, const char *group);
size_t summary_group_size(const struct summary *s, const char *group);

bool summary_is_baseline(const struct summary *s, size_t scheme);
/* interp is a demonstration: it is in the tables, but says nothing as "the worst". */
bool summary_is_demonstration(const struct summary *s, size_t scheme);
/* The virtualized scheme with the fewest (as printed) or the most cycles; -1: none. Ties go to the first. */
int summary_best(const struct summary *s, size_t workload);
int summary_worst(const struct summary *s, size_t workload);
/* Equal to the best as printed. */
bool summary_is_best(const struct summary *s, size_t workload, size_t scheme);

/* "0.4", "23", "×46" (times native, from 11 times on); "-" for 0. */
const char *summary_format_overhead(double ratio, char *out, size_t bytes);
/* A workload's name without the directories of a trace file. */
const char *summary_label(const char *workload, char *out, size_t bytes);

#endif
