/* SPDX-License-Identifier: MIT */
/*
 * sharing_link.c - kicks between a VM and a daemon: neither can make the other wait.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/descriptors.h"
#include "sharing/link.h"

Test(sharing_link, kicks_are_taken_out_together)
{
	int ours, theirs;
	char byte;

	cr_assert_eq(gn_link_create(&ours, &theirs), 0);
	cr_assert(gn_link_drain(ours), "nothing is there, and nobody is gone");
	for (unsigned i = 0; i < 1000; i++)
		gn_link_kick(theirs);
	cr_assert_eq(recv(ours, &byte, 1, MSG_DONTWAIT | MSG_PEEK), 1);
	cr_assert(gn_link_drain(ours));
	cr_assert_lt(recv(ours, &byte, 1, MSG_DONTWAIT), 0);
	close(theirs);
	gn_link_kick(ours);
	cr_assert_not(gn_link_drain(ours), "gone");
	close(ours);
}

/* Who sends more than kicks, and goes on while it is read, has a turn that ends. */
Test(sharing_link, a_turn_ends)
{
	static const char kicks[65536];
	int ours, theirs, turns = 0;
	ssize_t sent = 0, got;
	char byte;

	cr_assert_eq(gn_link_create(&ours, &theirs), 0);
	while ((got = send(theirs, kicks, sizeof(kicks), MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
		sent += got;
	cr_assert_gt(sent, 2 * 65536, "it takes more than one turn");
	do
		cr_assert(gn_link_drain(ours));
	while (++turns && recv(ours, &byte, 1, MSG_DONTWAIT | MSG_PEEK) > 0);
	cr_assert_eq(turns, (sent + 65535) / 65536);
	close(ours);
	close(theirs);
}

/* Nobody's descriptors are closed by who reads kicks; kernels before 6.16 cannot refuse them. */
Test(sharing_link, descriptors_are_refused)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 }, byte = 1;
	struct iovec bytes = { &byte, 1 };
	struct msghdr message = { .msg_iov = &bytes,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	int ours, theirs, passes = 1;
	socklen_t size = sizeof(passes);

	cr_assert_eq(gn_link_create(&ours, &theirs), 0);
	*head = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(head), &theirs, sizeof(theirs));
	if (getsockopt(ours, SOL_SOCKET, SO_PASSRIGHTS, &passes, &size))
		cr_skip_test("this kernel passes descriptors always");
	cr_assert_eq(passes, 0);
	cr_assert_lt(sendmsg(theirs, &message, MSG_NOSIGNAL), 0);
	close(ours);
	close(theirs);
}

/* What the other side makes of its end is no matter of ours. The alarm ends who waits. */
Test(sharing_link, nobody_waits, .timeout = 10)
{
	int ours, theirs;

	cr_assert_eq(gn_link_create(&ours, &theirs), 0);
	cr_assert_eq(fcntl(theirs, F_SETFL, 0), 0);
	for (unsigned i = 0; i < 1000000; i++) /* more than any buffer takes */
		gn_link_kick(ours);
	cr_assert(gn_link_drain(theirs));
	cr_assert(gn_link_drain(theirs));
	gn_link_kick(theirs);
	cr_assert(gn_link_drain(ours));
	cr_assert(gn_link_drain(ours));
	close(ours);
	close(theirs);
}
