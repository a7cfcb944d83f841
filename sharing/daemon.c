/* SPDX-License-Identifier: MIT */
/*
 * daemon.c - the daemon's life: start, reload, stop, and what is done each second.
 *
 * A reload takes the new configuration whole or not at all. What is bound at the start (socket, connections, metrics port) and what
 * a domain has had since it began (pool, index) change at a restart, or for the next domain. VMs that their domain's section names
 * no more lose their connection; what they share stays shared until they write it.
 *
 * Stopping is nothing to VMs: they keep what they share.
 */
#include "daemon.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/clock.h"
#include "control/step.h"

#define PERIOD_US  1000000
#define PAGE_BYTES 4096

static const char *const capabilities[] = { "sharing", "events" };

void gn_shared_say(struct gn_shared *d, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	d->say(text);
}

/* ---- Figures ----------------------------------------------------------------------------------------------------- */

static void add_broker(struct gn_broker_stats *sum, const struct gn_broker *broker)
{
	struct gn_broker_stats s;
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)&s;

	_Static_assert(sizeof(s) % sizeof(*to) == 0, "nothing but counts");
	gn_broker_get_stats(broker, &s);
	for (size_t i = 0; i < sizeof(s) / sizeof(*to); i++)
		to[i] += from[i];
}

void gn_shared_sum(const struct gn_shared *d, struct gn_shared_sums *out)
{
	uint64_t in_domains = 0, alone = 0, alone_frames = 0, used;

	memset(out, 0, sizeof(*out));
	for (const struct gn_shared_domain *domain = d->domains; domain; domain = domain->next)
		add_broker(&out->brokers, domain->broker);
	out->pages_scanned = d->gone_scanned;
	out->zero_pages = d->gone_zero_pages;
	for (const struct gn_shared_vm *vm = d->vms; vm; vm = vm->next) {
		*(vm->domain ? &in_domains : &alone) += vm->pages_sharing;
		alone_frames += vm->domain ? 0 : vm->pages_shared;
		out->pages_unshared += vm->pages_unshared;
		out->pages_volatile += vm->pages_volatile;
		out->pages_scanned += vm->pages_scanned;
		out->zero_pages += vm->zero_pages;
		out->full_scans += vm->full_scans;
		out->lost_vms += !vm->peer;
	}
	out->pages_shared = out->brokers.pages_shared + alone_frames;
	out->pages_sharing =
		in_domains + alone > out->pages_shared ? in_domains + alone - out->pages_shared : 0;
	used = out->brokers.pool_resident_pages + alone_frames;
	out->saved_bytes = in_domains + alone > used ? (in_domains + alone - used) * PAGE_BYTES : 0;
}

/* ---- Each second ------------------------------------------------------------------------------------------------- */

