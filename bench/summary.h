/* SPDX-License-Identifier: MIT */
/*
 * summary.h - one backend's runs of a result file as a grid of workloads x schemes, and what can be said of it.
 *
 * The terminal table, the web page and the plots all read results through this, so they agree. Modelled cycles and
 * measured seconds have nothing to say to each other: a file with both gives two grids.
 *
 * A modelled run is held against native; hardware offers no native guest, so a measured run is held against the
 * fastest scheme of its workload.
 */
#ifndef GN_BENCH_SUMMARY_H
#define GN_BENCH_SUMMARY_H

#include "results.h"

struct summary {
	const struct results *results;
	const char *backend;		   /* the grid's: results_backend_at() */
	bool is_measured;		   /* seconds of real hardware; else modelled cycles */
	const char **workloads, **schemes; /* in order of first appearance; workloads by group */
	size_t workload_count, scheme_count;
	const struct results_run **grid; /* [workload * scheme_count + scheme], NULL: no run */
	bool has_baseline;		 /* a native run exists */
};

/* Of the runs of @backend. @results must outlive it. -ENOMEM. */
int summary_init(struct summary *s, const struct results *results, const char *backend);
void summary_fini(struct summary *s);

const struct results_run *summary_run(const struct summary *s, size_t workload, size_t scheme);
const char *summary_group(const struct summary *s, size_t workload);
const char *summary_group_title(const char *group);
/* A run of the grid, for what all have in common. */
const struct results_run *summary_any(const struct summary *s);
/* Cycles over native cycles; measured: seconds over those of the fastest scheme. 0: not known. */
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
/* Measured: median seconds of the measured part; 0: not known. */
double summary_seconds(const struct summary *s, size_t workload, size_t scheme);
/* The virtualized scheme with the fewest (as printed) or the most cycles, or seconds; -1: none. Ties go to the first. */
int summary_best(const struct summary *s, size_t workload);
int summary_worst(const struct summary *s, size_t workload);
/* Equal to the best as printed; measured: or its 95 % interval reaches the best one's. */
bool summary_is_best(const struct summary *s, size_t workload, size_t scheme);

/* "0.4", "23", "×46" (times native, from 11 times on); "-" for 0. */
const char *summary_format_overhead(double ratio, char *out, size_t bytes);
/* Of a measured ratio: "+0.4 %", "+23 %", "×46"; "" for 1 and 0. */
const char *summary_format_slower(double ratio, char *out, size_t bytes);
/* "1.23 s", "45.6 ms", "789 us". */
const char *summary_format_seconds(double seconds, char *out, size_t bytes);
/* A workload's name without the directories of a trace file. */
const char *summary_label(const char *workload, char *out, size_t bytes);

#endif
