/* SPDX-License-Identifier: MIT */
/*
 * repro.h - one reproduction: figures others published, and what this machine counts.
 */
#ifndef GN_BENCH_REPRO_H
#define GN_BENCH_REPRO_H

#include <stdbool.h>

struct repro {
	const char *name, *what;
	/* Print the table on stdout. 0: all equal; 1: some differ; -errno: it could not be run. */
	int (*run)(bool colour);
};

extern const struct repro repro_walkrefs, repro_dmt;

#endif
