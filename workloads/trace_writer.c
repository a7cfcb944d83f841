/* SPDX-License-Identifier: MIT */
/*
 * trace_writer.c - blocks, then the index, then the trailer; the header last.
 *
 * The header's place is left blank while blocks are written, so a file cut short by a crash has no magic
 * and is not even taken for a trace. Blocks are compressed at zstd's default level: the recorder, not the
 * compressor, is what is slow (valgrind: about half a million records a second).
 */
#include "trace_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "trace_bytes.h"
#include "trace_codec.h"
#include "trace_layout.h"
#include "trace_pages.h"

#define BLOCK_ENCODED_MAX (TRACE_BLOCK_RECORDS * TRACE_RECORD_MAX_BYTES)

struct trace_writer {
	char *path, *temporary;
	int fd;
	int failed; /* the first error of the file; every later call returns it */
	uint64_t offset;
	struct trace_info info;
	struct trace_codec codec;
	struct trace_pages pages;
	char *provenance; /* padded with zeros */
	uint32_t provenance_bytes;

	uint8_t *encoded, *end; /* the block being filled */
	uint32_t block_records;
	uint8_t *stored; /* its frame */
	size_t stored_capacity;
	ZSTD_CCtx *zstd;

	uint8_t *index;
	size_t index_bytes, index_capacity;
};

static int fail_errno(struct trace_writer *w, struct trace_error *error, const char *what)
{
	w->failed = errno ? -errno : -EIO;
	return trace_fail(error, w->failed, "%s: cannot %s: %s", w->path, what,
			  strerror(-w->failed));
}

static int fail_memory(struct trace_writer *w, struct trace_error *error)
{
	errno = ENOMEM;
	return fail_errno(w, error, "hold the trace");
}

/* ---- Opening --------------------------------------------------------------------------------------- */

