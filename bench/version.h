/* SPDX-License-Identifier: MIT */
/*
 * version.h - the version the command reports and writes into result files. Follows CMakeLists.txt.
 */
#ifndef GN_BENCH_VERSION_H
#define GN_BENCH_VERSION_H

#define GN_VERSION "0.1.0"

#endif
