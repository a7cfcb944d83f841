/* SPDX-License-Identifier: MIT */
/*
 * base.c - a daemon's life: start, reload, pause, stop.
 *
 * A reload takes the new configuration whole or not at all. What is bound at the start (socket, connections, metrics port)
 * needs a restart, which a new value of it is told; clients do not mind one, for they come back.
 */
#include "base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "clock.h"
#include "step.h"

#define STOP_POLL_US 20000

void gn_base_say(struct gn_base *b, const char *format, ...)
{
	char text[GN_WHY_BYTES + 112];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	b->say(text);
}

void gn_base_status(struct gn_base *b, const char *format, ...)
{
	char text[200];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	gn_service_status(b->service, "%s%s%s", text, b->is_paused ? ", paused" : "",
			  b->is_dry ? ", dry run" : "");
}

/* ---- Figures ----------------------------------------------------------------------------------------------------- */

void gn_base_put_metrics(struct gn_base *b)
{
	const struct {
		const char *name, *help;
		uint64_t value;
	} counters[] = {
		{ "gnomon_vms_refused_total", "Registrations refused.", b->refusals.count },
		{ "gnomon_reloads_total", "Configurations taken over.", b->reloads },
		{ "gnomon_reloads_refused_total", "Configurations refused.", b->refused_reloads },
		{ "gnomon_textfile_failures_total", "Times the textfile was not written.",
		  b->textfile.failures },
		{ "gnomon_event_log_lost_total", "Lines the event log lost.",
		  gn_event_log_lost(b->log) },
	};

	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		gn_metrics_put(b->metrics, GN_METRIC_COUNTER, counters[i].name, counters[i].help,
			       (double)counters[i].value);
	gn_server_put_metrics(b->server, b->metrics);
	gn_metrics_put_cpu(b->metrics);
}

void gn_base_write_textfile(struct gn_base *b)
{
	if (!b->config->textfile[0])
		return;
	b->ops->update_metrics(b);
	gn_textfile_write(&b->textfile, b->metrics, b->config->textfile, b->log, b->say);
}

void gn_base_put_state(const struct gn_base *b, struct gn_json_writer *w)
{
	gn_json_put_bool(w, "paused", b->is_paused);
	gn_json_put_bool(w, "dry_run", b->is_dry);
	gn_json_put_u64(w, "uptime_ms", (gn_now_ns() - b->started_ns) / 1000000);
	if (b->http)
		gn_json_put_u64(w, "metrics_port", gn_metrics_http_port(b->http));
}

int gn_base_load_config(const struct gn_base_ops *ops, const char *path, void *config, char *why,
			size_t why_bytes)
{
	int err = gn_config_load(ops->schema, path, config, why, why_bytes);

	return !err && ops->check ? ops->check(config, why, why_bytes) : err;
}

/* ---- Reload ------------------------------------------------------------------------------------------------------ */

static void keep_bound(struct gn_base *b, struct gn_base_config *fresh)
{
	const struct gn_base_config *old = b->config;

	if (!strcmp(fresh->socket, old->socket) && fresh->max_peers == old->max_peers &&
	    fresh->messages_per_s == old->messages_per_s &&
	    fresh->metrics_port == old->metrics_port)
		return;
	gn_base_say(b, "socket, connections, messages_per_s and port change at a restart");
	memcpy(fresh->socket, old->socket, sizeof(fresh->socket));
	fresh->max_peers = old->max_peers;
	fresh->messages_per_s = old->messages_per_s;
	fresh->metrics_port = old->metrics_port;
}

/* Read into @fresh, found fit, and the log it names is open. */
static int take_configuration(struct gn_base *b, void *fresh, char *why, size_t why_bytes)
{
	const struct gn_base_config *config = fresh;
	int err = gn_base_load_config(b->ops, b->config_path, fresh, why, why_bytes);

	if (!err && b->ops->accept)
		err = b->ops->accept(b, fresh, why, why_bytes);
	if (err)
		return err;
	err = gn_event_log_reopen(b->log, config->event_log);
	if (err)
		snprintf(why, why_bytes, "event_log %s: %s", config->event_log, strerror(-err));
	if (err && b->ops->discarded)
		b->ops->discarded(b);
	return err;
}

