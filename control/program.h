/* SPDX-License-Identifier: MIT */
/*
 * program.h - a daemon's main(): its arguments, which are the same for all, and its exit codes.
 */
#ifndef GN_CONTROL_PROGRAM_H
#define GN_CONTROL_PROGRAM_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What main() returns. One program a process. */
int gn_program_main(const struct gn_base_ops *ops, int argc, char **argv);

#ifdef __cplusplus
}
#endif

#endif
