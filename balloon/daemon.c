/* SPDX-License-Identifier: MIT */
/*
 * daemon.c - the daemon's life: start, reload, stop.
 *
 * A reload takes the new configuration whole or not at all. What is bound at the start (socket, connections, metrics
 * port) needs a restart, which a new value of it is told; VMs do not mind one. A budget below what is reserved is
 * refused, because a reservation that was given is kept.
 *
 * Stopping: "hold" leaves all balloons as they are and the VMs on their own. "deflate" gives all memory back first,
 * whatever the budget says: that is what the operator who chose it wants before the daemon is away for long.
 */
#include "daemon.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/clock.h"
#include "control/step.h"

static const char *const capabilities[] = { "balloon", "events" };

void gn_daemon_say(struct gn_daemon *d, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	d->say(text);
}

static int make_policy(const struct gn_daemon_config *c, struct gn_policy **out)
{
	struct gn_policy_config config;

	gn_daemon_config_policy(c, &config);
	return gn_policy_create(gn_policy_at(c->policy), &config, out);
}

static bool same_policy(const struct gn_daemon_config *a, const struct gn_daemon_config *b)
{
	return a->policy == b->policy && a->tau == b->tau &&
	       a->reserve_fraction == b->reserve_fraction &&
	       a->dead_band_fraction == b->dead_band_fraction &&
	       a->calm_shrink_per_s == b->calm_shrink_per_s && a->reversal_ms == b->reversal_ms &&
	       a->refaults_per_s == b->refaults_per_s;
}

/* A budget may grow; it may shrink to what is reserved, once it is known what that is. */
static bool check_budget(const struct gn_daemon *d, uint64_t budget_bytes, char *why, size_t bytes)
{
	if (budget_bytes >= d->config.budget_bytes)
		return true;
	if (d->is_settling)
		snprintf(why, bytes, "budget cannot shrink before the VMs had time to come back");
	else if (budget_bytes < gn_daemon_sum_min(d))
		snprintf(why, bytes, "budget is %llu, but %llu are reserved by the VMs",
			 (unsigned long long)budget_bytes,
			 (unsigned long long)gn_daemon_sum_min(d));
	else
		return true;
	return false;
}

/* The new configuration into force. False: why is in @why, and nothing has changed. */
static bool apply(struct gn_daemon *d, const struct gn_daemon_config *new, char *why, size_t bytes)
{
	struct gn_policy *policy = NULL;
	int err;

	if (!check_budget(d, new->budget_bytes, why, bytes))
		return false;
	if (!same_policy(new, &d->config) && (err = make_policy(new, &policy))) {
		snprintf(why, bytes, "the policy could not be made: %s", strerror(-err));
		return false;
	}
	err = gn_event_log_reopen(d->log, new->event_log);
	if (err) {
		snprintf(why, bytes, "event_log %s: %s", new->event_log, strerror(-err));
		gn_policy_destroy(policy);
		return false;
	}
	if (policy) {
		gn_policy_destroy(d->policy);
		d->policy = policy;
	}
	return true;
}

/* VMs were told of these when they registered. */
static void change_times(struct gn_daemon *d, const struct gn_daemon_config *old)
{
	if (d->config.period_ms != old->period_ms)
		gn_daemon_restart_period(d);
	if (d->config.period_ms == old->period_ms && d->config.heartbeat_ms == old->heartbeat_ms)
		return;
	for (size_t i = 0; i < d->count; i++)
		gn_daemon_tell_settings(d, d->vms[i]);
}

static void on_reload(void *ctx)
{
	struct gn_daemon *d = ctx;
	struct gn_daemon_config new, old = d->config;
	char why[400];

	if (gn_config_load(&gn_daemon_schema, d->config_path, &new, why, sizeof(why)) ||
	    !apply(d, &new, why, sizeof(why))) {
		d->refused_reloads++;
		gn_daemon_say(d, "%s; the old configuration stays", why);
		gn_json_put_text(gn_event_log_begin(d->log, "reload-refused"), "why", why);
		gn_event_log_end(d->log);
		return;
	}
	if (strcmp(new.socket, d->config.socket) != 0 || new.max_peers != d->config.max_peers ||
	    new.messages_per_s != d->config.messages_per_s ||
	    new.metrics_port != d->config.metrics_port ||
	    strcmp(new.sharing_socket, d->config.sharing_socket) != 0) {
		gn_daemon_say(d, "socket, connections, messages_per_s, port and sharing_socket "
				 "change at a restart");
		memcpy(new.sharing_socket, d->config.sharing_socket, sizeof(new.sharing_socket));
		memcpy(new.socket, d->config.socket, sizeof(new.socket));
		new.max_peers = d->config.max_peers;
		new.messages_per_s = d->config.messages_per_s;
		new.metrics_port = d->config.metrics_port;
	}
	new.settle_ms = d->config.settle_ms;
	d->config = new;
	change_times(d, &old);
	d->reloads++;
	gn_event_log_begin(d->log, "reloaded");
	gn_event_log_end(d->log);
	gn_daemon_want_round(d);
}

