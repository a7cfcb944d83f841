/* SPDX-License-Identifier: MIT */
/*
 * progress.h - one line of progress on stderr: a bar that moves on a terminal, nothing elsewhere.
 *
 * The line never scrolls and is wiped at the end. It is redrawn at most ten times a second.
 */
#ifndef GN_BENCH_PROGRESS_H
#define GN_BENCH_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

struct progress {
	bool on;
	size_t done, total; /* steps */
	double part;	    /* of the running step, 0..1 */
	double started_s, drawn_s;
	char what[128];
};

void progress_begin(struct progress *p, size_t total);
void progress_step(struct progress *p, const char *what); /* the next step begins */
void progress_part(void *progress, double part);	  /* as a workload's progress hook */
void progress_end(struct progress *p);

#endif
