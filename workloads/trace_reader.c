/* SPDX-License-Identifier: MIT */
/*
 * trace_reader.c - open a trace file and read its blocks; see trace_reader.h for what is promised.
 *
 * The file is read with pread and never mapped: a file that shrinks while it is read is an error, not a
 * SIGBUS.
 *
 * zstd: a frame is decompressed in one call into a buffer of the size the index gives, which is at most
 * TRACE_BLOCK_RECORDS * TRACE_RECORD_MAX_BYTES; a frame that claims more fails there, and no window is
 * ever allocated.
 */
#include "trace_reader.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "trace_codec.h"
#include "trace_layout.h"
#include "trace_reader_state.h"

int trace_no_memory(const struct trace_reader *r, struct trace_error *error)
{
	return trace_fail(error, -ENOMEM, "%s: no memory to read it", r->name);
}

int trace_read_at(struct trace_reader *r, uint64_t offset, void *to, size_t bytes,
		  struct trace_error *error)
{
	uint8_t *at = to;

	if (offset > r->file_bytes || bytes > r->file_bytes - offset)
		return TRACE_BAD(r, error, r->file_bytes,
				 "the file ends, %zu bytes wanted at %" PRIu64, bytes, offset);
	if (r->memory) {
		memcpy(to, r->memory + offset, bytes);
		return 0;
	}
	while (bytes) {
		ssize_t got = pread(r->fd, at, bytes, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return trace_fail(error, -errno, "%s: byte %" PRIu64 ": cannot read: %s",
					  r->name, offset, strerror(errno));
		if (got == 0)
			return TRACE_BAD(r, error, offset, "the file was cut while it was read");
		at += got;
		offset += (uint64_t)got;
		bytes -= (size_t)got;
	}
	return 0;
}

/* ---- Opening ------------------------------------------------------------------------------------------ */

static int reader_new(const char *name, struct trace_reader **out, struct trace_error *error)
{
	struct trace_reader *r = calloc(1, sizeof(*r));

	if (r)
		r->name = strdup(name);
	if (!r || !r->name) {
		free(r);
		return trace_fail(error, -ENOMEM, "%s: no memory to read it", name);
	}
	r->fd = -1;
	r->from_start = true;
	*out = r;
	return 0;
}

static int reader_start(struct trace_reader *r, struct trace_reader **out,
			struct trace_error *error)
{
	uint32_t stored_max = 0, encoded_max = 0, records_max = 0;
	int err = trace_read_head(r, error);

