/* SPDX-License-Identifier: MIT */
/*
 * event_log.c - lines into a file that others may read, rename and fill up the disk of.
 */
#include "event_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"

struct gn_event_log {
	int fd; /* -1: kept nowhere */
	uint64_t lost;
	struct gn_json_writer line;
};

static int open_file(const char *path)
{
	int fd;

	if (!path[0])
		return -1;
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	return fd < 0 ? -errno : fd;
}

int gn_event_log_open(const char *path, struct gn_event_log **out)
{
	struct gn_event_log *log = calloc(1, sizeof(*log));

	if (!log)
		return -ENOMEM;
	log->fd = open_file(path);
	if (path[0] && log->fd < 0) {
		int err = log->fd;

		free(log);
		return err;
	}
	*out = log;
	return 0;
}

void gn_event_log_close(struct gn_event_log *log)
{
	if (!log)
		return;
	if (log->fd >= 0)
		close(log->fd);
	gn_json_fini(&log->line);
	free(log);
}

int gn_event_log_reopen(struct gn_event_log *log, const char *path)
{
	int fd = open_file(path);

	if (path[0] && fd < 0)
		return fd;
	if (log->fd >= 0)
		close(log->fd);
	log->fd = fd;
	return 0;
}

uint64_t gn_event_log_lost(const struct gn_event_log *log)
{
	return log->lost;
}

struct gn_json_writer *gn_event_log_begin(struct gn_event_log *log, const char *name)
{
	uint64_t us = gn_wall_us();
	time_t seconds = (time_t)(us / 1000000);
	char stamp[40], whole[64];
	struct tm utc;

	gmtime_r(&seconds, &utc);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(whole, sizeof(whole), "%s.%06uZ", stamp, (unsigned)(us % 1000000));
	gn_json_reset(&log->line);
	gn_json_begin_object(&log->line, NULL);
	gn_json_put_text(&log->line, "time", whole);
	gn_json_put_text(&log->line, "event", name);
	return &log->line;
}

void gn_event_log_end(struct gn_event_log *log)
{
	struct gn_json_writer *w = &log->line;

	gn_json_end_object(w);
	w->needs_comma = false;
	gn_json_put_raw(w, NULL, "\n", 1);
	if (log->fd < 0)
		return;
	if (gn_json_finish(w) || write(log->fd, w->text, w->bytes) != (ssize_t)w->bytes)
		log->lost++;
}
