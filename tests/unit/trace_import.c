/* SPDX-License-Identifier: MIT */
/*
 * trace_import.c - lackey's text and ChampSim's records become the right trace, in pieces of any size.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "support/trace_forge.h"
#include "workloads/trace_import.h"
#include "workloads/trace_pages.h"

static struct trace_writer *open_writer(char path[64])
{
	struct trace_writer *writer = NULL;
	struct trace_error error = { "" };

	forge_path(path);
	cr_assert_eq(trace_writer_open(path, TRACE_BY_LACKEY, "", &writer, &error), 0, "%s",
		     error.text);
	return writer;
}

/* Commit, then read back. */
static struct trace_record *finish(struct trace_writer *writer, const char *path, size_t *count,
				   uint64_t *instructions)
{
	struct trace_record *records = NULL;
	struct trace_reader *reader;
	struct trace_error error = { "" };

	cr_assert_eq(trace_writer_commit(writer, 0, &error), 0, "%s", error.text);
	cr_assert_eq(trace_reader_open(path, &reader, &error), 0, "%s", error.text);
	*instructions = trace_reader_info(reader)->instructions;
	cr_assert_eq(forge_read(reader, &records, count, &error), 0, "%s", error.text);
	trace_reader_close(reader);
	unlink(path);
	return records;
}

static const char lackey_text[] = "==7033== Lackey, an example Valgrind tool\n"
				  "==7033== \n"
				  "\n"
				  "--7033-- debug\n"
				  "**7033** a warning\n"
				  "I  0401ab70,3\n" /* line 0x401ab40 */
				  "I  0401ab73,5\n"
				  " S 1fff000708,8\n"
				  "I  0401ab7e,4\n" /* crosses into 0x401ab80 */
				  "I  0401b770,1\n"
				  " L 1fff000700,8\n"
				  " M 04a5b000,4\n"
				  "hello from the program\n"
				  "I  0401b771,7\n"
				  " L zzz,8\n"
				  " L 10,\n"
				  " L 10,0\n"
				  " X 10,4\n"
				  " L 11112222333344445,4\n"
				  " L ffffffffffffffff,4\n" /* wraps around */
				  " S 04A5B000,4\n"
				  " S 2000,32\n"
				  " L 30";

static const struct trace_record lackey_expected[] = {
	{ .kind = TRACE_FETCH, .address = 0x401ab40, .size = 0 },
	{ .kind = TRACE_STORE, .address = 0x1fff000708, .size = 8 },
	{ .kind = TRACE_FETCH, .address = 0x401ab80, .size = 1 },
	{ .kind = TRACE_FETCH, .address = 0x401b740, .size = 1 },
	{ .kind = TRACE_LOAD, .address = 0x1fff000700, .size = 8 },
	{ .kind = TRACE_MODIFY, .address = 0x4a5b000, .size = 4 },
	{ .kind = TRACE_STORE, .address = 0x2000, .size = 32 },
};
#define LACKEY_EXPECTED (sizeof(lackey_expected) / sizeof(lackey_expected[0]))

Test(trace_import, lackey_in_pieces_of_every_size)
{
	for (size_t piece = 1; piece <= sizeof(lackey_text); piece += piece < 40 ? 1 : 97) {
		struct trace_record *records;
		struct trace_lackey lackey;
		struct trace_error error;
		uint64_t instructions;
		char path[64];
		size_t count, length = sizeof(lackey_text) - 1;

		trace_lackey_init(&lackey, open_writer(path), 0);
		for (size_t at = 0; at < length; at += piece)
			cr_assert_eq(trace_lackey_feed(&lackey, lackey_text + at,
						       length - at < piece ? length - at : piece,
						       &error),
				     0);
		trace_lackey_end(&lackey);
		cr_assert_eq(lackey.lines, 23, "%lu lines", (unsigned long)lackey.lines);
		cr_assert_eq(lackey.bad_lines, 8, "%lu bad lines", (unsigned long)lackey.bad_lines);
		cr_assert_eq(lackey.first_bad_line, 13);
		cr_assert_str_eq(lackey.first_bad, "hello from the program");
		cr_assert_eq(lackey.import.flawed, 1);
		records = finish(lackey.import.writer, path, &count, &instructions);
		cr_assert_eq(instructions, 5);
		cr_assert_eq(count, LACKEY_EXPECTED, "%zu records", count);
		for (size_t i = 0; i < count; i++)
			cr_assert(forge_same(&records[i], &lackey_expected[i]),
				  "piece %zu, record %zu", piece, i);
		free(records);
	}
}

