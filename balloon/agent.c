/* SPDX-License-Identifier: MIT */
/*
 * agent.c - registering, reporting, obeying.
 *
 * A report goes out when something changed that the daemon would act on, and as a slow heartbeat; looking costs more
 * often than telling, and is done every MOVING_MS while the balloon moves (others wait for what arrives), else once
 * in the daemon's period. A registration that is refused is tried again, for room may come.
 *
 * The number of the target that is obeyed goes with each report: it tells the daemon which of its targets are no
 * longer under way.
 */
#include "agent.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "control/client.h"
#include "control/clock.h"

#define MS_NS	    ((uint64_t)1000000)
#define REGISTER_ID "\"register\""

enum {
	MOVING_MS = 10,
	MOVING_PATIENCE_MS =
		2000, /* a balloon that has not moved for so long is not looked at as often */
	RETRY_MS = 250,
	UNREGISTER_MS = 1000,
	NOTABLE_PART = 64, /* a change of 1/64 of the VM is worth a report */
};

/* Fields: (c) const after create, (t) the agent's thread, (a) atomic. */
struct gn_agent {
	struct gn_agent_config config;		/* (t) min, max and shares, by SETTINGS; else (c) */
	char name[64], backend[16], scheme[24]; /* (c) */
	struct gn_client *client;		/* (t) */
	int kick_fd;				/* (c) */
	pthread_t thread;
	bool has_thread;		  /* (c) after start */
	atomic_bool is_stopping;	  /* (a) */
	atomic_bool is_registered;	  /* (a) written by (t) */
	bool was_registered;		  /* (t) ever: we come back, not new */
	uint64_t register_at_ns;	  /* (t) up, and refused: when to try again; 0: not */
	uint64_t serial, target_bytes;	  /* (t) obeyed */
	uint64_t period_ms, heartbeat_ms; /* (t) */
	uint64_t look_at_ns, moved_ns;	  /* (t) */
	uint64_t reported_ns, reported_serial;
	struct gn_agent_sample reported; /* (t) what the daemon knows */
};

static void take_sample(struct gn_agent *a, struct gn_agent_sample *out)
{
	*out = (struct gn_agent_sample){ .active_bytes = GN_AGENT_UNKNOWN,
					 .recent_bytes = GN_AGENT_UNKNOWN,
					 .free_bytes = GN_AGENT_UNKNOWN,
					 .available_bytes = GN_AGENT_UNKNOWN,
					 .claims_trusted = true };
	a->config.ops->sample(a->config.ctx, out);
}

static void send_registration(struct gn_agent *a)
{
	const struct gn_agent_config *c = &a->config;
	struct gn_json_writer w = { .text = NULL };
	struct gn_agent_sample now;

	a->register_at_ns = 0;
	take_sample(a, &now);
	gn_protocol_begin_command(&w, "register");
	gn_json_begin_object(&w, "arguments");
	gn_json_put_text(&w, "name", a->name);
	gn_json_put_u64(&w, "mem_bytes", c->mem_bytes);
	gn_json_put_u64(&w, "min_bytes", c->min_bytes);
	gn_json_put_u64(&w, "max_bytes", c->max_bytes);
	gn_json_put_u64(&w, "shares", c->shares);
	gn_json_put_u64(&w, "actual_bytes", now.actual_bytes);
	if (a->backend[0])
		gn_json_put_text(&w, "backend", a->backend);
	if (a->scheme[0])
		gn_json_put_text(&w, "scheme", a->scheme);
	gn_json_put_bool(&w, "resumed", a->was_registered);
	gn_json_end_object(&w);
	gn_protocol_end_command(&w, REGISTER_ID);
	(void)gn_client_submit(a->client, &w);
}

static void put_known(struct gn_json_writer *w, const char *key, uint64_t bytes)
{
	if (bytes != GN_AGENT_UNKNOWN)
		gn_json_put_u64(w, key, bytes);
}

