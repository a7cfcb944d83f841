/* SPDX-License-Identifier: MIT */
/*
 * trace_file.c - trace files: what was written is read; what is torn, flipped or hostile is refused.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "support/trace_forge.h"

#define SEED 0x51de

static struct trace_reader *open_bytes(const uint8_t *all, size_t bytes)
{
	struct trace_reader *reader = NULL;
	struct trace_error error = { "" };

	cr_assert_eq(trace_reader_open_memory("m", all, bytes, &reader, &error), 0, "%s",
		     error.text);
	return reader;
}

static void check_file(const char *path, const struct trace_record *records, size_t count)
{
	struct trace_record *back = NULL;
	struct trace_reader *reader;
	struct trace_error error = { "" };
	size_t n;

	cr_assert_eq(trace_reader_open(path, &reader, &error), 0, "%s", error.text);
	cr_assert_eq(trace_reader_info(reader)->records, count);
	cr_assert_eq(trace_reader_info(reader)->instructions, count);
	cr_assert_eq(forge_read(reader, &back, &n, &error), 0, "%s", error.text);
	cr_assert_eq(n, count);
	for (size_t i = 0; i < count; i++)
		cr_assert(forge_same(&records[i], &back[i]), "record %zu of %zu", i, count);
	free(back);
	trace_reader_close(reader);
}

Test(trace_file, what_was_written_is_read)
{
	static const size_t counts[] = { 0,
					 1,
					 2,
					 1000,
					 TRACE_BLOCK_RECORDS - 1,
					 TRACE_BLOCK_RECORDS,
					 TRACE_BLOCK_RECORDS + 1,
					 3 * TRACE_BLOCK_RECORDS + 17 };
	char path[64];

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct trace_record *records = forge_records(SEED + i, counts[i]);

		forge_path(path);
		cr_assert_eq(forge_file(path, records, counts[i], "prog 'with args'", 0), 0);
		check_file(path, records, counts[i]);
		cr_assert_eq(trace_reader_verify(path, &(struct trace_error){ "" }), 0);
		unlink(path);
		free(records);
	}
}

Test(trace_file, provenance_and_flags_are_kept)
{
	static const char *const texts[] = { "", "x", "1234567", "12345678",
					     "sqlite3 ':memory:' \"a\nb\"" };
	struct trace_reader *reader;
	struct trace_error error;
	char path[64], *huge = malloc(TRACE_PROVENANCE_MAX + 10);

	forge_path(path);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		cr_assert_eq(forge_file(path, NULL, 0, texts[i], TRACE_FLAG_CUT), 0);
		cr_assert_eq(trace_reader_open(path, &reader, &error), 0);
		cr_assert_str_eq(trace_reader_provenance(reader), texts[i]);
		cr_assert_eq(trace_reader_info(reader)->flags, TRACE_FLAG_CUT);
		trace_reader_close(reader);
	}
	memset(huge, 'p', TRACE_PROVENANCE_MAX + 9);
	huge[TRACE_PROVENANCE_MAX + 9] = '\0';
	cr_assert_eq(forge_file(path, NULL, 0, huge, TRACE_FLAG_MAPPINGS), 0);
	cr_assert_eq(trace_reader_open(path, &reader, &error), 0);
	cr_assert_eq(strlen(trace_reader_provenance(reader)), TRACE_PROVENANCE_MAX);
	trace_reader_close(reader);
	unlink(path);
	free(huge);
}

Test(trace_file, working_set_and_regions)
{
	static const struct trace_record records[] = {
		{ .kind = TRACE_FETCH, .address = 0x400fc0 },
		{ .kind = TRACE_FETCH, .address = 0x401000 },
		{ .kind = TRACE_LOAD, .address = 0x402ffc, .size = 8 }, /* crosses into 0x403 */
		{ .kind = TRACE_STORE, .address = 0x404000, .size = 4 },
		{ .kind = TRACE_LOAD, .address = 0x402ff0, .size = 4 },
		{ .kind = TRACE_MODIFY, .address = 0x7fff0000, .size = 4 },
		{ .kind = TRACE_MMAP, .address = 0x90000000, .value = 4096, .size = 3 },
		{ .kind = TRACE_LOAD, .address = UINT64_MAX, .size = 1 },
	};
	static const struct trace_region expected[] = {
		{ 0x400, 0x402, GN_R | GN_X },
		{ 0x402, 0x405, GN_R | GN_W },
		{ 0x7fff0, 0x7fff1, GN_R | GN_W },
		{ UINT64_MAX >> 12, (UINT64_MAX >> 12) + 1, GN_R },
	};
	const struct trace_region *regions;
	struct trace_reader *reader;
	struct trace_error error;
	char path[64];
	size_t count;

	forge_path(path);
	cr_assert_eq(forge_file(path, records, 8, "", 0), 0);
	cr_assert_eq(trace_reader_open(path, &reader, &error), 0, "%s", error.text);
	regions = trace_reader_regions(reader, &count);
	cr_assert_eq(count, 4);
	for (size_t i = 0; i < count; i++)
		cr_assert(regions[i].start_page == expected[i].start_page &&
				  regions[i].end_page == expected[i].end_page &&
				  regions[i].rights == expected[i].rights,
			  "region %zu", i);
	cr_assert_eq(trace_reader_info(reader)->pages, 7);
	cr_assert_eq(trace_reader_info(reader)->large_pages, 3);
	trace_reader_close(reader);
	unlink(path);
}

