/* SPDX-License-Identifier: MIT */
/*
 * program.h - a daemon's main(): its arguments, which are the same for all, and its exit codes.
 */
#ifndef GN_CONTROL_PROGRAM_H
#define GN_CONTROL_PROGRAM_H

#include "config.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gn_program {
	const char *name, *release;
	const char *summary;	 /* one sentence, for --help */
	const char *config_path; /* where it is by default */
	const struct gn_config_schema *schema;
	/* As the daemon's: -EINVAL, -ENOENT and -EACCES are the configuration's. @say: a line for people. */
	int (*create)(const char *config_path, bool dry, void (*say)(const char *text),
		      void **daemon);
	int (*run)(void *daemon); /* until it is stopped; its exit code, or -errno */
	void (*destroy)(void *daemon);
};

/* What main() returns. One program a process. */
int gn_program_main(const struct gn_program *program, int argc, char **argv);

#ifdef __cplusplus
}
#endif

#endif
