/* SPDX-License-Identifier: MIT */
/*
 * overcommit_daemon.c - start the daemon, ask it for its figures, end it.
 *
 * It is the program beside this one, or else the one on the path. Its settle time is 0: there was no daemon before it.
 * It ends with the bench, whatever the bench dies of.
 */
#include "overcommit_daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/clock.h"
#include "control/json.h"

#define PROGRAM	   "gnomon-balloond"
#define START_MS   10000
#define STOP_MS	   5000
#define ANSWER_MS  5000
#define PAUSE_US   5000
#define PEERS_MORE 8

static int write_config(const struct overcommit_daemon *d, const struct overcommit_setup *setup,
			const char *policy)
{
	FILE *file = fopen(d->config, "we");

	if (!file)
		return -errno;
	fprintf(file,
		"[daemon]\nsocket = %s\nconnections = %u\n"
		"[memory]\nbudget = %llu\n"
		"[policy]\nname = %s\ntau = %g\nsettle = 0s\n",
		d->socket, setup->vms + PEERS_MORE, (unsigned long long)setup->budget_bytes, policy,
		setup->policy.tau);
	return fclose(file) ? -errno : 0;
}

/* In the child. */
__attribute__((noreturn)) static void become_daemon(const struct overcommit_daemon *d)
{
	char path[4096];
	ssize_t bytes = readlink("/proc/self/exe", path, sizeof(path) - sizeof(PROGRAM) - 1);
	char *slash;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	path[bytes > 0 ? bytes : 0] = 0;
	slash = strrchr(path, '/');
	if (slash) {
		memcpy(slash + 1, PROGRAM, sizeof(PROGRAM));
		execl(path, PROGRAM, "--config", d->config, (char *)NULL);
	}
	execlp(PROGRAM, PROGRAM, "--config", d->config, (char *)NULL);
	_exit(127);
}

/* Until it answers. -ECHILD: it ended instead. */
static int await_answer(struct overcommit_daemon *d)
{
	uint64_t end_ns = gn_now_ns() + START_MS * UINT64_C(1000000);
	int err;

	do {
		cJSON *answer = NULL;

		err = gn_client_call(d->client, "query-version", NULL, ANSWER_MS, &answer);
		cJSON_Delete(answer);
		if (!err)
			return 0;
		if (waitpid(d->pid, NULL, WNOHANG) == d->pid) {
			d->pid = 0;
			return -ECHILD;
		}
		usleep(PAUSE_US);
	} while (gn_now_ns() < end_ns);
	return err;
}

int overcommit_daemon_start(struct overcommit_daemon *d, const struct overcommit_setup *setup,
			    const char *policy)
{
	struct gn_client_config client = { .path = d->socket };
	int err;

	*d = (struct overcommit_daemon){ .folder = "/tmp/gnomon-overcommit-XXXXXX" };
	if (!mkdtemp(d->folder)) {
		d->folder[0] = 0;
		return -errno;
	}
	snprintf(d->socket, sizeof(d->socket), "%s/socket", d->folder);
	snprintf(d->config, sizeof(d->config), "%s/balloond.ini", d->folder);
	err = write_config(d, setup, policy);
	if (!err)
		err = gn_client_create(&client, &d->client);
	if (err)
		return err;
	fflush(NULL);
	d->pid = fork();
	if (!d->pid)
		become_daemon(d);
	if (d->pid < 0) {
		d->pid = 0;
		return -EAGAIN;
	}
	return await_answer(d);
}

int overcommit_daemon_read(struct overcommit_daemon *d, struct overcommit_run *run)
{
	cJSON *answer = NULL;
	int err = gn_client_call(d->client, "query-policy", NULL, ANSWER_MS, &answer);

	if (!err) {
		run->rounds = (uint64_t)gn_json_number(answer, "rounds", 0);
		run->round_us_worst = gn_json_number(answer, "costliest_round_cpu_ms", 0) * 1e3;
	}
	cJSON_Delete(answer);
	return err;
}

/* SIGTERM, and patience; then SIGKILL. */
static void end_process(pid_t pid)
{
	uint64_t end_ns = gn_now_ns() + STOP_MS * UINT64_C(1000000);

	kill(pid, SIGTERM);
	while (!waitpid(pid, NULL, WNOHANG)) {
		if (gn_now_ns() > end_ns) {
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			return;
		}
		usleep(PAUSE_US);
	}
}

void overcommit_daemon_stop(struct overcommit_daemon *d)
{
	char lock[sizeof(d->socket) + sizeof(".lock")];

	gn_client_destroy(d->client);
	d->client = NULL;
	if (d->pid)
		end_process(d->pid);
	d->pid = 0;
	if (!d->folder[0])
		return;
	snprintf(lock, sizeof(lock), "%s.lock", d->socket);
	unlink(d->socket);
	unlink(lock);
	unlink(d->config);
	rmdir(d->folder);
}
