/* SPDX-License-Identifier: MIT */
/*
 * trace_reader.c - any bytes, to everything that reads a trace or makes one of foreign bytes.
 *
 * The first byte chooses: the reader, the reader behind its checksums, the record decoder, lackey's text,
 * ChampSim's records. Beyond not crashing: what is decoded can be encoded again to the same records.
 *
 * The mutator starts from a legal trace, which no blind mutation would ever reach.
 */
#include <inttypes.h>
#include <stdint.h>

#include "support/trace_forge.h"
#include "workloads/trace_codec.h"
#include "workloads/trace_import.h"

#define RECORDS_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

enum mode { MODE_FILE, MODE_UNCHECKED, MODE_DECODE, MODE_LACKEY, MODE_CHAMPSIM, MODES };

static void require(bool truth)
{
	if (!truth)
		abort();
}

static void check_encoding(const struct trace_record *records, size_t count)
{
	static uint8_t bytes[TRACE_BLOCK_RECORDS * TRACE_RECORD_MAX_BYTES];
	static struct trace_record back[TRACE_BLOCK_RECORDS];
	struct trace_codec codec = { 0 };
	uint8_t *end = bytes;
	const char *why;
	size_t at;

	for (size_t i = 0; i < count; i++)
		end = trace_encode(&codec, &records[i], end);
	require(trace_decode(bytes, (size_t)(end - bytes), back, count, &at, &why) == 0);
	for (size_t i = 0; i < count; i++)
		require(forge_same(&records[i], &back[i]));
}

static void read_file(const uint8_t *data, size_t size, bool unchecked)
{
	const struct trace_record *records;
	struct trace_reader *reader;
	struct trace_error error = { "" };
	size_t count;
	int err = unchecked ? trace_reader_open_unchecked("fuzz", data, size, &reader, &error)
			    : trace_reader_open_memory("fuzz", data, size, &reader, &error);

	if (err) {
		require(error.text[0]);
		return;
	}
	while (!trace_reader_next(reader, &records, &count, &error) && count)
		check_encoding(records, count);
	trace_reader_close(reader);
}

static void decode(const uint8_t *data, size_t size)
{
	static struct trace_record records[RECORDS_MAX];
	const char *why;
	size_t at, count;

	if (size < 2)
		return;
	count = (data[0] | (size_t)data[1] << 8) % RECORDS_MAX;
	if (trace_decode(data + 2, size - 2, records, count, &at, &why) == 0)
		check_encoding(records, count);
	require(at <= size - 2);
}

static void import(const uint8_t *data, size_t size, bool lackey)
{
	union {
		struct trace_lackey lackey;
		struct trace_champsim champsim;
	} from;
	struct trace_writer *writer;
	struct trace_error error;
	char path[64];
	size_t half = size / 2;

	forge_path(path);
	require(trace_writer_open(path, TRACE_BY_OTHER, "", &writer, &error) == 0);
	if (lackey) {
		trace_lackey_init(&from.lackey, writer, 0);
		require(!trace_lackey_feed(&from.lackey, (const char *)data, half, &error));
		require(!trace_lackey_feed(&from.lackey, (const char *)data + half, size - half,
					   &error));
		trace_lackey_end(&from.lackey);
	} else {
		trace_champsim_init(&from.champsim, writer, 0);
		if (!trace_champsim_feed(&from.champsim, data, half, &error) &&
		    !trace_champsim_feed(&from.champsim, data + half, size - half, &error))
			(void)trace_champsim_end(&from.champsim, &error);
	}
	trace_writer_abort(writer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	switch ((enum mode)(data[0] % MODES)) {
	case MODE_FILE:
		read_file(data + 1, size - 1, false);
		break;
	case MODE_UNCHECKED:
		read_file(data + 1, size - 1, true);
		break;
	case MODE_DECODE:
		decode(data + 1, size - 1);
		break;
	default:
		import(data + 1, size - 1, data[0] % MODES == MODE_LACKEY);
		break;
	}
	return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	static const char lackey[] =
		"==1== x\nI  0401ab7e,4\n L 1fff0708,8\n S 4a5b000,4\n M 10,1\n";
	bool is_file = size && data[0] % MODES <= MODE_UNCHECKED;

	if (size < 2 && seed % 4 == 0 && max > sizeof(lackey)) {
		data[0] = MODE_LACKEY;
		memcpy(data + 1, lackey, sizeof(lackey));
		size = sizeof(lackey);
	} else if (size < 2 || (is_file && size < TRACE_HEADER_BYTES)) {
		size_t bytes = 0;
		uint8_t *all = forge_bytes(seed, seed % 200, &bytes);

		if (all && bytes < max) {
			data[0] = seed % 7 ? MODE_UNCHECKED : MODE_FILE;
			memcpy(data + 1, all, bytes);
			size = bytes + 1;
		}
		free(all);
	}
	size = LLVMFuzzerMutate(data, size, max);
	if (size > 1 && data[0] % MODES == MODE_FILE && seed % 2)
		forge_seal(data + 1, size - 1);
	return size;
}
