/* SPDX-License-Identifier: MIT */
/*
 * main.c - the `gnomon` command: find the subcommand, hand over.
 *
 * Everything that every subcommand needs happens here: the schemes are registered, the engine's log goes to
 * stderr (errors and warnings only), and argp's own usage errors exit with 2 as all others do.
 */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include <gnomon/schemes.h>

#include "cli.h"
#include "commands.h"
#include "top.h"
#include "trace_command.h"
#include "version.h"

static const struct command {
	const char *name, *what;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "compare", "schemes x workloads: overhead, counts, memory; table, JSON, report",
	  compare_command },
	{ "run", "one workload under one scheme, every counter", run_command },
	{ "micro", "cost of the engine's operations, each beside its limit", micro_command },
	{ "overcommit", "more VMs than memory: policies of ballooning, sharing beside KSM",
	  overcommit_command },
	{ "repro", "published figures, ours beside theirs", repro_command },
	{ "report", "a result file as a web page with plots", report_command },
	{ "trace", "record, inspect and convert traces of real programs", trace_command },
	{ "list", "schemes, workloads, backends, cpus", list_command },
	{ "top", "live view of gnomon-balloond", top_command },
	{ "host", "what this machine is and can do", host_command },
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const char *command_name(unsigned i)
{
	return i < COMMANDS ? commands[i].name : NULL;
}

static void print_help(FILE *to)
{
	fputs("Usage: gnomon COMMAND [OPTION...]\n\n"
	      "Compare shadow paging, nested paging and their relatives on one guest.\n\n",
	      to);
	for (size_t i = 0; i < COMMANDS; i++)
		fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].what);
	fputs("\n`gnomon COMMAND --help` tells more, with examples. A first look:\n\n"
	      "  gnomon compare --quick\n"
	      "  gnomon compare --quick --report out && xdg-open out/index.html\n\n"
	      "Exit codes: 0 fine, 1 a comparison or audit failed, 2 usage, 3 this machine "
	      "cannot.\n",
	      to);
}

static void log_line(void *ctx, enum gn_log_level level, const char *text)
{
	(void)ctx;
	if (level <= GN_LOG_WARN)
		cli_warn("%s", text);
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL, *near;
	char title[64];

	argp_err_exit_status = EXIT_USAGE;
	if (!name) {
		print_help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
		print_help(stdout);
		return EXIT_FINE;
	}
	if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
		printf("gnomon %s\n", GN_VERSION);
		return EXIT_FINE;
	}
	gn_log_set(log_line, NULL);
	if (gn_schemes_register_all())
		cli_fail(EXIT_CANNOT, "the schemes could not be registered");
	for (size_t i = 0; i < COMMANDS; i++)
		if (!strcmp(name, commands[i].name)) {
			snprintf(title, sizeof(title), "gnomon %s", name);
			argv[1] = title;
			return commands[i].run(argc - 1, argv + 1);
		}
	near = cli_nearest(name, command_name);
	if (near)
		cli_fail(EXIT_USAGE, "no command \"%s\"; did you mean \"gnomon %s\"?", name, near);
	cli_fail(EXIT_USAGE, "no command \"%s\"; `gnomon --help` lists them", name);
}
