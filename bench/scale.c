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
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "commands.h"
#include "control/clock.h"
#include "control/json.h"
#include "host.h"
#include "overcommit_daemon.h"
#include "progress.h"
#include "scale_fleet.h"

enum { OPT_VMS = 0x300, OPT_MEM, OPT_SECONDS, OPT_SETTLE, OPT_SEED, OPT_JSON };

#define OVERHEAD_BYTES                                                                             \
	((uint64_t)6 << 20) /* of a VM's process beside its guest's memory: measured */

enum { ASKED_FOR_MEMORY = 16 };

struct bench {
	struct scale_results r;
	struct child_daemon daemon;
	struct scale_fleet fleet;
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

/* The number of kB behind @key; 0: not known. */
static double read_kib(const char *path, const char *key)
{
	char text[64];

	return host_read_key(path, key, text, sizeof(text)) ? strtod(text, NULL) : 0;
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
	char needed[32], there[32];

	if (has > 0 && need > has)
		cli_fail(EXIT_CANNOT, "%u VMs take about %s, this host has %s; --vms takes fewer",
			 r->vms, cli_format_bytes((uint64_t)need * 1024, needed, sizeof(needed)),
			 cli_format_bytes((uint64_t)has * 1024, there, sizeof(there)));
}

/* ---- The daemon, watched ------------------------------------------------------------------------------------------ */

struct reading {
	double now_s, cpu_s, rounds, round_cpu_ms, round_ms, operations, targets;
};

/* Asking costs the daemon something, too: it is done at a window's ends only. */
static int read_all(struct bench *b, struct reading *now)
{
	cJSON *answer = NULL;
	int err;

	*now = (struct reading){ .now_s = gn_now_s(), .cpu_s = cpu_s(b->daemon.pid) };
	err = child_daemon_ask(&b->daemon, "query-policy", &answer);
	if (err)
		return err;
	now->rounds = gn_json_number(answer, "rounds", 0);
	now->round_cpu_ms = gn_json_number(answer, "costliest_round_cpu_ms", 0);
	now->round_ms = gn_json_number(answer, "longest_round_ms", 0);
	cJSON_Delete(answer);
	for (unsigned i = 0; i < b->fleet.count; i++) {
		now->operations += (double)atomic_load(&b->fleet.shared->slots[i].operations);
		now->targets += (double)atomic_load(&b->fleet.shared->slots[i].targets);
	}
	return 0;
}

static double host_kib_per_vm(const struct scale_fleet *f)
{
	unsigned count = f->count < ASKED_FOR_MEMORY ? f->count : ASKED_FOR_MEMORY, found = 0;
	double sum = 0;

	for (unsigned n = 0; n < count; n++) {
		pid_t pid = f->pids[n * f->count / count];

		if (!pid)
			continue;
		sum += process_kib(pid, "smaps_rollup", "Pss");
		found++;
	}
	return found ? sum / found : 0;
}

static int watch(struct bench *b, struct scale_step *s)
{
	struct reading from, to;
	double seconds;
	int err = scale_fleet_pass(&b->fleet, b->r.settle_s, &b->progress);

	if (!err)
		err = read_all(b, &from);
	if (!err)
		err = scale_fleet_pass(&b->fleet, b->r.window_s, &b->progress);
	if (!err)
		err = read_all(b, &to);
	if (err)
		return err;
	seconds = to.now_s - from.now_s;
	s->core_percent = 100 * (to.cpu_s - from.cpu_s) / seconds;
	s->kib_per_vm = (process_kib(b->daemon.pid, "status", "VmRSS") - b->daemon_kib) / s->vms;
	s->round_cpu_ms = to.round_cpu_ms;
	s->round_ms = to.round_ms;
	s->rounds_per_s = (to.rounds - from.rounds) / seconds;
	s->targets_per_s = (to.targets - from.targets) / seconds;
	s->operations_per_s = (to.operations - from.operations) / seconds;
	s->host_kib_per_vm = host_kib_per_vm(&b->fleet);
	return 0;
}

static int run_step(struct bench *b, unsigned vms)
{
	struct scale_step *s = &b->r.steps[b->r.step_count++];
	double began_s = gn_now_s();
	char what[64];
	int err;

	snprintf(what, sizeof(what), "booting %u VMs", vms);
	progress_step(&b->progress, what);
	s->vms = vms;
	err = scale_fleet_boot(&b->fleet, vms, &b->progress);
	s->boot_s = gn_now_s() - began_s;
	if (err)
		return err;
	snprintf(what, sizeof(what), "watching the daemon of %u VMs", vms);
	progress_step(&b->progress, what);
	return watch(b, s);
}

/* ---- The command ---------------------------------------------------------------------------------------------------- */

static int start(struct bench *b)
{
	struct overcommit_setup setup = { .vms = b->r.vms };
	int err;

	b->r.min_bytes = b->r.mem_bytes / 4;
	b->r.budget_bytes = b->r.mem_bytes / 2 * b->r.vms;
	setup.budget_bytes = b->r.budget_bytes;
	gn_policy_config_init(&setup.policy);
	err = overcommit_daemon_start(&b->daemon, &setup, "esx");
	if (err)
		return err;
	b->daemon_kib = process_kib(b->daemon.pid, "status", "VmRSS");
	b->fleet.socket = b->daemon.socket;
	b->fleet.mem_bytes = b->r.mem_bytes;
	b->fleet.min_bytes = b->r.min_bytes;
	b->fleet.seed = b->r.seed;
	return scale_fleet_init(&b->fleet);
}

static void note_failures(struct bench *b)
{
	for (unsigned i = 0; i < b->fleet.count; i++) {
		const struct scale_slot *slot = &b->fleet.shared->slots[i];

		if (atomic_load(&slot->state) == SCALE_VM_FAILED && !b->r.failed++)
			snprintf(b->r.first_failure, sizeof(b->r.first_failure), "VM %u: %s", i + 1,
				 slot->why);
	}
}

static int measure(struct bench *b)
{
	int err = start(b);

	progress_begin(&b->progress, 2 * SCALE_STEPS);
	for (unsigned part = 1 << (SCALE_STEPS - 1); part && !err; part /= 2)
		if (b->r.vms / part > b->fleet.count)
			err = run_step(b, b->r.vms / part);
	progress_end(&b->progress);
	if (!err) {
		scale_fleet_end(&b->fleet);
		note_failures(b);
	}
	scale_fleet_fini(&b->fleet);
	child_daemon_stop(&b->daemon);
	return err;
}

int scale_command(int argc, char **argv)
{
	static const struct argp argp = { options, parse, "scale", doc, NULL, NULL, NULL };
	static struct bench b = { .r = { .vms = 1000,
					 .mem_bytes = (uint64_t)16 << 20,
					 .window_s = 20,
					 .settle_s = 15,
					 .seed = 1 } };
	int err;

	argp_parse(&argp, argc, argv, 0, NULL, &b);
	check_host(&b.r);
	err = measure(&b);
	if (err)
		cli_fail(EXIT_CANNOT, "with %u of %u VMs started: %s", b.fleet.count, b.r.vms,
			 err == -ECHILD	     ? "gnomon-balloond ended"
			 : err == -ETIMEDOUT ? "no more of them came up"
					     : strerror(-err));
	if (!b.json || strcmp(b.json, "-") != 0)
		scale_print(&b.r, stdout, cli_may_colour(STDOUT_FILENO));
	if (b.json) {
		err = scale_write_json(&b.r, b.json);
		if (err)
			cli_fail(EXIT_CANNOT, "--json %s: %s", b.json, strerror(-err));
	}
	return b.r.failed ? EXIT_MISMATCH : EXIT_FINE;
}
