/* SPDX-License-Identifier: MIT */
/*
 * sensitivity.h - how much the verdict depends on two figures of the CPU model.
 */
#ifndef GN_BENCH_SENSITIVITY_H
#define GN_BENCH_SENSITIVITY_H

#include <stdbool.h>

#include "cli.h"
#include "machine.h"
#include "results.h"

/* Vary the cost of an exit and the reach of the second-level TLB on a few representative workloads of
 * those asked, at moderate sizes, and add the points to @r. False: a run failed (told on stderr). */
bool sensitivity_run(struct results *r, const struct machine *machine,
		     const struct cli_list *schemes, const struct cli_list *workloads);

#endif
