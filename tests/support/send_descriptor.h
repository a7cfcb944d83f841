/* SPDX-License-Identifier: MIT */
/*
 * send_descriptor.h - to a socket that takes none: it is to be refused, where the kernel can.
 */
#ifndef GN_TESTS_SEND_DESCRIPTOR_H
#define GN_TESTS_SEND_DESCRIPTOR_H

#include <criterion/criterion.h>

#include <string.h>
#include <sys/socket.h>

#include "control/descriptors.h"

/* Standard input, with a byte, over @from. Kernels before 6.16 cannot refuse it, and then nothing is tried. */
static inline void expect_descriptor_refused(int from)
{
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec bytes = { "{", 1 };
	struct msghdr m = { .msg_iov = &bytes,
			    .msg_iovlen = 1,
			    .msg_control = space,
			    .msg_controllen = sizeof(space) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&m);
	socklen_t size = sizeof(int);
	int gift = 0, passes;

	if (getsockopt(from, SOL_SOCKET, SO_PASSRIGHTS, &passes, &size)) {
		cr_log_warn("this kernel passes descriptors always");
		return;
	}
	*head = (struct cmsghdr){ CMSG_LEN(sizeof(gift)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(head), &gift, sizeof(gift));
	cr_assert_lt(sendmsg(from, &m, MSG_NOSIGNAL), 0);
}

#endif
