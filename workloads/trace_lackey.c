/* SPDX-License-Identifier: MIT */
/*
 * trace_lackey.c - the text of valgrind's lackey, as it streams in.
 *
 *     I  04001090,3        an instruction: hexadecimal address, decimal bytes
 *      L 1ffeffe7e0,8      a load, then " S " a store, " M " a load and store by one instruction
 *     ==123== ...          valgrind speaking; also --123-- and **123**
 *
 * The parser is by hand: a billion lines is an hour of a small program, and scanf alone would double it.
 * Text that is none of these (the program's own output on the same descriptor, a torn line) does not stop
 * the import.
 */
#include "trace_import.h"

#include <string.h>

void trace_lackey_init(struct trace_lackey *lackey, struct trace_writer *writer, uint64_t limit)
{
	memset(lackey, 0, sizeof(*lackey));
	trace_import_init(&lackey->import, writer, limit);
}

static inline unsigned hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned)(c - 'a') + 10;
	return 16;
}

/* "ADDRESS,BYTES" and nothing more, up to @end. */
static bool parse_operand(const char *at, const char *end, uint64_t *address, uint32_t *bytes)
{
	uint64_t value = 0;
	uint32_t size = 0;
	const char *start = at;
	unsigned digit;

	for (; at < end && (digit = hex_digit(*at)) < 16; at++) {
		if (at - start == 16)
			return false;
		value = value << 4 | digit;
	}
	if (at == start || at == end || *at++ != ',')
		return false;
	start = at;
	for (; at < end && *at >= '0' && *at <= '9'; at++) {
		if (at - start == 6)
			return false;
		size = size * 10 + (uint32_t)(*at - '0');
	}
	*address = value;
	*bytes = size;
	return at == end && at > start && size > 0;
}

static bool is_valgrind_speaking(const char *line, size_t bytes)
{
	return bytes == 0 || (bytes >= 4 && line[0] == line[1] &&
			      (line[0] == '=' || line[0] == '-' || line[0] == '*') &&
			      line[2] >= '0' && line[2] <= '9');
}

static void note_bad(struct trace_lackey *lackey, const char *line, size_t bytes)
{
	if (lackey->bad_lines++)
		return;
	lackey->first_bad_line = lackey->lines;
	if (bytes > sizeof(lackey->first_bad) - 1)
		bytes = sizeof(lackey->first_bad) - 1;
	for (size_t i = 0; i < bytes; i++)
		lackey->first_bad[i] = line[i] >= ' ' && line[i] <= '~' ? line[i] : '?';
	lackey->first_bad[bytes] = '\0';
}

static int take_line(struct trace_lackey *lackey, const char *line, size_t bytes,
		     struct trace_error *error)
{
	struct trace_import *import = &lackey->import;
	uint64_t address;
	uint32_t size;

	lackey->lines++;
	lackey->ended_by_valgrind = bytes && is_valgrind_speaking(line, bytes);
	if (bytes > 3 && line[2] == ' ' && parse_operand(line + 3, line + bytes, &address, &size)) {
		if (line[0] == 'I' && line[1] == ' ')
			return trace_import_instruction(import, address, size, error);
		if (line[0] == ' ' && line[1] == 'L')
			return trace_import_access(import, TRACE_LOAD, address, size, error);
		if (line[0] == ' ' && line[1] == 'S')
			return trace_import_access(import, TRACE_STORE, address, size, error);
		if (line[0] == ' ' && line[1] == 'M')
			return trace_import_access(import, TRACE_MODIFY, address, size, error);
	}
	if (!is_valgrind_speaking(line, bytes))
		note_bad(lackey, line, bytes);
	return 0;
}

/* Keep what fits of an unfinished line: a longer one is bad anyway, or valgrind speaking. */
static void carry(struct trace_lackey *lackey, const char *text, size_t bytes)
{
	size_t room = sizeof(lackey->carry) - lackey->carried;

	if (bytes > room)
		bytes = room;
	memcpy(lackey->carry + lackey->carried, text, bytes);
	lackey->carried += bytes;
}

int trace_lackey_feed(struct trace_lackey *lackey, const char *text, size_t bytes,
		      struct trace_error *error)
{
	const char *end = text + bytes;

	while (text < end && !lackey->import.is_full) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		int err;

		if (!newline) {
			carry(lackey, text, (size_t)(end - text));
			return 0;
		}
		if (lackey->carried) {
			carry(lackey, text, (size_t)(newline - text));
			err = take_line(lackey, lackey->carry, lackey->carried, error);
			lackey->carried = 0;
		} else {
			err = take_line(lackey, text, (size_t)(newline - text), error);
		}
		if (err)
			return err;
		text = newline + 1;
	}
	return 0;
}

void trace_lackey_end(struct trace_lackey *lackey)
{
	if (!lackey->carried || lackey->import.is_full)
		return;
	lackey->lines++;
	if (!is_valgrind_speaking(lackey->carry, lackey->carried))
		note_bad(lackey, lackey->carry, lackey->carried);
	lackey->carried = 0;
}
