/* SPDX-License-Identifier: MIT */
/*
 * lines.h - a stream of bytes cut into lines, with a bound.
 *
 * The owner receives into gn_lines_space(), tells how much came, and takes lines until there are no more. A line
 * that exceeds the bound before its end is seen is told once, at once: the stream has no next line to trust. The
 * buffer is freed whenever it holds nothing, so an idle peer costs no memory.
 */
#ifndef GN_CONTROL_LINES_H
#define GN_CONTROL_LINES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gn_lines {
	char *buffer;
	size_t capacity, start, end; /* [start, end) is not taken yet */
	size_t scanned;		     /* [start, scanned) holds no newline */
	size_t max_bytes;	     /* of a line, without its newline */
};

void gn_lines_init(struct gn_lines *, size_t max_bytes);
void gn_lines_fini(struct gn_lines *);
/* Where to receive into, and how much at most (> 0). NULL: out of memory. */
char *gn_lines_space(struct gn_lines *, size_t *bytes);
void gn_lines_received(struct gn_lines *, size_t bytes);
/* The next whole line, NUL-terminated in place and without its newline (nor a CR before it), valid until the next
 * gn_lines_space(). 0: there is none yet; 1: *line; -EMSGSIZE: the line is longer than the bound. */
int gn_lines_next(struct gn_lines *, char **line, size_t *bytes);
/* Give back the memory of an empty buffer. */
void gn_lines_relax(struct gn_lines *);

#ifdef __cplusplus
}
#endif

#endif
