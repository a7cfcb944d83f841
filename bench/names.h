/* SPDX-License-Identifier: MIT */
/*
 * names.h - the lists a user chooses from, checked before anything runs.
 */
#ifndef GN_BENCH_NAMES_H
#define GN_BENCH_NAMES_H

#include "cli.h"

/* Turn "a,b" into names of schemes, or all when @text is NULL. A wrong name ends the command. */
void names_schemes(const char *text, struct cli_list *out);
/* The same for workloads; "all", "memory" and "os" stand for groups, "trace:FILE" for a recording. */
void names_workloads(const char *text, struct cli_list *out);
/* One of each, checked. */
void names_check_scheme(const char *name);
void names_check_workload(const char *name);

#endif
