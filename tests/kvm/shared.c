/* SPDX-License-Identifier: MIT */
/*
 * shared.c - real guests of a domain of gnomon-shared: `gnomon run --backend kvm --sharing`, one under nested paging and one under
 * shadow, each in a process of its own. They share each other's pages, the daemon is killed meanwhile and they share under the next one;
 * both end well, with their self-checks, an audit, and the memory that the other has too.
 */
#include <sys/wait.h>

#include "kvm/nested_guest.h"
#include "support/daemon_process.h"

#define CONFIG                                                                                     \
	"[daemon]\nsocket = %s\n[sharing]\ncpu_percent = 200\nsweep = 20ms\n"                      \
	"[domain g]\nvms = ept shadow\n"
#define POLL_MS	   20
#define POLLS	   30000 /* of an emulated machine that does other things too */
#define FEW_MERGES 200	 /* of pages of which the other guest has as many */

struct guest {
	const char *scheme;
	pid_t pid;
	bool has_ended;
	char memory_sum[32];
};
static struct guest guests[] = { { .scheme = "ept" }, { .scheme = "shadow" } };
#define GUESTS (sizeof(guests) / sizeof(guests[0]))

static char directory[64], socket_path[96], config_path[96];
static pid_t daemon_pid;

static void set_up(void)
{
	FILE *file;

	snprintf(directory, sizeof(directory), "/tmp/gn_shared_XXXXXX");
	RIG_CHECK(mkdtemp(directory) != NULL, "mkdtemp");
	snprintf(socket_path, sizeof(socket_path), "%s/socket", directory);
	snprintf(config_path, sizeof(config_path), "%s/ini", directory);
	file = fopen(config_path, "w");
	RIG_CHECK(file && fprintf(file, CONFIG, socket_path) > 0 && !fclose(file), "%s",
		  config_path);
}

/* What it prints, in a file of the directory. */
static void path_of(const struct guest *g, char *out, size_t bytes)
{
	snprintf(out, bytes, "%s/%s", directory, g->scheme);
}

static void guest_start(struct guest *g)
{
	char path[128];

	path_of(g, path, sizeof(path));
	g->pid = fork();
	if (g->pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!freopen(path, "w", stdout) || dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
		_exit(126);
	execl(GN_BINARY, "gnomon", "run", g->scheme, "phases", "--backend", "kvm", "--mem", "32M",
	      "--size", "8M", "--argument", "50/20/3000x2", "--rest", "1", "--audit", "--sharing",
	      socket_path, "--sharing-domain", "g", "--name", g->scheme, NULL);
	_exit(127);
}

/* Was there a line of sharing? Its memory's sum is noted. All of it is repeated if it went wrong. */
static bool guest_report(struct guest *g, bool print)
{
	char path[128], line[512];
	bool found = false;
	FILE *file;

	path_of(g, path, sizeof(path));
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file)) {
		found |= !strncmp(line, "sharing: ", 9);
		(void)sscanf(line, "memory_sum %31[0-9a-fx]", g->memory_sum);
		if (print)
			printf("  %s: %s", g->scheme, line);
	}
	if (file)
		fclose(file);
	return found;
}

/* How many run. */
static unsigned reap(void)
{
	unsigned running = 0;

	for (unsigned i = 0; i < GUESTS; i++) {
		struct guest *g = &guests[i];
		int status;

		if (!g->has_ended && waitpid(g->pid, &status, WNOHANG) == g->pid) {
			bool good = WIFEXITED(status) && !WEXITSTATUS(status);

			g->has_ended = true;
			RIG_CHECK(guest_report(g, !good) && good, "%s ends with status %#x",
				  g->scheme, status);
		}
		running += !g->has_ended;
	}
	return running;
}

/* Pages that each of them was told to merge, and did: the fewest. */
static double merged(void)
{
	cJSON *list = daemon_ask(socket_path, "query-vms");
	double least = cJSON_GetArraySize(list) < (int)GUESTS ? 0 : 1e9;
	const cJSON *vm;

	cJSON_ArrayForEach(vm, list)
	{
		double count = cJSON_GetNumberValue(cJSON_GetObjectItem(vm, "merged"));

		least = count < least ? count : least;
	}
	cJSON_Delete(list);
	return least;
}

static bool await_merges(void)
{
	for (unsigned i = 0; i < POLLS && reap() == GUESTS; i++) {
		if (merged() >= FEW_MERGES)
			return true;
		pause_ms(POLL_MS);
	}
	return false;
}

static void daemon_start(void)
{
	unsigned polls = 0;

	daemon_pid = daemon_spawn(GN_SHARED, config_path, NULL);
	RIG_CHECK(daemon_pid > 0, "the daemon starts");
	while (daemon_ask_number(socket_path, "query-sharing", "vms") < 0 && polls++ < POLLS)
		pause_ms(POLL_MS);
	RIG_CHECK(polls < POLLS, "the daemon answers");
}

static void share(void)
{
	cJSON *answer;

	daemon_start();
	for (unsigned i = 0; i < GUESTS; i++)
		guest_start(&guests[i]);
	RIG_CHECK(await_merges(), "they share");
	answer = daemon_ask(socket_path, "audit");
	RIG_CHECK(answer != NULL, "the books are right");
	cJSON_Delete(answer);
	daemon_kill(&daemon_pid);
	daemon_start();
	RIG_CHECK(await_merges(), "they share under the next daemon");
	for (unsigned i = 0; i < POLLS && reap(); i++)
		pause_ms(POLL_MS);
	for (unsigned i = 0; i < GUESTS; i++) {
		RIG_CHECK(guests[i].has_ended, "%s does not end", guests[i].scheme);
		if (!guests[i].has_ended)
			kill(guests[i].pid, SIGKILL);
	}
	RIG_CHECK(guests[0].memory_sum[0] && !strcmp(guests[0].memory_sum, guests[1].memory_sum),
		  "memory: %s and %s", guests[0].memory_sum, guests[1].memory_sum);
	daemon_kill(&daemon_pid);
}

int main(void)
{
	char path[128];

	if (!nested_start() || !host.uffd_minor_shmem)
		return rig_end();
	if (access(GN_SHARED, X_OK) || access(GN_BINARY, X_OK)) {
		rig_skip("everything", "no gnomon or gnomon-shared at its place");
		return rig_end();
	}
	set_up();
	share();
	for (unsigned i = 0; i < GUESTS; i++) {
		path_of(&guests[i], path, sizeof(path));
		unlink(path);
	}
	unlink(config_path);
	unlink(socket_path);
	rmdir(directory);
	return rig_end();
}
