/* SPDX-License-Identifier: MIT */
/*
 * trace_import.c - instructions and operands to records; see trace_import.h.
 *
 * An operand that no record can hold (it wraps around the address space, say) is a flaw of the input, not
 * of the machine: it is left out and counted, and the import goes on.
 */
#include "trace_import.h"

#include <errno.h>
#include <string.h>

void trace_import_init(struct trace_import *import, struct trace_writer *writer, uint64_t limit)
{
	memset(import, 0, sizeof(*import));
	import->writer = writer;
	import->limit = limit;
	import->line =
		UINT64_MAX; /* no line has this number: the first instruction makes a record */
}

static int emit(struct trace_import *import, const struct trace_record *record,
		struct trace_error *error)
{
	int err;

	if (import->limit && trace_writer_records(import->writer) >= import->limit)
		import->is_full = true;
	if (import->is_full)
		return 0;
	err = trace_writer_add(import->writer, record, error);
	if (err == -EINVAL) {
		import->flawed++;
		return 0;
	}
	return err;
}

static int enter_line(struct trace_import *import, uint64_t line, struct trace_error *error)
{
	struct trace_record fetch = { .address = line * TRACE_LINE_BYTES,
				      .size = import->plain,
				      .kind = TRACE_FETCH };

	import->line = line;
	import->plain = 0;
	return emit(import, &fetch, error);
}

int trace_import_instruction(struct trace_import *import, uint64_t address, uint32_t bytes,
			     struct trace_error *error)
{
	uint64_t first = address / TRACE_LINE_BYTES;
	uint64_t last = (address + (bytes ? bytes - 1 : 0)) / TRACE_LINE_BYTES;
	int err = 0;

	if (import->in_instruction && !import->has_operand && import->plain < UINT32_MAX)
		import->plain++;
	import->in_instruction = true;
	import->has_operand = false;
	if (first != import->line)
		err = enter_line(import, first, error);
	if (!err && last != first)
		err = enter_line(import, last, error);
	if (!import->is_full)
		trace_writer_add_instructions(import->writer, 1);
	return err;
}

int trace_import_access(struct trace_import *import, enum trace_kind kind, uint64_t address,
			uint32_t bytes, struct trace_error *error)
{
	struct trace_record access = { .address = address, .size = bytes, .kind = (uint8_t)kind };

	import->has_operand = true;
	return emit(import, &access, error);
}

const char *trace_compressed_by(const uint8_t *bytes, size_t count)
{
	static const struct {
		const char *name, *magic;
		size_t bytes;
	} known[] = {
		{ "xz",
		  "\xfd"
		  "7zXZ",
		  5 },
		{ "gzip", "\x1f\x8b", 2 },
		{ "zstd", "\x28\xb5\x2f\xfd", 4 },
		{ "bzip2", "BZh", 3 },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (count >= known[i].bytes && !memcmp(bytes, known[i].magic, known[i].bytes))
			return known[i].name;
	return NULL;
}
