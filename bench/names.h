/* SPDX-License-Identifier: MIT */
/*
 * names.h - the lists a user chooses from, checked before anything runs.
 */
#ifndef GN_BENCH_NAMES_H
#define GN_BENCH_NAMES_H

#include "cli.h"
#include "machine.h"

/* Turn "a,b" into names of schemes, or all that run on @backend when @text is NULL. A wrong name, or one that
 * cannot run there, ends the command. */
void names_schemes(const char *text, enum machine_backend backend, struct cli_list *out);
/* The same for workloads; "all", "memory" and "os" stand for groups, "trace:FILE" for a recording. */
void names_workloads(const char *text, struct cli_list *out);
/* One of each, checked. */
void names_check_scheme(const char *name, enum machine_backend backend);
/* Why a registered scheme cannot run on KVM; NULL: it can. */
const char *names_why_not_kvm(const char *scheme);
void names_check_workload(const char *name);

#endif
