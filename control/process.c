/* SPDX-License-Identifier: MIT */
/*
 * process.c - pidfds.
 */
#include "process.h"

#include <poll.h>
#include <stddef.h>
#include <sys/pidfd.h>

int gn_process_open(pid_t pid)
{
	return pid > 0 ? pidfd_open(pid, 0) : -1;
}

bool gn_process_is_dead(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	return fd >= 0 && poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLIN);
}
