/* SPDX-License-Identifier: MIT */
/*
 * balloond.c - real guests under a real gnomon-balloond: `gnomon run --backend kvm --control`, one under nested paging and
 * one under shadow, whose memory together is more than the budget. Both end well with their self-checks and an audit, no
 * more is promised than there is, and the daemon learns what a VM tells: working set by sampling, claims of the driver.
 */
#include <sys/wait.h>

#include "kvm/nested_guest.h"
#include "support/fake_vms.h"

#define BUDGET_MIB 80
#define MIN_MIB	   16
#define CONFIG	   "[policy]\nperiod = 100ms\nsettle = 0s\n"
#define POLL_MS	   20
#define POLLS	   30000 /* of an emulated machine that does other things too */

struct guest {
	const char *scheme;
	pid_t pid;
	bool has_ended;
	unsigned moves; /* targets seen that differ from the one before */
	uint64_t target_bytes;
	bool has_working_set, has_claims, is_kvm;
};
static struct guest guests[] = { { .scheme = "ept" }, { .scheme = "shadow" } };
#define GUESTS (sizeof(guests) / sizeof(guests[0]))

/* It prints into a file of the directory, named as itself. */
static void guest_start(struct guest *g, const struct fake_host *h)
{
	char path[128], min[16];

	snprintf(path, sizeof(path), "%s/%s", h->directory, g->scheme);
	snprintf(min, sizeof(min), "%uM", MIN_MIB);
	g->pid = fork();
	if (g->pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!freopen(path, "w", stdout) || dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
		_exit(126);
	execl(GN_BINARY, "gnomon", "run", g->scheme, "phases", "--backend", "kvm", "--mem", "64M",
	      "--size", "8M", "--argument", "20/20/2000,90/10/2000,10/80/2000x2", "--rest", "1",
	      "--audit", "--control", h->socket, "--name", g->scheme, "--min", min, NULL);
	_exit(127);
}

static void guest_look(struct guest *g, const cJSON *vm)
{
	const cJSON *target = cJSON_GetObjectItem(vm, "target_bytes");
	const cJSON *backend = cJSON_GetObjectItem(vm, "backend");
	uint64_t bytes = (uint64_t)cJSON_GetNumberValue(target);

	RIG_CHECK(bytes >= MIN_MIB * MIB && bytes <= 64 * MIB, "%s is told %llu bytes", g->scheme,
		  (unsigned long long)bytes);
	g->moves += g->target_bytes && g->target_bytes != bytes;
	g->target_bytes = bytes;
	g->has_working_set |= cJSON_IsNumber(cJSON_GetObjectItem(vm, "active_bytes"));
	g->has_claims |= cJSON_IsNumber(cJSON_GetObjectItem(vm, "available_bytes")) &&
			 cJSON_IsTrue(cJSON_GetObjectItem(vm, "claims_trusted"));
	g->is_kvm |= cJSON_IsString(backend) && !strcmp(backend->valuestring, "kvm");
}

/* What the daemon says of all. */
static void look(const struct fake_host *h)
{
	cJSON *list = daemon_ask(h->socket, "query-vms");
	const cJSON *vm;
	double promised = 0;

	cJSON_ArrayForEach(vm, list)
	{
		const cJSON *name = cJSON_GetObjectItem(vm, "name");

		promised += cJSON_GetNumberValue(cJSON_GetObjectItem(vm, "target_bytes"));
		for (unsigned i = 0; i < GUESTS; i++)
			if (cJSON_IsString(name) && !strcmp(name->valuestring, guests[i].scheme))
				guest_look(&guests[i], vm);
	}
	RIG_CHECK(promised <= BUDGET_MIB * MIB, "%.0f bytes are promised", promised);
	cJSON_Delete(list);
}

static bool guest_says(const struct fake_host *h, const struct guest *g, const char *what,
		       bool print)
{
	char path[128], line[512];
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", h->directory, g->scheme);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file)) {
		found |= strstr(line, what) != NULL;
		if (print)
			printf("  %s: %s", g->scheme, line);
	}
	if (file)
		fclose(file);
	return found;
}

/* How many run. */
static unsigned reap(const struct fake_host *h)
{
	unsigned running = 0;

	for (unsigned i = 0; i < GUESTS; i++) {
		struct guest *g = &guests[i];
		int status;

		if (!g->has_ended && waitpid(g->pid, &status, WNOHANG) == g->pid) {
			bool good = WIFEXITED(status) && !WEXITSTATUS(status);

			g->has_ended = true;
			RIG_CHECK(good && guest_says(h, g, "balloon: ", !good),
				  "%s ends with status %#x", g->scheme, status);
		}
		running += !g->has_ended;
	}
	return running;
}

static void share(struct fake_host *h)
{
	unsigned polls = 0;

	RIG_CHECK(!fake_daemon_start(h, NULL) && fake_await_daemon(h, 60000), "the daemon answers");
	for (unsigned i = 0; i < GUESTS; i++)
		guest_start(&guests[i], h);
	for (; reap(h) && polls < POLLS; polls++) {
		look(h);
		pause_ms(POLL_MS);
	}
	for (unsigned i = 0; i < GUESTS; i++) {
		const struct guest *g = &guests[i];

		RIG_CHECK(g->has_ended, "%s does not end", g->scheme);
		if (!g->has_ended)
			kill(g->pid, SIGKILL);
		RIG_CHECK(g->is_kvm && g->moves, "%s: told to move %u times", g->scheme, g->moves);
		RIG_CHECK(g->has_working_set, "%s: its working set is known", g->scheme);
		RIG_CHECK(g->has_claims, "%s: its claims are known, and trusted", g->scheme);
	}
}

int main(void)
{
	char path[128];
	struct fake_host h;

	if (!nested_start() || !host.uffd_minor_shmem)
		return rig_end();
	if (access(GN_BALLOOND, X_OK) || access(GN_BINARY, X_OK)) {
		rig_skip("everything", "no gnomon or gnomon-balloond at its place");
		return rig_end();
	}
	RIG_CHECK(!fake_host_init(&h, BUDGET_MIB, CONFIG), "set up");
	share(&h);
	for (unsigned i = 0; i < GUESTS; i++) {
		snprintf(path, sizeof(path), "%s/%s", h.directory, guests[i].scheme);
		unlink(path);
	}
	fake_host_fini(&h);
	return rig_end();
}
