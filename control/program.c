/* SPDX-License-Identifier: MIT */
/*
 * program.c - what daemons are told on their command line.
 */
#include "program.h"

#include <argp.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>

enum { EXIT_USAGE_OR_CONFIG = 2, EXIT_CANNOT = 3 };

struct arguments {
	const char *config;
	bool check, dry;
};

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct arguments *a = state->input;

	switch (key) {
	case 'c':
		a->config = text;
		return 0;
	case 'C':
		a->check = true;
		return 0;
	case 'n':
		a->dry = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "no argument \"%s\" is expected", text);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct gn_base_ops *running;

static void say(const char *text)
{
	fprintf(stderr, "%s: %s\n", running->name, text);
}

static int check(const struct gn_base_ops *ops, const char *path)
{
	_Alignas(max_align_t) char values[GN_CONFIG_MAX_BYTES];
	char why[GN_WHY_BYTES];

	if (gn_base_load_config(ops, path, values, why, sizeof(why))) {
		say(why);
		return EXIT_USAGE_OR_CONFIG;
	}
	printf("%s: fine\n", path);
	return 0;
}

static int serve(const struct gn_base_ops *ops, const struct arguments *a)
{
	struct gn_base *daemon;
	int err = gn_base_create(ops, a->config, a->dry, say, &daemon);

	if (err)
		return err == -EINVAL || err == -ENOENT || err == -EACCES ? EXIT_USAGE_OR_CONFIG
									  : EXIT_CANNOT;
	err = gn_base_run(daemon);
	gn_base_destroy(daemon);
	return err < 0 ? EXIT_CANNOT : err;
}

int gn_program_main(const struct gn_base_ops *ops, int argc, char **argv)
{
	struct arguments a = { .config = ops->config_path };
	char version[64], doc[512], config_doc[128];
	struct argp_option options[] = {
		{ "config", 'c', "FILE", 0, config_doc, 0 },
		{ "check-config", 'C', NULL, 0, "say whether the configuration is right, and exit",
		  0 },
		{ "dry-run", 'n', NULL, 0,
		  "decide, write what would be done to the event log, do nothing", 0 },
		{ 0 },
	};
	const struct argp argp = { options, parse, NULL, doc, NULL, NULL, NULL };

	running = ops;
	snprintf(version, sizeof(version), "%s %s", ops->name, ops->release);
	snprintf(config_doc, sizeof(config_doc), "configuration (default: %s)", ops->config_path);
	snprintf(doc, sizeof(doc),
		 "%s\vSIGHUP reloads the configuration and reopens the event log; SIGTERM stops.\n"
		 "Exit codes: 0 fine, 2 usage or configuration, 3 it cannot run here.",
		 ops->summary);
	argp_program_version = version;
	argp_err_exit_status = EXIT_USAGE_OR_CONFIG;
	argp_parse(&argp, argc, argv, 0, NULL, &a);
	return a.check ? check(ops, a.config) : serve(ops, &a);
}
