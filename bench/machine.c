/* SPDX-License-Identifier: MIT */
/*
 * machine.c - parse the machine's options.
 *
 * --cpu takes a preset's name or a preset file; a name wins, so a file called like a preset is given as
 * ./name. Ranges are checked here, so that a bad one is told as a usage error; what only the engine can
 * know (a machine too small for a workload) is told by the run.
 */
#include "machine.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum {
	OPT_BACKEND = 0x100,
	OPT_CPU,
	OPT_MEM,
	OPT_VCPUS,
	OPT_SEED,
	OPT_LARGE_PAGES,
	OPT_BACKING,
	OPT_GUEST_LEVELS,
	OPT_NESTED_LEVELS,
	OPT_PCID,
};

static const struct argp_option options[] = {
	{ "backend", OPT_BACKEND, "soft|kvm", 0,
	  "what executes the guest: a model machine, or this host's CPU through /dev/kvm (soft)",
	  10 },
	{ "cpu", OPT_CPU, "PRESET", 0,
	  "soft: CPU model, a name of `gnomon list cpus` or a file of key = value lines", 10 },
	{ "mem", OPT_MEM, "SIZE", 0, "guest memory (1G)", 10 },
	{ "vcpus", OPT_VCPUS, "N", 0, "vCPUs of the guest; the workload runs on the first (1)",
	  10 },
	{ "seed", OPT_SEED, "N", 0, "seed of the workloads (1): same seed, same counts", 10 },
	{ "large-pages", OPT_LARGE_PAGES, NULL, 0, "guest user memory in 2 MiB pages", 11 },
	{ "backing", OPT_BACKING, "4k|2m|1g", 0, "host frames behind the guest's memory (4k)", 11 },
	{ "guest-levels", OPT_GUEST_LEVELS, "4|5", 0, "levels of the guest's tables (4)", 11 },
	{ "nested-levels", OPT_NESTED_LEVELS, "4|5", 0, "soft: levels of EPT and NPT tables (4)",
	  11 },
	{ "pcid", OPT_PCID, "on|off", 0,
	  "the guest kernel uses PCIDs (on; kvm: if every scheme compared can give them)", 11 },
	{ 0 }
};

void machine_init(struct machine *machine)
{
	memset(machine, 0, sizeof(*machine));
	machine->cpu = gn_cpu_preset_find("skylake-sp");
	if (!machine->cpu)
		machine->cpu = gn_cpu_preset_at(0);
	machine->mem_bytes = (uint64_t)1 << 30;
	machine->seed = 1;
	machine->vcpus = 1;
	machine->backing_level = 1;
	machine->guest_levels = 4;
	machine->nested_levels = 4;
	machine->pcid = true;
}

void machine_fini(struct machine *machine)
{
	if (machine->own_cpu)
		gn_cpu_preset_free(machine->own_cpu);
	machine->own_cpu = NULL;
}

static const char *preset_name(unsigned i)
{
	const struct gn_cpu_preset *preset = gn_cpu_preset_at(i);

	return preset ? gn_cpu_preset_name(preset) : NULL;
}

static void parse_cpu(struct machine *machine, const char *text)
{
	char why[256] = "";
	const char *near;

	machine->cpu = gn_cpu_preset_find(text);
	if (machine->cpu)
		return;
	if (!access(text, F_OK)) {
		machine_fini(machine);
		if (gn_cpu_preset_load(text, &machine->own_cpu, why, sizeof(why)))
			cli_fail(EXIT_USAGE, "--cpu %s: %s", text, why[0] ? why : "cannot be read");
		machine->cpu = machine->own_cpu;
		return;
	}
	near = cli_nearest(text, preset_name);
	if (near)
		cli_fail(EXIT_USAGE, "--cpu %s: no such preset or file; did you mean %s?", text,
			 near);
	cli_fail(EXIT_USAGE, "--cpu %s: no such preset or file; see `gnomon list cpus`", text);
}

static const char *backend_name(unsigned i)
{
	static const char *const names[] = { "soft", "kvm" };

	return i < sizeof(names) / sizeof(names[0]) ? names[i] : NULL;
}

const char *machine_backend_name(const struct machine *machine)
{
	return backend_name(machine->backend);
}

static enum machine_backend parse_backend(const char *text)
{
	for (unsigned i = 0; backend_name(i); i++)
		if (!strcmp(text, backend_name(i)))
			return (enum machine_backend)i;
	cli_fail(EXIT_USAGE, "--backend %s: no such backend; known: soft, kvm", text);
}

static unsigned parse_levels(const char *option, const char *text)
{
	if (strcmp(text, "4") != 0 && strcmp(text, "5") != 0)
		cli_fail(EXIT_USAGE, "--%s %s: must be 4 or 5", option, text);
	return (unsigned)(*text - '0');
}

static unsigned parse_backing(const char *text)
{
	static const char *const names[] = { "4k", "2m", "1g" };

	for (unsigned i = 0; i < 3; i++)
		if (!strcasecmp(text, names[i]))
			return i + 1;
	cli_fail(EXIT_USAGE, "--backing %s: must be 4k, 2m or 1g", text);
}

static void parse_mem(struct machine *machine, const char *text)
{
	if (cli_parse_size(text, &machine->mem_bytes))
		cli_fail(EXIT_USAGE, "--mem %s: not a size; give one like 512M or 4G", text);
	if (machine->mem_bytes < (16u << 20) || machine->mem_bytes > (uint64_t)1 << 42 ||
	    machine->mem_bytes % GN_PAGE_SIZE)
		cli_fail(EXIT_USAGE, "--mem %s: must be a multiple of 4 KiB between 16M and 4096G",
			 text);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct machine *machine = state->input;
	uint64_t value;

	switch (key) {
	case OPT_BACKEND:
		machine->backend = parse_backend(arg);
		return 0;
	case OPT_CPU:
		machine->only_soft = "cpu";
		parse_cpu(machine, arg);
		return 0;
	case OPT_MEM:
		parse_mem(machine, arg);
		return 0;
	case OPT_VCPUS:
		if (cli_parse_count(arg, 1, GN_MAX_VCPUS, &value))
			cli_fail(EXIT_USAGE, "--vcpus %s: must be 1 to %d", arg, GN_MAX_VCPUS);
		machine->vcpus = (unsigned)value;
		return 0;
	case OPT_SEED:
		if (cli_parse_count(arg, 0, (uint64_t)1 << 53, &machine->seed))
			cli_fail(EXIT_USAGE, "--seed %s: must be a whole number up to 2^53", arg);
		return 0;
	case OPT_LARGE_PAGES:
		machine->large_pages = true;
		return 0;
	case OPT_BACKING:
		machine->backing_level = parse_backing(arg);
		return 0;
	case OPT_GUEST_LEVELS:
		machine->guest_levels = parse_levels("guest-levels", arg);
		return 0;
	case OPT_NESTED_LEVELS:
		machine->only_soft = "nested-levels";
		machine->nested_levels = parse_levels("nested-levels", arg);
		return 0;
	case OPT_PCID:
		if (cli_parse_switch(arg, &machine->pcid))
			cli_fail(EXIT_USAGE, "--pcid %s: must be on or off", arg);
		machine->is_pcid_asked = true;
		return 0;
	case ARGP_KEY_END:
		if (machine->backend == MACHINE_KVM && machine->only_soft)
			cli_fail(EXIT_USAGE,
				 "--%s: goes with --backend soft only; kvm runs on this host's own "
				 "CPU",
				 machine->only_soft);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

const struct argp machine_argp = { options, parse, NULL, NULL, NULL, NULL, NULL };
