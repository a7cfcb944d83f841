/* SPDX-License-Identifier: MIT */
/*
 * client.c - a connection that comes back.
 *
 * Connecting to a UNIX socket does not wait unless the backlog is full, and then a non-blocking connect says EAGAIN:
 * that too is "away, try later". The connection counts as up when the greeting has come, not before, for a process
 * that accepts and says nothing is no daemon.
 */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "lines.h"

enum { FIRST_PAUSE_MS = 10, GREETING_MS = 5000, OUT_MAX_BYTES = 1024 * 1024 };
#define MS_NS ((uint64_t)1000000)

struct call {
	char id[GN_ID_BYTES];
	bool is_answered;
	int err;
	cJSON *answer;
};

struct gn_client {
	struct gn_client_config config;
	struct sockaddr_un address;
	int fd;
	int error;
	bool is_greeted;
	unsigned pause_ms;
	uint64_t due_ns; /* away: of the next attempt; connected, not greeted: when patience ends */
	unsigned random;
	struct gn_lines in;
	int fds[GN_CLIENT_FDS]; /* came, and were not taken */
	size_t fd_count;
	struct gn_json_writer out; /* [sent, bytes) is queued */
	size_t sent;
	struct call *call;
	unsigned call_count;
};

int gn_client_create(const struct gn_client_config *config, struct gn_client **out)
{
	struct gn_client *c;

	if (strlen(config->path) >= sizeof(c->address.sun_path))
		return -ENAMETOOLONG;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->config = *config;
	if (!c->config.max_pause_ms)
		c->config.max_pause_ms = 1000;
	if (!c->config.answer_max_bytes)
		c->config.answer_max_bytes = 16 * 1024 * 1024;
	c->address.sun_family = AF_UNIX;
	memcpy(c->address.sun_path, config->path, strlen(config->path) + 1);
	c->config.path = c->address.sun_path;
	c->fd = -1;
	c->pause_ms = FIRST_PAUSE_MS;
	c->random = (unsigned)getpid() * 2654435761u ^ (unsigned)(uintptr_t)c;
	gn_lines_init(&c->in, c->config.answer_max_bytes);
	*out = c;
	return 0;
}

static void close_fds(struct gn_client *c)
{
	while (c->fd_count)
		close(c->fds[--c->fd_count]);
}

void gn_client_destroy(struct gn_client *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	close_fds(c);
	gn_lines_fini(&c->in);
	gn_json_fini(&c->out);
	free(c);
}

bool gn_client_is_up(const struct gn_client *c)
{
	return c->is_greeted;
}

int gn_client_error(const struct gn_client *c)
{
	return c->error;
}

/* The next attempt: after a random part, from half to the whole, of the pause, which doubles. */
static void plan_attempt(struct gn_client *c, uint64_t now_ns)
{
	c->random = c->random * 1664525u + 1013904223u;
	c->due_ns = now_ns + c->pause_ms * MS_NS / 2 +
		    c->pause_ms * MS_NS / 2 * ((c->random >> 16) & 1023) / 1024;
	c->pause_ms *= 2;
	if (c->pause_ms > c->config.max_pause_ms)
		c->pause_ms = c->config.max_pause_ms;
}

static void hang_up(struct gn_client *c, int err, uint64_t now_ns)
{
	bool was_greeted = c->is_greeted;

	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	close_fds(c);
	c->error = err;
	c->is_greeted = false;
	gn_lines_fini(&c->in);
	gn_lines_init(&c->in, c->config.answer_max_bytes);
	gn_json_reset(&c->out);
	c->sent = 0;
	if (c->call && !c->call->is_answered) {
		c->call->is_answered = true;
		c->call->err = err;
	}
	plan_attempt(c, now_ns);
	if (was_greeted && c->config.down)
		c->config.down(c->config.ctx, c);
}

void gn_client_hang_up(struct gn_client *c)
{
	hang_up(c, -EPROTO, gn_now_ns());
}

static void try_connect(struct gn_client *c, uint64_t now_ns)
{
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&c->address, sizeof(c->address))) {
		hang_up(c, -errno, now_ns);
		return;
	}
	c->error = 0;
	c->due_ns = now_ns + GREETING_MS * MS_NS;
}

