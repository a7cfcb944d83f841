/* SPDX-License-Identifier: MIT */
/*
 * child_daemon.c - start the daemon, ask it, end it.
 */
#include "child_daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/clock.h"
#include "control/json.h"

#define START_MS  10000
#define STOP_MS	  5000
#define ANSWER_MS 5000
#define PAUSE_US  5000

static int write_file(const struct child_daemon *d, child_daemon_config_fn *write_config,
		      const void *ctx)
{
	FILE *file = fopen(d->config, "we");

	if (!file)
		return -errno;
	fprintf(file, "[daemon]\nsocket = %s\n", d->socket);
	write_config(file, ctx);
	return fclose(file) ? -errno : 0;
}

/* In the child. */
__attribute__((noreturn)) static void become_daemon(const struct child_daemon *d,
						    const char *program, int nice)
{
	char path[4096];
	const size_t room = sizeof(path) - strlen(program) - 1;
	ssize_t bytes = readlink("/proc/self/exe", path, room);
	char *slash;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	(void)setpriority(PRIO_PROCESS, 0, nice);
	path[bytes > 0 ? bytes : 0] = 0;
	slash = strrchr(path, '/');
	if (slash) {
		memcpy(slash + 1, program, strlen(program) + 1);
		execl(path, program, "--config", d->config, (char *)NULL);
	}
	execlp(program, program, "--config", d->config, (char *)NULL);
	_exit(127);
}

static int await_answer(struct child_daemon *d)
{
	uint64_t end_ns = gn_now_ns() + START_MS * UINT64_C(1000000);
	int err;

	do {
		err = child_daemon_ask(d, "query-version", NULL);
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

int child_daemon_start(struct child_daemon *d, const char *program, int nice,
		       child_daemon_config_fn *write_config, const void *ctx)
{
	struct gn_client_config client = { .path = d->socket };
	int err;

	*d = (struct child_daemon){ .folder = "/tmp/gnomon-bench-XXXXXX" };
	if (!mkdtemp(d->folder)) {
		d->folder[0] = 0;
		return -errno;
	}
	snprintf(d->socket, sizeof(d->socket), "%s/socket", d->folder);
	snprintf(d->config, sizeof(d->config), "%s/daemon.ini", d->folder);
	err = write_file(d, write_config, ctx);
	if (!err)
		err = gn_client_create(&client, &d->client);
	if (err)
		return err;
	fflush(NULL);
	d->pid = fork();
	if (!d->pid)
		become_daemon(d, program, nice);
	if (d->pid < 0) {
		d->pid = 0;
		return -EAGAIN;
	}
	return await_answer(d);
}

int child_daemon_ask(struct child_daemon *d, const char *command, cJSON **answer)
{
	cJSON *heard = NULL;
	int err = gn_client_call(d->client, command, NULL, ANSWER_MS, &heard);

	if (answer && !err)
		*answer = heard;
	else
		cJSON_Delete(heard);
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

void child_daemon_stop(struct child_daemon *d)
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
