/* SPDX-License-Identifier: MIT */
/*
 * run_control.c - parse them. A reservation is a quarter of the memory unless one is given: the VM begins with it, and the
 * daemon gives what more there is.
 */
#include "run_control.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <gnomon/types.h>

#include "cli.h"

#define MIN_PART     4
#define SHARES	     1000
#define ADMISSION_MS 10000

enum {
	OPT_CONTROL = 0x400,
	OPT_NAME,
	OPT_MIN,
	OPT_MAX,
	OPT_SHARES,
	OPT_REST,
};

static const struct argp_option options[] = {
	{ "control", OPT_CONTROL, "SOCKET", 0,
	  "share memory under the gnomon-balloond that serves this socket", 20 },
	{ "name", OPT_NAME, "NAME", 0, "the VM's name there (its process id)", 20 },
	{ "min", OPT_MIN, "SIZE", 0, "memory reserved for it (a quarter)", 20 },
	{ "max", OPT_MAX, "SIZE", 0, "the most it is given (all)", 20 },
	{ "shares", OPT_SHARES, "N", 0, "its weight against other VMs (1000)", 20 },
	{ "rest", OPT_REST, "SECONDS", 0, "idle after each phase of the workload phases (0)", 20 },
	{ 0 }
};

void run_control_init(struct run_control *control)
{
	memset(control, 0, sizeof(*control));
	control->vm.shares = SHARES;
}

static uint64_t parse_pages(const char *option, const char *arg)
{
	uint64_t bytes;

	if (cli_parse_size(arg, &bytes) || !bytes || bytes % GN_PAGE_SIZE)
		cli_fail(EXIT_USAGE, "--%s %s: must be a multiple of 4 KiB, like 256M", option,
			 arg);
	return bytes;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct run_control *o = state->input;
	struct balloon_vm_config *c = &o->vm;
	uint64_t value;

	switch (key) {
	case OPT_CONTROL:
		c->socket = arg;
		return 0;
	case OPT_NAME:
		o->only_daemon = "name";
		c->name = arg;
		if (!*arg || strlen(arg) >= sizeof(o->name))
			cli_fail(EXIT_USAGE, "--name \"%s\": must have 1 to %d characters", arg,
				 (int)sizeof(o->name) - 1);
		return 0;
	case OPT_MIN:
		o->only_control = "min";
		c->min_bytes = parse_pages("min", arg);
		return 0;
	case OPT_MAX:
		o->only_control = "max";
		c->max_bytes = parse_pages("max", arg);
		return 0;
	case OPT_SHARES:
		o->only_control = "shares";
		if (cli_parse_count(arg, 1, 1000000, &value))
			cli_fail(EXIT_USAGE, "--shares %s: must be 1 to 1000000", arg);
		c->shares = (uint32_t)value;
		return 0;
	case OPT_REST:
		o->only_daemon = "rest";
		if (cli_parse_count(arg, 0, 86400, &value))
			cli_fail(EXIT_USAGE, "--rest %s: must be 0 to 86400", arg);
		o->rest_ms = (unsigned)value * 1000;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

const struct argp run_control_argp = { options, parse, NULL, NULL, NULL, NULL, NULL };

void run_control_complete(struct run_control *o, const struct machine *machine, const char *scheme,
			  bool has_other_daemon)
{
	struct balloon_vm_config *c = &o->vm;

	if (!c->socket && o->only_control)
		cli_fail(EXIT_USAGE, "--%s: goes with --control only", o->only_control);
	if (!c->socket && !has_other_daemon && o->only_daemon)
		cli_fail(EXIT_USAGE, "--%s: goes with --control or --sharing only", o->only_daemon);
	if (!c->socket)
		return;
	c->backend = machine_backend_name(machine);
	c->scheme = scheme;
	c->mem_bytes = machine->mem_bytes;
	c->seed = machine->seed;
	if (!c->min_bytes)
		c->min_bytes = c->mem_bytes / MIN_PART / GN_PAGE_SIZE * GN_PAGE_SIZE;
	if (!c->max_bytes)
		c->max_bytes = c->mem_bytes;
	if (c->min_bytes > c->max_bytes || c->max_bytes > c->mem_bytes)
		cli_fail(EXIT_USAGE, "--min, --max: must be in order, and within the memory");
	if (!c->name) {
		snprintf(o->name, sizeof(o->name), "%d", (int)getpid());
		c->name = o->name;
	}
}

int run_control_join(const struct balloon_vm_config *config, struct gn_vm *vm,
		     struct results_run *run, struct balloon_vm **out)
{
	int err = balloon_vm_create(vm, config, out);

	if (!err && !balloon_vm_await_admission(*out, ADMISSION_MS))
		err = -ETIMEDOUT;
	if (err)
		snprintf(run->failure, sizeof(run->failure), "no daemon at %.120s admits it: %s",
			 config->socket,
			 err == -ETIMEDOUT ? "is one there, and its budget not reserved?"
					   : strerror(-err));
	return err;
}

void run_idle(void)
{
	const struct timespec tick = { .tv_nsec = RUN_IDLE_TICK_MS * 1000000L };

	nanosleep(&tick, NULL);
}

void run_control_print(const struct balloon_vm_stats *m, FILE *to)
{
	char has[32], target[32], reclaimed[32];

	fprintf(to,
		"balloon: %s at the end, told to have %s; %" PRIu64 " targets, %" PRIu64
		" times memory taken back in need, %" PRIu64 " touches\n",
		cli_format_bytes(m->actual_bytes, has, sizeof(has)),
		cli_format_bytes(m->target_bytes, target, sizeof(target)), m->targets, m->reliefs,
		m->touches);
	if (m->reformed_blocks)
		fprintf(to, "balloon: %" PRIu64 " blocks of 2 MiB formed again\n",
			m->reformed_blocks);
	if (m->reclaims)
		fprintf(to, "balloon: late %" PRIu64 " times, and the host side took %s of zeros\n",
			m->reclaims,
			cli_format_bytes(m->reclaimed_bytes, reclaimed, sizeof(reclaimed)));
}
