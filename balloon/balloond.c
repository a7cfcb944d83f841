/* SPDX-License-Identifier: MIT */
/*
 * balloond.c - the gnomon-balloond program: arguments, then daemon.h.
 */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon.h"

enum { EXIT_USAGE_OR_CONFIG = 2, EXIT_CANNOT = 3 };

const char *argp_program_version = "gnomon-balloond " GN_DAEMON_RELEASE;

struct arguments {
	const char *config;
	bool check, dry;
};

static const struct argp_option options[] = {
	{ "config", 'c', "FILE", 0, "configuration (default: /etc/gnomon/balloond.ini)", 0 },
	{ "check-config", 'C', NULL, 0, "say whether the configuration is right, and exit", 0 },
	{ "dry-run", 'n', NULL, 0, "decide, write what would be done to the event log, do nothing",
	  0 },
	{ 0 },
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

static void say(const char *text)
{
	fprintf(stderr, "gnomon-balloond: %s\n", text);
}

static int check(const char *path)
{
	struct gn_daemon_config config;
	char why[400];

	if (gn_config_load(&gn_daemon_schema, path, &config, why, sizeof(why))) {
		say(why);
		return EXIT_USAGE_OR_CONFIG;
	}
	printf("%s: fine\n", path);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		options,
		parse,
		NULL,
		"Divide a budget of memory among virtual machines.\v"
		"SIGHUP reloads the configuration and reopens the event log; SIGTERM stops.\n"
		"Exit codes: 0 fine, 2 usage or configuration, 3 it cannot run here.",
		NULL,
		NULL,
		NULL
	};
	struct arguments a = { .config = "/etc/gnomon/balloond.ini" };
	struct gn_daemon *daemon;
	int err;

	argp_err_exit_status = EXIT_USAGE_OR_CONFIG;
	argp_parse(&argp, argc, argv, 0, NULL, &a);
	if (a.check)
		return check(a.config);
	err = gn_daemon_create(a.config, a.dry, say, &daemon);
	if (err)
		return err == -EINVAL || err == -ENOENT || err == -EACCES ? EXIT_USAGE_OR_CONFIG
									  : EXIT_CANNOT;
	err = gn_daemon_run(daemon);
	gn_daemon_destroy(daemon);
	return err < 0 ? EXIT_CANNOT : err;
}
