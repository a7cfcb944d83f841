/* SPDX-License-Identifier: MIT */
/*
 * metrics_http.c - libmicrohttpd inside our event loop.
 *
 * It runs without threads of its own, on an epoll descriptor that is one more source of the loop, so the registry
 * needs no lock. Connections are few and short-lived by its limits; a slow timer lets it notice those that time out.
 * Loopback only: the figures are no secret on this machine and none of the next one's business.
 */
#include "metrics_http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MAX_CONNECTIONS = 16, TIMEOUT_S = 5, TICK_US = 1000000 };

struct gn_metrics_http {
	struct MHD_Daemon *daemon;
	sd_event_source *io, *tick;
	struct gn_metrics *metrics;
	void (*before)(void *ctx);
	void *ctx;
};

static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status, const char *type,
			     char *text, size_t bytes, enum MHD_ResponseMemoryMode mode)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(bytes, text, mode);
	enum MHD_Result result;

	if (!response) {
		if (mode == MHD_RESPMEM_MUST_FREE)
			free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, "Content-Type", type);
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status, char *text)
{
	return reply(connection, status, "text/plain", text, strlen(text), MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_bytes, void **state)
{
	static char not_found[] = "there is /metrics here, and nothing else\n";
	static char not_allowed[] = "only GET\n", no_memory[] = "out of memory\n";
	struct gn_metrics_http *h = ctx;
	size_t bytes;
	char *text;

	(void)version;
	(void)upload;
	if (*upload_bytes) {
		*upload_bytes = 0; /* whatever is sent along is thrown away */
		return MHD_YES;
	}
	/* The first call is for the headers alone; an answer then would cut an upload short. */
	if (!*state) {
		*state = h;
		return MHD_YES;
	}
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, not_allowed);
	if (strcmp(url, "/metrics") != 0)
		return refuse(connection, MHD_HTTP_NOT_FOUND, not_found);
	if (h->before)
		h->before(h->ctx);
	if (gn_metrics_format(h->metrics, &text, &bytes))
		return refuse(connection, MHD_HTTP_SERVICE_UNAVAILABLE, no_memory);
	return reply(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text,
		     bytes, MHD_RESPMEM_MUST_FREE);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct gn_metrics_http *h = ctx;

	(void)source;
	(void)fd;
	(void)events;
	MHD_run(h->daemon);
	return 0;
}

static int on_tick(sd_event_source *source, uint64_t usec, void *ctx)
{
	struct gn_metrics_http *h = ctx;

	(void)usec;
	MHD_run(h->daemon);
	sd_event_source_set_time_relative(source, TICK_US);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

static int add_sources(struct gn_metrics_http *h, sd_event *event)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	int err;

	if (!info || info->epoll_fd < 0)
		return -EIO;
	err = sd_event_add_io(event, &h->io, info->epoll_fd, EPOLLIN, on_io, h);
	if (err >= 0)
		err = sd_event_add_time_relative(event, &h->tick, CLOCK_MONOTONIC, TICK_US, TICK_US,
						 on_tick, h);
	return err < 0 ? err : 0;
}

int gn_metrics_http_create(sd_event *event, struct gn_metrics *metrics, uint16_t port,
			   void (*before)(void *ctx), void *ctx, struct gn_metrics_http **out)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_port = htons(port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct gn_metrics_http *h = calloc(1, sizeof(*h));
	int err;

	if (!h)
		return -ENOMEM;
	h->metrics = metrics;
	h->before = before;
	h->ctx = ctx;
	errno = 0;
	h->daemon = MHD_start_daemon(
		MHD_USE_EPOLL, port, NULL, NULL, on_request, h, MHD_OPTION_SOCK_ADDR, &address,
		MHD_OPTION_CONNECTION_LIMIT, MAX_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
		TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)16384, MHD_OPTION_END);
	err = h->daemon ? add_sources(h, event) : errno ? -errno : -EIO;
	if (err)
		gn_metrics_http_destroy(h);
	else
		*out = h;
	return err;
}

void gn_metrics_http_destroy(struct gn_metrics_http *h)
{
	if (!h)
		return;
	sd_event_source_disable_unref(h->io);
	sd_event_source_disable_unref(h->tick);
	if (h->daemon)
		MHD_stop_daemon(h->daemon);
	free(h);
}

uint16_t gn_metrics_http_port(const struct gn_metrics_http *h)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT);

	return info ? info->port : 0;
}
