/* SPDX-License-Identifier: MIT */
/*
 * table.h - a table for people: aligned columns on a terminal.
 *
 * Cells are added left to right, row by row; widths are found at the end. Styles become colour when the
 * reader is a terminal that wants it, and never carry meaning that the text does not.
 */
#ifndef GN_BENCH_TABLE_H
#define GN_BENCH_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum table_style {
	TABLE_PLAIN,
	TABLE_HEAD,
	TABLE_DIM,
	TABLE_BEST, /* the winner */
	TABLE_BAD,  /* a failure */
};

struct table_cell {
	char *text; /* NULL in a heading row's other cells */
	enum table_style style;
};

struct table {
	unsigned columns;
	unsigned long left; /* bit c: column c is left-aligned; others are right-aligned */
	struct table_cell *cells;
	bool *is_heading; /* per row: the first cell spans the table */
	size_t count, capacity;
};

void table_init(struct table *t, unsigned columns, unsigned long left);
void table_fini(struct table *t);
__attribute__((format(printf, 3, 4))) void table_cell(struct table *t, enum table_style style,
						      const char *format, ...);
/* A line of its own across the table. At the start of a row. */
void table_heading(struct table *t, const char *text);
void table_print(const struct table *t, FILE *to, bool colour);

#endif
