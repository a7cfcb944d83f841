/* SPDX-License-Identifier: MIT */
/*
 * peer.c - one connection: bytes in and out, and how much of either it may have.
 *
 * Nobody is freed from inside a callback: a peer that must go is doomed, and the server's reaper, a deferred source
 * of the loop, frees it when no caller's stack can hold it any more. gone() is called by then, once.
 *
 * A pause is the answer to both kinds of greed. Who sends more messages than its bucket holds, and who does not
 * read what it asked for, is not read from until the tick finds tokens and room; its data waits in its own socket
 * buffer and its own send() blocks. The daemon keeps at most one line and one answer above the high water of it, and the
 * descriptors of one answer.
 */
#include "peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "protocol.h"

static size_t pending_bytes(const struct gn_peer *p)
{
	return p->out_end - p->out_start;
}

static void update_interest(struct gn_peer *p)
{
	uint32_t want = 0;

	if (!p->is_paused && !p->has_ended)
		want |= EPOLLIN;
	if (pending_bytes(p))
		want |= EPOLLOUT;
	sd_event_source_set_io_events(p->source, want);
}

void gn_peer_drop(struct gn_peer *p)
{
	if (p->is_doomed)
		return;
	p->is_doomed = true;
	sd_event_source_set_enabled(p->source, SD_EVENT_OFF);
	sd_event_source_set_enabled(p->server->reaper, SD_EVENT_ONESHOT);
}

static void close_fds(struct gn_peer *p)
{
	while (p->fd_count)
		close(p->fds[--p->fd_count]);
}

/* One send of what is pending: up to the line that brings descriptors, or with them. */
static ssize_t send_some(struct gn_peer *p)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(p->fds))];
	} control = { .head = { .cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS,
				.cmsg_len = CMSG_LEN(p->fd_count * sizeof(int)) } };
	struct iovec bytes = { p->out + p->out_start, pending_bytes(p) };
	struct msghdr m = { .msg_iov = &bytes, .msg_iovlen = 1 };
	ssize_t sent;

	if (p->fd_count && p->out_start < p->fds_at) {
		bytes.iov_len = p->fds_at - p->out_start;
	} else if (p->fd_count) {
		memcpy(CMSG_DATA(&control.head), p->fds, p->fd_count * sizeof(int));
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(p->fd_count * sizeof(int));
	}
	sent = sendmsg(p->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent > 0 && m.msg_control)
		close_fds(p);
	return sent;
}

/* Send what is pending, as far as it goes. */
static void flush(struct gn_peer *p)
{
	while (pending_bytes(p)) {
		ssize_t sent = send_some(p);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno != EAGAIN)
			gn_peer_drop(p);
		if (sent < 0)
			return;
		p->out_start += (size_t)sent;
		p->stalled_since_ns = gn_now_ns();
	}
	free(p->out);
	p->out = NULL;
	p->out_start = p->out_end = p->out_capacity = 0;
	if (p->has_ended && !p->is_paused)
		gn_peer_drop(p);
}

static bool append_out(struct gn_peer *p, const char *text, size_t bytes)
{
	size_t have = pending_bytes(p);

	if (p->out_start) {
		memmove(p->out, p->out + p->out_start, have);
		p->fds_at -= p->fd_count ? p->out_start : 0;
		p->out_start = 0;
		p->out_end = have;
	}
	if (have + bytes > p->out_capacity) {
		size_t capacity =
			2 * p->out_capacity > have + bytes ? 2 * p->out_capacity : have + bytes;
		char *out = realloc(p->out, capacity);

		if (!out)
			return false;
		p->out = out;
		p->out_capacity = capacity;
	}
	memcpy(p->out + have, text, bytes);
	p->out_end = have + bytes;
	return true;
}

void gn_peer_send(struct gn_peer *p, const char *text, size_t bytes)
{
	if (p->is_doomed)
		return;
	if (!pending_bytes(p)) {
		ssize_t sent = send(p->fd, text, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno != EAGAIN && errno != EINTR) {
			gn_peer_drop(p);
			return;
		}
		if (sent > 0) {
			text += sent;
			bytes -= (size_t)sent;
		}
		if (!bytes)
			return;
		p->stalled_since_ns = gn_now_ns();
	}
	if (!append_out(p, text, bytes)) {
		gn_peer_drop(p);
		return;
	}
	update_interest(p);
	gn_server_want_tick(p->server);
}

void gn_peer_send_with(struct gn_peer *p, const char *text, size_t bytes, const int *fds,
		       unsigned count)
{
	if (!pending_bytes(p))
		p->stalled_since_ns = gn_now_ns();
	memcpy(p->fds, fds, count * sizeof(*fds));
	p->fd_count = count;
	p->fds_at = p->out_end;
	if (p->is_doomed || !append_out(p, text, bytes)) {
		gn_peer_drop(p);
		return;
	}
	flush(p);
	update_interest(p);
	if (pending_bytes(p))
		gn_server_want_tick(p->server);
}

static bool take_token(struct gn_peer *p)
{
	double rate = p->server->config.messages_per_s;
	uint64_t now = gn_now_ns();

	p->tokens += (double)(now - p->tokens_at_ns) * 1e-9 * rate;
	p->tokens_at_ns = now;
	if (p->tokens > rate)
		p->tokens = rate;
	if (p->tokens < 1)
		return false;
	p->tokens -= 1;
	return true;
}

static void pause_reading(struct gn_peer *p)
{
	p->is_paused = true;
	p->server->stats.paused++;
	gn_server_want_tick(p->server);
}

