/* SPDX-License-Identifier: MIT */
/*
 * server.c - the listening socket, the table of commands, the reaper and the tick.
 *
 * One daemon per socket: a lock file beside it is held for the life of the process, so that a second daemon is told
 * so, while the socket file that a killed one left behind is simply replaced. Peers' file modes are not enough
 * (0600 stops strangers, yet a descriptor can be passed on), so the kernel's word on the peer is checked as well.
 *
 * When there are as many peers as there may be, or descriptors run out, newcomers are accepted and closed at once:
 * leaving them in the backlog would keep the loop spinning on a socket that is always ready.
 */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "descriptors.h"
#include "protocol.h"

enum { TICK_US = 20000, BACKLOG = 1024 };

static void step(struct gn_server *s, const char *name)
{
	if (s->config.step)
		s->config.step(name);
}

void gn_reply_fail(struct gn_reply *reply, const char *error_class, const char *format, ...)
{
	va_list args;

	reply->error_class = error_class;
	va_start(args, format);
	vsnprintf(reply->text, sizeof(reply->text), format, args);
	va_end(args);
}

int gn_reply_attach(struct gn_reply *reply, int fd)
{
	int copy = reply->fd_count < GN_REPLY_FDS ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;

	if (copy < 0)
		return reply->fd_count < GN_REPLY_FDS ? -errno : -E2BIG;
	reply->fds[reply->fd_count++] = copy;
	return 0;
}

/* Whether @name is one of the words of @keys. */
static bool has_word(const char *keys, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = keys; at && *at;) {
		size_t word = strcspn(at, " ");

		if (word == length && !memcmp(at, name, length))
			return true;
		at += word;
		at += strspn(at, " ");
	}
	return false;
}

static bool check_arguments(const struct gn_server_command *command, const cJSON *arguments,
			    struct gn_reply *reply)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, arguments)
	{
		if (has_word(command->keys, item->string))
			continue;
		gn_reply_fail(reply, "InvalidArgument", "%s takes %s%s, not \"%.40s\"",
			      command->name, command->keys ? "" : "no arguments",
			      command->keys ? command->keys : "", item->string);
		return false;
	}
	return true;
}

static void query_version(struct gn_server *s, struct gn_json_writer *w)
{
	gn_json_begin_object(w, "return");
	gn_json_put_text(w, "product", s->config.product);
	gn_json_put_text(w, "release", s->config.release);
	gn_json_put_u64(w, "protocol", 1);
	gn_json_end_object(w);
}

static void query_commands(struct gn_server *s, struct gn_json_writer *w)
{
	gn_json_begin_array(w, "return");
	for (size_t i = 0; i < s->config.command_count; i++)
		gn_json_put_text(w, NULL, s->config.commands[i].name);
	gn_json_put_text(w, NULL, "query-version");
	gn_json_put_text(w, NULL, "query-commands");
	gn_json_end_array(w);
}

/* What every server can be asked. */
static const struct {
	struct gn_server_command command;
	void (*write)(struct gn_server *s, struct gn_json_writer *w);
} own_commands[] = {
	{ { "query-version", NULL, NULL }, query_version },
	{ { "query-commands", NULL, NULL }, query_commands },
};

static void run_own(struct gn_server *s, const struct gn_message *m, struct gn_reply *reply)
{
	for (size_t i = 0; i < sizeof(own_commands) / sizeof(own_commands[0]); i++)
		if (!strcmp(own_commands[i].command.name, m->name)) {
			if (check_arguments(&own_commands[i].command, m->body, reply))
				own_commands[i].write(s, reply->writer);
			return;
		}
	gn_reply_fail(reply, "CommandNotFound", "no command \"%s\"", m->name);
}

