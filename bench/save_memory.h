/* SPDX-License-Identifier: MIT */
/*
 * save_memory.h - a guest's memory as a file that other guests can begin with.
 */
#ifndef GN_BENCH_SAVE_MEMORY_H
#define GN_BENCH_SAVE_MEMORY_H

#include "emit.h"
#include "results.h"

struct gn_vm;

/* Begin such a file. It may hold secrets, so it is its owner's only. -errno. */
int save_memory_open(struct emit *e, const char *path);
/* All RAM of @vm, whose guest has ended; a hole where it is zeros. -errno, and run->failure. */
int save_memory(struct gn_vm *vm, const struct emit *to, struct results_run *run);

#endif