Test(trace_file, seeking_reads_from_a_block_on)
{
	size_t count = 2 * TRACE_BLOCK_RECORDS + 5, n;
	struct trace_record *records = forge_records(SEED, count);
	const struct trace_record *block;
	struct trace_reader *reader;
	struct trace_error error;
	char path[64];

	forge_path(path);
	cr_assert_eq(forge_file(path, records, count, "", 0), 0);
	cr_assert_eq(trace_reader_open(path, &reader, &error), 0);
	cr_assert_eq(trace_reader_seek(reader, 2), 0);
	cr_assert_eq(trace_reader_next(reader, &block, &n, &error), 0);
	cr_assert_eq(n, 5);
	cr_assert(forge_same(&block[4], &records[count - 1]));
	cr_assert_eq(trace_reader_next(reader, &block, &n, &error), 0);
	cr_assert_eq(n, 0);
	cr_assert_eq(trace_reader_seek(reader, 4), -EINVAL);
	cr_assert_eq(trace_reader_seek(reader, 0), 0);
	cr_assert_eq(forge_read(reader, NULL, &n, &error), 0);
	cr_assert_eq(n, count);
	trace_reader_close(reader);
	unlink(path);
	free(records);
}

Test(trace_file, a_flawed_record_is_refused_and_the_trace_goes_on)
{
	struct trace_record bad = { .kind = TRACE_LOAD, .address = 1 };
	struct trace_record good = { .kind = TRACE_LOAD, .address = 1, .size = 1 };
	struct trace_writer *writer;
	struct trace_error error;
	char path[64];

	forge_path(path);
	cr_assert_eq(trace_writer_open(path, TRACE_BY_OTHER, "", &writer, &error), 0);
	cr_assert_eq(trace_writer_add(writer, &bad, &error), -EINVAL);
	cr_assert(strstr(error.text, path) && strstr(error.text, "size"), "%s", error.text);
	cr_assert_eq(trace_writer_add(writer, &good, &error), 0);
	cr_assert_eq(access(path, F_OK), -1, "the file has its name before it is whole");
	trace_writer_add_instructions(writer, 1);
	cr_assert_eq(trace_writer_commit(writer, 0, &error), 0);
	check_file(path, &good, 1);
	unlink(path);
}