Test(trace_import, lackey_stops_at_the_limit_exactly)
{
	for (uint64_t limit = 1; limit <= LACKEY_EXPECTED + 1; limit++) {
		struct trace_lackey lackey;
		struct trace_error error;
		uint64_t instructions;
		char path[64];
		size_t count;

		trace_lackey_init(&lackey, open_writer(path), limit);
		cr_assert_eq(
			trace_lackey_feed(&lackey, lackey_text, sizeof(lackey_text) - 1, &error),
			0);
		free(finish(lackey.import.writer, path, &count, &instructions));
		cr_assert_eq(count, limit < LACKEY_EXPECTED ? limit : LACKEY_EXPECTED);
		cr_assert_eq(lackey.import.is_full, limit < LACKEY_EXPECTED);
	}
}

Test(trace_import, a_line_without_end_is_one_bad_line)
{
	struct trace_lackey lackey;
	struct trace_error error;
	char path[64], junk[1000];

	memset(junk, '\x1b', sizeof(junk));
	trace_lackey_init(&lackey, open_writer(path), 0);
	for (unsigned i = 0; i < 1000; i++)
		cr_assert_eq(trace_lackey_feed(&lackey, junk, sizeof(junk), &error), 0);
	cr_assert_eq(trace_lackey_feed(&lackey, "\n L 8,8\n", 8, &error), 0);
	trace_lackey_end(&lackey);
	cr_assert_eq(lackey.bad_lines, 1);
	cr_assert_eq(lackey.first_bad[0], '?', "a terminal would obey it");
	cr_assert_eq(trace_writer_records(lackey.import.writer), 1);
	trace_writer_abort(lackey.import.writer);
}

static void champsim_record(uint8_t *to, uint64_t ip, const uint64_t destinations[2],
			    const uint64_t sources[4])
{
	memset(to, 0, TRACE_CHAMPSIM_BYTES);
	trace_put64(to, ip);
	to[8] = ip & 1;
	for (unsigned i = 0; i < 2; i++)
		trace_put64(to + 16 + 8 * i, destinations[i]);
	for (unsigned i = 0; i < 4; i++)
		trace_put64(to + 32 + 8 * i, sources[i]);
}

static const struct trace_record champsim_expected[] = {
	{ .kind = TRACE_FETCH, .address = 0x400000, .size = 0 },
	{ .kind = TRACE_LOAD, .address = 0x7000, .size = 1 },
	{ .kind = TRACE_MODIFY, .address = 0x8000, .size = 1 },
	{ .kind = TRACE_STORE, .address = 0x9000, .size = 1 },
	{ .kind = TRACE_FETCH, .address = 0x400040, .size = 1 },
};

static void fill_champsim(uint8_t bytes[3 * TRACE_CHAMPSIM_BYTES])
{
	champsim_record(bytes, 0x400000, (uint64_t[]){ 0x8000, 0x9000 },
			(uint64_t[]){ 0, 0x7000, 0x8000, 0 });
	champsim_record(bytes + 64, 0x400005, (uint64_t[]){ 0, 0 }, (uint64_t[]){ 0, 0, 0, 0 });
	champsim_record(bytes + 128, 0x400047, (uint64_t[]){ 0, 0 }, (uint64_t[]){ 0, 0, 0, 0 });
}