int gn_client_prepare(const struct gn_client *c, struct pollfd *fd, uint64_t now_ns)
{
	fd->fd = c->fd;
	fd->events = POLLIN;
	if (c->sent < c->out.bytes)
		fd->events |= POLLOUT;
	fd->revents = 0;
	if (c->is_greeted)
		return -1;
	return c->due_ns <= now_ns ? 0 : (int)((c->due_ns - now_ns) / MS_NS) + 1;
}

static int flush(struct gn_client *c)
{
	while (c->sent < c->out.bytes) {
		ssize_t sent = send(c->fd, c->out.text + c->sent, c->out.bytes - c->sent,
				    MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return errno == EAGAIN ? 0 : -errno;
		c->sent += (size_t)sent;
	}
	gn_json_reset(&c->out);
	c->sent = 0;
	return 0;
}

int gn_client_send(struct gn_client *c, const char *lines, size_t bytes)
{
	int err;

	if (!c->is_greeted)
		return -ENOTCONN;
	if (c->out.bytes - c->sent + bytes > OUT_MAX_BYTES) {
		hang_up(c, -EMSGSIZE, gn_now_ns());
		return -EMSGSIZE;
	}
	c->out.needs_comma = false;
	gn_json_put_raw(&c->out, NULL, lines, bytes);
	err = c->out.failed ? -ENOMEM : flush(c);
	if (err)
		hang_up(c, err, gn_now_ns());
	return err;
}

static void take_answer(struct call *call, struct gn_message *m)
{
	call->is_answered = true;
	call->err = m->kind == GN_MESSAGE_ERROR ? -EREMOTEIO : 0;
	call->answer = cJSON_DetachItemViaPointer(m->whole, (cJSON *)m->body);
	m->body = NULL;
}

static void take_line(struct gn_client *c, const char *line, size_t bytes, uint64_t now_ns)
{
	struct gn_message m;
	const char *why;

	if (gn_message_parse(line, bytes, &m, &why) || m.kind == GN_MESSAGE_EXECUTE) {
		gn_message_fini(&m);
		hang_up(c, -EPROTO, now_ns);
		return;
	}
	if (m.kind == GN_MESSAGE_GREETING) {
		c->pause_ms = FIRST_PAUSE_MS;
		c->is_greeted = true;
		if (c->config.up)
			c->config.up(c->config.ctx, c);
	} else if (c->call && m.kind != GN_MESSAGE_EVENT && !strcmp(m.id, c->call->id)) {
		take_answer(c->call, &m);
	} else if (c->is_greeted && c->config.message) {
		c->config.message(c->config.ctx, c, &m);
	}
	gn_message_fini(&m);
}

size_t gn_client_take_fds(struct gn_client *c, int *fds, size_t max)
{
	size_t count = c->fd_count < max ? c->fd_count : max;

	memcpy(fds, c->fds, count * sizeof(*fds));
	c->fd_count -= count;
	memmove(c->fds, c->fds + count, c->fd_count * sizeof(*fds));
	return count;
}

/* Keep the descriptors of @m. False: there are too many. */
static bool keep_fds(struct gn_client *c, struct msghdr *m)
{
	bool fit = !(m->msg_flags & MSG_CTRUNC);

	for (struct cmsghdr *head = CMSG_FIRSTHDR(m); head; head = CMSG_NXTHDR(m, head)) {
		size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(head) + i * sizeof(fd), sizeof(fd));
			if (c->fd_count < GN_CLIENT_FDS) {
				c->fds[c->fd_count++] = fd;
			} else {
				close(fd);
				fit = false;
			}
		}
	}
	return fit;
}

/* As recv(), with descriptors. */
static ssize_t receive_some(struct gn_client *c, char *to, size_t space)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(c->fds))];
	} control;
	struct iovec bytes = { to, space };
	struct msghdr m = { .msg_iov = &bytes,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	ssize_t got = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (got > 0 && !keep_fds(c, &m)) {
		errno = EPROTO;
		return -1;
	}
	return got;
}