Test(trace_file, aborted_and_impossible_files_leave_nothing)
{
	struct trace_writer *writer;
	struct trace_error error;
	char folder[64], path[96];

	forge_path(folder);
	cr_assert_eq(mkdir(folder, 0700), 0);
	snprintf(path, sizeof(path), "%s/t", folder);
	cr_assert_eq(trace_writer_open(path, TRACE_BY_OTHER, "", &writer, &error), 0);
	trace_writer_abort(writer);
	cr_assert_eq(rmdir(folder), 0, "something was left");
	cr_assert_eq(trace_writer_open(path, TRACE_BY_OTHER, "", &writer, &error), -ENOENT);
	cr_assert(strstr(error.text, path));
	cr_assert_eq(trace_writer_open("/dev/null", TRACE_BY_OTHER, "", &writer, &error), -EINVAL);
	trace_writer_abort(NULL);
	trace_reader_close(NULL);
}

Test(trace_file, a_full_disk_is_told_and_stays_told)
{
	struct trace_writer *writer;
	struct trace_error error = { "" };
	struct trace_record *records = forge_records(SEED, TRACE_BLOCK_RECORDS);
	char path[64];
	int err = 0;

	forge_path(path);
	cr_assert_eq(trace_writer_open(path, TRACE_BY_OTHER, "", &writer, &error), 0);
	signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 4096, 4096 }), 0);
	for (size_t i = 0; i < TRACE_BLOCK_RECORDS && !err; i++)
		err = trace_writer_add(writer, &records[i], &error);
	cr_assert_eq(err, -EFBIG, "%s", error.text);
	cr_assert_eq(trace_writer_add(writer, &records[0], &error), -EFBIG);
	cr_assert_eq(trace_writer_commit(writer, 0, &error), -EFBIG);
	cr_assert_eq(access(path, F_OK), -1);
	free(records);
}

static void check_refused(const uint8_t *all, size_t bytes, const char *what, size_t at)
{
	struct trace_reader *reader = NULL;
	struct trace_error error = { "" };
	size_t n;
	int err = trace_reader_open_memory("m", all, bytes, &reader, &error);

	if (!err)
		err = forge_read(reader, NULL, &n, &error);
	cr_assert(err == -EBADMSG || err == -EINVAL, "%s %zu: %d", what, at, err);
	cr_assert(strncmp(error.text, "m: ", 3) == 0 && !strchr(error.text, '\n'), "%s %zu: %s",
		  what, at, error.text);
	trace_reader_close(reader);
}

Test(trace_file, every_truncation_is_refused)
{
	size_t bytes;
	uint8_t *all = forge_bytes(SEED, 100, &bytes);

	for (size_t cut = 0; cut < bytes; cut++) {
		uint8_t *part = malloc(cut + 1);

		memcpy(part, all, cut);
		check_refused(part, cut, "cut at", cut);
		free(part);
	}
	all = realloc(all, bytes + 1);
	all[bytes] = 0;
	check_refused(all, bytes + 1, "longer than", bytes);
	free(all);
}