/* The answer in the server's writer, with what it brings along. */
static void send_reply(struct gn_peer *p, struct gn_reply *reply)
{
	struct gn_json_writer *w = reply->writer;
	bool is_whole = !gn_json_finish(w);

	if (is_whole && !reply->error_class && reply->fd_count) {
		gn_peer_send_with(p, w->text, w->bytes, reply->fds, reply->fd_count);
		return;
	}
	while (reply->fd_count)
		close(reply->fds[--reply->fd_count]);
	if (is_whole)
		gn_peer_send(p, w->text, w->bytes);
	else
		gn_peer_drop(p);
}

static void execute(struct gn_peer *p, const struct gn_message *m)
{
	struct gn_server *s = p->server;
	const struct gn_server_command *command = s->config.commands;
	const struct gn_server_command *end = command + s->config.command_count;
	struct gn_json_writer *w = &s->reply;
	struct gn_reply reply = { .writer = w };
	size_t empty_bytes;

	s->stats.requests++;
	gn_json_reset(w);
	gn_protocol_begin_return(w);
	empty_bytes = w->bytes;
	while (command < end && strcmp(command->name, m->name) != 0)
		command++;
	if (command == end)
		run_own(s, m, &reply);
	else if (check_arguments(command, m->body, &reply))
		command->run(s->config.ctx, p, m->body, &reply);
	step(s, "executed");
	if (reply.error_class) {
		s->stats.errors++;
		gn_json_reset(w);
		gn_protocol_put_error(w, m->id, reply.error_class, reply.text);
	} else {
		if (w->bytes == empty_bytes)
			gn_json_put_raw(w, "return", "{}", 2);
		gn_protocol_end_return(w, m->id);
	}
	send_reply(p, &reply);
	step(s, "replied");
}

void gn_server_run_line(struct gn_peer *p, char *line, size_t bytes)
{
	struct gn_server *s = p->server;
	struct gn_message m;
	const char *why;

	if (gn_message_parse(line, bytes, &m, &why)) {
		s->stats.bad_lines++;
		gn_json_reset(&s->reply);
		gn_protocol_put_error(&s->reply, m.id, "ProtocolError", why);
		if (!gn_json_finish(&s->reply))
			gn_peer_send(p, s->reply.text, s->reply.bytes);
	} else if (m.kind == GN_MESSAGE_EXECUTE) {
		execute(p, &m);
	} else if (m.kind == GN_MESSAGE_EVENT) {
		s->stats.events++;
		if (!s->config.event || s->config.event(s->config.ctx, p, m.name, m.body))
			s->stats.bad_events++;
	} else {
		s->stats.bad_lines++;
	}
	gn_message_fini(&m);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct gn_server *s = ctx;
	uint64_t now = gn_now_ns();
	bool again = false;

	(void)usec;
	for (struct gn_peer *p = s->peers; p; p = p->next)
		again |= gn_peer_tick(p, now);
	s->is_ticking = again;
	if (again) {
		sd_event_source_set_time_relative(source, TICK_US);
		sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	}
	return 0;
}

void gn_server_want_tick(struct gn_server *s)
{
	if (s->is_ticking)
		return;
	s->is_ticking = true;
	sd_event_source_set_time_relative(s->tick, TICK_US);
	sd_event_source_set_enabled(s->tick, SD_EVENT_ONESHOT);
}

static int on_reap(sd_event_source *source, void *ctx)
{
	struct gn_server *s = ctx;

	(void)source;
	for (struct gn_peer *p = s->peers, *next; p; p = next) {
		next = p->next;
		if (p->is_doomed)
			gn_peer_destroy(p);
	}
	return 0;
}

static void admit(struct gn_server *s, int fd)
{
	struct ucred who;
	socklen_t size = sizeof(who);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) ||
	    (who.uid != geteuid() && who.uid != 0)) {
		s->stats.refused_uid++;
		close(fd);
	} else if (s->stats.peers >= s->config.max_peers) {
		s->stats.refused_full++;
		close(fd);
	} else if (gn_peer_create(s, fd, who.pid)) {
		s->stats.refused_full++;
	} else {
		s->stats.accepted++;
		step(s, "greeted");
	}
}

