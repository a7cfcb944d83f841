/* SPDX-License-Identifier: MIT */
/*
 * daemon_process.h - a real daemon as a child of a test: started, asked over its socket, killed.
 */
#ifndef GN_TESTS_DAEMON_PROCESS_H
#define GN_TESTS_DAEMON_PROCESS_H

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/client.h"

static struct {
	unsigned passed, failed;
} daemon_counts;

/* One thing that must hold, at a step of the daemon. */
static inline void daemon_check(bool holds, const char *step, const char *what)
{
	if (holds) {
		daemon_counts.passed++;
		return;
	}
	daemon_counts.failed++;
	printf("FAIL: %s: %s\n", step, what);
}

/* The last line; what main() returns. */
static inline int daemon_counts_print(void)
{
	printf("%u passed, %u failed\n", daemon_counts.passed, daemon_counts.failed);
	return daemon_counts.failed != 0;
}

/* The answer to a command, for the caller to delete; NULL: none within 5 s. */
static inline cJSON *daemon_ask(const char *socket, const char *command)
{
	struct gn_client_config config = { .path = socket };
	struct gn_client *client;
	cJSON *answer = NULL;

	if (gn_client_create(&config, &client))
		return NULL;
	if (gn_client_call(client, command, NULL, 5000, &answer)) {
		cJSON_Delete(answer);
		answer = NULL;
	}
	gn_client_destroy(client);
	return answer;
}

/* One number of an answer; negative: it is not there. */
static inline double daemon_ask_number(const char *socket, const char *command, const char *key)
{
	cJSON *answer = daemon_ask(socket, command);
	const cJSON *item = cJSON_GetObjectItem(answer, key);
	double value = cJSON_IsNumber(item) ? cJSON_GetNumberValue(item) : -1;

	cJSON_Delete(answer);
	return value;
}

/* @die_at: GN_DIE_AT, or NULL. Its process id, or -errno. */
static inline pid_t daemon_spawn(const char *program, const char *config, const char *die_at)
{
	pid_t pid = fork();

	if (pid)
		return pid < 0 ? -errno : pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (die_at)
		setenv("GN_DIE_AT", die_at, 1);
	execl(program, program, "--config", config, NULL);
	_exit(127);
}

/* SIGKILL; the exit status is thrown away. */
static inline void daemon_kill(pid_t *pid)
{
	if (*pid > 0) {
		kill(*pid, SIGKILL);
		waitpid(*pid, NULL, 0);
	}
	*pid = 0;
}

#endif
