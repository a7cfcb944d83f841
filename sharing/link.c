/* SPDX-License-Identifier: MIT */
/*
 * link.c - each call says itself that it must not wait.
 */
#include "link.h"

#include <errno.h>
#include <sys/socket.h>

int gn_link_create(int *ours, int *theirs)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return -errno;
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
	char kicks[256];
	ssize_t got;

	do
		got = recv(fd, kicks, sizeof(kicks), MSG_DONTWAIT);
	while (got == (ssize_t)sizeof(kicks) || (got < 0 && errno == EINTR));
	return got > 0 || (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK));
}
