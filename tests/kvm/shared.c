/* SPDX-License-Identifier: MIT */
/*
 * shared.c - guests of a domain of gnomon-shared, each a process of its own: real ones under nested paging and under shadow, and one
 * on the software machine. Frames come to be used by more than one of them, the daemon is killed meanwhile and they share under the
 * next one; all end well, with their self-checks and an audit, and the real ones with the memory that the other has too. Then the same
 * in a domain that is quiet.
 */
#include "control/clock.h"
#include "kvm/nested_guest.h"
#include "kvm/run_guest.h"
#include "support/daemon_process.h"

#define CONFIG                                                                                     \
	"[daemon]\nsocket = %s\n[sharing]\ncpu_percent = 200\nsweep = %ums\n"                      \
	"[domain g]\nvms = ept shadow soft\n"                                                      \
	"[domain quiet]\nvms = ept shadow soft\nquiet = on\n"
#define POLL_MS	   20
#define POLLS	   30000 /* of an emulated machine that does other things too */
#define FEW_FRAMES 200
#define PHASES	   "50/20/3000x6"
#define REST_S	   "2" /* after each of the phases */
#define RESTS_NS   (6 * UINT64_C(2000000000))

static struct run_guest guests[] = { { "ept", "kvm", "ept", 0, false },
				     { "shadow", "kvm", "shadow", 0, false },
				     { "soft", "soft", "ept", 0, false } };
#define GUESTS (sizeof(guests) / sizeof(guests[0]))

static char directory[64], socket_path[96], config_path[96];
static pid_t daemon_pid;

static void set_up(void)
{
	snprintf(directory, sizeof(directory), "/tmp/gn_shared_XXXXXX");
	RIG_CHECK(mkdtemp(directory) != NULL, "mkdtemp");
	snprintf(socket_path, sizeof(socket_path), "%s/socket", directory);
	snprintf(config_path, sizeof(config_path), "%s/ini", directory);
}

static void configure(unsigned sweep_ms)
{
	FILE *file = fopen(config_path, "w");

	RIG_CHECK(file && fprintf(file, CONFIG, socket_path, sweep_ms) > 0 && !fclose(file), "%s",
		  config_path);
}

static unsigned count_running(void)
{
	unsigned running = 0;

	for (unsigned i = 0; i < GUESTS; i++)
		running += run_guest_runs(&guests[i], directory, "sharing: ");
	return running;
}

/* The sum of @key over what @command lists; *least: the least of them. */
static double sum_of(const char *command, const char *key, double *least)
{
	cJSON *list = daemon_ask(socket_path, command);
	const cJSON *item;
	double sum = 0;

	*least = cJSON_GetArraySize(list) ? 1e18 : 0;
	cJSON_ArrayForEach(item, list)
	{
		double value = cJSON_GetNumberValue(cJSON_GetObjectItem(item, key));

		sum += value;
		*least = value < *least ? value : *least;
	}
	cJSON_Delete(list);
	return sum;
}

/* A VM is charged with each frame it uses once: what they are charged with beyond the frames there are is used by more than one. */
static bool await_common_frames(void)
{
	for (unsigned i = 0; i < POLLS && count_running() == GUESTS; i++) {
		double least, charged = sum_of("query-vms", "charged_pages", &least), frames, all;

		frames = sum_of("query-domains", "pool_used_pages", &all);
		if (least > 0 && charged - frames >= FEW_FRAMES)
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

static void start_guests(const char *domain, const char *manner)
{
	const char *const more[] = { "--mem",	   "32M",	"--size",	    "8M",
				     "--argument", PHASES,	"--rest",	    REST_S,
				     "--sharing",  socket_path, "--sharing-domain", domain,
				     manner,	   NULL };

	for (unsigned i = 0; i < GUESTS; i++) {
		guests[i].has_ended = false;
		run_guest_start(&guests[i], directory, more);
	}
}

static void share(const char *domain, const char *manner, unsigned sweep_ms)
{
	char sums[2][128] = { "", "" };
	uint64_t begin_ns;
	cJSON *answer;

	configure(sweep_ms);
	daemon_start();
	begin_ns = gn_now_ns();
	start_guests(domain, manner);
	RIG_CHECK(await_common_frames(), "they share in %s", domain);
	answer = daemon_ask(socket_path, "audit");
	RIG_CHECK(answer != NULL, "the books are right");
	cJSON_Delete(answer);
	daemon_kill(&daemon_pid);
	daemon_start();
	RIG_CHECK(await_common_frames(), "they share under the next daemon");
	for (unsigned i = 0; i < POLLS && count_running() == GUESTS; i++)
		pause_ms(POLL_MS);
	RIG_CHECK(gn_now_ns() - begin_ns >= RESTS_NS, "each guest rests");
	for (unsigned i = 0; i < POLLS && count_running(); i++)
		pause_ms(POLL_MS);
	for (unsigned i = 0; i < 2; i++) {
		RIG_CHECK(run_guest_says(&guests[i], directory, "memory_sum ", sums[i]),
			  "%s does not tell its memory", guests[i].name);
		sums[i][strcspn(sums[i], ",")] = '\0'; /* what is behind depends on the scheme */
	}
	RIG_CHECK(!strcmp(sums[0], sums[1]), "memory: %s and %s", sums[0], sums[1]);
	for (unsigned i = 0; i < GUESTS; i++)
		run_guest_end(&guests[i], directory);
	daemon_kill(&daemon_pid);
}

int main(void)
{
	if (!nested_start() || !host.uffd_minor_shmem)
		return rig_end();
	if (access(GN_SHARED, X_OK) || access(GN_BINARY, X_OK)) {
		rig_skip("everything", "no gnomon or gnomon-shared at its place");
		return rig_end();
	}
	set_up();
	share("g", NULL, 20);
	/* Each page is sealed, and copied when it is read: less often. */
	share("quiet", "--sharing-quiet", 200);
	unlink(config_path);
	unlink(socket_path);
	rmdir(directory);
	return rig_end();
}
