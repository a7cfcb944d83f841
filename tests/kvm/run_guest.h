/* SPDX-License-Identifier: MIT */
/*
 * run_guest.h - a guest under a daemon, as a process of its own: `gnomon run`, what it printed, and how it ended.
 */
#ifndef GN_TESTS_KVM_RUN_GUEST_H
#define GN_TESTS_KVM_RUN_GUEST_H

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "kvm/rig.h"

struct run_guest {
	const char *name, *backend, *scheme;
	pid_t pid;
	bool has_ended;
};
#define RUN_GUEST_ARGS 24 /* at most, the NULL behind them too */

static inline void run_guest_path(const struct run_guest *g, const char *directory, char out[128])
{
	snprintf(out, 128, "%s/%s", directory, g->name);
}

/* The workload `phases`, audited, with @more arguments, to a NULL. It prints into a file of @directory, named as itself. */
static inline void run_guest_start(struct run_guest *g, const char *directory,
				   const char *const *more)
{
	const char *args[RUN_GUEST_ARGS] = { "gnomon",	 "run",	   g->scheme, "phases", "--backend",
					     g->backend, "--name", g->name,   "--audit" };
	unsigned count = 9;
	char path[128];

	while (*more && count < RUN_GUEST_ARGS - 1)
		args[count++] = *more++;
	RIG_CHECK(!*more, "%s: too many arguments", g->name);
	run_guest_path(g, directory, path);
	g->pid = fork();
	if (g->pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!freopen(path, "w", stdout) || dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
		_exit(126);
	execv(GN_BINARY, (char *const *)args);
	_exit(127);
}

/* Did it print a line that begins with @what? The rest of it is in @rest (may be NULL). */
static inline bool run_guest_says(const struct run_guest *g, const char *directory,
				  const char *what, char rest[128])
{
	char path[128], line[512];
	bool found = false;
	FILE *file;

	run_guest_path(g, directory, path);
	file = fopen(path, "r");
	while (file && !found && fgets(line, sizeof(line), file)) {
		found = !strncmp(line, what, strlen(what));
		if (found && rest)
			snprintf(rest, 128, "%.127s", line + strlen(what));
	}
	if (file)
		fclose(file);
	return found;
}

static inline void run_guest_repeat(const struct run_guest *g, const char *directory)
{
	char path[128], line[512];
	FILE *file;

	run_guest_path(g, directory, path);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		printf("  %s: %s", g->name, line);
	if (file)
		fclose(file);
}

/* Does it run? If it has ended, then well, and it printed @what. */
static inline bool run_guest_runs(struct run_guest *g, const char *directory, const char *what)
{
	int status;

	if (!g->has_ended && waitpid(g->pid, &status, WNOHANG) == g->pid) {
		bool good = WIFEXITED(status) && !WEXITSTATUS(status);

		g->has_ended = true;
		if (!good)
			run_guest_repeat(g, directory);
		RIG_CHECK(good && run_guest_says(g, directory, what, NULL),
			  "%s ends with status %#x", g->name, status);
	}
	return !g->has_ended;
}

/* It should have ended by now; its file goes. */
static inline void run_guest_end(struct run_guest *g, const char *directory)
{
	char path[128];

	RIG_CHECK(g->has_ended, "%s does not end", g->name);
	if (!g->has_ended)
		kill(g->pid, SIGKILL);
	run_guest_path(g, directory, path);
	unlink(path);
}

#endif
