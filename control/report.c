/* SPDX-License-Identifier: MIT */
/*
 * report.c - figures, textfile, refusals.
 *
 * An agent that is refused tries again every 250 ms, for room may come; the log has a line when it is refused first, when
 * it is refused for another reason, and each QUIET_NS. What was said lately is remembered in a table without chains:
 * two that share a place push each other out and are logged more often, which harms nobody. All attempts are counted.
 */
#include "report.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <xxhash.h>

#include "clock.h"

#define QUIET_NS ((uint64_t)60 * 1000000000)

void gn_server_put_metrics(const struct gn_server *server, struct gn_metrics *m)
{
	struct gn_server_stats s;

	gn_server_get_stats(server, &s);
	gn_metrics_put(m, GN_METRIC_GAUGE, "gnomon_connections", "Connections now.",
		       (double)s.peers);
	gn_metrics_put(m, GN_METRIC_COUNTER, "gnomon_requests_total", "Commands executed.",
		       (double)s.requests);
	gn_metrics_put(m, GN_METRIC_COUNTER, "gnomon_reports_total", "Events from VMs.",
		       (double)s.events);
	gn_metrics_put(m, GN_METRIC_COUNTER, "gnomon_bad_lines_total",
		       "Lines that were no message.", (double)s.bad_lines);
	gn_metrics_put(m, GN_METRIC_COUNTER, "gnomon_bad_reports_total",
		       "Events that made no sense.", (double)s.bad_events);
	gn_metrics_put(m, GN_METRIC_COUNTER, "gnomon_connections_refused_total",
		       "Connections of strangers, or too many.",
		       (double)(s.refused_uid + s.refused_full));
	gn_metrics_put(m, GN_METRIC_COUNTER, "gnomon_slow_peers_dropped_total",
		       "Peers that did not read.", (double)s.dropped_slow);
}

void gn_metrics_put_cpu(struct gn_metrics *m)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	gn_metrics_put(m, GN_METRIC_COUNTER, "gnomon_cpu_seconds_total", "CPU time of the daemon.",
		       (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
			       1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec));
}

void gn_textfile_write(struct gn_textfile *t, const struct gn_metrics *m, const char *path,
		       struct gn_event_log *log, void (*say)(const char *text))
{
	const int err = gn_metrics_write_file(m, path);

	t->failures += err != 0;
	if (err && err != t->err) {
		struct gn_json_writer *w = gn_event_log_begin(log, "textfile-failed");
		char text[400];

		gn_json_put_text(w, "path", path);
		gn_json_put_text(w, "why", strerror(-err));
		gn_event_log_end(log);
		snprintf(text, sizeof(text), "textfile %s: %s", path, strerror(-err));
		say(text);
	}
	t->err = err;
}

void gn_refusals_note(struct gn_refusals *r, struct gn_event_log *log, const char *name,
		      const char *error_class)
{
	uint64_t now = gn_now_ns(), hash = XXH3_64bits(name, strlen(name));
	struct gn_json_writer *w;
	size_t place;

	r->count++;
	hash = XXH3_64bits_withSeed(error_class, strlen(error_class), hash);
	place = hash % GN_REFUSALS;
	if (r->said[place].hash == hash && now - r->said[place].said_ns < QUIET_NS)
		return;
	r->said[place].hash = hash;
	r->said[place].said_ns = now;
	w = gn_event_log_begin(log, "refused");
	gn_json_put_text(w, "vm", name);
	gn_json_put_text(w, "class", error_class);
	gn_event_log_end(log);
}
