/* SPDX-License-Identifier: MIT */
/*
 * stats.h - medians with a confidence interval.
 *
 * The interval is that of order statistics (Conover, Practical Nonparametric Statistics, 3.2): it
 * assumes nothing of the distribution, and timing on a shared machine has none worth a name. Below six
 * samples no 95 % interval exists; the range is given instead, which is the most that can be said.
 */
#ifndef GN_BENCH_STATS_H
#define GN_BENCH_STATS_H

#include <stddef.h>

struct stats_summary {
	double median;
	double low, high; /* 95 % confidence interval of the median */
};

/* From so many samples on, low and high are a 95 % interval; below, they are the range. */
enum { STATS_MIN_INTERVAL = 6 };

/* @samples is sorted in place. @count >= 1. */
struct stats_summary stats_summarise(double *samples, size_t count);

/* Geometric mean of positive values, accumulated. */
struct stats_geomean {
	double log_sum;
	size_t count;
};
void stats_geomean_add(struct stats_geomean *mean, double value);
double stats_geomean_value(const struct stats_geomean *mean); /* 0 when nothing was added */

#endif