	if (err)
		goto fail;
	for (uint64_t i = 0; i < r->info.blocks; i++) {
		const struct trace_block *b = &r->blocks[i];

		stored_max = b->stored > stored_max ? b->stored : stored_max;
		encoded_max = b->encoded > encoded_max ? b->encoded : encoded_max;
		records_max = b->records > records_max ? b->records : records_max;
	}
	r->stored = malloc((size_t)stored_max + 1);
	r->encoded = malloc((size_t)encoded_max + 1);
	r->records = malloc(((size_t)records_max + 1) * sizeof(*r->records));
	r->zstd = ZSTD_createDCtx();
	if (!r->stored || !r->encoded || !r->records || !r->zstd) {
		err = trace_no_memory(r, error);
		goto fail;
	}
	*out = r;
	return 0;
fail:
	trace_reader_close(r);
	return err;
}

int trace_reader_open(const char *path, struct trace_reader **out, struct trace_error *error)
{
	struct trace_reader *r;
	struct stat st;
	int err = reader_new(path, &r, error);

	if (err)
		return err;
	r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (r->fd < 0 || fstat(r->fd, &st)) {
		err = trace_fail(error, -errno, "%s: cannot open: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		err = trace_fail(error, -EINVAL, "%s: not a regular file; a trace is one", path);
	} else {
		r->file_bytes = (uint64_t)st.st_size;
		return reader_start(r, out, error);
	}
	trace_reader_close(r);
	return err;
}

static int open_memory(const char *name, const void *bytes, size_t count, bool trust_checksums,
		       struct trace_reader **out, struct trace_error *error)
{
	struct trace_reader *r;
	int err = reader_new(name, &r, error);

	if (err)
		return err;
	r->memory = bytes;
	r->file_bytes = count;
	r->trust_checksums = trust_checksums;
	return reader_start(r, out, error);
}

int trace_reader_open_memory(const char *name, const void *bytes, size_t count,
			     struct trace_reader **out, struct trace_error *error)
{
	return open_memory(name, bytes, count, false, out, error);
}

int trace_reader_open_unchecked(const char *name, const void *bytes, size_t count,
				struct trace_reader **out, struct trace_error *error)
{
	return open_memory(name, bytes, count, true, out, error);
}

void trace_reader_close(struct trace_reader *r)
{
	if (!r)
		return;
	if (r->fd >= 0)
		close(r->fd);
	ZSTD_freeDCtx(r->zstd);
	free(r->name);
	free(r->provenance);
	free(r->blocks);
	free(r->regions);
	free(r->records);
	free(r->stored);
	free(r->encoded);
	free(r);
}

/* ---- Reading ------------------------------------------------------------------------------------------ */

static int check_totals(struct trace_reader *r, struct trace_error *error)
{
	for (unsigned kind = 0; r->from_start && kind < TRACE_KINDS; kind++)
		if (r->seen_by_kind[kind] != r->info.by_kind[kind])
			return TRACE_BAD(r, error, TRACE_AT_BY_KIND + 8 * kind,
					 "the header counts %" PRIu64
					 " %s records, there are %" PRIu64,
					 r->info.by_kind[kind], trace_kind_desc(kind)->name,
					 r->seen_by_kind[kind]);
	return 0;
}

int trace_reader_next(struct trace_reader *r, const struct trace_record **records, size_t *count,
		      struct trace_error *error)
{
	const struct trace_block *b = &r->blocks[r->next_block];
	const char *why;
	size_t size, at;
	int err;

	*count = 0;
	if (r->next_block == r->info.blocks)
		return check_totals(r, error);
	err = trace_read_at(r, b->offset, r->stored, b->stored, error);
	if (err)
		return err;
	if (trace_checksum_differs(r, b->checksum, XXH64(r->stored, b->stored, 0)))
		return TRACE_BAD(r, error, b->offset,
				 "corrupt: block %" PRIu64 " fails its checksum", r->next_block);
	size = ZSTD_decompressDCtx(r->zstd, r->encoded, b->encoded, r->stored, b->stored);
	if (ZSTD_isError(size) || size != b->encoded)
		return TRACE_BAD(r, error, b->offset,
				 "block %" PRIu64 ": not a zstd frame of %" PRIu32 " bytes: %s",
				 r->next_block, b->encoded,
				 ZSTD_isError(size) ? ZSTD_getErrorName(size) : "it holds fewer");
	err = trace_decode(r->encoded, b->encoded, r->records, b->records, &at, &why);
	if (err)
		return TRACE_BAD(r, error, b->offset,
				 "block %" PRIu64 ", byte %zu when decoded: %s", r->next_block, at,
				 why);
	for (uint32_t i = 0; i < b->records; i++)
		r->seen_by_kind[r->records[i].kind]++;
	r->next_block++;
	*records = r->records;
	*count = b->records;
	return 0;
}

int trace_reader_verify(const char *path, struct trace_error *error)
{
	const struct trace_record *records;
	struct trace_reader *reader = NULL;
	size_t count;
	int err = trace_reader_open(path, &reader, error);

	if (err)
		return err;
	do {
		err = trace_reader_next(reader, &records, &count, error);
	} while (!err && count);
	trace_reader_close(reader);
	return err;
}

int trace_reader_seek(struct trace_reader *r, uint64_t block)
{
	if (block > r->info.blocks)
		return -EINVAL;
	r->next_block = block;
	r->from_start = block == 0;
	memset(r->seen_by_kind, 0, sizeof(r->seen_by_kind));
	return 0;
}

const struct trace_info *trace_reader_info(const struct trace_reader *r)
{
	return &r->info;
}

const char *trace_reader_provenance(const struct trace_reader *r)
{
	return r->provenance;
}

uint64_t trace_reader_file_bytes(const struct trace_reader *r)
{
	return r->file_bytes;
}

const struct trace_region *trace_reader_regions(const struct trace_reader *r, size_t *count)
{
	*count = r->info.regions;
	return r->regions;
}
