/* SPDX-License-Identifier: MIT */
/*
 * trace_champsim.c - ChampSim's instruction records, as they stream in.
 *
 * Source: ChampSim, inc/trace_instruction.h, struct input_instr (64 bytes, little endian). The format has
 * no magic and no checksum; what can be recognised as wrong (flags that are not 0 or 1, a torn end, a
 * compressed file) is.
 */
#include "trace_import.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "trace_bytes.h"

#define AT_IS_BRANCH	      8
#define AT_BRANCH_TAKEN	      9
#define AT_DESTINATION_MEMORY 16
#define AT_SOURCE_MEMORY      32
#define DESTINATIONS	      2
#define SOURCES		      4

void trace_champsim_init(struct trace_champsim *champsim, struct trace_writer *writer,
			 uint64_t limit)
{
	memset(champsim, 0, sizeof(*champsim));
	trace_import_init(&champsim->import, writer, limit);
}

static bool writes(const uint8_t *record, uint64_t address)
{
	for (unsigned i = 0; i < DESTINATIONS; i++)
		if (trace_get64(record + AT_DESTINATION_MEMORY + 8 * i) == address)
			return true;
	return false;
}

static bool reads(const uint8_t *record, uint64_t address)
{
	for (unsigned i = 0; i < SOURCES; i++)
		if (trace_get64(record + AT_SOURCE_MEMORY + 8 * i) == address)
			return true;
	return false;
}

static int take_operands(struct trace_champsim *champsim, const uint8_t *record,
			 struct trace_error *error)
{
	int err = 0;

	for (unsigned i = 0; i < SOURCES && !err; i++) {
		uint64_t address = trace_get64(record + AT_SOURCE_MEMORY + 8 * i);

		if (address)
			err = trace_import_access(&champsim->import,
						  writes(record, address) ? TRACE_MODIFY
									  : TRACE_LOAD,
						  address, 1, error);
	}
	for (unsigned i = 0; i < DESTINATIONS && !err; i++) {
		uint64_t address = trace_get64(record + AT_DESTINATION_MEMORY + 8 * i);

		if (address && !reads(record, address))
			err = trace_import_access(&champsim->import, TRACE_STORE, address, 1,
						  error);
	}
	return err;
}

static int take_record(struct trace_champsim *champsim, const uint8_t *record,
		       struct trace_error *error)
{
	int err;

	if (record[AT_IS_BRANCH] > 1 || record[AT_BRANCH_TAKEN] > 1)
		return trace_fail(error, -EBADMSG,
				  "byte %" PRIu64 ": not a ChampSim record: is_branch and "
				  "branch_taken are 0 or 1 there, here %u and %u",
				  champsim->instructions * TRACE_CHAMPSIM_BYTES + AT_IS_BRANCH,
				  record[AT_IS_BRANCH], record[AT_BRANCH_TAKEN]);
	err = trace_import_instruction(&champsim->import, trace_get64(record), 1, error);
	champsim->instructions++;
	return err ? err : take_operands(champsim, record, error);
}

int trace_champsim_feed(struct trace_champsim *champsim, const uint8_t *bytes, size_t count,
			struct trace_error *error)
{
	while (count && !champsim->import.is_full) {
		const uint8_t *record = bytes;
		size_t taken = TRACE_CHAMPSIM_BYTES - champsim->carried;
		int err;

		if (champsim->carried || count < TRACE_CHAMPSIM_BYTES) {
			taken = taken < count ? taken : count;
			memcpy(champsim->carry + champsim->carried, bytes, taken);
			champsim->carried += taken;
			if (champsim->carried < TRACE_CHAMPSIM_BYTES)
				return 0;
			record = champsim->carry;
			champsim->carried = 0;
		}
		err = take_record(champsim, record, error);
		if (err)
			return err;
		bytes += taken;
		count -= taken;
	}
	return 0;
}

int trace_champsim_end(struct trace_champsim *champsim, struct trace_error *error)
{
	if (champsim->carried && !champsim->import.is_full)
		return trace_fail(error, -EBADMSG,
				  "byte %" PRIu64 ": torn: the last record has %zu of %d bytes",
				  champsim->instructions * TRACE_CHAMPSIM_BYTES, champsim->carried,
				  TRACE_CHAMPSIM_BYTES);
	return 0;
}
