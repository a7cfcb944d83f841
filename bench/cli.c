/* SPDX-License-Identifier: MIT */
/*
 * cli.c - parsing of arguments and the one-line errors.
 *
 * Sizes use binary prefixes only: 1G is 1 GiB, as memory sizes are meant. A fraction is allowed when the
 * result is a whole number of bytes. Deliberately absent: a configuration file and environment
 * variables; what ran is what the command line says.
 */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void cli_fail(enum exit_code code, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("gnomon: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(code);
}

void cli_warn(const char *format, ...)
{
	va_list args;

	fputs("gnomon: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

/* The power of two a suffix stands for, or -1. */
static int suffix_shift(const char *s)
{
	static const char letters[] = "KMGT";
	const char *at;

	if (!*s || !strcmp(s, "B"))
		return 0;
	at = strchr(letters, *s >= 'a' && *s <= 'z' ? *s - 'a' + 'A' : *s);
	if (!at)
		return -1;
	if (s[1] && strcmp(s + 1, "B") && strcmp(s + 1, "iB"))
		return -1;
	return 10 * (int)(at - letters + 1);
}

int cli_parse_size(const char *text, uint64_t *bytes)
{
	char *end;
	double value;
	int shift;

	if (*text < '0' || *text > '9' || text[1] == 'x' || text[1] == 'X')
		return -EINVAL;
	/* Whole numbers are parsed as such: a double would round the last bytes of large ones. */
	if (strspn(text, "0123456789") == strcspn(text, "KMGTBkmgtb")) {
		uint64_t whole;

		errno = 0;
		whole = strtoull(text, &end, 10);
		shift = suffix_shift(end);
		if (shift < 0)
			return -EINVAL;
		if (errno || (shift && whole >> (64 - shift)))
			return -ERANGE;
		*bytes = whole << shift;
		return 0;
	}
	value = strtod(text, &end);
	shift = suffix_shift(end);
	if (shift < 0 || !isfinite(value))
		return -EINVAL;
	value = ldexp(value, shift);
	if (value >= 0x1p63)
		return -ERANGE;
	if (value != floor(value))
		return -EINVAL;
	*bytes = (uint64_t)value;
	return 0;
}

int cli_parse_count(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	char *end;
	unsigned long long value;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end,
			 text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10);
	if (*end)
		return -EINVAL;
	if (errno || value < min || value > max)
		return -ERANGE;
	*out = value;
	return 0;
}

uint64_t cli_take_count(const char *option, const char *text, uint64_t min, uint64_t max)
{
	uint64_t value;

	if (cli_parse_count(text, min, max, &value))
		cli_fail(EXIT_USAGE, "%s %s: must be %lu to %lu", option, text, (unsigned long)min,
			 (unsigned long)max);
	return value;
}

int cli_parse_switch(const char *text, bool *out)
{
	static const char *const words[] = { "off", "on", "no", "yes", "0", "1" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(text, words[i])) {
			*out = i & 1;
			return 0;
		}
	return -EINVAL;
}

static bool list_has(const struct cli_list *list, const char *item)
{
	for (size_t i = 0; i < list->count; i++)
		if (!strcmp(list->items[i], item))
			return true;
	return false;
}

int cli_parse_list(const char *text, struct cli_list *out)
{
	struct cli_list list = { NULL, 0 };
	char *copy = strdup(text), *save = NULL;
	int err = -ENOMEM;

	if (!copy)
		return -ENOMEM;
	list.items = calloc(strlen(text) + 1, sizeof(*list.items));
	if (!list.items)
		goto out;
	for (char *at = strtok_r(copy, ",", &save); at; at = strtok_r(NULL, ",", &save)) {
		size_t length;

		at += strspn(at, " \t");
		length = strlen(at);
		while (length && (at[length - 1] == ' ' || at[length - 1] == '\t'))
			at[--length] = '\0';
		if (!length || list_has(&list, at))
			continue;
		list.items[list.count] = strdup(at);
		if (!list.items[list.count])
			goto out;
		list.count++;
	}
	err = 0;
out:
	free(copy);
	if (err)
		cli_list_fini(&list);
	else
		*out = list;
	return err;
}

void cli_list_fini(struct cli_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
	list->items = NULL;
	list->count = 0;
}

/* Levenshtein, one row; names are short. */
static unsigned edit_distance(const char *a, const char *b)
{
	unsigned row[65];
	size_t width = strlen(b);

	if (width > 64 || strlen(a) > 64)
		return 64;
	for (unsigned j = 0; j <= width; j++)
		row[j] = j;
	for (size_t i = 0; a[i]; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i + 1;
		for (size_t j = 0; j < width; j++) {
			unsigned above = row[j + 1];
			unsigned best = diagonal + (a[i] != b[j]);

			if (above + 1 < best)
				best = above + 1;
			if (row[j] + 1 < best)
				best = row[j] + 1;
			diagonal = above;
			row[j + 1] = best;
		}
	}
	return row[width];
}

const char *cli_nearest(const char *text, const char *(*name)(unsigned index))
{
	const char *best = NULL;
	unsigned best_distance = 0;

	for (unsigned i = 0; name(i); i++) {
		unsigned distance = edit_distance(text, name(i));
		bool prefix = strlen(text) >= 2 && !strncmp(text, name(i), strlen(text));

		if (prefix)
			distance = 1;
		if (distance <= 1 + strlen(name(i)) / 3 && (!best || distance < best_distance)) {
			best = name(i);
			best_distance = distance;
		}
	}
	return best;
}

void cli_parse_names(const char *option, const char *arg, const char *(*name)(unsigned index),
		     const char *hint, struct cli_list *out)
{
	cli_list_fini(out);
	if (cli_parse_list(arg, out))
		cli_fail(EXIT_CANNOT, "out of memory");
	if (!out->count)
		cli_fail(EXIT_USAGE, "%s \"%s\": none is named", option, arg);
	for (size_t i = 0; i < out->count; i++) {
		const char *near = cli_nearest(out->items[i], name);
		unsigned n = 0;

		while (name(n) && strcmp(name(n), out->items[i]) != 0)
			n++;
		if (name(n))
			continue;
		if (near)
			cli_fail(EXIT_USAGE, "%s \"%s\": no such one; did you mean \"%s\"?", option,
				 out->items[i], near);
		cli_fail(EXIT_USAGE, "%s \"%s\": no such one; %s", option, out->items[i], hint);
	}
}

const char *cli_format_bytes(uint64_t bytes, char *out, size_t out_bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	unsigned unit = 0;
	double value = (double)bytes;

	while (value >= 1024 && unit < 4) {
		value /= 1024;
		unit++;
	}
	if (value == floor(value) || value >= 100)
		snprintf(out, out_bytes, "%.0f %s", value, units[unit]);
	else
		snprintf(out, out_bytes, "%.1f %s", value, units[unit]);
	return out;
}

bool cli_may_colour(int fd)
{
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");

	return isatty(fd) && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
}
