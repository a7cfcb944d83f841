/* SPDX-License-Identifier: MIT */
/*
 * daemon_step.c - the steps of the daemon, its server and its brokers, in the order of a life.
 */
#include "daemon_step.h"

#include <stddef.h>

static const char *const steps[] = {
	"accept",    /* a connection, nothing said */
	"greeted",   /* greeting sent, not yet heard from */
	"executed",  /* a command's effect is there, its answer is not sent */
	"replied",   /* a command is done */
	"admitted",  /* a VM is in the books, and does not know */
	"viewed",    /* a VM is to have a segment, and does not know */
	"reported",  /* a report is in the books */
	"offered",   /* a page is a candidate */
	"ordering",  /* an order is due */
	"ordered",   /* and is in the ring, and not in the books */
	"shown",     /* a page is copied into a frame that nobody has */
	"published", /* the frame is in the index */
	"merged",    /* a VM has merged, or has not, and the books know */
	"returned",  /* a VM's last use of a frame is gone */
	"retired",   /* a segment is no more, and VMs do not know */
	"gone",	     /* a VM's frames are nobody's */
	"stopping",  /* SIGTERM */
};
#define STEPS (sizeof(steps) / sizeof(steps[0]))

const char *gn_shared_step_at(unsigned index)
{
	return index < STEPS ? steps[index] : NULL;
}
