/* SPDX-License-Identifier: MIT */
/*
 * table.c - columns as wide as their widest cell, two blanks between them.
 *
 * Width is counted in code points, which is right for the Latin text and the few symbols used here.
 * Running out of memory for a few words of output ends the command.
 */
#include "table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

void table_init(struct table *t, unsigned columns, unsigned long left)
{
	memset(t, 0, sizeof(*t));
	t->columns = columns;
	t->left = left;
}

void table_fini(struct table *t)
{
	for (size_t i = 0; i < t->count; i++)
		free(t->cells[i].text);
	free(t->cells);
	free(t->is_heading);
}

static void add(struct table *t, enum table_style style, char *text, bool heading)
{
	if (t->count == t->capacity) {
		t->capacity = t->capacity ? t->capacity * 2 : (size_t)t->columns * 16;
		t->cells = realloc(t->cells, t->capacity * sizeof(*t->cells));
		t->is_heading = realloc(t->is_heading, t->capacity * sizeof(*t->is_heading));
		if (!t->cells || !t->is_heading)
			cli_fail(EXIT_CANNOT, "out of memory");
	}
	if (t->count % t->columns == 0)
		t->is_heading[t->count / t->columns] = heading;
	t->cells[t->count++] = (struct table_cell){ text, style };
}

void table_cell(struct table *t, enum table_style style, const char *format, ...)
{
	char *text;
	va_list args;
	int length;

	va_start(args, format);
	length = vasprintf(&text, format, args);
	va_end(args);
	if (length < 0)
		cli_fail(EXIT_CANNOT, "out of memory");
	add(t, style, text, false);
}

void table_heading(struct table *t, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		cli_fail(EXIT_CANNOT, "out of memory");
	add(t, TABLE_HEAD, copy, true);
	for (unsigned i = 1; i < t->columns; i++)
		add(t, TABLE_PLAIN, NULL, true);
}

static int width_of(const char *text)
{
	int width = 0;

	for (; text && *text; text++)
		width += (*text & 0xc0) != 0x80;
	return width;
}

static void print_cell(FILE *to, const struct table_cell *cell, int width, bool left, bool colour)
{
	static const char *const codes[] = { "", "\033[1m", "\033[2m", "\033[1;32m", "\033[1;31m" };
	int blanks = width > width_of(cell->text) ? width - width_of(cell->text) : 0;

	if (!left)
		fprintf(to, "%*s", blanks, "");
	if (colour && cell->style != TABLE_PLAIN)
		fprintf(to, "%s%s\033[0m", codes[cell->style], cell->text);
	else
		fputs(cell->text, to);
	if (left)
		fprintf(to, "%*s", blanks, "");
}

void table_print(const struct table *t, FILE *to, bool colour)
{
	size_t rows = t->count / t->columns;
	int *widths = calloc(t->columns, sizeof(*widths));

	if (!widths)
		cli_fail(EXIT_CANNOT, "out of memory");
	for (size_t i = 0; i < rows * t->columns; i++)
		if (!t->is_heading[i / t->columns]) {
			int width = width_of(t->cells[i].text);

			if (width > widths[i % t->columns])
				widths[i % t->columns] = width;
		}
	for (size_t row = 0; row < rows; row++) {
		const struct table_cell *cells = &t->cells[row * t->columns];

		if (t->is_heading[row]) {
			print_cell(to, &cells[0], 0, false, colour);
			fputc('\n', to);
			continue;
		}
		for (unsigned c = 0; c < t->columns; c++) {
			bool left = t->left >> c & 1, last = c + 1 == t->columns;

			if (c)
				fputs("  ", to);
			print_cell(to, &cells[c], last && left ? 0 : widths[c], left, colour);
		}
		fputc('\n', to);
	}
	free(widths);
}
