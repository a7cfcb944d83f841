/* SPDX-License-Identifier: MIT */
/*
 * metrics.h - what a daemon counts, and how Prometheus reads it.
 *
 * A registry of families; a family is a name with its kind and help, and holds one value, or one per label value
 * (say, one per VM). Written in the text format 0.0.4: over HTTP on loopback (metrics_http.h), and into a file for
 * the node exporter's textfile collector. One thread, the event loop's.
 */
#ifndef GN_CONTROL_METRICS_H
#define GN_CONTROL_METRICS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gn_metrics;
struct gn_metric; /* one value */

enum gn_metric_kind { GN_METRIC_COUNTER, GN_METRIC_GAUGE };

/* -ENOMEM. */
int gn_metrics_create(struct gn_metrics **);
void gn_metrics_destroy(struct gn_metrics *);

/* The value of family @name, made if need be, for @label="@value" (both NULL: the family's only one). Counters'
 * names end in _total. NULL: out of memory, or the family exists with another kind or label; setting NULL is
 * harmless, so a daemon runs on without a metric. @help is kept by pointer. */
struct gn_metric *gn_metrics_get(struct gn_metrics *, enum gn_metric_kind, const char *name,
				 const char *help, const char *label, const char *value);
void gn_metric_set(struct gn_metric *, double value);
void gn_metric_add(struct gn_metric *, double increment);
double gn_metric_value(const struct gn_metric *);
/* Get and set one without a label. */
void gn_metrics_put(struct gn_metrics *, enum gn_metric_kind, const char *name, const char *help,
		    double value);
/* Drop the values that carry @label="@value" in every family. */
void gn_metrics_forget(struct gn_metrics *, const char *label, const char *value);

/* The whole text, for the caller to free. -ENOMEM. */
int gn_metrics_format(const struct gn_metrics *, char **text, size_t *bytes);
/* Into the file @path, which all may read: written beside it, then renamed over it. -errno. */
int gn_metrics_write_file(const struct gn_metrics *, const char *path);

#ifdef __cplusplus
}
#endif

#endif
