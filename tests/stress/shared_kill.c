/* SPDX-License-Identifier: MIT */
/*
 * shared_kill.c - gnomon-shared is killed at every step of its protocol, under VMs that write what they share. No page
 * ever holds anything but what was written to it, VMs come back to the next daemon and share there, and its books are right.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "control/clock.h"
#include "mmu/frames.h"
#include "sharing/agent.h"
#include "sharing/daemon_step.h"
#include "sharing/pool.h"
#include "support/bare_vm.h"
#include "support/daemon_process.h"

#define VMS	 3
#define PAGES	 512
#define CONTENTS 60 /* different ones */
#define LIMIT_MS 30000
#define MS_NS	 UINT64_C(1000000)

struct sharer {
	struct gn_vm *vm;
	struct gn_share_agent *agent;
	uint16_t contents[PAGES]; /* what was last written to each page */
};

static char directory[64], socket_path[96], config_path[96];
static pid_t daemon_pid;
static uint64_t seed = 0x5eed;

static unsigned draw(unsigned below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(seed >> 33) % below;
}

static void fill(uint8_t page[GN_PAGE_SIZE], uint16_t content)
{
	for (unsigned i = 0; i < GN_PAGE_SIZE; i += sizeof(content))
		memcpy(page + i, &content, sizeof(content));
}

static void write_page(struct sharer *s, unsigned at, uint16_t content)
{
	uint8_t page[GN_PAGE_SIZE];

	fill(page, content);
	if (gn_vm_write(s->vm, gfn_to_gpa(gfn(at)), page, sizeof(page)))
		daemon_counts.failed++;
	s->contents[at] = content;
}

/* Pages that hold something else than was written to them. */
static unsigned wrong_pages(struct sharer *sharers)
{
	uint8_t page[GN_PAGE_SIZE], expected[GN_PAGE_SIZE];
	unsigned wrong = 0;

	for (unsigned i = 0; i < VMS; i++)
		for (unsigned at = 0; sharers[i].vm && at < PAGES; at++) {
			fill(expected, sharers[i].contents[at]);
			if (gn_vm_read(sharers[i].vm, gfn_to_gpa(gfn(at)), page, sizeof(page)))
				daemon_counts.failed++;
			wrong += memcmp(page, expected, sizeof(page)) != 0;
		}
	return wrong;
}

/* What a frame of a window holds must not change while it is used: pages are written one in a hundred only. */
static void shake(struct sharer *sharers)
{
	for (unsigned i = 0; i < 8; i++) {
		struct sharer *s = &sharers[draw(VMS)];

		if (s->vm)
			write_page(s, draw(PAGES), (uint16_t)(1 + draw(CONTENTS)));
	}
}

static void sleep_ms(unsigned ms)
{
	const struct timespec pause = { .tv_nsec = ms * 1000000L };

	nanosleep(&pause, NULL);
}

static uint64_t shared_pages(struct sharer *sharers)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < VMS; i++) {
		struct gn_p2m_info info;

		for (unsigned at = 0; sharers[i].vm && at < PAGES; at++)
			sum += !gn_p2m_query(sharers[i].vm, gfn(at), &info) &&
			       info.state == GN_P2M_SHARED;
	}
	return sum;
}

static bool await_registered(struct sharer *sharers)
{
	const uint64_t end_ns = gn_now_ns() + LIMIT_MS * MS_NS;
	unsigned count;

	do {
		count = 0;
		for (unsigned i = 0; i < VMS; i++)
			count +=
				!sharers[i].agent || gn_share_agent_is_registered(sharers[i].agent);
		sleep_ms(2);
	} while (count < VMS && gn_now_ns() < end_ns);
	return count == VMS;
}

/* With nobody writing, all that can be shared is. Contents are few, so nearly all pages are. */
static bool await_shared(struct sharer *sharers, uint64_t pages)
{
	const uint64_t end_ns = gn_now_ns() + LIMIT_MS * MS_NS;

	while (shared_pages(sharers) < pages && gn_now_ns() < end_ns)
		sleep_ms(20);
	return shared_pages(sharers) >= pages;
}

