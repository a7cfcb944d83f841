/* SPDX-License-Identifier: MIT */
/*
 * peer.h - one connection of the server, and the server's insides, for server.c and peer.c only.
 */
#ifndef GN_CONTROL_PEER_H
#define GN_CONTROL_PEER_H

#include "lines.h"
#include "server.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gn_peer {
	struct gn_server *server;
	struct gn_peer *next, *previous;
	sd_event_source *source;
	int fd;
	pid_t pid;
	void *tag;
	struct gn_lines in;
	char *out; /* [out_start, out_end) is not sent yet */
	size_t out_start, out_end, out_capacity;
	/* Descriptors of the answer that begins at out[fds_at]; ours until they are sent. */
	int fds[GN_REPLY_FDS];
	unsigned fd_count;
	size_t fds_at;
	uint64_t stalled_since_ns; /* pending output, and no progress since then */
	double tokens;
	uint64_t tokens_at_ns;
	bool is_paused; /* out of tokens, or its output is above the high water */
	bool has_ended; /* it sends no more; what it is owed is still sent */
	bool is_doomed; /* freed by the next reaping */
};

struct gn_server {
	struct gn_server_config config;
	sd_event *event;
	sd_event_source *listening, *tick, *reaper;
	int fd, lock_fd;
	int spare_fd; /* given up for a moment when descriptors run out */
	char *path;
	struct gn_peer *peers;
	struct gn_json_writer reply, event_line;
	bool is_ticking;
	struct gn_server_stats stats;
};

/* Takes @fd over, greets. -errno (the fd is closed then). */
int gn_peer_create(struct gn_server *, int fd, pid_t pid);
void gn_peer_destroy(struct gn_peer *);
/* Go on with what was paused; drop it if it is slow. Whether it needs another tick. */
bool gn_peer_tick(struct gn_peer *, uint64_t now_ns);
/* Run one line: the answer is queued. */
void gn_server_run_line(struct gn_peer *, char *line, size_t bytes);
void gn_server_want_tick(struct gn_server *);
void gn_peer_send(struct gn_peer *, const char *text, size_t bytes);
/* The same with descriptors, which it takes over. None of an earlier answer may be waiting. */
void gn_peer_send_with(struct gn_peer *, const char *text, size_t bytes, const int *fds,
		       unsigned count);

#ifdef __cplusplus
}
#endif

#endif
