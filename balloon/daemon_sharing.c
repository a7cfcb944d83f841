/* SPDX-License-Identifier: MIT */
/*
 * daemon_sharing.c - what gnomon-shared saves is there to be divided, too.
 *
 * Sharing first, then balloon: VMs that share pages have together more memory than the host gives them, by what sharing saves. That
 * is added to the budget, less the reserve that the sharing daemon is configured to keep: savings are a loan, which guests call in by
 * writing. Reservations never rest on it. Asked once a period; an answer that is too old, or a daemon that is away, is no savings.
 */
#include <errno.h>
#include <stdlib.h>

#include "control/client.h"
#include "control/clock.h"
#include "daemon.h"

#define STALE_NS ((uint64_t)5 * 1000000000)

struct gn_daemon_sharing {
	struct gn_client *client;
	bool is_asking;
	uint64_t saved_bytes, answered_ns; /* 0: never */
};

static void on_down(void *ctx, struct gn_client *c)
{
	struct gn_daemon_sharing *s = ctx;

	(void)c;
	s->is_asking = false;
	s->saved_bytes = 0;
}

static void on_message(void *ctx, struct gn_client *c, const struct gn_message *m)
{
	struct gn_daemon_sharing *s = ctx;
	struct gn_json_errors e = { .failed = false };
	uint64_t saved = 0, reserve = 0;

	(void)c;
	if (m->kind != GN_MESSAGE_RETURN)
		return;
	s->is_asking = false;
	gn_json_get_u64(&e, m->body, "saved_bytes", GN_JSON_REQUIRED, GN_JSON_MAX_WHOLE, &saved);
	gn_json_get_u64(&e, m->body, "reserve_bytes", GN_JSON_REQUIRED, GN_JSON_MAX_WHOLE,
			&reserve);
	if (e.failed)
		return;
	s->saved_bytes = saved > reserve ? saved - reserve : 0;
	s->answered_ns = gn_now_ns();
}

int gn_daemon_sharing_start(struct gn_daemon *d)
{
	struct gn_client_config config = { .path = d->config.sharing_socket,
					   .down = on_down,
					   .message = on_message };
	struct gn_daemon_sharing *s;
	int err;

	if (!d->config.sharing_socket[0])
		return 0;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	config.ctx = s;
	err = gn_client_create(&config, &s->client);
	if (err)
		free(s);
	else
		d->sharing = s;
	return err;
}

void gn_daemon_sharing_stop(struct gn_daemon *d)
{
	if (d->sharing)
		gn_client_destroy(d->sharing->client);
	free(d->sharing);
	d->sharing = NULL;
}

void gn_daemon_ask_sharing(struct gn_daemon *d)
{
	static const char question[] = "{\"execute\": \"query-sharing\"}\n";
	struct gn_daemon_sharing *s = d->sharing;
	struct pollfd fd;

	if (!s)
		return;
	gn_client_prepare(s->client, &fd, gn_now_ns());
	if (poll(&fd, 1, 0) < 0)
		fd.revents = 0;
	gn_client_step(s->client, fd.revents, gn_now_ns());
	if (gn_client_is_up(s->client) && !s->is_asking)
		s->is_asking = !gn_client_send(s->client, question, sizeof(question) - 1);
}

uint64_t gn_daemon_saved_bytes(const struct gn_daemon *d)
{
	const struct gn_daemon_sharing *s = d->sharing;

	return s && s->answered_ns && gn_now_ns() - s->answered_ns < STALE_NS ? s->saved_bytes : 0;
}