static bool books_are_right(void)
{
	cJSON *answer = daemon_ask(socket_path, "audit");
	const bool are_right = answer != NULL;

	cJSON_Delete(answer);
	return are_right;
}

static int make_sharer(struct sharer *s, unsigned number)
{
	const struct gn_vm_config config = { .scheme = "bare",
					     .mem_bytes = PAGES * GN_PAGE_SIZE,
					     .vcpus = 1,
					     .window_bytes = 4 * GN_SEGMENT_BYTES };
	char name[16];
	struct gn_share_agent_config agent = { .socket = socket_path,
					       .name = name,
					       .group = "g",
					       .mem_bytes = PAGES * GN_PAGE_SIZE,
					       .max_pause_ms = 50 };
	int err = gn_vm_create(&config, &s->vm);

	if (err)
		return err;
	for (unsigned at = 0; at < PAGES; at++)
		write_page(s, at, (uint16_t)(1 + draw(CONTENTS)));
	snprintf(name, sizeof(name), "vm%u", number);
	agent.vm = s->vm;
	err = gn_share_agent_create(&agent, &s->agent);
	return err ? err : gn_share_agent_start(s->agent);
}

static void end_sharer(struct sharer *s)
{
	gn_share_agent_destroy(s->agent);
	if (s->vm)
		gn_vm_destroy(s->vm);
	s->agent = NULL;
	s->vm = NULL;
}

static int start_daemon(const char *die_at)
{
	daemon_pid = daemon_spawn(GN_SHARED, config_path, die_at);
	return daemon_pid < 0 ? (int)daemon_pid : 0;
}

static bool has_died(void)
{
	int status;

	if (waitpid(daemon_pid, &status, WNOHANG) != daemon_pid)
		return false;
	daemon_pid = 0;
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* What makes a rare step happen, after a while of the others. */
static void provoke(const char *step, struct sharer *sharers)
{
	if (!strcmp(step, "gone"))
		end_sharer(&sharers[2]);
	if (!strcmp(step, "stopping"))
		kill(daemon_pid, SIGTERM);
	/* No page is like another: no frame is used any more. */
	if (!strcmp(step, "retired"))
		for (unsigned i = 0; i < VMS; i++)
			for (unsigned at = 0; at < PAGES; at++)
				write_page(&sharers[i], at, (uint16_t)(1000 + i * PAGES + at));
}

static bool run_until_death(const char *step, struct sharer *sharers)
{
	const uint64_t start_ns = gn_now_ns();
	bool is_provoked = false;

	while (gn_now_ns() - start_ns < LIMIT_MS * MS_NS) {
		if (has_died())
			return true;
		/* Not before they share, or there is nothing to come back. */
		if (!is_provoked && gn_now_ns() - start_ns > 300 * MS_NS &&
		    shared_pages(sharers) > PAGES) {
			provoke(step, sharers);
			is_provoked = true;
		}
		if (!is_provoked || strcmp(step, "retired") != 0)
			shake(sharers);
		sleep_ms(2);
	}
	return false;
}

static void kill_at(const char *step, unsigned count)
{
	struct sharer sharers[VMS] = { 0 };
	char at[48];
	bool ready = true;

	snprintf(at, sizeof(at), "%s:%u", step, count);
	for (unsigned i = 0; i < VMS; i++)
		ready &= !make_sharer(&sharers[i], i);
	daemon_check(ready && !start_daemon(at), at, "set up");
	daemon_check(run_until_death(step, sharers), at, "the daemon dies there");
	daemon_kill(&daemon_pid);
	daemon_check(!wrong_pages(sharers), at, "contents after its death");
	for (unsigned i = 0; i < 20; i++)
		shake(sharers);
	daemon_check(!start_daemon(NULL) && await_registered(sharers), at, "all are back");
	for (unsigned i = 0; i < VMS; i++)
		for (unsigned page = 0; sharers[i].vm && page < PAGES; page += 2)
			write_page(&sharers[i], page, (uint16_t)(1 + draw(CONTENTS)));
	daemon_check(await_shared(sharers, 400), at, "they share again");
	daemon_check(!wrong_pages(sharers), at, "contents under the next");
	daemon_check(books_are_right(), at, "its books");
	for (unsigned i = 0; i < VMS; i++)
		end_sharer(&sharers[i]);
	daemon_check(books_are_right(), at, "its books when all have left");
	daemon_check(daemon_ask_number(socket_path, "query-sharing", "vms") == 0, at,
		     "nobody is left");
	daemon_kill(&daemon_pid);
}

/* A process with VMs is killed: its frames come back, and the others' pages are what they were. */
static void vm_dies(void)
{
	const char *what = "vm dies";
	struct sharer sharers[VMS] = { 0 };
	uint64_t end_ns;
	int to_child[2];
	pid_t child;
	char byte;

	daemon_check(!start_daemon(NULL) && !pipe(to_child), what, "set up");
	child = fork();
	if (!child) {
		struct sharer own = { 0 };

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!make_sharer(&own, 9))
			while (write(to_child[1], "x", 1) == 1)
				pause();
		_exit(1);
	}
	daemon_check(read(to_child[0], &byte, 1) == 1, what, "a VM in another process");
	for (unsigned i = 0; i < VMS; i++)
		daemon_check(!make_sharer(&sharers[i], i), what, "VMs in ours");
	daemon_check(await_registered(sharers) && await_shared(sharers, VMS * PAGES * 9 / 10), what,
		     "all share");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	end_ns = gn_now_ns() + LIMIT_MS * MS_NS;
	while (daemon_ask_number(socket_path, "query-sharing", "vms") != VMS &&
	       gn_now_ns() < end_ns)
		sleep_ms(10);
	daemon_check(daemon_ask_number(socket_path, "query-sharing", "vms") == VMS &&
			     daemon_ask_number(socket_path, "query-sharing", "lost_vms") == 0,
		     what, "it is gone");
	daemon_check(books_are_right(), what, "books");
	daemon_check(!wrong_pages(sharers), what, "contents");
	for (unsigned i = 0; i < VMS; i++)
		end_sharer(&sharers[i]);
	close(to_child[0]);
	close(to_child[1]);
	daemon_kill(&daemon_pid);
}

