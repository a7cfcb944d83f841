/* SPDX-License-Identifier: MIT */
/*
 * top.h - `gnomon top`: who has how much memory, live.
 */
#ifndef GN_BENCH_TOP_H
#define GN_BENCH_TOP_H

int top_command(int argc, char **argv);

#endif
