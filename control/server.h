/* SPDX-License-Identifier: MIT */
/*
 * server.h - the control socket: peers, commands, events.
 *
 * A UNIX stream socket of mode 0600; a peer of another uid than ours or root's is turned away. All callbacks run in
 * the thread of the event loop, and so does every function here.
 *
 * What a hostile peer can take is bounded: connections in number; a line in length; JSON in depth; messages by a
 * token bucket, beyond which its input waits in its own socket; output by refusing to read on from who does not
 * read (GN_SERVER_HIGH_WATER), and by dropping who has taken nothing for slow_ms or lets events pile up.
 *
 * An answer may bring descriptors (SCM_RIGHTS, with the first byte of its line). Those of one answer at most wait for
 * a peer: until it has taken them it is not read from. What a peer sends along is not received: the kernel closes it.
 */
#ifndef GN_CONTROL_SERVER_H
#define GN_CONTROL_SERVER_H

#include <stdarg.h>
#include <sys/types.h>

#include <systemd/sd-event.h>

#include "json.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gn_server;
struct gn_peer;

/* The answer to one command. A handler either writes one value under the key "return" into @writer, or calls
 * gn_reply_fail(), or does neither: {"return": {}}. */
#define GN_REPLY_FDS 4
struct gn_reply {
	struct gn_json_writer *writer;
	const char *error_class; /* a constant string; NULL: no error */
	char text[200];
	int fds[GN_REPLY_FDS];
	unsigned fd_count;
};
__attribute__((format(printf, 3, 4))) void gn_reply_fail(struct gn_reply *, const char *error_class,
							 const char *format, ...);
/* The answer brings a copy of @fd along, which is the client's then (gn_client_take_fds()). With an error none goes.
 * -errno of copying it. */
int gn_reply_attach(struct gn_reply *, int fd);

typedef void gn_command_fn(void *ctx, struct gn_peer *, const cJSON *arguments, struct gn_reply *);

struct gn_server_command {
	const char *name;
	gn_command_fn *run;
	/* The keys its arguments may have, separated by blanks; others are refused before it runs. */
	const char *keys;
};

#define GN_SERVER_HIGH_WATER (64 * 1024)

struct gn_server_config {
	const char *path;
	const char *product, *release;
	const char *const *capabilities;
	size_t capability_count;
	const struct gn_server_command *commands;
	size_t command_count; /* query-version and query-commands are the server's */
	/* A peer's event; may be NULL. What is wrong with it can only be counted (gn_server_stats.bad_events). */
	int (*event)(void *ctx, struct gn_peer *, const char *name, const cJSON *data);
	/* The peer is gone; its tag is for the last time there. May be NULL. */
	void (*gone)(void *ctx, struct gn_peer *);
	/* Steps of the protocol, for fault injection: "accept", "greeted", "executed", "replied". May be NULL. */
	void (*step)(const char *name);
	void *ctx;
	unsigned max_peers;	 /* 0: 4096 */
	unsigned messages_per_s; /* per peer; 0: 1000 */
	unsigned max_out_bytes;	 /* per peer, events only; 0: 1 MiB */
	unsigned slow_ms;	 /* 0: 5000 */
};

struct gn_server_stats {
	uint64_t peers; /* now */
	uint64_t accepted, refused_uid, refused_full;
	uint64_t requests, events, errors, bad_lines, bad_events;
	uint64_t paused, dropped_slow;
};

/* 0; -EADDRINUSE: another daemon holds the socket; -ENAMETOOLONG; -errno. The directory must exist. */
int gn_server_create(sd_event *, const struct gn_server_config *, struct gn_server **);
/* Drops all peers (gone is called for each), removes the socket. NULL is fine. */
void gn_server_destroy(struct gn_server *);
void gn_server_get_stats(const struct gn_server *, struct gn_server_stats *);

/* The owner's own pointer, NULL at first. */
void gn_peer_set_tag(struct gn_peer *, void *tag);
void *gn_peer_tag(const struct gn_peer *);
pid_t gn_peer_pid(const struct gn_peer *);
/* One event: write its data's members between. Sending never blocks. A peer that is beyond its bound is dropped
 * (later, from the loop). */
struct gn_json_writer *gn_peer_begin_event(struct gn_peer *, const char *name);
void gn_peer_end_event(struct gn_peer *);
/* Hang up, from the loop: the callbacks that run now may go on using the peer. */
void gn_peer_drop(struct gn_peer *);
/* All peers. @next is NULL first; NULL at the end. */
struct gn_peer *gn_server_next_peer(struct gn_server *, struct gn_peer *);

#ifdef __cplusplus
}
#endif

#endif