/* No descriptor is left for a newcomer: the spare one takes it off the queue. */
static void turn_away(struct gn_server *s, int listening)
{
	int fd;

	s->stats.refused_full++;
	if (s->spare_fd < 0)
		return;
	close(s->spare_fd);
	fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0)
		close(fd);
	s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int on_connection(sd_event_source *source, int listening, uint32_t events, void *ctx)
{
	struct gn_server *s = ctx;
	int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)source;
	(void)events;
	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		turn_away(s, listening);
	if (fd < 0)
		return 0;
	step(s, "accept");
	admit(s, fd);
	return 0;
}

static int take_lock(struct gn_server *s)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];

	snprintf(path, sizeof(path), "%s.lock", s->path);
	s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0)
		return -errno;
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
	return 0;
}

static int listen_at(struct gn_server *s)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	mode_t mask;
	int err;

	memcpy(address.sun_path, s->path, strlen(s->path) + 1);
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		return -errno;
	gn_descriptors_refuse(s->fd);
	unlink(s->path);
	mask = umask(0177);
	err = bind(s->fd, (struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
	umask(mask);
	if (!err && listen(s->fd, BACKLOG))
		err = -errno;
	if (err) {
		close(s->fd);
		s->fd = -1;
	}
	return err;
}

static void set_defaults(struct gn_server_config *c)
{
	c->max_peers = c->max_peers ? c->max_peers : 4096;
	c->messages_per_s = c->messages_per_s ? c->messages_per_s : 1000;
	c->max_out_bytes = c->max_out_bytes ? c->max_out_bytes : 1024 * 1024;
	c->slow_ms = c->slow_ms ? c->slow_ms : 5000;
}

static int add_sources(struct gn_server *s)
{
	int err = sd_event_add_io(s->event, &s->listening, s->fd, EPOLLIN, on_connection, s);

	if (err >= 0)
		err = sd_event_add_time(s->event, &s->tick, CLOCK_MONOTONIC, 0, 1000, on_tick, s);
	if (err >= 0)
		err = sd_event_source_set_enabled(s->tick, SD_EVENT_OFF);
	if (err >= 0)
		err = sd_event_add_defer(s->event, &s->reaper, on_reap, s);
	if (err >= 0)
		err = sd_event_source_set_enabled(s->reaper, SD_EVENT_OFF);
	return err < 0 ? err : 0;
}

int gn_server_create(sd_event *event, const struct gn_server_config *config, struct gn_server **out)
{
	struct gn_server *s;
	int err;

	if (strlen(config->path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return -ENAMETOOLONG;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->config = *config;
	set_defaults(&s->config);
	s->event = sd_event_ref(event);
	s->fd = s->lock_fd = -1;
	s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	s->path = strdup(config->path);
	err = s->path ? take_lock(s) : -ENOMEM;
	if (!err)
		err = listen_at(s);
	if (!err)
		err = add_sources(s);
	if (err)
		gn_server_destroy(s);
	else
		*out = s;
	return err;
}

void gn_server_destroy(struct gn_server *s)
{
	if (!s)
		return;
	while (s->peers)
		gn_peer_destroy(s->peers);
	sd_event_source_disable_unref(s->listening);
	sd_event_source_disable_unref(s->tick);
	sd_event_source_disable_unref(s->reaper);
	if (s->fd >= 0) {
		unlink(s->path);
		close(s->fd);
	}
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	if (s->spare_fd >= 0)
		close(s->spare_fd);
	gn_json_fini(&s->reply);
	gn_json_fini(&s->event_line);
	sd_event_unref(s->event);
	free(s->path);
	free(s);
}

void gn_server_get_stats(const struct gn_server *s, struct gn_server_stats *out)
{
	*out = s->stats;
}

struct gn_peer *gn_server_next_peer(struct gn_server *s, struct gn_peer *p)
{
	p = p ? p->next : s->peers;
	while (p && p->is_doomed)
		p = p->next;
	return p;
}
