/* SPDX-License-Identifier: MIT */
/*
 * scale.c - `gnomon overcommit scale`: what one gnomon-balloond costs that divides memory among a thousand small VMs.
 *
 * The VMs are real processes on half of the memory they have together (scale_vm.c). They are started a few at a time, as a host
 * would; with a quarter, half and all of them there, the daemon is watched for a while: its CPU time, its memory, its
 * rounds. So the table shows what grows with the number of VMs and what does not.
 */
#include "scale.h"

#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "commands.h"
#include "control/clock.h"
#include "control/json.h"
#include "overcommit_daemon.h"
#include "progress.h"

enum { OPT_VMS = 0x300, OPT_MEM, OPT_SECONDS, OPT_SETTLE, OPT_SEED, OPT_JSON };

#define POLL_US 20000
#define STUCK_S 60.0 /* without one more VM up */
#define END_S	5.0
#define OVERHEAD_BYTES                                                                             \
	((uint64_t)6 << 20) /* of a VM's process beside its guest's memory: measured */

enum { BOOTING_PER_CPU = 2, ASKED_FOR_MEMORY = 16 };

struct bench {
	struct scale_results r;
	struct child_daemon daemon;
	struct scale_shared *shared;
	pid_t *pids;
	unsigned started;
	double daemon_kib; /* without VMs */
	const char *json;
	struct progress progress;
};

/* ---- Arguments -------------------------------------------------------------------------------------------------- */

static const struct argp_option options[] = {
	{ "vms", OPT_VMS, "N", 0, "how many VMs (1000)", 0 },
	{ "mem", OPT_MEM, "SIZE", 0, "memory of each (16M); they get half of it", 0 },
	{ "seconds", OPT_SECONDS, "N", 0, "how long to watch the daemon in each step (20)", 0 },
	{ "settle", OPT_SETTLE, "N", 0, "how long to let memory move after VMs came (15)", 0 },
	{ "seed", OPT_SEED, "N", 0, "of the guests' data (1)", 0 },
	{ "json", OPT_JSON, "FILE", 0, "write the results (- is stdout)", 0 },
	{ 0 }
};

static const char doc[] = "Run many small VMs, a process each, under one gnomon-balloond on half "
			  "of their memory, and say "
			  "what the daemon costs.\v"
			  "A VM of 16 MiB takes about 11 MiB of the host's.\n\n"
			  "Examples:\n"
			  "  gnomon overcommit scale\n"
			  "  gnomon overcommit scale --vms 100 --seconds 5 --json -\n\n"
			  "Exit code 1 when a guest found other data than it wrote, or a VM was "
			  "not admitted; a missed goal "
			  "is shown and is no error.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct bench *b = state->input;

	switch (key) {
	case OPT_VMS:
		b->r.vms = (unsigned)cli_take_count("--vms", arg, 1, SCALE_MAX_VMS);
		return 0;
	case OPT_MEM:
		if (cli_parse_size(arg, &b->r.mem_bytes) || b->r.mem_bytes < (8u << 20) ||
		    b->r.mem_bytes > (uint64_t)1 << 30 || b->r.mem_bytes % (1 << 20))
			cli_fail(EXIT_USAGE, "--mem %s: must be 8M to 1G, in MiB", arg);
		return 0;
	case OPT_SECONDS:
		b->r.window_s = (double)cli_take_count("--seconds", arg, 1, 3600);
		return 0;
	case OPT_SETTLE:
		b->r.settle_s = (double)cli_take_count("--settle", arg, 0, 3600);
		return 0;
	case OPT_SEED:
		b->r.seed = cli_take_count("--seed", arg, 0, UINT32_MAX);
		return 0;
	case OPT_JSON:
		b->json = arg;
		return 0;
	case ARGP_KEY_ARG:
		if (strcmp(arg, "scale") != 0 || state->arg_num)
			cli_fail(EXIT_USAGE, "overcommit scale takes no \"%s\"", arg);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* ---- What /proc knows ------------------------------------------------------------------------------------------- */

/* The number behind @key in a file of lines "key: number kB"; 0: there is none. */
static double read_kib(const char *path, const char *key)
{
	char line[256];
	double kib = 0;
	FILE *file = fopen(path, "re");

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':') {
			kib = strtod(line + strlen(key) + 1, NULL);
			break;
		}
	fclose(file);
	return kib;
}

static double process_kib(pid_t pid, const char *file, const char *key)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	return read_kib(path, key);
}

static double cpu_s(pid_t pid)
{
	clockid_t clock;

	return clock_getcpuclockid(pid, &clock) ? 0 : (double)gn_clock_ns(clock) / 1e9;
}

