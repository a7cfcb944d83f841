/* SPDX-License-Identifier: MIT */
/*
 * overcommit_daemon.h - gnomon-balloond as a process of the bench.
 */
#ifndef GN_BENCH_OVERCOMMIT_DAEMON_H
#define GN_BENCH_OVERCOMMIT_DAEMON_H

#include "child_daemon.h"
#include "overcommit.h"

/* With @policy and the setup's budget. -errno, as child_daemon_start(). */
int overcommit_daemon_start(struct child_daemon *daemon, const struct overcommit_setup *setup,
			    const char *policy);
/* How many rounds there were, and the CPU time of the costliest. -errno. */
int overcommit_daemon_read(struct child_daemon *daemon, struct overcommit_run *run);

#endif
