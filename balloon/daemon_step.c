/* SPDX-License-Identifier: MIT */
/*
 * daemon_step.c - the steps of the daemon and of its server, in the order of a life.
 */
#include "daemon_step.h"

#include <stddef.h>

static const char *const steps[] = {
	"accept",     /* a connection, nothing said */
	"greeted",    /* greeting sent, not yet heard from */
	"executed",   /* a command's effect is there, its answer is not sent */
	"replied",    /* a command is done */
	"admitted",   /* a VM is in the books, and does not know */
	"reported",   /* a report is in the books */
	"round",      /* a round begins */
	"decided",    /* the policy has decided, no VM knows */
	"telling",    /* a target is in the books, the VM does not know */
	"told",	      /* a VM knows its target, the next does not */
	"round-done", /* all know */
	"late",	      /* a VM missed its deadline */
	"gone",	      /* a VM's memory returned to the budget */
	"stopping",   /* SIGTERM */
};
#define STEPS (sizeof(steps) / sizeof(steps[0]))

const char *gn_daemon_step_at(unsigned index)
{
	return index < STEPS ? steps[index] : NULL;
}