static int on_period(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct gn_shared *d = ctx;
	struct gn_shared_sums sums;

	(void)usec;
	for (struct gn_shared_domain *domain = d->domains; domain; domain = domain->next) {
		gn_broker_tidy(domain->broker);
		gn_shared_domain_order(d, domain);
	}
	gn_shared_sum(d, &sums);
	gn_service_status(d->service, "%u VMs, %llu MiB saved%s%s", d->vm_count,
			  (unsigned long long)(sums.saved_bytes >> 20),
			  d->is_paused ? ", paused" : "", d->is_dry ? ", dry run" : "");
	if (d->config.textfile[0]) {
		gn_shared_update_metrics(d);
		gn_textfile_write(&d->textfile, d->metrics, d->config.textfile, d->log, d->say);
	}
	sd_event_source_set_time_relative(source, PERIOD_US);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

/* ---- Reload and stop --------------------------------------------------------------------------------------------- */

static void keep_bound(struct gn_shared *d, struct gn_shared_config *new)
{
	const struct gn_shared_config *old = &d->config;

	if (!strcmp(new->socket, old->socket) &&
	    new->max_peers == old->max_peers &&new->messages_per_s ==
		    old->messages_per_s &&new->metrics_port == old->metrics_port)
		return;
	gn_shared_say(d, "socket, connections, messages_per_s and port change at a restart");
	memcpy(new->socket, old->socket, sizeof(new->socket));
	new->max_peers = old->max_peers;
	new->messages_per_s = old->messages_per_s;
	new->metrics_port = old->metrics_port;
}

static void on_reload(void *ctx)
{
	struct gn_shared *d = ctx;
	struct gn_shared_config *new = malloc(sizeof(*new));
	char why[400] = "out of memory";
	int err = new ? gn_config_load(&gn_shared_schema, d->config_path, new, why, sizeof(why))
		      : -ENOMEM;

	if (!err && (err = gn_event_log_reopen(d->log, new->event_log)))
		snprintf(why, sizeof(why), "event_log %s: %s", new->event_log, strerror(-err));
	if (err) {
		d->refused_reloads++;
		gn_shared_say(d, "%s; the old configuration stays", why);
		gn_json_put_text(gn_event_log_begin(d->log, "reload-refused"), "why", why);
	} else {
		keep_bound(d, new);
		d->config = *new;
		d->reloads++;
		gn_shared_recheck(d);
		gn_shared_tell_budget(d, true);
		gn_event_log_begin(d->log, "reloaded");
	}
	gn_event_log_end(d->log);
	free(new);
}

static int on_stopping(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct gn_shared *d = ctx;

	(void)source;
	(void)usec;
	gn_service_exit(d->service, 0);
	return 0;
}

void gn_shared_stop(struct gn_shared *d)
{
	if (d->is_stopping)
		return;
	gn_step_pass("stopping");
	d->is_stopping = true;
	gn_event_log_begin(d->log, "stopping");
	gn_event_log_end(d->log);
	/* From the loop: the answer to quit is sent first. */
	if (sd_event_add_time_relative(gn_service_event(d->service), NULL, CLOCK_MONOTONIC, 0, 1000,
				       on_stopping, d) < 0)
		gn_service_exit(d->service, 0);
}

static void on_stop(void *ctx)
{
	gn_shared_stop(ctx);
}

/* ---- Start ------------------------------------------------------------------------------------------------------- */

static int make_server(struct gn_shared *d)
{
	struct gn_server_config config = {
		.path = d->config.socket,
		.product = "gnomon-shared",
		.release = GN_SHARED_RELEASE,
		.capabilities = capabilities,
		.capability_count = sizeof(capabilities) / sizeof(capabilities[0]),
		.commands = gn_shared_commands,
		.command_count = gn_shared_command_count,
		.event = gn_shared_on_event,
		.gone = gn_shared_on_gone,
		.step = gn_step_pass,
		.ctx = d,
		.max_peers = (unsigned)d->config.max_peers,
		.messages_per_s = (unsigned)d->config.messages_per_s,
	};

	return gn_start_server(gn_service_event(d->service), &config, d->say, &d->server);
}

static int make_parts(struct gn_shared *d)
{
	const struct gn_service_config service = { .reload = on_reload, .stop = on_stop, .ctx = d };
	int err = gn_service_create(&service, &d->service);

	if (!err)
		err = gn_start_log(d->config.event_log, d->say, &d->log);
	if (!err)
		err = gn_start_metrics(gn_service_event(d->service),
				       (uint16_t)d->config.metrics_port, gn_shared_update_metrics,
				       d, d->say, &d->metrics, &d->http);
	if (!err)
		err = make_server(d);
	if (!err)
		err = gn_shared_budget_start(d);
	if (!err)
		err = sd_event_add_time_relative(gn_service_event(d->service), &d->period,
						 CLOCK_MONOTONIC, PERIOD_US, 1000, on_period, d);
	d->started_ns = gn_now_ns();
	return err < 0 ? err : 0;
}

int gn_shared_create(const char *config_path, bool dry, void (*say)(const char *text),
		     struct gn_shared **out)
{
	struct gn_shared *d = calloc(1, sizeof(*d));
	char why[400];
	int err;

	if (!d)
		return -ENOMEM;
	d->say = say;
	d->is_dry = dry;
	d->config_path = config_path;
	err = gn_config_load(&gn_shared_schema, config_path, &d->config, why, sizeof(why));
	if (err)
		d->say(why);
	if (!err)
		err = make_parts(d);
	if (err)
		gn_shared_destroy(d);
	else
		*out = d;
	return err;
}

void gn_shared_destroy(struct gn_shared *d)
{
	if (!d)
		return;
	d->is_stopping = true;
	gn_server_destroy(d->server);
	while (d->vms)
		gn_shared_forget(d->vms);
	gn_metrics_http_destroy(d->http);
	gn_metrics_destroy(d->metrics);
	gn_event_log_close(d->log);
	sd_event_source_disable_unref(d->period);
	sd_event_source_disable_unref(d->rest);
	gn_service_destroy(d->service);
	free(d);
}

int gn_shared_run(struct gn_shared *d)
{
	gn_service_ready(d->service);
	gn_json_put_bool(gn_event_log_begin(d->log, "started"), "dry_run", d->is_dry);
	gn_event_log_end(d->log);
	return gn_service_run(d->service);
}
