/* SPDX-License-Identifier: MIT */
/*
 * repro.c - `gnomon repro`: published figures, ours beside theirs.
 */
#include "repro.h"

#include <argp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "commands.h"

static const struct repro *const repros[] = { &repro_walkrefs, &repro_dmt };
#define REPROS (sizeof(repros) / sizeof(repros[0]))

static const char *repro_name(unsigned i)
{
	return i < REPROS ? repros[i]->name : NULL;
}

struct repro_options {
	const struct repro *chosen[REPROS];
	size_t count;
};

static const char doc[] =
	"Reproduce published figures.\v"
	"walkrefs   entries a cold page walk reads, for every geometry, beside the closed form\n"
	"dmt        references a walk with the walk caches of a published simulator\n\n"
	"Examples:\n"
	"  gnomon repro\n"
	"  gnomon repro walkrefs\n\n"
	"Exit code 1 when a figure that must be equal is not.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct repro_options *o = state->input;
	const char *near;

	if (key != ARGP_KEY_ARG)
		return ARGP_ERR_UNKNOWN;
	for (size_t i = 0; i < REPROS; i++)
		if (!strcmp(repros[i]->name, arg)) {
			for (size_t j = 0; j < o->count; j++)
				if (o->chosen[j] == repros[i])
					return 0;
			o->chosen[o->count++] = repros[i];
			return 0;
		}
	near = cli_nearest(arg, repro_name);
	if (near)
		cli_fail(EXIT_USAGE, "no reproduction \"%s\"; did you mean \"%s\"?", arg, near);
	cli_fail(EXIT_USAGE, "no reproduction \"%s\"; there are walkrefs and dmt", arg);
}

int repro_command(int argc, char **argv)
{
	static const struct argp argp = { NULL, parse, "[NAME...]", doc, NULL, NULL, NULL };
	struct repro_options o = { .count = 0 };
	int result = EXIT_FINE;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (!o.count)
		for (; o.count < REPROS; o.count++)
			o.chosen[o.count] = repros[o.count];
	for (size_t i = 0; i < o.count; i++) {
		int err;

		if (i)
			putchar('\n');
		printf("%s: %s\n\n", o.chosen[i]->name, o.chosen[i]->what);
		err = o.chosen[i]->run(cli_may_colour(STDOUT_FILENO));
		if (err < 0)
			cli_fail(EXIT_CANNOT, "%s: %s", o.chosen[i]->name, strerror(-err));
		if (err)
			result = EXIT_MISMATCH;
	}
	return result;
}
