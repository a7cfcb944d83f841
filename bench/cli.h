/* SPDX-License-Identifier: MIT */
/*
 * cli.h - what the subcommands share: exit codes, errors of one line, and the parsing of arguments.
 *
 * The command is a program, not a library: a wrong argument ends it here, with one line that says what
 * is wrong and what would be right. Nothing has been written by then.
 */
#ifndef GN_BENCH_CLI_H
#define GN_BENCH_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum exit_code {
	EXIT_FINE = 0,
	EXIT_MISMATCH = 1, /* a comparison or an audit failed */
	EXIT_USAGE = 2,	   /* the arguments or an input file are wrong */
	EXIT_CANNOT = 3,   /* this machine (or build) cannot do what was asked */
};

/* "gnomon: text" on stderr, then exit. */
__attribute__((noreturn, format(printf, 2, 3))) void cli_fail(enum exit_code code,
							      const char *format, ...);
/* The same line, without exiting. */
__attribute__((format(printf, 1, 2))) void cli_warn(const char *format, ...);

/* 4096, 64K, 512M, 1G, 1.5G, 2T (also KiB, MiB ...). -EINVAL: not a size; -ERANGE: does not fit. */
int cli_parse_size(const char *text, uint64_t *bytes);
/* A decimal or 0x number within [min, max]. -EINVAL, -ERANGE. */
int cli_parse_count(const char *text, uint64_t min, uint64_t max, uint64_t *out);
/* The same, of an option. Ends the command when it is none. */
uint64_t cli_take_count(const char *option, const char *text, uint64_t min, uint64_t max);
/* on|off, yes|no, 1|0. -EINVAL. */
int cli_parse_switch(const char *text, bool *out);

/* "a,b,c": the items, blanks trimmed, empty items skipped. -ENOMEM. A repeated item is kept once. */
struct cli_list {
	char **items;
	size_t count;
};
int cli_parse_list(const char *text, struct cli_list *out);
void cli_list_fini(struct cli_list *list);

/* Of @count names (name(i)), the one nearest to @text by edit distance, or NULL when none is near. */
const char *cli_nearest(const char *text, const char *(*name)(unsigned index));

/* "a,b,c", each one of the names name(i). Ends the command otherwise: with none named, or with the nearest or @hint. */
void cli_parse_names(const char *option, const char *arg, const char *(*name)(unsigned index),
		     const char *hint, struct cli_list *out);

/* "512 MiB", "1.5 GiB", "4 KiB": into @out, returned. */
const char *cli_format_bytes(uint64_t bytes, char *out, size_t out_bytes);

/* Colour only on a terminal, and not with NO_COLOR (https://no-color.org) or TERM=dumb. */
bool cli_may_colour(int fd);

#endif
