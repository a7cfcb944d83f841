/* SPDX-License-Identifier: MIT */
/*
 * base.h - what every daemon is made of: its configuration and how it is reloaded, loop, log, metrics, socket; pause, resume
 * and quit; its start and its end.
 *
 * A daemon is a struct whose first member is a struct gn_base, and a struct gn_base_ops that says the rest. Its
 * configuration likewise begins with a struct gn_base_config. One thread, one event loop.
 */
#ifndef GN_CONTROL_BASE_H
#define GN_CONTROL_BASE_H

#include "config.h"
#include "event_log.h"
#include "metrics.h"
#include "metrics_http.h"
#include "report.h"
#include "server.h"
#include "service.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gn_base_config {
	char socket[108], event_log[256], textfile[256];
	uint64_t max_peers, messages_per_s, metrics_port;
};

#define GN_BASE_AT_(field) offsetof(struct gn_base_config, field)
#define GN_BASE_TEXT_(field)                                                                       \
	GN_BASE_AT_(field), 0, sizeof(((struct gn_base_config *)0)->field), NULL
/* Its keys, to begin a daemon's schema with. */
#define GN_BASE_KEYS(default_socket)                                                               \
	{ "daemon",	  "socket",                                                                \
	  GN_CONFIG_TEXT, GN_BASE_TEXT_(socket),                                                   \
	  default_socket, "the control socket" },                                                  \
		{ "daemon",                                                                        \
		  "event_log",                                                                     \
		  GN_CONFIG_TEXT,                                                                  \
		  GN_BASE_TEXT_(event_log),                                                        \
		  "",                                                                              \
		  "file of events, one JSON object per line; empty: none" },                       \
		{ "daemon", "connections", GN_CONFIG_COUNT, GN_BASE_AT_(max_peers),	1,         \
		  100000,   NULL,	   "4096",	    "of VMs and tools together" },         \
		{ "daemon",                                                                        \
		  "messages_per_s",                                                                \
		  GN_CONFIG_COUNT,                                                                 \
		  GN_BASE_AT_(messages_per_s),                                                     \
		  1,                                                                               \
		  1000000,                                                                         \
		  NULL,                                                                            \
		  "1000",                                                                          \
		  "of one connection; beyond, it waits" },                                         \
		{ "metrics",                                                                       \
		  "port",                                                                          \
		  GN_CONFIG_COUNT,                                                                 \
		  GN_BASE_AT_(metrics_port),                                                       \
		  0,                                                                               \
		  65535,                                                                           \
		  NULL,                                                                            \
		  "0",                                                                             \
		  "of http://127.0.0.1/metrics; 0: none" },                                        \
	{                                                                                          \
		"metrics", "textfile", GN_CONFIG_TEXT, GN_BASE_TEXT_(textfile), "",                \
			"for the node exporter; empty: none"                                       \
	}

struct gn_base {
	const struct gn_base_ops *ops;
	struct gn_base_config *config; /* the daemon's, of which it is the beginning */
	const char *config_path;
	bool is_dry, is_paused, is_stopping;
	void (*say)(const char *text); /* a line for people */
	struct gn_service *service;
	struct gn_event_log *log;
	struct gn_metrics *metrics;
	struct gn_metrics_http *http; /* NULL: none is configured */
	struct gn_server *server;
	struct gn_server_command *commands; /* the daemon's and the base's */
	struct gn_refusals refusals;
	struct gn_textfile textfile;
	uint64_t started_ns, reloads, refused_reloads;
};

/* All callbacks are given the daemon, which is its base, too. Those marked may be NULL. */
struct gn_base_ops {
	const char *name, *release;
	const char *summary;	 /* one sentence, for --help */
	const char *config_path; /* where it is by default */
	const char *const *capabilities;
	size_t capability_count;
	size_t daemon_bytes;
	size_t config_at; /* of the daemon's configuration in the daemon */
	const struct gn_config_schema *schema;
	/* What the schema cannot say of a configuration: whether what it names is there. At the start, at a reload and of
	 * --check-config. -EINVAL, with why in @why. May be NULL. */
	int (*check)(const void *config, char *why, size_t why_bytes);
	const struct gn_server_command
		*commands; /* beside pause, resume and quit; one without a name ends them */
	int (*event)(void *daemon, struct gn_peer *, const char *name, const cJSON *data);
	void (*gone)(void *daemon, struct gn_peer *);

	/* The base is there, the configuration too: what else is to be made. -errno. */
	int (*start)(void *daemon);
	/* Undo it, as far as it came. Peers are gone already; log, metrics and loop are still there. */
	void (*destroy)(void *daemon);
	/* A reload: may @fresh come into force? It may be changed where something has to stay as it was. All that can fail is
	 * done here. -errno, with why in @why. May be NULL. */
	int (*accept)(void *daemon, void *fresh, char *why, size_t why_bytes);
	/* What was accepted does not come into force after all. May be NULL. */
	void (*discarded)(void *daemon);
	/* It is in force; @old is what was. */
	void (*applied)(void *daemon, const void *old);
	/* Of is_paused. */
	void (*paused)(void *daemon);
	/* SIGTERM or quit: begin to end. May be NULL. */
	void (*stopping)(void *daemon);
	/* Asked again and again once it is stopping: whether it may end. May be NULL. */
	bool (*may_end)(void *daemon);
	void (*update_metrics)(void *daemon);
};

/* Why a configuration is refused may name a path. */
#define GN_WHY_BYTES 1000

/* The configuration at @path, as far as it can be known to be right without a daemon. -EINVAL or -errno, with a line in @why. */
int gn_base_load_config(const struct gn_base_ops *ops, const char *path, void *config, char *why,
			size_t why_bytes);
/* A daemon, ready to be run. -errno, having said why through @say: -EINVAL, -ENOENT and -EACCES are the configuration's.
 * @dry: it is to decide and tell nobody but the log. */
int gn_base_create(const struct gn_base_ops *ops, const char *config_path, bool dry,
		   void (*say)(const char *text), struct gn_base **out);
void gn_base_destroy(struct gn_base *base);
/* Until SIGTERM or quit. The exit code, or -errno. */
int gn_base_run(struct gn_base *base);

__attribute__((format(printf, 2, 3))) void gn_base_say(struct gn_base *base, const char *format,
						       ...);
/* The service manager's status line: what @format says, and whether it is paused or dry. */
__attribute__((format(printf, 2, 3))) void gn_base_status(struct gn_base *base, const char *format,
							  ...);
/* The figures of base and server. */
void gn_base_put_metrics(struct gn_base *base);
/* If there is to be one. */
void gn_base_write_textfile(struct gn_base *base);
/* Members of an answer: paused, dry_run, uptime_ms, metrics_port. */
void gn_base_put_state(const struct gn_base *base, struct gn_json_writer *w);

#ifdef __cplusplus
}
#endif

#endif