static void send_report(struct gn_agent *a, const struct gn_agent_sample *s, uint64_t now_ns)
{
	struct gn_json_writer w = { .text = NULL };

	a->reported = *s;
	a->reported_serial = a->serial;
	a->reported_ns = now_ns;
	gn_protocol_begin_event(&w, "REPORT");
	gn_json_put_u64(&w, "actual_bytes", s->actual_bytes);
	gn_json_put_u64(&w, "serial", a->serial);
	put_known(&w, "active_bytes", s->active_bytes);
	put_known(&w, "recent_bytes", s->recent_bytes);
	put_known(&w, "free_bytes", s->free_bytes);
	put_known(&w, "available_bytes", s->available_bytes);
	if (s->asks_bytes)
		gn_json_put_u64(&w, "asks_bytes", s->asks_bytes);
	if (s->refaults_per_s > 0)
		gn_json_put_double(&w, "refaults_per_s", s->refaults_per_s);
	if (s->touches)
		gn_json_put_u64(&w, "touches", s->touches);
	if (s->reclaimed_bytes)
		gn_json_put_u64(&w, "reclaimed_bytes", s->reclaimed_bytes);
	if (s->reformed_blocks)
		gn_json_put_u64(&w, "reformed_blocks", s->reformed_blocks);
	if (!s->claims_trusted)
		gn_json_put_bool(&w, "claims_trusted", false);
	gn_protocol_end_event(&w, 0);
	(void)gn_client_submit(a->client, &w);
}

static bool differs(const struct gn_agent *a, uint64_t x, uint64_t y)
{
	uint64_t by = x > y ? x - y : y - x;

	return by > a->config.mem_bytes / NOTABLE_PART;
}

static bool is_news(const struct gn_agent *a, const struct gn_agent_sample *s)
{
	const struct gn_agent_sample *r = &a->reported;

	return s->actual_bytes != r->actual_bytes || a->serial != a->reported_serial ||
	       s->reclaimed_bytes != r->reclaimed_bytes || s->asks_bytes != r->asks_bytes ||
	       s->claims_trusted != r->claims_trusted ||
	       differs(a, s->active_bytes, r->active_bytes) ||
	       differs(a, s->recent_bytes, r->recent_bytes) ||
	       differs(a, s->free_bytes, r->free_bytes) ||
	       differs(a, s->available_bytes, r->available_bytes) ||
	       s->refaults_per_s > 2 * r->refaults_per_s + 1 ||
	       2 * s->refaults_per_s + 1 < r->refaults_per_s;
}

static void look(struct gn_agent *a, uint64_t now_ns)
{
	struct gn_agent_sample s;
	uint64_t wait_ms = a->period_ms;

	take_sample(a, &s);
	if (s.actual_bytes != a->reported.actual_bytes)
		a->moved_ns = now_ns;
	if (s.actual_bytes != a->target_bytes && now_ns - a->moved_ns < MOVING_PATIENCE_MS * MS_NS)
		wait_ms = MOVING_MS;
	a->look_at_ns = now_ns + wait_ms * MS_NS;
	if (is_news(a, &s) || now_ns - a->reported_ns >= a->heartbeat_ms * MS_NS)
		send_report(a, &s, now_ns);
}

static void obey(struct gn_agent *a, uint64_t target_bytes, uint64_t serial)
{
	uint64_t now_ns = gn_now_ns();

	a->target_bytes = target_bytes;
	a->serial = serial;
	a->moved_ns = now_ns;
	a->config.ops->set_target(a->config.ctx, target_bytes);
	look(a, now_ns);
}

static void on_up(void *ctx, struct gn_client *c)
{
	(void)c;
	send_registration(ctx);
}

/* The balloon stays as it is: a target that is not reached yet is not pursued. */
static void on_down(void *ctx, struct gn_client *c)
{
	struct gn_agent *a = ctx;
	struct gn_agent_sample s;

	(void)c;
	if (!atomic_load(&a->is_registered))
		return;
	atomic_store(&a->is_registered, false);
	take_sample(a, &s);
	if (s.actual_bytes != a->target_bytes)
		a->config.ops->set_target(a->config.ctx, s.actual_bytes);
}

