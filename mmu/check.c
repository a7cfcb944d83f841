/* SPDX-License-Identifier: MIT */
/*
 * check.c - where a broken invariant ends, and where log text goes.
 *
 * The library never prints. What it has to say goes to one hook of the embedder; without a hook a log
 * call is one load and a branch, and the text is never formatted. A broken invariant tells the hook and
 * aborts: going on would let one guest's memory reach another.
 *
 * The hook is set before the first VM is created and is not meant to be exchanged under load; the two
 * words of it are therefore plain. There is no buffering, no levels filter and no time stamp: the
 * embedder has its own.
 */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static gn_log_fn *log_fn;
static void *log_ctx;

void gn_log_set(gn_log_fn *fn, void *ctx)
{
	log_ctx = ctx;
	log_fn = fn;
}

void gn_log(enum gn_log_level level, const char *format, ...)
{
	char text[512];
	va_list args;

	if (GN_LIKELY(!log_fn))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_fn(log_ctx, level, text);
}

void gn_bug(const char *file, int line, const char *what)
{
	gn_log(GN_LOG_ERROR, "engine bug at %s:%d: %s", file, line, what);
	abort();
}
