/* SPDX-License-Identifier: MIT */
/*
 * client.h - the other end of the control socket: for VM processes, which stay connected across the daemon's deaths,
 * and for tools, which ask one thing.
 *
 * A client has no thread. Its owner polls: gn_client_prepare() says on what and until when, gn_client_step() does
 * what is due and calls back. One thread per client; nothing sleeps but gn_client_call(). A lost daemon is looked
 * for again after a pause that doubles up to @max_pause_ms, and is cut at random, so that a thousand VMs do not
 * return in one instant.
 */
#ifndef GN_CONTROL_CLIENT_H
#define GN_CONTROL_CLIENT_H

#include <poll.h>

#include "protocol.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gn_client;

struct gn_client_config {
	const char *path;
	/* Greeted: requests may be sent. */
	void (*up)(void *ctx, struct gn_client *);
	/* The daemon is gone; what was asked and not answered never will be. */
	void (*down)(void *ctx, struct gn_client *);
	/* A return, an error or an event. */
	void (*message)(void *ctx, struct gn_client *, const struct gn_message *);
	void *ctx;		   /* callbacks may be NULL */
	unsigned max_pause_ms;	   /* 0: 1000 */
	unsigned answer_max_bytes; /* of one line; 0: 16 MiB */
};

/* -ENAMETOOLONG, -ENOMEM. Connects at the first step, not here. */
int gn_client_create(const struct gn_client_config *, struct gn_client **);
void gn_client_destroy(struct gn_client *);

/* Fill @fd (fd -1 while away); milliseconds until gn_client_step() is due regardless, -1: never. */
int gn_client_prepare(const struct gn_client *, struct pollfd *fd, uint64_t now_ns);
void gn_client_step(struct gn_client *, short revents, uint64_t now_ns);
bool gn_client_is_up(const struct gn_client *);
/* Why the last attempt to connect failed: -errno, 0 if it did not. */
int gn_client_error(const struct gn_client *);

/* Descriptors that came with an answer are here when it is told. Up to @max of them, which are the caller's then; how
 * many. What nobody takes is closed when the connection ends; a server that sends more than GN_CLIENT_FDS is none. */
#define GN_CLIENT_FDS 8
size_t gn_client_take_fds(struct gn_client *, int *fds, size_t max);

/* The daemon makes no sense: end the connection, and look for it again as if it had gone. */
void gn_client_hang_up(struct gn_client *);

/* Queue whole lines. -ENOTCONN while the daemon is away; -EMSGSIZE: it does not read and too much is queued, the
 * connection is given up. */
int gn_client_send(struct gn_client *, const char *lines, size_t bytes);

/* Queue what was written to @w, which is empty then. -ENOMEM of writing it, or as gn_client_send(). */
int gn_client_submit(struct gn_client *, struct gn_json_writer *w);

/* Connect if need be, ask, and wait for the answer. @arguments: JSON text or NULL. The caller deletes *out.
 * 0; -EREMOTEIO: the daemon answered with an error (*out is its error object); -ETIMEDOUT; -errno of connecting. */
int gn_client_call(struct gn_client *, const char *command, const char *arguments,
		   unsigned timeout_ms, cJSON **out);
/* The same for a command whose answer does not matter, only that there is one. */
void gn_client_tell(struct gn_client *, const char *command, unsigned timeout_ms);

#ifdef __cplusplus
}
#endif

#endif
