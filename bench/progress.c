/* SPDX-License-Identifier: MIT */
/*
 * progress.c - the bar.
 *
 * Written with one write per redraw, so that it does not tear on a slow terminal.
 */
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/clock.h"

static void draw(struct progress *p)
{
	enum { WIDTH = 24 };
	char bar[WIDTH + 1], line[256];
	double done = p->total ? ((double)p->done + p->part) / (double)p->total : 0;
	int filled = (int)(done * WIDTH), length;

	for (int i = 0; i < WIDTH; i++)
		bar[i] = i < filled ? '#' : '.';
	bar[WIDTH] = '\0';
	length = snprintf(line, sizeof(line), "\r\033[K[%s] %3.0f %%  %zu/%zu  %4.0f s  %s", bar,
			  done * 100, p->done, p->total, gn_now_s() - p->started_s, p->what);
	if (length > 0 &&
	    write(STDERR_FILENO, line,
		  (size_t)length < sizeof(line) ? (size_t)length : sizeof(line) - 1) < 0)
		p->on = false;
}

void progress_begin(struct progress *p, size_t total)
{
	const char *term = getenv("TERM");

	memset(p, 0, sizeof(*p));
	p->on = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
	p->total = total;
	p->started_s = gn_now_s();
}

void progress_step(struct progress *p, const char *what)
{
	if (p->what[0] && p->done < p->total)
		p->done++;
	p->part = 0;
	snprintf(p->what, sizeof(p->what), "%s", what);
	if (p->on)
		draw(p);
}

void progress_part(void *progress, double part)
{
	struct progress *p = progress;
	double now;

	if (!p->on)
		return;
	now = gn_now_s();
	if (now - p->drawn_s < 0.1)
		return;
	p->drawn_s = now;
	p->part = part < 0 ? 0 : part > 1 ? 1 : part;
	draw(p);
}

void progress_end(struct progress *p)
{
	if (p->on && write(STDERR_FILENO, "\r\033[K", 4) < 0)
		p->on = false;
}