static void check_host(const struct scale_results *r)
{
	double need = (double)r->vms * (double)(r->mem_bytes / 2 + OVERHEAD_BYTES) / 1024;
	double has = read_kib("/proc/meminfo", "MemAvailable");
	struct rlimit files;
	char needed[32], there[32];

	if (has > 0 && need > has)
		cli_fail(EXIT_CANNOT, "%u VMs take about %s, this host has %s; --vms takes fewer",
			 r->vms, cli_format_bytes((uint64_t)need * 1024, needed, sizeof(needed)),
			 cli_format_bytes((uint64_t)has * 1024, there, sizeof(there)));
	/* The daemon, which inherits it, has a socket and a process's handle for each VM. */
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* The daemon and its folder, VMs and the bar: before an early end, too. */
static void end_all(struct bench *b)
{
	progress_end(&b->progress);
	for (unsigned i = 0; i < b->started; i++)
		if (b->pids[i]) {
			kill(b->pids[i], SIGKILL);
			waitpid(b->pids[i], NULL, 0);
		}
	child_daemon_stop(&b->daemon);
}

/* ---- VMs ---------------------------------------------------------------------------------------------------------- */

static void start_vm(struct bench *b)
{
	struct scale_vm_config config = { .socket = b->daemon.socket,
					  .index = b->started,
					  .mem_bytes = b->r.mem_bytes,
					  .min_bytes = b->r.min_bytes,
					  .seed = b->r.seed,
					  .shared = b->shared };
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid)
		scale_vm_main(&config);
	if (pid < 0) {
		int error = errno;

		end_all(b);
		cli_fail(EXIT_CANNOT, "VM %u cannot be started: %s", b->started + 1,
			 strerror(error));
	}
	b->pids[b->started++] = pid;
}

/* A VM that died of something else than itself did not say so. */
static void note_death(struct scale_slot *slot, int status)
{
	const int state = atomic_load(&slot->state);

	if (state == SCALE_VM_ENDED || state == SCALE_VM_FAILED)
		return;
	if (WIFSIGNALED(status))
		snprintf(slot->why, sizeof(slot->why), "killed by signal %d", WTERMSIG(status));
	else
		snprintf(slot->why, sizeof(slot->why), "ended with status %d", WEXITSTATUS(status));
	atomic_store(&slot->state, SCALE_VM_FAILED);
}

static void note_deaths(struct bench *b)
{
	pid_t pid;
	int status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == b->daemon.pid) {
			b->daemon.pid = 0;
			end_all(b);
			cli_fail(EXIT_CANNOT, "gnomon-balloond ended with %u VMs there",
				 b->started);
		}
		for (unsigned i = 0; i < b->started; i++)
			if (b->pids[i] == pid) {
				b->pids[i] = 0;
				note_death(&b->shared->slots[i], status);
			}
	}
}

static unsigned count_state(const struct bench *b, enum scale_vm_state state)
{
	unsigned count = 0;

	for (unsigned i = 0; i < b->started; i++)
		count += atomic_load(&b->shared->slots[i].state) == (int)state;
	return count;
}

