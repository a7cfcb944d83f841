/* SPDX-License-Identifier: MIT */
/*
 * shared.c - the gnomon-shared program.
 */
#include "control/program.h"
#include "daemon.h"

static int create(const char *config_path, bool dry, void (*say)(const char *text), void **daemon)
{
	return gn_shared_create(config_path, dry, say, (struct gn_shared **)daemon);
}

static int run(void *daemon)
{
	return gn_shared_run(daemon);
}

static void destroy(void *daemon)
{
	gn_shared_destroy(daemon);
}

int main(int argc, char **argv)
{
	static const struct gn_program program = {
		.name = "gnomon-shared",
		.release = GN_SHARED_RELEASE,
		.summary = "Share equal pages among virtual machines that agreed to it.",
		.config_path = "/etc/gnomon/shared.ini",
		.schema = &gn_shared_schema,
		.create = create,
		.run = run,
		.destroy = destroy,
	};

	return gn_program_main(&program, argc, argv);
}
