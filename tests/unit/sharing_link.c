/* SPDX-License-Identifier: MIT */
/*
 * sharing_link.c - kicks between a VM and a daemon: neither can make the other wait.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sharing/link.h"
#include "support/send_descriptor.h"

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

/* Who sends more than kicks has a turn that ends, and another one. */
Test(sharing_link, a_turn_ends)
{
	static const char kicks[65536];
	int ours, theirs, turns = 0;
	ssize_t sent = 0, got;
	char byte;

	cr_assert_eq(gn_link_create(&ours, &theirs), 0);
	while ((got = send(theirs, kicks, sizeof(kicks), MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
		sent += got;
	cr_assert_gt(sent, 65536, "it takes more than one turn");
	do
		cr_assert(gn_link_drain(ours));
	while (++turns && recv(ours, &byte, 1, MSG_DONTWAIT | MSG_PEEK) > 0);
	cr_assert_eq(turns, (sent + 65535) / 65536);
	close(ours);
	close(theirs);
}

/* Nobody's descriptors are closed by who reads kicks. */
Test(sharing_link, descriptors_are_refused)
{
	int ours, theirs;

	cr_assert_eq(gn_link_create(&ours, &theirs), 0);
	expect_descriptor_refused(theirs);
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