static void take_registration(struct gn_agent *a, const cJSON *body)
{
	struct gn_json_errors e = { .failed = false };
	uint64_t target = 0, serial = 0;

	a->period_ms = 1000;
	a->heartbeat_ms = 5000;
	gn_json_get_u64(&e, body, "target_bytes", GN_JSON_REQUIRED, a->config.mem_bytes, &target);
	gn_json_get_u64(&e, body, "serial", GN_JSON_REQUIRED, UINT64_MAX, &serial);
	gn_json_get_u64(&e, body, "period_ms", GN_JSON_OPTIONAL, 60000, &a->period_ms);
	gn_json_get_u64(&e, body, "heartbeat_ms", GN_JSON_OPTIONAL, 60000, &a->heartbeat_ms);
	if (e.failed) {
		a->register_at_ns = gn_now_ns() + RETRY_MS * MS_NS;
		return;
	}
	a->was_registered = true;
	a->reported_ns = 0;
	atomic_store(&a->is_registered, true);
	obey(a, target, serial);
}

static void take_settings(struct gn_agent *a, const cJSON *data)
{
	struct gn_json_errors e = { .failed = false };
	uint64_t min = a->config.min_bytes, max = a->config.max_bytes, shares = a->config.shares;
	uint64_t period_ms = a->period_ms, heartbeat_ms = a->heartbeat_ms;

	gn_json_get_u64(&e, data, "min_bytes", GN_JSON_OPTIONAL, a->config.mem_bytes, &min);
	gn_json_get_u64(&e, data, "max_bytes", GN_JSON_OPTIONAL, a->config.mem_bytes, &max);
	gn_json_get_u64(&e, data, "shares", GN_JSON_OPTIONAL, UINT32_MAX, &shares);
	gn_json_get_u64(&e, data, "period_ms", GN_JSON_OPTIONAL, 60000, &period_ms);
	gn_json_get_u64(&e, data, "heartbeat_ms", GN_JSON_OPTIONAL, 60000, &heartbeat_ms);
	if (e.failed || !min || min > max || !shares)
		return;
	a->config.min_bytes = min;
	a->config.max_bytes = max;
	a->config.shares = (uint32_t)shares;
	a->period_ms = period_ms;
	a->heartbeat_ms = heartbeat_ms;
	a->look_at_ns = 0; /* soon: the wait under way may be far longer than the new period */
}

static void take_event(struct gn_agent *a, const struct gn_message *m)
{
	struct gn_json_errors e = { .failed = false };
	uint64_t bytes = 0, serial = 0;

	if (!strcmp(m->name, "TARGET")) {
		gn_json_get_u64(&e, m->body, "target_bytes", GN_JSON_REQUIRED, a->config.mem_bytes,
				&bytes);
		gn_json_get_u64(&e, m->body, "serial", GN_JSON_REQUIRED, UINT64_MAX, &serial);
		if (!e.failed)
			obey(a, bytes, serial);
	} else if (!strcmp(m->name, "RECLAIM")) {
		gn_json_get_u64(&e, m->body, "bytes", GN_JSON_REQUIRED, a->config.mem_bytes,
				&bytes);
		if (!e.failed && a->config.ops->reclaim)
			a->config.ops->reclaim(a->config.ctx, bytes);
	} else if (!strcmp(m->name, "SETTINGS")) {
		take_settings(a, m->body);
	}
}

static void on_message(void *ctx, struct gn_client *c, const struct gn_message *m)
{
	struct gn_agent *a = ctx;

	(void)c;
	if (m->kind == GN_MESSAGE_RETURN && !strcmp(m->id, REGISTER_ID))
		take_registration(a, m->body);
	else if (m->kind == GN_MESSAGE_ERROR && !strcmp(m->id, REGISTER_ID))
		a->register_at_ns = gn_now_ns() + RETRY_MS * MS_NS;
	else if (m->kind == GN_MESSAGE_EVENT && atomic_load(&a->is_registered))
		take_event(a, m);
}

static int copy_name(char *to, size_t bytes, const char *from)
{
	return (size_t)snprintf(to, bytes, "%s", from ? from : "") < bytes ? 0 : -ENAMETOOLONG;
}