/* Run the lines that have come, until there are none, or it has had enough. */
static void run_lines(struct gn_peer *p)
{
	while (!p->is_doomed) {
		char *line;
		size_t bytes;
		int more;

		if (pending_bytes(p) > GN_SERVER_HIGH_WATER || p->fd_count || !take_token(p)) {
			pause_reading(p);
			return;
		}
		more = gn_lines_next(&p->in, &line, &bytes);
		if (more == -EMSGSIZE) {
			struct gn_json_writer w = { 0 };

			p->server->stats.bad_lines++;
			gn_protocol_put_error(&w, "", "LineTooLong",
					      "a line has at most 65536 bytes; goodbye");
			if (!gn_json_finish(&w))
				gn_peer_send(p, w.text, w.bytes);
			gn_json_fini(&w);
			gn_peer_drop(p);
			return;
		}
		if (!more)
			break;
		if (bytes)
			gn_server_run_line(p, line, bytes);
	}
	p->tokens += 1; /* the one for the line that was not there */
	gn_lines_relax(&p->in);
}

static void receive(struct gn_peer *p)
{
	size_t space;
	char *to = gn_lines_space(&p->in, &space);
	ssize_t got = to ? recv(p->fd, to, space, MSG_DONTWAIT) : -1;

	if (!to || (got < 0 && errno != EAGAIN && errno != EINTR)) {
		gn_peer_drop(p);
		return;
	}
	if (got > 0)
		gn_lines_received(&p->in, (size_t)got);
	if (got == 0)
		p->has_ended = true;
	run_lines(p);
	/* An unfinished line of a peer that ended is no request. One that is paused ends when it has been heard. */
	if (p->has_ended && !p->is_paused && !pending_bytes(p))
		gn_peer_drop(p);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct gn_peer *p = ctx;

	(void)source;
	(void)fd;
	if (events & EPOLLOUT)
		flush(p);
	if (!p->is_doomed && (events & EPOLLIN))
		receive(p);
	else if (!p->is_doomed && (events & (EPOLLERR | EPOLLHUP)))
		gn_peer_drop(p);
	if (!p->is_doomed)
		update_interest(p);
	return 0;
}

bool gn_peer_tick(struct gn_peer *p, uint64_t now_ns)
{
	if (p->is_doomed)
		return false;
	if (pending_bytes(p) &&
	    now_ns - p->stalled_since_ns > (uint64_t)p->server->config.slow_ms * 1000000u) {
		p->server->stats.dropped_slow++;
		gn_peer_drop(p);
		return false;
	}
	if (p->is_paused) {
		p->is_paused = false;
		run_lines(p);
		if (p->has_ended && !p->is_paused && !pending_bytes(p))
			gn_peer_drop(p);
		if (p->is_doomed)
			return false;
		update_interest(p);
	}
	return p->is_paused || pending_bytes(p);
}

static void greet(struct gn_peer *p)
{
	const struct gn_server_config *c = &p->server->config;
	struct gn_json_writer *w = &p->server->event_line;

	gn_json_reset(w);
	gn_protocol_put_greeting(w, c->product, c->release, c->capabilities, c->capability_count);
	if (gn_json_finish(w))
		gn_peer_drop(p);
	else
		gn_peer_send(p, w->text, w->bytes);
}

int gn_peer_create(struct gn_server *s, int fd, pid_t pid)
{
	struct gn_peer *p = calloc(1, sizeof(*p));
	int err = -ENOMEM;

	if (p)
		err = sd_event_add_io(s->event, &p->source, fd, EPOLLIN, on_io, p);
	if (err < 0) {
		free(p);
		close(fd);
		return err;
	}
	p->server = s;
	p->fd = fd;
	p->pid = pid;
	p->tokens = s->config.messages_per_s;
	p->tokens_at_ns = gn_now_ns();
	gn_lines_init(&p->in, GN_LINE_MAX_BYTES);
	p->next = s->peers;
	if (p->next)
		p->next->previous = p;
	s->peers = p;
	s->stats.peers++;
	greet(p);
	return 0;
}

void gn_peer_destroy(struct gn_peer *p)
{
	struct gn_server *s = p->server;

	p->is_doomed = true;
	if (s->config.gone)
		s->config.gone(s->config.ctx, p);
	if (p->previous)
		p->previous->next = p->next;
	else
		s->peers = p->next;
	if (p->next)
		p->next->previous = p->previous;
	s->stats.peers--;
	sd_event_source_disable_unref(p->source);
	close(p->fd);
	close_fds(p);
	gn_lines_fini(&p->in);
	free(p->out);
	free(p);
}

void gn_peer_set_tag(struct gn_peer *p, void *tag)
{
	p->tag = tag;
}

void *gn_peer_tag(const struct gn_peer *p)
{
	return p->tag;
}

pid_t gn_peer_pid(const struct gn_peer *p)
{
	return p->pid;
}

struct gn_json_writer *gn_peer_begin_event(struct gn_peer *p, const char *name)
{
	struct gn_json_writer *w = &p->server->event_line;

	gn_json_reset(w);
	gn_protocol_begin_event(w, name);
	return w;
}

void gn_peer_end_event(struct gn_peer *p)
{
	struct gn_json_writer *w = &p->server->event_line;

	gn_protocol_end_event(w, gn_wall_us());
	if (gn_json_finish(w) || pending_bytes(p) + w->bytes > p->server->config.max_out_bytes) {
		p->server->stats.dropped_slow++;
		gn_peer_drop(p);
		return;
	}
	gn_peer_send(p, w->text, w->bytes);
}