static int open_temporary(struct trace_writer *w)
{
	for (unsigned attempt = 0; attempt < 1000; attempt++) {
		if (asprintf(&w->temporary, "%s.%ld.%u.tmp", w->path, (long)getpid(), attempt) <
		    0) {
			w->temporary = NULL;
			return -ENOMEM;
		}
		w->fd = open(w->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (w->fd >= 0)
			return 0;
		free(w->temporary);
		w->temporary = NULL;
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

static int allocate(struct trace_writer *w, const char *path, const char *provenance)
{
	size_t bytes = strnlen(provenance, TRACE_PROVENANCE_MAX);

	w->path = strdup(path);
	w->provenance = calloc(1, trace_padded(bytes) + 1);
	w->encoded = malloc(BLOCK_ENCODED_MAX);
	w->stored_capacity = ZSTD_compressBound(BLOCK_ENCODED_MAX);
	w->stored = malloc(w->stored_capacity);
	w->zstd = ZSTD_createCCtx();
	if (!w->path || !w->provenance || !w->encoded || !w->stored || !w->zstd)
		return -ENOMEM;
	memcpy(w->provenance, provenance, bytes);
	w->provenance_bytes = (uint32_t)bytes;
	w->end = w->encoded;
	return 0;
}

int trace_writer_open(const char *path, enum trace_recorder recorder, const char *provenance,
		      struct trace_writer **out, struct trace_error *error)
{
	struct trace_writer *w = calloc(1, sizeof(*w));
	struct stat st;
	int err;

	if (!w)
		return trace_fail(error, -ENOMEM, "%s: no memory", path);
	w->fd = -1;
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		err = trace_fail(error, -EINVAL,
				 "%s: not a regular file; a trace is written to a file of its own",
				 path);
		goto fail;
	}
	err = allocate(w, path, provenance);
	if (!err)
		err = open_temporary(w);
	w->offset = TRACE_HEADER_BYTES + trace_padded(w->provenance_bytes);
	if (!err && lseek(w->fd, (off_t)w->offset, SEEK_SET) < 0)
		err = -errno;
	if (err) {
		trace_fail(error, err, "%s: cannot create: %s", path, strerror(-err));
		goto fail;
	}
	w->info.recorder = recorder;
	*out = w;
	return 0;
fail:
	trace_writer_abort(w);
	return err;
}

/* ---- Blocks ---------------------------------------------------------------------------------------- */

static int append(struct trace_writer *w, const void *bytes, size_t count,
		  struct trace_error *error)
{
	const uint8_t *from = bytes;

	while (count) {
		ssize_t done = write(w->fd, from, count);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return fail_errno(w, error, "write");
		from += done;
		count -= (size_t)done;
		w->offset += (uint64_t)done;
	}
	return 0;
}

static int index_reserve(struct trace_writer *w, size_t more, struct trace_error *error)
{
	size_t capacity = w->index_capacity ? w->index_capacity : 4096;
	uint8_t *bigger;

	while (capacity < w->index_bytes + more)
		capacity *= 2;
	if (capacity == w->index_capacity)
		return 0;
	bigger = realloc(w->index, capacity);
	if (!bigger)
		return fail_memory(w, error);
	w->index = bigger;
	w->index_capacity = capacity;
	return 0;
}

static int flush_block(struct trace_writer *w, struct trace_error *error)
{
	size_t encoded = (size_t)(w->end - w->encoded), stored;
	uint8_t *entry;

	if (w->block_records == 0)
		return 0;
	stored = ZSTD_compressCCtx(w->zstd, w->stored, w->stored_capacity, w->encoded, encoded,
				   ZSTD_CLEVEL_DEFAULT);
	if (ZSTD_isError(stored))
		return fail_memory(w, error);
	if (index_reserve(w, TRACE_INDEX_BYTES, error))
		return w->failed;
	entry = w->index + w->index_bytes;
	trace_put64(entry + TRACE_AT_BLOCK, w->offset);
	trace_put64(entry + TRACE_AT_BLOCK_CHECKSUM, XXH64(w->stored, stored, 0));
	trace_put32(entry + TRACE_AT_BLOCK_STORED, (uint32_t)stored);
	trace_put32(entry + TRACE_AT_BLOCK_ENCODED, (uint32_t)encoded);
	trace_put32(entry + TRACE_AT_BLOCK_RECORDS, w->block_records);
	trace_put32(entry + TRACE_AT_BLOCK_ZERO, 0);
	w->index_bytes += TRACE_INDEX_BYTES;
	w->info.blocks++;
	w->info.encoded_bytes += encoded;
	w->block_records = 0;
	w->end = w->encoded;
	memset(&w->codec, 0, sizeof(w->codec));
	return append(w, w->stored, stored, error);
}

int trace_writer_add(struct trace_writer *w, const struct trace_record *record,
		     struct trace_error *error)
{
	const char *flaw = trace_record_flaw(record);

	if (flaw)
		return trace_fail(error, -EINVAL, "%s: %s", w->path, flaw);
	if (w->failed)
		return trace_fail(error, w->failed, "%s: an earlier write failed", w->path);
	if (trace_pages_add(&w->pages, record))
		return fail_memory(w, error);
	w->end = trace_encode(&w->codec, record, w->end);
	w->info.records++;
	w->info.by_kind[record->kind]++;
	return ++w->block_records == TRACE_BLOCK_RECORDS ? flush_block(w, error) : 0;
}

void trace_writer_add_instructions(struct trace_writer *w, uint64_t count)
{
	w->info.instructions += count;
}

uint64_t trace_writer_records(const struct trace_writer *w)
{
	return w->info.records;
}

uint64_t trace_writer_bytes(const struct trace_writer *w)
{
	return w->offset;
}

/* ---- Finishing ------------------------------------------------------------------------------------- */

static int index_regions(struct trace_writer *w, struct trace_error *error)
{
	struct trace_region *regions;
	uint64_t end_page = 0;
	size_t count;
	int err = 0;

	if (trace_pages_finish(&w->pages, &regions, &count, &w->info.large_pages))
		return fail_memory(w, error);
	w->info.pages = w->pages.used;
	w->info.regions = count;
	for (size_t i = 0; i < count && !err; i++) {
		uint8_t *at;

		err = index_reserve(w, 21, error);
		if (err)
			break;
		at = w->index + w->index_bytes;
		at = trace_put_varint(at, regions[i].start_page - end_page);
		at = trace_put_varint(at, regions[i].end_page - regions[i].start_page);
		*at++ = regions[i].rights;
		w->index_bytes = (size_t)(at - w->index);
		end_page = regions[i].end_page;
	}
	free(regions);
	return err;
}

static uint64_t build_header(const struct trace_writer *w, uint64_t index_offset,
			     uint8_t header[TRACE_HEADER_BYTES])
{
	uint64_t checksum;

	memset(header, 0, TRACE_HEADER_BYTES);
	memcpy(header + TRACE_AT_MAGIC, TRACE_MAGIC, 8);
	trace_put32(header + TRACE_AT_VERSION, TRACE_VERSION);
	trace_put32(header + TRACE_AT_FLAGS, w->info.flags);
	trace_put32(header + TRACE_AT_PROVENANCE_BYTES, w->provenance_bytes);
	trace_put32(header + TRACE_AT_RECORDER, w->info.recorder);
	trace_put64(header + TRACE_AT_RECORDS, w->info.records);
	trace_put64(header + TRACE_AT_BLOCKS, w->info.blocks);
	trace_put64(header + TRACE_AT_INDEX, index_offset);
	trace_put64(header + TRACE_AT_INDEX_BYTES, w->index_bytes);
	trace_put64(header + TRACE_AT_REGIONS, w->info.regions);
	trace_put64(header + TRACE_AT_ENCODED_BYTES, w->info.encoded_bytes);
	trace_put64(header + TRACE_AT_PAGES, w->info.pages);
	trace_put64(header + TRACE_AT_LARGE_PAGES, w->info.large_pages);
	trace_put64(header + TRACE_AT_INSTRUCTIONS, w->info.instructions);
	for (unsigned kind = 0; kind < TRACE_KINDS; kind++)
		trace_put64(header + TRACE_AT_BY_KIND + 8 * kind, w->info.by_kind[kind]);
	checksum = XXH64(header, TRACE_AT_CHECKSUM, 0);
	checksum = XXH64(w->provenance, trace_padded(w->provenance_bytes), checksum);
	trace_put64(header + TRACE_AT_CHECKSUM, checksum);
	return checksum;
}

static int finish_file(struct trace_writer *w, struct trace_error *error)
{
	uint8_t header[TRACE_HEADER_BYTES], trailer[TRACE_TRAILER_BYTES];
	uint64_t index_offset, checksum;
	int err = flush_block(w, error);

	if (!err)
		err = index_regions(w, error);
	if (err)
		return err;
	index_offset = w->offset;
	checksum = build_header(w, index_offset, header);
	memcpy(trailer + TRACE_AT_END_MAGIC, TRACE_END_MAGIC, 8);
	trace_put64(trailer + TRACE_AT_FILE_BYTES,
		    index_offset + w->index_bytes + TRACE_TRAILER_BYTES);
	trace_put64(trailer + TRACE_AT_INDEX_CHECKSUM, XXH64(w->index, w->index_bytes, 0));
	trace_put64(trailer + TRACE_AT_HEADER_CHECKSUM, checksum);
	trace_put64(trailer + TRACE_AT_END_CHECKSUM, XXH64(trailer, TRACE_AT_END_CHECKSUM, 0));
	err = append(w, w->index, w->index_bytes, error);
	if (!err)
		err = append(w, trailer, sizeof(trailer), error);
	if (!err && lseek(w->fd, 0, SEEK_SET) < 0)
		err = fail_errno(w, error, "write");
	if (!err)
		err = append(w, header, sizeof(header), error);
	return err ? err : append(w, w->provenance, trace_padded(w->provenance_bytes), error);
}

int trace_writer_commit(struct trace_writer *w, uint32_t flags, struct trace_error *error)
{
	int err = w->failed;

	w->info.flags = flags & TRACE_FLAGS_KNOWN;
	if (err)
		trace_fail(error, err, "%s: an earlier write failed", w->path);
	else
		err = finish_file(w, error);
	if (!err && fsync(w->fd))
		err = fail_errno(w, error, "write");
	if (!err && rename(w->temporary, w->path))
		err = fail_errno(w, error, "create");
	if (!err) {
		free(w->temporary);
		w->temporary = NULL;
	}
	trace_writer_abort(w);
	return err;
}

void trace_writer_abort(struct trace_writer *w)
{
	if (!w)
		return;
	if (w->fd >= 0)
		close(w->fd);
	if (w->temporary)
		unlink(w->temporary);
	free(w->temporary);
	free(w->path);
	free(w->provenance);
	free(w->encoded);
	free(w->stored);
	free(w->index);
	ZSTD_freeCCtx(w->zstd);
	trace_pages_fini(&w->pages);
	free(w);
}