Test(trace_import, champsim_in_pieces_of_every_size)
{
	uint8_t bytes[3 * TRACE_CHAMPSIM_BYTES];

	fill_champsim(bytes);
	for (size_t piece = 1; piece <= sizeof(bytes); piece++) {
		struct trace_champsim champsim;
		struct trace_record *records;
		struct trace_error error;
		uint64_t instructions;
		char path[64];
		size_t count;

		trace_champsim_init(&champsim, open_writer(path), 0);
		for (size_t at = 0; at < sizeof(bytes); at += piece)
			cr_assert_eq(trace_champsim_feed(&champsim, bytes + at,
							 sizeof(bytes) - at < piece
								 ? sizeof(bytes) - at
								 : piece,
							 &error),
				     0);
		cr_assert_eq(trace_champsim_end(&champsim, &error), 0);
		records = finish(champsim.import.writer, path, &count, &instructions);
		cr_assert_eq(instructions, 3);
		cr_assert_eq(count, 5, "piece %zu: %zu records", piece, count);
		for (size_t i = 0; i < count; i++)
			cr_assert(forge_same(&records[i], &champsim_expected[i]),
				  "piece %zu, record %zu", piece, i);
		free(records);
	}
}

Test(trace_import, champsim_torn_or_something_else)
{
	uint8_t bytes[3 * TRACE_CHAMPSIM_BYTES];
	struct trace_champsim champsim;
	struct trace_error error = { "" };
	char path[64];

	fill_champsim(bytes);
	trace_champsim_init(&champsim, open_writer(path), 0);
	cr_assert_eq(trace_champsim_feed(&champsim, bytes, 100, &error), 0);
	cr_assert_eq(trace_champsim_end(&champsim, &error), -EBADMSG);
	cr_assert(strstr(error.text, "byte 64: torn") && strstr(error.text, "36 of 64"), "%s",
		  error.text);
	trace_writer_abort(champsim.import.writer);

	bytes[64 + 9] = 2;
	trace_champsim_init(&champsim, open_writer(path), 0);
	cr_assert_eq(trace_champsim_feed(&champsim, bytes, sizeof(bytes), &error), -EBADMSG);
	cr_assert(strstr(error.text, "byte 72"), "%s", error.text);
	trace_writer_abort(champsim.import.writer);
}

Test(trace_import, compressed_input_is_recognised)
{
	cr_assert_str_eq(trace_compressed_by((const uint8_t *)"\xfd"
							      "7zXZ\0",
					     6),
			 "xz");
	cr_assert_str_eq(trace_compressed_by((const uint8_t *)"\x1f\x8b\x08", 3), "gzip");
	cr_assert_str_eq(trace_compressed_by((const uint8_t *)"\x28\xb5\x2f\xfd", 4), "zstd");
	cr_assert_null(trace_compressed_by((const uint8_t *)"\x28\xb5\x2f", 3));
	cr_assert_null(trace_compressed_by((const uint8_t *)"I  0401ab70,3", 13));
}

Test(trace_import, regions_coalesce_smallest_gaps_first)
{
	struct trace_region regions[] = {
		{ 10, 11, GN_R },     { 12, 13, GN_R | GN_W },
		{ 1000, 1001, GN_R }, { 1001, 1002, GN_R | GN_X },
		{ 5000, 5001, GN_R },
	};

	cr_assert_eq(trace_regions_coalesce(regions, 5, 5), 5);
	cr_assert_eq(trace_regions_coalesce(regions, 5, 4), 4);
	cr_assert_eq(regions[0].start_page, 10);
	cr_assert_eq(regions[0].end_page, 13);
	cr_assert_eq(regions[0].rights, GN_R | GN_W);
	cr_assert_eq(trace_regions_coalesce(regions, 4, 3), 3);
	cr_assert_eq(regions[0].end_page, 1001);
	cr_assert_eq(trace_regions_coalesce(regions, 3, 1), 3, "text and data are never one");
	cr_assert_eq(trace_regions_coalesce(regions, 0, 1), 0);
}
