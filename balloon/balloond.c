/* SPDX-License-Identifier: MIT */
/*
 * balloond.c - the gnomon-balloond program.
 */
#include "control/program.h"
#include "daemon.h"

static int create(const char *config_path, bool dry, void (*say)(const char *text), void **daemon)
{
	return gn_daemon_create(config_path, dry, say, (struct gn_daemon **)daemon);
}

static int run(void *daemon)
{
	return gn_daemon_run(daemon);
}

static void destroy(void *daemon)
{
	gn_daemon_destroy(daemon);
}

int main(int argc, char **argv)
{
	static const struct gn_program program = {
		.name = "gnomon-balloond",
		.release = GN_DAEMON_RELEASE,
		.summary = "Divide a budget of memory among virtual machines.",
		.config_path = "/etc/gnomon/balloond.ini",
		.schema = &gn_daemon_schema,
		.create = create,
		.run = run,
		.destroy = destroy,
	};

	return gn_program_main(&program, argc, argv);
}