static bool set_up(void)
{
	FILE *file;

	snprintf(directory, sizeof(directory), "/tmp/gn_shared_XXXXXX");
	if (gn_scheme_register(&bare_scheme) || !mkdtemp(directory))
		return false;
	snprintf(socket_path, sizeof(socket_path), "%s/socket", directory);
	snprintf(config_path, sizeof(config_path), "%s/ini", directory);
	file = fopen(config_path, "w");
	if (!file)
		return false;
	fprintf(file,
		"[daemon]\nsocket = %s\n[sharing]\ncpu_percent = 200\nsweep = 10ms\npool = 64M\n"
		"index = 64M\n[domain g]\nvms = vm*\n",
		socket_path);
	return !fclose(file);
}

static void tear_down(void)
{
	char lock[120];

	snprintf(lock, sizeof(lock), "%s.lock", socket_path);
	unlink(lock);
	unlink(socket_path);
	unlink(config_path);
	rmdir(directory);
}

/* A step's name: only that one. */
int main(int argc, char **argv)
{
	const char *step, *scale = getenv("GN_TEST_SCALE");
	const bool is_full = !scale || atoi(scale) >= 100;

	daemon_check(set_up(), "start", "set up");
	for (unsigned i = 0; (step = gn_shared_step_at(i)); i++) {
		if (argc > 1 && strcmp(argv[1], step) != 0)
			continue;
		kill_at(step, 1);
		if (is_full && strcmp(step, "gone") != 0 && strcmp(step, "stopping") != 0 &&
		    strcmp(step, "viewed") != 0 && strcmp(step, "retired") != 0)
			kill_at(step, 3);
	}
	vm_dies();
	tear_down();
	return daemon_counts_print();
}