/* All memory is back, or time is up. */
static int on_stopping(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct gn_daemon *d = ctx;
	bool all = true;

	(void)usec;
	for (size_t i = 0; i < d->count; i++)
		all &= d->vms[i]->actual_bytes >= d->vms[i]->target_bytes;
	if (all || gn_now_ns() >= d->stop_by_ns) {
		gn_service_exit(d->service, 0);
		return 0;
	}
	sd_event_source_set_time_relative(source, 20000);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

void gn_daemon_stop(struct gn_daemon *d)
{
	const bool deflates = d->config.stop == GN_STOP_DEFLATE && !d->is_dry;

	if (d->is_stopping)
		return;
	gn_step_pass("stopping");
	d->is_stopping = true;
	gn_json_put_text(gn_event_log_begin(d->log, "stopping"), "balloons",
			 deflates ? "deflate" : "hold");
	gn_event_log_end(d->log);
	d->stop_by_ns = gn_now_ns();
	if (deflates) {
		d->stop_by_ns += d->config.stop_timeout_ms * 1000000;
		for (size_t i = 0; i < d->count; i++)
			gn_daemon_tell(d, d->vms[i], d->vms[i]->max_bytes);
	}
	/* From the loop: the answer to quit is sent first. */
	if (sd_event_add_time_relative(gn_service_event(d->service), NULL, CLOCK_MONOTONIC, 0, 1000,
				       on_stopping, d) < 0)
		gn_service_exit(d->service, 0);
}

static void on_stop(void *ctx)
{
	gn_daemon_stop(ctx);
}

static int make_server(struct gn_daemon *d)
{
	struct gn_server_config config = {
		.path = d->config.socket,
		.product = "gnomon-balloond",
		.release = GN_DAEMON_RELEASE,
		.capabilities = capabilities,
		.capability_count = sizeof(capabilities) / sizeof(capabilities[0]),
		.commands = gn_daemon_commands,
		.command_count = gn_daemon_command_count,
		.event = gn_daemon_on_event,
		.gone = gn_daemon_on_gone,
		.step = gn_step_pass,
		.ctx = d,
		.max_peers = (unsigned)d->config.max_peers,
		.messages_per_s = (unsigned)d->config.messages_per_s,
	};

	return gn_start_server(gn_service_event(d->service), &config, d->say, &d->server);
}

static int make_parts(struct gn_daemon *d)
{
	struct gn_service_config service = { .reload = on_reload, .stop = on_stop, .ctx = d };
	int err = gn_service_create(&service, &d->service);

	if (!err)
		err = make_policy(&d->config, &d->policy);
	if (!err)
		err = gn_start_log(d->config.event_log, d->say, &d->log);
	if (!err)
		err = gn_start_metrics(gn_service_event(d->service),
				       (uint16_t)d->config.metrics_port, gn_daemon_update_metrics,
				       d, d->say, &d->metrics, &d->http);
	if (!err)
		err = make_server(d);
	if (!err)
		err = gn_daemon_sharing_start(d);
	if (!err)
		err = gn_daemon_rounds_start(d);
	return err;
}

int gn_daemon_create(const char *config_path, bool dry, void (*say)(const char *text),
		     struct gn_daemon **out)
{
	struct gn_daemon *d = calloc(1, sizeof(*d));
	char why[400];
	int err;

	if (!d)
		return -ENOMEM;
	d->say = say;
	d->is_dry = dry;
	d->config_path = config_path;
	err = gn_config_load(&gn_daemon_schema, config_path, &d->config, why, sizeof(why));
	if (err)
		d->say(why);
	if (!err)
		err = make_parts(d);
	if (err)
		gn_daemon_destroy(d);
	else
		*out = d;
	return err;
}

void gn_daemon_destroy(struct gn_daemon *d)
{
	if (!d)
		return;
	d->is_stopping = true;
	gn_server_destroy(d->server);
	while (d->lost)
		gn_daemon_drop_lost(d, d->lost);
	gn_daemon_sharing_stop(d);
	gn_metrics_http_destroy(d->http);
	gn_metrics_destroy(d->metrics);
	gn_event_log_close(d->log);
	gn_policy_destroy(d->policy);
	sd_event_source_disable_unref(d->period);
	sd_event_source_disable_unref(d->soon);
	gn_service_destroy(d->service);
	free(d->vms);
	free(d->policy_vms);
	free(d->decisions);
	free(d);
}

int gn_daemon_run(struct gn_daemon *d)
{
	gn_service_ready(d->service);
	gn_json_put_bool(gn_event_log_begin(d->log, "started"), "dry_run", d->is_dry);
	gn_event_log_end(d->log);
	return gn_service_run(d->service);
}
