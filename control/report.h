/* SPDX-License-Identifier: MIT */
/*
 * report.h - what every daemon reports of itself: the server's figures and its CPU time as metrics; the textfile; refusals
 * that are logged once in a while.
 */
#ifndef GN_CONTROL_REPORT_H
#define GN_CONTROL_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "event_log.h"
#include "metrics.h"
#include "server.h"

#ifdef __cplusplus
extern "C" {
#endif

void gn_server_put_metrics(const struct gn_server *, struct gn_metrics *);
/* gnomon_cpu_seconds_total: of this process. */
void gn_metrics_put_cpu(struct gn_metrics *);

struct gn_textfile {
	uint64_t failures;
	int err; /* of the last writing */
};
/* A failure is counted, and told to @log and by @say when it is a new one. */
void gn_textfile_write(struct gn_textfile *, const struct gn_metrics *, const char *path,
		       struct gn_event_log *log, void (*say)(const char *text));

/* Refused registrations that were logged lately: of its VM's name and its class. */
#define GN_REFUSALS 256
struct gn_refusals {
	uint64_t count; /* all of them */
	struct {
		uint64_t hash, said_ns;
	} said[GN_REFUSALS]; /* by hash */
};
/* Count a refused registration, and log it if that was not done lately. */
void gn_refusals_note(struct gn_refusals *, struct gn_event_log *log, const char *name,
		      const char *error_class);

#ifdef __cplusplus
}
#endif

#endif