static void refuse_reload(struct gn_base *b, const char *why)
{
	b->refused_reloads++;
	gn_base_say(b, "%s; the old configuration stays", why);
	gn_json_put_text(gn_event_log_begin(b->log, "reload-refused"), "why", why);
	gn_event_log_end(b->log);
}

static void on_reload(void *ctx)
{
	struct gn_base *b = ctx;
	const size_t bytes = b->ops->schema->values_bytes;
	/* What is new, and what was. */
	char *fresh = malloc(bytes), *old = malloc(bytes), why[GN_WHY_BYTES] = "out of memory";

	if (!fresh || !old || take_configuration(b, fresh, why, sizeof(why))) {
		refuse_reload(b, why);
	} else {
		keep_bound(b, (struct gn_base_config *)(void *)fresh);
		memcpy(old, b->config, bytes);
		memcpy(b->config, fresh, bytes);
		b->reloads++;
		gn_event_log_begin(b->log, "reloaded");
		gn_event_log_end(b->log);
		b->ops->applied(b, old);
	}
	free(fresh);
	free(old);
}

/* ---- Stop -------------------------------------------------------------------------------------------------------- */

static int on_stopping(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct gn_base *b = ctx;

	(void)usec;
	if (!b->ops->may_end || b->ops->may_end(b)) {
		gn_service_exit(b->service, 0);
		return 0;
	}
	sd_event_source_set_time_relative(source, STOP_POLL_US);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

static void stop(void *ctx)
{
	struct gn_base *b = ctx;

	if (b->is_stopping)
		return;
	gn_step_pass("stopping");
	b->is_stopping = true;
	gn_event_log_begin(b->log, "stopping");
	gn_event_log_end(b->log);
	if (b->ops->stopping)
		b->ops->stopping(b);
	/* From the loop: the answer to quit is sent first. */
	if (sd_event_add_time_relative(gn_service_event(b->service), NULL, CLOCK_MONOTONIC, 0, 1000,
				       on_stopping, b) < 0)
		gn_service_exit(b->service, 0);
}

/* ---- Commands of every daemon ------------------------------------------------------------------------------------ */

static void set_paused(struct gn_base *b, bool is_paused)
{
	b->is_paused = is_paused;
	gn_event_log_begin(b->log, is_paused ? "paused" : "resumed");
	gn_event_log_end(b->log);
	b->ops->paused(b);
}

static void pause_work(void *ctx, struct gn_peer *p, const cJSON *a, struct gn_reply *reply)
{
	(void)p;
	(void)a;
	(void)reply;
	set_paused(ctx, true);
}

static void resume_work(void *ctx, struct gn_peer *p, const cJSON *a, struct gn_reply *reply)
{
	(void)p;
	(void)a;
	(void)reply;
	set_paused(ctx, false);
}

static void quit(void *ctx, struct gn_peer *p, const cJSON *a, struct gn_reply *reply)
{
	(void)p;
	(void)a;
	(void)reply;
	stop(ctx);
}

static const struct gn_server_command common_commands[] = {
	{ "pause", pause_work, NULL },
	{ "resume", resume_work, NULL },
	{ "quit", quit, NULL },
};
#define COMMON_COMMANDS (sizeof(common_commands) / sizeof(common_commands[0]))

/* ---- Start and end ----------------------------------------------------------------------------------------------- */

/* @err, having said it. */
static int say_why(const struct gn_base *b, const char *what, const char *path, int err)
{
	char text[512];

	snprintf(text, sizeof(text), "%s%s: %s", what, path,
		 err == -EADDRINUSE && !*what ? "another daemon serves it" : strerror(-err));
	if (err)
		b->say(text);
	return err;
}

static int make_metrics(struct gn_base *b)
{
	const uint16_t port = (uint16_t)b->config->metrics_port;
	char number[8];
	int err = gn_metrics_create(&b->metrics);

	if (err || !port)
		return err;
	snprintf(number, sizeof(number), "%u", port);
	return say_why(b, "metrics on port ", number,
		       gn_metrics_http_create(gn_service_event(b->service), b->metrics, port,
					      b->ops->update_metrics, b, &b->http));
}

static int make_server(struct gn_base *b)
{
	const struct gn_base_ops *ops = b->ops;
	size_t own = 0;
	struct gn_server_config config = {
		.path = b->config->socket,
		.product = ops->name,
		.release = ops->release,
		.capabilities = ops->capabilities,
		.capability_count = ops->capability_count,
		.event = ops->event,
		.gone = ops->gone,
		.step = gn_step_pass,
		.ctx = b,
		.max_peers = (unsigned)b->config->max_peers,
		.messages_per_s = (unsigned)b->config->messages_per_s,
	};

	while (ops->commands[own].name)
		own++;
	b->commands = calloc(own + COMMON_COMMANDS, sizeof(*b->commands));
	if (!b->commands)
		return -ENOMEM;
	memcpy(b->commands, ops->commands, own * sizeof(*b->commands));
	memcpy(b->commands + own, common_commands, sizeof(common_commands));
	config.commands = b->commands;
	config.command_count = own + COMMON_COMMANDS;
	return say_why(b, "", config.path,
		       gn_server_create(gn_service_event(b->service), &config, &b->server));
}

/* A VM has a socket, a handle of its process, and in a sharing domain an exchange and a link. */
#define FILES_PER_PEER 4

/* As many descriptors as peers may need, if they are to be had: what a shell grants is meant for a shell's programs. */
static void raise_file_limit(struct gn_base *b)
{
	const rlim_t needed = FILES_PER_PEER * b->config->max_peers;
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) || files.rlim_cur >= needed)
		return;
	files.rlim_cur = needed < files.rlim_max ? needed : files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) || files.rlim_cur < needed)
		gn_base_say(b,
			    "connections = %llu may need %llu descriptors, and there are to be no "
			    "more than %llu (RLIMIT_NOFILE)",
			    (unsigned long long)b->config->max_peers, (unsigned long long)needed,
			    (unsigned long long)files.rlim_max);
}

