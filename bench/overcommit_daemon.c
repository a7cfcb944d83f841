/* SPDX-License-Identifier: MIT */
/*
 * overcommit_daemon.c - its configuration, and its figures.
 *
 * Its settle time is 0: there was no daemon before it.
 */
#include "overcommit_daemon.h"

#include "control/json.h"

#define PEERS_MORE  8
#define DAEMON_NICE -10 /* packaging/gnomon-balloond.service.in */

struct manner {
	const struct overcommit_setup *setup;
	const char *policy;
};

static void write_config(FILE *to, const void *ctx)
{
	const struct manner *manner = ctx;

	fprintf(to,
		"connections = %u\n"
		"[memory]\nbudget = %llu\n"
		"[policy]\nname = %s\ntau = %g\nsettle = 0s\n",
		manner->setup->vms + PEERS_MORE, (unsigned long long)manner->setup->budget_bytes,
		manner->policy, manner->setup->policy.tau);
}

int overcommit_daemon_start(struct child_daemon *daemon, const struct overcommit_setup *setup,
			    const char *policy)
{
	const struct manner manner = { setup, policy };

	return child_daemon_start(daemon, "gnomon-balloond", DAEMON_NICE, write_config, &manner);
}

int overcommit_daemon_read(struct child_daemon *daemon, struct overcommit_run *run)
{
	cJSON *answer = NULL;
	int err = child_daemon_ask(daemon, "query-policy", &answer);

	if (!err) {
		run->rounds = (uint64_t)gn_json_number(answer, "rounds", 0);
		run->round_us_worst = gn_json_number(answer, "costliest_round_cpu_ms", 0) * 1e3;
	}
	cJSON_Delete(answer);
	return err;
}
