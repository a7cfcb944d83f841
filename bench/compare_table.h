/* SPDX-License-Identifier: MIT */
/*
 * compare_table.h - a comparison on the terminal.
 */
#ifndef GN_BENCH_COMPARE_TABLE_H
#define GN_BENCH_COMPARE_TABLE_H

#include "summary.h"

/* Modelled: the overhead table, then why: references, exits and table bytes of the best and the worst scheme.
 * Measured: times, then why: exits and table bytes of each. */
void compare_table_print(const struct summary *s, FILE *to, bool colour);
void compare_measured_print(const struct summary *s, FILE *to, bool colour);

#endif
