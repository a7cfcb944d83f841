/* SPDX-License-Identifier: MIT */
/*
 * lines.c - cutting a stream into lines. Each byte is looked at once: a peer that sends a long line byte by byte
 * costs no more than one that sends it whole.
 */
#include "lines.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { RECEIVE_BYTES = 4096 };

void gn_lines_init(struct gn_lines *l, size_t max_bytes)
{
	memset(l, 0, sizeof(*l));
	l->max_bytes = max_bytes;
}

void gn_lines_fini(struct gn_lines *l)
{
	free(l->buffer);
	memset(l, 0, sizeof(*l));
}

char *gn_lines_space(struct gn_lines *l, size_t *bytes)
{
	size_t have = l->end - l->start, want = have + RECEIVE_BYTES;

	if (l->start) {
		memmove(l->buffer, l->buffer + l->start, have);
		l->scanned -= l->start;
		l->start = 0;
		l->end = have;
	}
	if (want > l->capacity) {
		size_t capacity = l->capacity * 2 > want ? l->capacity * 2 : want;
		char *buffer = realloc(l->buffer, capacity);

		if (!buffer)
			return NULL;
		l->buffer = buffer;
		l->capacity = capacity;
	}
	*bytes = l->capacity - l->end;
	return l->buffer + l->end;
}

void gn_lines_received(struct gn_lines *l, size_t bytes)
{
	l->end += bytes;
}

int gn_lines_next(struct gn_lines *l, char **line, size_t *bytes)
{
	char *newline = l->end > l->scanned
				? memchr(l->buffer + l->scanned, '\n', l->end - l->scanned)
				: NULL;
	size_t length = newline ? (size_t)(newline - l->buffer) - l->start : l->end - l->start;

	if (length > l->max_bytes)
		return -EMSGSIZE;
	if (!newline) {
		l->scanned = l->end;
		return 0;
	}
	*line = l->buffer + l->start;
	l->start = l->scanned = (size_t)(newline - l->buffer) + 1;
	if (length && (*line)[length - 1] == '\r')
		length--;
	(*line)[length] = '\0';
	*bytes = length;
	return 1;
}

void gn_lines_relax(struct gn_lines *l)
{
	if (l->start == l->end) {
		free(l->buffer);
		l->buffer = NULL;
		l->capacity = l->start = l->end = l->scanned = 0;
	}
}
