/* SPDX-License-Identifier: MIT */
/*
 * sharing_agents.h - VMs with the contents of a case (sharing_vm.h), each over a pool of its own, that are a domain of a gnomon-shared.
 *
 * The daemon is a process of its own; the VMs are of this one, each with its agent, for the daemon cannot tell.
 */
#ifndef GN_BENCH_SHARING_AGENTS_H
#define GN_BENCH_SHARING_AGENTS_H

#include "child_daemon.h"
#include "sharing/agent.h"
#include "sharing_vm.h"

struct sharing_agents {
	const struct sharing_contents *contents;
	bool is_quiet;
	struct child_daemon daemon;
	struct sharing_vm vms[SHARING_MAX_VMS];
	struct gn_share_agent *agents[SHARING_MAX_VMS];
};

/* Filled, and registered. -errno; -ECHILD: there is no such daemon here. Then nothing is left to fini. */
int sharing_agents_init(struct sharing_agents *agents, const struct sharing_contents *contents,
			const char *scheme, bool is_quiet);
void sharing_agents_fini(struct sharing_agents *agents);

/* Wait until all that is alike is merged, and in quiet mode all else is sealed; then no agent does anything any more. -ETIMEDOUT:
 * it never was; -errno. */
int sharing_agents_converge(struct sharing_agents *agents, const struct sharing_oracle *oracle);

#endif