static int make_parts(struct gn_base *b)
{
	const struct gn_service_config service = { .reload = on_reload, .stop = stop, .ctx = b };
	int err = gn_service_create(&service, &b->service);

	raise_file_limit(b);
	if (!err)
		err = say_why(b, "event_log ", b->config->event_log,
			      gn_event_log_open(b->config->event_log, &b->log));
	if (!err)
		err = make_metrics(b);
	if (!err)
		err = make_server(b);
	b->started_ns = gn_now_ns();
	return err ? err : b->ops->start(b);
}

int gn_base_create(const struct gn_base_ops *ops, const char *config_path, bool dry,
		   void (*say)(const char *text), struct gn_base **out)
{
	struct gn_base *b = calloc(1, ops->daemon_bytes);
	char why[GN_WHY_BYTES];
	int err;

	if (!b)
		return -ENOMEM;
	b->ops = ops;
	b->config = (struct gn_base_config *)(void *)((char *)b + ops->config_at);
	b->say = say;
	b->is_dry = dry;
	b->config_path = config_path;
	err = gn_base_load_config(ops, config_path, b->config, why, sizeof(why));
	if (err)
		say(why);
	if (!err)
		err = make_parts(b);
	if (err)
		gn_base_destroy(b);
	else
		*out = b;
	return err;
}

void gn_base_destroy(struct gn_base *b)
{
	if (!b)
		return;
	b->is_stopping = true;
	gn_server_destroy(b->server);
	b->ops->destroy(b);
	gn_metrics_http_destroy(b->http);
	gn_metrics_destroy(b->metrics);
	gn_event_log_close(b->log);
	gn_service_destroy(b->service);
	free(b->commands);
	free(b);
}

int gn_base_run(struct gn_base *b)
{
	gn_service_ready(b->service);
	gn_json_put_bool(gn_event_log_begin(b->log, "started"), "dry_run", b->is_dry);
	gn_event_log_end(b->log);
	return gn_service_run(b->service);
}