int gn_agent_create(const struct gn_agent_config *config, struct gn_agent **out)
{
	struct gn_client_config client = {
		.path = config->socket,
		.max_pause_ms = config->max_pause_ms,
		.up = on_up,
		.down = on_down,
		.message = on_message,
	};
	struct gn_agent *a;
	int err;

	if (!config->name || !config->name[0] || !config->min_bytes || !config->shares ||
	    config->min_bytes > config->max_bytes || config->max_bytes > config->mem_bytes)
		return -EINVAL;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->config = *config;
	a->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = a->kick_fd < 0 ? -errno : copy_name(a->name, sizeof(a->name), config->name);
	if (!err)
		err = copy_name(a->backend, sizeof(a->backend), config->backend);
	if (!err)
		err = copy_name(a->scheme, sizeof(a->scheme), config->scheme);
	client.ctx = a;
	if (!err)
		err = gn_client_create(&client, &a->client);
	if (err)
		gn_agent_destroy(a);
	else
		*out = a;
	return err;
}

void gn_agent_destroy(struct gn_agent *a)
{
	if (!a)
		return;
	if (a->has_thread) {
		atomic_store(&a->is_stopping, true);
		gn_agent_kick(a);
		pthread_join(a->thread, NULL);
	}
	/* Our process may live on, so that we end has to be said, and heard; who does not answer will see it end. */
	if (atomic_exchange(&a->is_registered, false))
		gn_client_tell(a->client, "unregister", UNREGISTER_MS);
	gn_client_destroy(a->client);
	if (a->kick_fd >= 0)
		close(a->kick_fd);
	free(a);
}

void gn_agent_kick(struct gn_agent *a)
{
	/* Full means kicked already. */
	if (eventfd_write(a->kick_fd, 1))
		return;
}

bool gn_agent_is_registered(const struct gn_agent *a)
{
	return atomic_load(&a->is_registered);
}

static int until(uint64_t due_ns, uint64_t now_ns, int wait_ms)
{
	int left_ms = due_ns <= now_ns ? 0 : (int)((due_ns - now_ns + MS_NS - 1) / MS_NS);

	return wait_ms < 0 || left_ms < wait_ms ? left_ms : wait_ms;
}

int gn_agent_prepare(struct gn_agent *a, struct pollfd fds[GN_AGENT_FDS], uint64_t now_ns)
{
	int wait_ms = gn_client_prepare(a->client, &fds[0], now_ns);

	fds[1] = (struct pollfd){ .fd = a->kick_fd, .events = POLLIN };
	if (atomic_load(&a->is_registered))
		wait_ms = until(a->look_at_ns, now_ns, wait_ms);
	else if (gn_client_is_up(a->client) && a->register_at_ns)
		wait_ms = until(a->register_at_ns, now_ns, wait_ms);
	return wait_ms;
}

void gn_agent_step(struct gn_agent *a, const struct pollfd fds[GN_AGENT_FDS], uint64_t now_ns)
{
	bool is_kicked = false;
	eventfd_t kicks;

	if (fds[1].revents & POLLIN)
		is_kicked = !eventfd_read(a->kick_fd, &kicks);
	gn_client_step(a->client, fds[0].revents, now_ns);
	if (atomic_load(&a->is_registered)) {
		if (is_kicked || now_ns >= a->look_at_ns)
			look(a, now_ns);
	} else if (gn_client_is_up(a->client) && a->register_at_ns && now_ns >= a->register_at_ns) {
		send_registration(a);
	}
}

static void *run(void *ctx)
{
	struct gn_agent *a = ctx;

	while (!atomic_load(&a->is_stopping)) {
		struct pollfd fds[GN_AGENT_FDS];
		int wait_ms = gn_agent_prepare(a, fds, gn_now_ns());

		if (poll(fds, GN_AGENT_FDS, wait_ms) < 0)
			fds[0].revents = fds[1].revents = 0;
		gn_agent_step(a, fds, gn_now_ns());
	}
	return NULL;
}

int gn_agent_start(struct gn_agent *a)
{
	int err = pthread_create(&a->thread, NULL, run, a);

	if (!err)
		a->has_thread = true;
	return -err;
}