static void receive(struct gn_client *c, uint64_t now_ns)
{
	size_t space, bytes;
	char *to = gn_lines_space(&c->in, &space), *line;
	ssize_t got = to ? receive_some(c, to, space) : -1;
	int more = 0;

	if (got <= 0) {
		if (!to || got == 0 || (errno != EAGAIN && errno != EINTR))
			hang_up(c, got == 0 ? -ECONNRESET : to ? -errno : -ENOMEM, now_ns);
		return;
	}
	gn_lines_received(&c->in, (size_t)got);
	while (c->fd >= 0 && (more = gn_lines_next(&c->in, &line, &bytes)) > 0)
		take_line(c, line, bytes, now_ns);
	if (c->fd >= 0 && more < 0)
		hang_up(c, -EPROTO, now_ns);
	if (c->fd >= 0)
		gn_lines_relax(&c->in);
}

void gn_client_step(struct gn_client *c, short revents, uint64_t now_ns)
{
	if (c->fd < 0) {
		if (now_ns >= c->due_ns)
			try_connect(c, now_ns);
		return;
	}
	if (revents & POLLOUT) {
		int err = flush(c);

		if (err) {
			hang_up(c, err, now_ns);
			return;
		}
	}
	if (revents & (POLLIN | POLLHUP | POLLERR))
		receive(c, now_ns);
	if (c->fd >= 0 && !c->is_greeted && now_ns >= c->due_ns)
		hang_up(c, -ETIMEDOUT, now_ns);
}

int gn_client_submit(struct gn_client *c, struct gn_json_writer *w)
{
	int err = gn_json_finish(w);

	if (!err)
		err = gn_client_send(c, w->text, w->bytes);
	gn_json_fini(w);
	return err;
}

/* One turn of poll, at most until @end_ns. */
static void turn(struct gn_client *c, uint64_t end_ns)
{
	uint64_t now = gn_now_ns();
	struct pollfd fd;
	int wait_ms = gn_client_prepare(c, &fd, now);
	int left_ms = end_ns > now ? (int)((end_ns - now) / MS_NS) + 1 : 0;

	if (wait_ms < 0 || wait_ms > left_ms)
		wait_ms = left_ms;
	if (poll(&fd, 1, wait_ms) < 0)
		fd.revents = 0;
	gn_client_step(c, fd.revents, gn_now_ns());
}

/* Until greeted. A daemon that is not there is told at once: tools do not wait for one to be started. */
static int await_greeting(struct gn_client *c, uint64_t end_ns)
{
	if (c->fd < 0)
		c->due_ns = 0;
	while (!c->is_greeted) {
		turn(c, end_ns);
		if (c->fd < 0)
			return c->error ? c->error : -ENOTCONN;
		if (gn_now_ns() >= end_ns)
			return -ETIMEDOUT;
	}
	return 0;
}

int gn_client_call(struct gn_client *c, const char *command, const char *arguments,
		   unsigned timeout_ms, cJSON **out)
{
	uint64_t end_ns = gn_now_ns() + timeout_ms * MS_NS;
	struct gn_json_writer w = { 0 };
	struct call call = { .err = 0 };
	int err = await_greeting(c, end_ns);

	if (err)
		return err;
	snprintf(call.id, sizeof(call.id), "%u", ++c->call_count);
	gn_protocol_begin_command(&w, command);
	if (arguments)
		gn_json_put_raw(&w, "arguments", arguments, strlen(arguments));
	gn_protocol_end_command(&w, call.id);
	c->call = &call;
	err = gn_client_submit(c, &w);
	while (!err && !call.is_answered) {
		if (gn_now_ns() >= end_ns)
			err = -ETIMEDOUT;
		else
			turn(c, end_ns);
	}
	c->call = NULL;
	if (err)
		return err;
	*out = call.answer;
	return call.err;
}

void gn_client_tell(struct gn_client *c, const char *command, unsigned timeout_ms)
{
	cJSON *answer = NULL;

	(void)gn_client_call(c, command, NULL, timeout_ms, &answer);
	cJSON_Delete(answer);
}
