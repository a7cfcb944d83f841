/* SPDX-License-Identifier: MIT */
/*
 * link.c - each call says itself that it must not wait.
 */
#include "link.h"

#include <errno.h>
#include <sys/socket.h>

#include "control/descriptors.h"

enum { READS_MAX = 16 }; /* of 4 KiB, and of kicks, a byte each, not that many find room */

int gn_link_create(int *ours, int *theirs)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return -errno;
	gn_descriptors_refuse(fds[0]);
	*ours = fds[0];
	*theirs = fds[1];
	return 0;
}

void gn_link_kick(int fd)
{
	static const char kick = 1;

	/* Full, or the other side is gone, which its reader finds out. */
	if (send(fd, &kick, sizeof(kick), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return;
}

bool gn_link_drain(int fd)
{
	char kicks[4096];
	ssize_t got = -1;

	for (unsigned i = 0; i < READS_MAX; i++) {
		got = recv(fd, kicks, sizeof(kicks), MSG_DONTWAIT);
		if (got != (ssize_t)sizeof(kicks) && (got >= 0 || errno != EINTR))
			break;
	}
	return got > 0 || (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR));
}
