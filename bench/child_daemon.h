/* SPDX-License-Identifier: MIT */
/*
 * child_daemon.h - a daemon of this project as a process of the bench, with a configuration and a socket of its own.
 *
 * It is the program beside this one, or else the one on the path. It ends with the bench, whatever the bench dies of.
 */
#ifndef GN_BENCH_CHILD_DAEMON_H
#define GN_BENCH_CHILD_DAEMON_H

#include <stdio.h>
#include <sys/types.h>

#include "control/client.h"

struct child_daemon {
	char folder[64], socket[96], config[96];
	pid_t pid; /* 0: not running */
	struct gn_client *client;
};

/* What is to be in the configuration behind "[daemon]" and the socket. */
typedef void child_daemon_config_fn(FILE *to, const void *ctx);

/* Answers by the time this returns. @nice: of its unit, if this user may. -errno; -ECHILD: it ended instead. */
int child_daemon_start(struct child_daemon *child, const char *program, int nice,
		       child_daemon_config_fn *write_config, const void *ctx);
/* The caller deletes *answer (may be NULL: it does not matter). -errno. */
int child_daemon_ask(struct child_daemon *child, const char *command, cJSON **answer);
/* Also after a failed start. */
void child_daemon_stop(struct child_daemon *child);

#endif