/* Until @vms are there and up, or failed. */
static void boot(struct bench *b, unsigned vms)
{
	const unsigned most = BOOTING_PER_CPU * (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	unsigned booting, before = 0;
	double last_s = gn_now_s();

	do {
		booting = count_state(b, SCALE_VM_BOOTS);
		while (b->started < vms && booting < most) {
			start_vm(b);
			booting++;
		}
		usleep(POLL_US);
		note_deaths(b);
		booting = count_state(b, SCALE_VM_BOOTS);
		if (b->started - booting != before)
			last_s = gn_now_s();
		before = b->started - booting;
		if (gn_now_s() - last_s > STUCK_S) {
			end_all(b);
			cli_fail(EXIT_CANNOT, "no VM came up in %.0f s; %u of %u are", STUCK_S,
				 before, vms);
		}
		progress_part(&b->progress, (double)before / vms);
	} while (b->started < vms || booting);
}

static void end_vms(struct bench *b)
{
	double until_s = gn_now_s() + END_S;

	atomic_store(&b->shared->is_over, true);
	while (count_state(b, SCALE_VM_RUNS) && gn_now_s() < until_s) {
		usleep(POLL_US);
		note_deaths(b);
	}
	for (unsigned i = 0; i < b->started; i++) {
		const struct scale_slot *slot = &b->shared->slots[i];

		if (atomic_load(&slot->state) == SCALE_VM_FAILED && !b->r.failed++)
			snprintf(b->r.first_failure, sizeof(b->r.first_failure), "VM %u: %s", i + 1,
				 slot->why);
	}
	end_all(b);
}

/* ---- The daemon, watched -------------------------------------------------------------------------------------------- */

struct reading {
	double now_s, cpu_s, rounds, round_cpu_ms, round_ms, operations, targets;
};

static struct reading read_all(struct bench *b)
{
	struct reading now = { .now_s = gn_now_s(), .cpu_s = cpu_s(b->daemon.pid) };
	cJSON *answer = NULL;

	/* Asking costs the daemon something, too: between the windows' ends, and no more than once. */
	if (child_daemon_ask(&b->daemon, "query-policy", &answer)) {
		end_all(b);
		cli_fail(EXIT_CANNOT, "gnomon-balloond does not answer with %u VMs there",
			 b->started);
	}
	now.rounds = gn_json_number(answer, "rounds", 0);
	now.round_cpu_ms = gn_json_number(answer, "costliest_round_cpu_ms", 0);
	now.round_ms = gn_json_number(answer, "longest_round_ms", 0);
	cJSON_Delete(answer);
	for (unsigned i = 0; i < b->started; i++) {
		now.operations += (double)atomic_load(&b->shared->slots[i].operations);
		now.targets += (double)atomic_load(&b->shared->slots[i].targets);
	}
	return now;
}

static void pass(struct bench *b, double seconds)
{
	double until_s = gn_now_s() + seconds;

	while (gn_now_s() < until_s) {
		usleep(POLL_US);
		note_deaths(b);
		progress_part(&b->progress, 1 - (until_s - gn_now_s()) / seconds);
	}
}

static double host_kib_per_vm(const struct bench *b)
{
	unsigned count = b->started < ASKED_FOR_MEMORY ? b->started : ASKED_FOR_MEMORY, found = 0;
	double sum = 0;

	for (unsigned n = 0; n < count; n++) {
		pid_t pid = b->pids[n * b->started / count];

		if (!pid)
			continue;
		sum += process_kib(pid, "smaps_rollup", "Pss");
		found++;
	}
	return found ? sum / found : 0;
}

static void run_step(struct bench *b, unsigned vms)
{
	struct scale_step *s = &b->r.steps[b->r.step_count++];
	struct reading from, to;
	double seconds, began_s = gn_now_s();
	char what[64];

	snprintf(what, sizeof(what), "booting %u VMs", vms);
	progress_step(&b->progress, what);
	s->vms = vms;
	boot(b, vms);
	s->boot_s = gn_now_s() - began_s;
	snprintf(what, sizeof(what), "watching the daemon of %u VMs", vms);
	progress_step(&b->progress, what);
	pass(b, b->r.settle_s);
	from = read_all(b);
	pass(b, b->r.window_s);
	to = read_all(b);
	seconds = to.now_s - from.now_s;
	s->core_percent = 100 * (to.cpu_s - from.cpu_s) / seconds;
	s->kib_per_vm = (process_kib(b->daemon.pid, "status", "VmRSS") - b->daemon_kib) / vms;
	s->round_cpu_ms = to.round_cpu_ms;
	s->round_ms = to.round_ms;
	s->rounds_per_s = (to.rounds - from.rounds) / seconds;
	s->targets_per_s = (to.targets - from.targets) / seconds;
	s->operations_per_s = (to.operations - from.operations) / seconds;
	s->host_kib_per_vm = host_kib_per_vm(b);
}

static void start(struct bench *b)
{
	struct overcommit_setup setup = { .vms = b->r.vms };
	int err;

	b->r.min_bytes = b->r.mem_bytes / 4;
	b->r.budget_bytes = b->r.mem_bytes / 2 * b->r.vms;
	setup.budget_bytes = b->r.budget_bytes;
	gn_policy_config_init(&setup.policy);
	b->shared = mmap(NULL, sizeof(*b->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	b->pids = calloc(b->r.vms, sizeof(*b->pids));
	if (b->shared == MAP_FAILED || !b->pids)
		cli_fail(EXIT_CANNOT, "out of memory");
	err = overcommit_daemon_start(&b->daemon, &setup, "esx");
	if (err) {
		child_daemon_stop(&b->daemon);
		cli_fail(EXIT_CANNOT, "gnomon-balloond was not started: %s", strerror(-err));
	}
	b->daemon_kib = process_kib(b->daemon.pid, "status", "VmRSS");
}

int scale_command(int argc, char **argv)
{
	static const struct argp argp = { options, parse, "scale", doc, NULL, NULL, NULL };
	struct bench b = { .r = { .vms = 1000,
				  .mem_bytes = (uint64_t)16 << 20,
				  .window_s = 20,
				  .settle_s = 15,
				  .seed = 1 } };
	int err;

	argp_parse(&argp, argc, argv, 0, NULL, &b);
	check_host(&b.r);
	start(&b);
	progress_begin(&b.progress, 2 * SCALE_STEPS);
	for (unsigned part = 1 << (SCALE_STEPS - 1); part; part /= 2)
		if (b.r.vms / part > b.started)
			run_step(&b, b.r.vms / part);
	end_vms(&b);
	if (!b.json || strcmp(b.json, "-") != 0)
		scale_print(&b.r, stdout, cli_may_colour(STDOUT_FILENO));
	if (b.json) {
		err = scale_write_json(&b.r, b.json);
		if (err)
			cli_fail(EXIT_CANNOT, "--json %s: %s", b.json, strerror(-err));
	}
	munmap(b.shared, sizeof(*b.shared));
	free(b.pids);
	return b.r.failed ? EXIT_MISMATCH : EXIT_FINE;
}
