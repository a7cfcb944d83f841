/* SPDX-License-Identifier: MIT */
/*
 * overcommit_daemon.h - gnomon-balloond as a process of the bench, with a configuration and a socket of its own.
 */
#ifndef GN_BENCH_OVERCOMMIT_DAEMON_H
#define GN_BENCH_OVERCOMMIT_DAEMON_H

#include <sys/types.h>

#include "control/client.h"
#include "overcommit.h"

struct overcommit_daemon {
	char folder[64], socket[96], config[96];
	pid_t pid; /* 0: not running */
	struct gn_client *client;
};

/* With @policy and the setup's budget; answers by the time this returns. -errno. */
int overcommit_daemon_start(struct overcommit_daemon *d, const struct overcommit_setup *setup,
			    const char *policy);
/* How many rounds there were, and the CPU time of the costliest. -errno. */
int overcommit_daemon_read(struct overcommit_daemon *d, struct overcommit_run *run);
/* Also after a failed start. */
void overcommit_daemon_stop(struct overcommit_daemon *d);

#endif
