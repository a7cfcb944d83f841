/* SPDX-License-Identifier: MIT */
/*
 * event_log.h - what a daemon did, one JSON object per line, for machines and for the day after.
 *
 * Lines are appended whole (one write, O_APPEND). A log that cannot be written never stops the daemon: lost lines are
 * counted. Rotation: rename the file, then gn_event_log_reopen() (SIGHUP). One thread.
 */
#ifndef GN_CONTROL_EVENT_LOG_H
#define GN_CONTROL_EVENT_LOG_H

#include "json.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gn_event_log;

/* @path "": the log is kept nowhere, and everything succeeds. -errno of opening. */
int gn_event_log_open(const char *path, struct gn_event_log **);
void gn_event_log_close(struct gn_event_log *);
/* -errno: the old file is kept then. */
int gn_event_log_reopen(struct gn_event_log *, const char *path);
uint64_t gn_event_log_lost(const struct gn_event_log *);

/* {"time": RFC 3339, "event": NAME, members written between} */
struct gn_json_writer *gn_event_log_begin(struct gn_event_log *, const char *name);
void gn_event_log_end(struct gn_event_log *);

#ifdef __cplusplus
}
#endif

#endif
