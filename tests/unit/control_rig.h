/* SPDX-License-Identifier: MIT */
/*
 * control_rig.h - a control server with four commands, and peers in the same thread.
 *
 * Peers are non-blocking sockets; the loop is turned until what is expected has happened or time is up.
 */
#ifndef GN_TESTS_CONTROL_RIG_H
#define GN_TESTS_CONTROL_RIG_H

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/client.h"
#include "control/clock.h"
#include "control/server.h"

#define SECOND_NS ((uint64_t)1000000000)

struct rig {
	char directory[64], path[80];
	sd_event *event;
	struct gn_server *server;
	unsigned events, gone;
	char last_event[32];
};

static inline void run_echo(void *ctx, struct gn_peer *p, const cJSON *arguments,
			    struct gn_reply *reply)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(arguments, "text"));

	(void)ctx;
	(void)p;
	if (!text)
		gn_reply_fail(reply, "InvalidArgument", "\"text\" is missing");
	else
		gn_json_put_text(reply->writer, "return", text);
}

static inline void run_nothing(void *ctx, struct gn_peer *p, const cJSON *arguments,
			       struct gn_reply *reply)
{
	(void)ctx;
	(void)p;
	(void)arguments;
	(void)reply;
}

static inline void run_big(void *ctx, struct gn_peer *p, const cJSON *arguments,
			   struct gn_reply *reply)
{
	static char text[100001];

	(void)ctx;
	(void)p;
	(void)arguments;
	memset(text, 'x', sizeof(text) - 1);
	gn_json_put_text(reply->writer, "return", text);
}

/* Two events to who asks, before the answer. */
static inline void run_shout(void *ctx, struct gn_peer *p, const cJSON *arguments,
			     struct gn_reply *reply)
{
	(void)ctx;
	(void)arguments;
	(void)reply;
	for (unsigned i = 0; i < 2; i++) {
		gn_json_put_u64(gn_peer_begin_event(p, "SHOUT"), "n", i);
		gn_peer_end_event(p);
	}
}

/* A descriptor of a file that says "gift". */
static inline void run_gift(void *ctx, struct gn_peer *p, const cJSON *arguments,
			    struct gn_reply *reply)
{
	int fd = memfd_create("gift", MFD_CLOEXEC);

	(void)ctx;
	(void)p;
	cr_assert_eq(pwrite(fd, "gift", 4, 0), 4);
	cr_assert_eq(gn_reply_attach(reply, fd), 0);
	close(fd);
	if (cJSON_GetObjectItem(arguments, "fail"))
		gn_reply_fail(reply, "Denied", "no gift");
}

static const struct gn_server_command commands[] = {
	{ "gift", run_gift, "fail" },	  { "echo", run_echo, "text" },
	{ "nothing", run_nothing, NULL }, { "big", run_big, NULL },
	{ "shout", run_shout, NULL },
};

static inline int on_event(void *ctx, struct gn_peer *p, const char *name, const cJSON *data)
{
	struct rig *r = ctx;

	(void)p;
	r->events++;
	snprintf(r->last_event, sizeof(r->last_event), "%s", name);
	return data ? 0 : -EINVAL;
}

static inline void on_gone(void *ctx, struct gn_peer *p)
{
	struct rig *r = ctx;

	(void)p;
	r->gone++;
}

static const char *const capabilities[] = { "testing" };

static inline int rig_listen(struct rig *r, struct gn_server_config *config)
{
	config->path = r->path;
	config->product = "test";
	config->release = "1";
	config->capabilities = capabilities;
	config->capability_count = 1;
	config->commands = commands;
	config->command_count = sizeof(commands) / sizeof(commands[0]);
	config->event = on_event;
	config->gone = on_gone;
	config->ctx = r;
	return gn_server_create(r->event, config, &r->server);
}

static inline void rig_init(struct rig *r, struct gn_server_config config)
{
	memset(r, 0, sizeof(*r));
	snprintf(r->directory, sizeof(r->directory), "/tmp/gn_control_XXXXXX");
	cr_assert_not_null(mkdtemp(r->directory));
	snprintf(r->path, sizeof(r->path), "%s/socket", r->directory);
	cr_assert_geq(sd_event_new(&r->event), 0);
	cr_assert_eq(rig_listen(r, &config), 0);
}

static inline void rig_fini(struct rig *r)
{
	char lock[100];

	gn_server_destroy(r->server);
	sd_event_unref(r->event);
	snprintf(lock, sizeof(lock), "%s.lock", r->path);
	unlink(lock);
	cr_assert_eq(rmdir(r->directory), 0, "the socket is gone with its server");
}

static inline int dial(struct rig *r)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, r->path, strlen(r->path) + 1);
	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static inline void turn(struct rig *r)
{
	cr_assert_geq(sd_event_run(r->event, 2000), 0);
}

/* Turn until @wanted is in what came from @fd; all of it in @out. */
static inline void await(struct rig *r, int fd, const char *wanted, char *out, size_t bytes)
{
	uint64_t end = gn_now_ns() + 5 * SECOND_NS;
	size_t have = 0;

	out[0] = '\0';
	while (!strstr(out, wanted)) {
		ssize_t got;

		turn(r);
		got = recv(fd, out + have, bytes - 1 - have, 0);
		if (got > 0)
			have += (size_t)got;
		out[have] = '\0';
		cr_assert_lt(gn_now_ns(), end, "no \"%s\" in: %s", wanted, out);
	}
}

/* Turn until the server has hung up on @fd; what it sent before is read away. */
static inline void await_hangup(struct rig *r, int fd)
{
	uint64_t end = gn_now_ns() + 5 * SECOND_NS;
	char away[4096];
	ssize_t got;

	do {
		turn(r);
		got = recv(fd, away, sizeof(away), 0);
		cr_assert_lt(gn_now_ns(), end, "no hang-up");
	} while (got > 0 || (got < 0 && errno == EAGAIN));
	close(fd);
}

static inline void say(int fd, const char *text)
{
	cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* What run_gift() gave. */
static inline void check_gift(int fd)
{
	char text[5] = "";

	cr_assert_eq(pread(fd, text, 4, 0), 4);
	cr_assert_str_eq(text, "gift");
	close(fd);
}

static inline void turn_both(struct rig *r, struct gn_client *c)
{
	uint64_t now = gn_now_ns();
	struct pollfd fd;

	gn_client_prepare(c, &fd, now);
	if (poll(&fd, 1, 1) < 0)
		fd.revents = 0;
	gn_client_step(c, fd.revents, gn_now_ns());
	turn(r);
}

#endif
