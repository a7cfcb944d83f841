/* SPDX-License-Identifier: MIT */
/*
 * trace_forge.h - trace files for tests: random but legal records, a file's bytes, and forged ones whose
 * checksums are right again, so that what lies behind the checksums is tested.
 */
#ifndef GN_TESTS_TRACE_FORGE_H
#define GN_TESTS_TRACE_FORGE_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include <gnomon/engine.h>

#include "support/cases.h"
#include "workloads/trace_bytes.h"
#include "workloads/trace_layout.h"
#include "workloads/trace_reader.h"
#include "workloads/trace_writer.h"

static inline uint32_t forge_size(struct test_random *random, unsigned kind)
{
	static const uint32_t usual[] = { 8, 4, 1, 2, 16, 32, 512, TRACE_ACCESS_MAX };
	const struct trace_kind_desc *desc = trace_kind_desc(kind);
	uint64_t pick = test_random_next(random);

	if (kind <= TRACE_MODIFY)
		return usual[pick % 8];
	if (kind == TRACE_FETCH)
		return pick % 16 ? (uint32_t)(pick >> 8) % 20 : (uint32_t)(pick >> 16);
	return desc->size_min + (uint32_t)(pick % (desc->size_max - desc->size_min + (uint64_t)1));
}

/* A flawless record: near @around most of the time, anywhere else. */
static inline struct trace_record forge_record(struct test_random *random, uint64_t around)
{
	uint64_t pick = test_random_next(random), far = test_random_next(random);
	unsigned kind = pick % 8 ? TRACE_LOAD + (pick >> 8) % 4
				 : TRACE_LOAD + (pick >> 8) % (TRACE_KINDS - TRACE_LOAD);
	const struct trace_kind_desc *desc = trace_kind_desc(kind);
	struct trace_record r = { .kind = (uint8_t)kind, .size = forge_size(random, kind) };

	if (desc->has_address)
		r.address = (pick >> 40) % 8 ? around + (far & 0x1fff) : far >> (far & 31);
	if (desc->has_value)
		r.value = test_random_next(random) >> (far & 63);
	if (kind == TRACE_FETCH)
		r.address &= ~(uint64_t)(TRACE_LINE_BYTES - 1);
	if (kind >= TRACE_MMAP && kind <= TRACE_MPROTECT) {
		r.address &= ~(GN_PAGE_SIZE - 1);
		r.value = ((r.value & 0xffff) + 1) * GN_PAGE_SIZE;
	}
	if (kind == TRACE_CR)
		r.address = (const uint64_t[]){ 0, 4, 0xc0000080 }[far % 3];
	if (kind == TRACE_TABLE_WRITE)
		r.address &= ~(uint64_t)7;
	if (kind == TRACE_P2M)
		r.value = (r.value & 0xffffff) + 1;
	if (trace_record_flaw(&r)) /* it wrapped around */
		return forge_record(random, around);
	return r;
}

static inline struct trace_record *forge_records(uint64_t seed, size_t count)
{
	struct test_random random = test_random_seed(seed);
	struct trace_record *records = calloc(count + 1, sizeof(*records));
	uint64_t around = 0x7f0000001000;

	for (size_t i = 0; records && i < count; i++) {
		if (test_random_next(&random) % 64 == 0)
			around = test_random_next(&random) >> 17;
		records[i] = forge_record(&random, around);
	}
	return records;
}

static inline int forge_same(const struct trace_record *a, const struct trace_record *b)
{
	return a->kind == b->kind && a->address == b->address && a->value == b->value &&
	       a->size == b->size;
}

/* A path for a test's file, to be unlinked; the file does not exist. */
static inline void forge_path(char out[64])
{
	static unsigned number;

	snprintf(out, 64, "/tmp/gn-trace-test.%ld.%u", (long)getpid(), number++);
	unlink(out);
}

/* Write @records to @path. 0 or the writer's error. */
static inline int forge_file(const char *path, const struct trace_record *records, size_t count,
			     const char *provenance, uint32_t flags)
{
	struct trace_writer *writer;
	struct trace_error error;
	int err = trace_writer_open(path, TRACE_BY_OTHER, provenance, &writer, &error);

	if (err)
		return err;
	for (size_t i = 0; i < count && !err; i++)
		err = trace_writer_add(writer, &records[i], &error);
	if (err) {
		trace_writer_abort(writer);
		return err;
	}
	trace_writer_add_instructions(writer, count);
	return trace_writer_commit(writer, flags, &error);
}

/* The bytes of a file; NULL: cannot. */
static inline uint8_t *forge_slurp(const char *path, size_t *bytes)
{
	FILE *f = fopen(path, "rb");
	uint8_t *all = NULL;
	long size;

	if (!f)
		return NULL;
	if (fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0) {
		all = malloc((size_t)size + 1);
		rewind(f);
		*bytes = all ? fread(all, 1, (size_t)size, f) : 0;
	}
	fclose(f);
	return all;
}

/* A trace of @count random records, as bytes. */
static inline uint8_t *forge_bytes(uint64_t seed, size_t count, size_t *bytes)
{
	struct trace_record *records = forge_records(seed, count);
	uint8_t *all = NULL;
	char path[64];

	*bytes = 0;
	forge_path(path);
	if (records && forge_file(path, records, count, "a test", 0) == 0)
		all = forge_slurp(path, bytes);
	unlink(path);
	free(records);
	return all;
}

/* Make every checksum of a changed trace right, as far as its sizes can be followed. */
static inline void forge_seal(uint8_t *all, size_t bytes)
{
	uint8_t *t = all + bytes - TRACE_TRAILER_BYTES;
	uint64_t padded, checksum, index, index_bytes;

	if (bytes < TRACE_HEADER_BYTES + TRACE_TRAILER_BYTES)
		return;
	padded = trace_padded(trace_get32(all + TRACE_AT_PROVENANCE_BYTES));
	if (padded > bytes - TRACE_HEADER_BYTES)
		padded = 0;
	checksum = XXH64(all, TRACE_AT_CHECKSUM, 0);
	checksum = XXH64(all + TRACE_HEADER_BYTES, padded, checksum);
	trace_put64(all + TRACE_AT_CHECKSUM, checksum);
	index = trace_get64(all + TRACE_AT_INDEX);
	index_bytes = trace_get64(all + TRACE_AT_INDEX_BYTES);
	if (index <= bytes && index_bytes <= bytes - index)
		trace_put64(t + TRACE_AT_INDEX_CHECKSUM, XXH64(all + index, index_bytes, 0));
	trace_put64(t + TRACE_AT_HEADER_CHECKSUM, checksum);
	trace_put64(t + TRACE_AT_END_CHECKSUM, XXH64(t, TRACE_AT_END_CHECKSUM, 0));
}

/* Read it all. 0, or the first error; *records (if asked for, to be freed) of *count. */
static inline int forge_read(struct trace_reader *reader, struct trace_record **records,
			     size_t *count, struct trace_error *error)
{
	const struct trace_record *block;
	struct trace_record *all = NULL;
	size_t total = 0, n;
	int err;

	while (!(err = trace_reader_next(reader, &block, &n, error)) && n) {
		struct trace_record *more = realloc(all, (total + n) * sizeof(*all));

		if (!more)
			abort();
		all = more;
		memcpy(all + total, block, n * sizeof(*all));
		total += n;
	}
	*count = total;
	if (records && !err)
		*records = all;
	else
		free(all);
	return err;
}

#endif