Test(trace_file, every_flipped_bit_is_refused)
{
	size_t bytes;
	uint8_t *all = forge_bytes(SEED, 60, &bytes);

	for (size_t bit = 0; bit < bytes * 8; bit++) {
		all[bit / 8] ^= (uint8_t)(1 << bit % 8);
		check_refused(all, bytes, "flipped bit", bit);
		all[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	trace_reader_close(open_bytes(all, bytes));
	free(all);
}

/* The same behind the checksums: any result, but no crash and bounded memory. */
Test(trace_file, every_flipped_bit_behind_right_checksums_is_survived)
{
	size_t bytes, n, opened = 0;
	uint8_t *all = forge_bytes(SEED, 60, &bytes);
	struct trace_reader *reader;
	struct trace_error error;

	for (size_t bit = 0; bit < bytes * 8; bit++) {
		all[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (trace_reader_open_unchecked("m", all, bytes, &reader, &error) == 0) {
			(void)forge_read(reader, NULL, &n, &error);
			trace_reader_close(reader);
			opened++;
		}
		all[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	cr_assert_gt(opened, 100, "hardly anything got behind the checksums");
	free(all);
}

/* One field of a sealed file is changed; the reader must say what is wrong. */
Test(trace_file, hostile_headers_are_refused)
{
	static const struct {
		size_t at;
		unsigned bytes;
		uint64_t value;
		const char *part;
	} cases[] = {
		{ TRACE_AT_MAGIC, 8, 0, "not a gnomon trace" },
		{ TRACE_AT_VERSION, 4, 2, "version 2" },
		{ TRACE_AT_VERSION, 4, 0, "version 0" },
		{ TRACE_AT_FLAGS, 4, 0x80000000, "flags" },
		{ TRACE_AT_PROVENANCE_BYTES, 4, UINT32_MAX, "provenance" },
		{ TRACE_AT_PROVENANCE_BYTES, 4, TRACE_PROVENANCE_MAX, "index" },
		{ TRACE_AT_PROVENANCE_BYTES, 4, 100, "block" },
		{ TRACE_AT_RECORDER, 4, 77, "recorder" },
		{ TRACE_AT_RECORDS, 8, UINT64_MAX, "counts" },
		{ TRACE_AT_RECORDS, 8, 99, "counts" },
		{ TRACE_AT_BLOCKS, 8, UINT64_MAX, "blocks" },
		{ TRACE_AT_BLOCKS, 8, UINT64_MAX / 32 + 1, "blocks" },
		{ TRACE_AT_BLOCKS, 8, 0, "index" },
		{ TRACE_AT_INDEX, 8, UINT64_MAX, "index" },
		{ TRACE_AT_INDEX, 8, 0, "index" },
		{ TRACE_AT_INDEX_BYTES, 8, UINT64_MAX, "index" },
		{ TRACE_AT_INDEX_BYTES, 8, 0, "index" },
		{ TRACE_AT_REGIONS, 8, UINT64_MAX, "regions" },
		{ TRACE_AT_REGIONS, 8, 0, "last region" },
		{ TRACE_AT_ENCODED_BYTES, 8, UINT64_MAX, "counts" },
		{ TRACE_AT_PAGES, 8, 1, "pages" },
		{ TRACE_AT_LARGE_PAGES, 8, UINT64_MAX, "pages" },
		{ TRACE_AT_BY_KIND, 8, 1, "no kind" },
		{ TRACE_AT_BY_KIND + 8 * TRACE_LOAD, 8, 9999, "load" },
		{ TRACE_AT_BY_KIND + 8 * TRACE_P2M, 8, UINT64_MAX, "p2m" },
		{ TRACE_AT_ZERO, 8, 1, "reserved" },
	};
	size_t bytes;
	uint8_t *good = forge_bytes(SEED, 100, &bytes), *bad = malloc(bytes);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct trace_reader *reader = NULL;
		struct trace_error error = { "" };
		size_t n;
		int err;

		memcpy(bad, good, bytes);
		if (cases[i].bytes == 4)
			trace_put32(bad + cases[i].at, (uint32_t)cases[i].value);
		else
			trace_put64(bad + cases[i].at, cases[i].value);
		forge_seal(bad, bytes);
		err = trace_reader_open_memory("m", bad, bytes, &reader, &error);
		if (!err)
			err = forge_read(reader, NULL, &n, &error);
		cr_assert(err == -EBADMSG || err == -EINVAL, "case %zu: %d", i, err);
		cr_assert(strstr(error.text, cases[i].part), "case %zu: \"%s\" lacks \"%s\"", i,
			  error.text, cases[i].part);
		trace_reader_close(reader);
	}
	free(good);
	free(bad);
}

Test(trace_file, hostile_index_entries_are_refused)
{
	static const struct {
		size_t at;
		unsigned bytes;
		uint64_t value;
		const char *part;
	} cases[] = {
		{ TRACE_AT_BLOCK, 8, 0, "the one before" },
		{ TRACE_AT_BLOCK, 8, UINT64_MAX, "the one before" },
		{ TRACE_AT_BLOCK_CHECKSUM, 8, 1, "checksum" },
		{ TRACE_AT_BLOCK_STORED, 4, 0, "runs into" },
		{ TRACE_AT_BLOCK_STORED, 4, UINT32_MAX, "runs into" },
		{ TRACE_AT_BLOCK_STORED, 4, 1, "between" },
		{ TRACE_AT_BLOCK_ENCODED, 4, UINT32_MAX, "records in" },
		{ TRACE_AT_BLOCK_ENCODED, 4, 0, "records in" },
		{ TRACE_AT_BLOCK_RECORDS, 4, 0, "records in" },
		{ TRACE_AT_BLOCK_RECORDS, 4, TRACE_BLOCK_RECORDS + 1, "records in" },
		{ TRACE_AT_BLOCK_RECORDS, 4, UINT32_MAX, "records in" },
		{ TRACE_AT_BLOCK_RECORDS, 4, 99, "counts" },
		{ TRACE_AT_BLOCK_ZERO, 4, 1, "not zero" },
	};
	size_t bytes;
	uint8_t *good = forge_bytes(SEED, 100, &bytes), *bad = malloc(bytes);
	uint64_t index = trace_get64(good + TRACE_AT_INDEX);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct trace_reader *reader = NULL;
		struct trace_error error = { "" };
		size_t n;
		int err;

		memcpy(bad, good, bytes);
		if (cases[i].bytes == 4)
			trace_put32(bad + index + cases[i].at, (uint32_t)cases[i].value);
		else
			trace_put64(bad + index + cases[i].at, cases[i].value);
		forge_seal(bad, bytes);
		err = trace_reader_open_memory("m", bad, bytes, &reader, &error);
		if (!err)
			err = forge_read(reader, NULL, &n, &error);
		cr_assert_eq(err, -EBADMSG, "case %zu", i);
		cr_assert(strstr(error.text, cases[i].part), "case %zu: \"%s\" lacks \"%s\"", i,
			  error.text, cases[i].part);
		trace_reader_close(reader);
	}
	free(good);
	free(bad);
}

/* A frame that says it holds 2^40 bytes, with a window as large, in a file that is right otherwise. */
Test(trace_file, a_zstd_bomb_costs_nothing)
{
	static const uint8_t bomb[] = { 0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0,	 0,
					0,    1,    0,	  0,	0x03, 0, 0, 0x41 };
	size_t bytes, n;
	uint8_t *all = forge_bytes(SEED, 200, &bytes), *entry;
	struct trace_reader *reader;
	struct trace_error error = { "" };
	uint64_t offset, stored;
	size_t used = mallinfo2().hblkhd;

	entry = all + trace_get64(all + TRACE_AT_INDEX);
	offset = trace_get64(entry + TRACE_AT_BLOCK);
	stored = trace_get32(entry + TRACE_AT_BLOCK_STORED);
	cr_assert_gt(stored, sizeof(bomb));
	memcpy(all + offset, bomb, sizeof(bomb));
	trace_put64(entry + TRACE_AT_BLOCK_CHECKSUM, XXH64(all + offset, stored, 0));
	forge_seal(all, bytes);
	cr_assert_eq(trace_reader_open_memory("m", all, bytes, &reader, &error), 0, "%s",
		     error.text);
	cr_assert_eq(forge_read(reader, NULL, &n, &error), -EBADMSG);
	cr_assert(strstr(error.text, "zstd"), "%s", error.text);
	cr_assert_lt(mallinfo2().hblkhd - used, (size_t)16 << 20);
	trace_reader_close(reader);
	free(all);
}

Test(trace_file, what_is_no_trace_is_said_to_be_none)
{
	struct trace_reader *reader;
	struct trace_error error;

	cr_assert_eq(trace_reader_open("/nonexistent/t", &reader, &error), -ENOENT);
	cr_assert(strstr(error.text, "/nonexistent/t: cannot open"), "%s", error.text);
	cr_assert_eq(trace_reader_verify("/nonexistent/t", &error), -ENOENT);
	cr_assert_eq(trace_reader_open("/tmp", &reader, &error), -EINVAL);
	cr_assert(strstr(error.text, "regular file"), "%s", error.text);
	cr_assert_eq(trace_reader_open("/dev/zero", &reader, &error), -EINVAL);
	cr_assert_eq(trace_reader_open(GN_SOURCE_DIR "/CMakeLists.txt", &reader, &error), -EINVAL);
	cr_assert(strstr(error.text, "not a gnomon trace"), "%s", error.text);
}
