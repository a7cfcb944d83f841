/* SPDX-License-Identifier: MIT */
/*
 * descriptors.h - sockets that take none.
 *
 * A descriptor that nobody asked for is closed by who reads the message, or closes the socket that it is in, and to close what
 * somebody hostile chose may take as long as he likes (a TCP socket with SO_LINGER and a peer that does not read, for one).
 */
#ifndef GN_CONTROL_DESCRIPTORS_H
#define GN_CONTROL_DESCRIPTORS_H

#include <sys/socket.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* Linux 6.16 */
#endif

/* Messages with descriptors (SCM_RIGHTS) are refused to their sender, as they are by what @fd accepts. Older kernels cannot. */
static inline void gn_descriptors_refuse(int fd)
{
	const int passes = 0;

	(void)setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &passes, sizeof(passes));
}

#endif
