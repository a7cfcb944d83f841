/* SPDX-License-Identifier: MIT */
/*
 * stats.c - medians by order statistics.
 *
 * The r-th smallest of n samples lies above the true median with probability P(Binomial(n, 1/2) < r); the
 * interval takes the largest r that leaves at most 2.5 % on each side. Absent: means and standard
 * deviations, which one outlier of a shared machine spoils.
 */
#include "stats.h"

#include <math.h>
#include <stdlib.h>

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* How many samples to drop at each end. */
static size_t interval_rank(size_t count)
{
	double term = pow(0.5, (double)count), below = 0;
	size_t rank = 0;

	/* Past a thousand samples 2^-n leaves the range of a double; the normal approximation is exact enough. */
	if (count > 1000)
		return (size_t)((double)count / 2 - 0.98 * sqrt((double)count));
	while (rank < count / 2 && below + term <= 0.025) {
		below += term;
		term *= (double)(count - rank) / (double)(rank + 1);
		rank++;
	}
	return rank;
}

struct stats_summary stats_summarise(double *samples, size_t count)
{
	struct stats_summary s;
	size_t rank = interval_rank(count);

	qsort(samples, count, sizeof(*samples), compare_doubles);
	s.median =
		count & 1 ? samples[count / 2] : (samples[count / 2 - 1] + samples[count / 2]) / 2;
	/* rank samples lie outside on each side when an interval exists; none when the range is all there is. */
	s.low = samples[rank ? rank - 1 : 0];
	s.high = samples[rank ? count - rank : count - 1];
	return s;
}

void stats_geomean_add(struct stats_geomean *mean, double value)
{
	mean->log_sum += log(value);
	mean->count++;
}

double stats_geomean_value(const struct stats_geomean *mean)
{
	return mean->count ? exp(mean->log_sum / (double)mean->count) : 0;
}
