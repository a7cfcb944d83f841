/* SPDX-License-Identifier: MIT */
/*
 * emit.h - output files that are whole or absent: written beside their name, then renamed.
 */
#ifndef GN_BENCH_EMIT_H
#define GN_BENCH_EMIT_H

#include <stdio.h>

struct emit {
	FILE *file;
	char *path, *temporary; /* NULL: stdout */
};

/* "-" is stdout. -errno. */
int emit_open(struct emit *e, const char *path);
/* Flush, sync, rename. -errno (also of a write that failed earlier); the temporary is gone then. */
int emit_commit(struct emit *e);
void emit_abort(struct emit *e);

/* Create @path and its parents. -errno. */
int emit_make_directory(const char *path);

#endif
