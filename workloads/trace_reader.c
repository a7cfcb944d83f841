/* SPDX-License-Identifier: MIT */
/*
 * trace_reader.c - see trace_reader.h for what is promised.
 *
 * The order of checks is from certain to specific: the magic before anything ("this is no trace"), the
 * size that the trailer and header agree on before checksums ("torn: N bytes are missing"), so that the
 * message names the cause and not its consequence. The file is read with pread and never mapped: a file
 * that shrinks while it is read is an error, not a SIGBUS.
 *
 * zstd: a frame is decompressed in one call into a buffer of the size the index gives, which is at most
 * TRACE_BLOCK_RECORDS * TRACE_RECORD_MAX_BYTES; a frame that claims more fails there, and no window is
 * ever allocated.
 */
#include "trace_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include <gnomon/types.h>

#include "trace_bytes.h"
#include "trace_codec.h"
#include "trace_layout.h"

#define PAGE_NUMBERS ((uint64_t)1 << (64 - GN_PAGE_SHIFT))

struct block {
	uint64_t offset, checksum;
	uint32_t stored, encoded, records;
};

struct trace_reader {
	char *name;
	int fd;		       /* -1: in memory */
	const uint8_t *memory; /* NULL: a file */
	uint64_t file_bytes;
	bool trust_checksums;

	struct trace_info info;
	uint32_t provenance_bytes;
	uint64_t index_offset, index_bytes, header_checksum;
	char *provenance;
	struct block *blocks;
	struct trace_region *regions;

	uint64_t next_block;
	bool from_start; /* every block since the first was read: totals can be compared */
	uint64_t seen_by_kind[TRACE_KINDS];
	struct trace_record *records;
	uint8_t *stored, *encoded;
	ZSTD_DCtx *zstd;
};

#define BAD(r, error, offset, format, ...)                                                         \
	trace_fail(error, -EBADMSG, "%s: byte %" PRIu64 ": " format, (r)->name,                    \
		   (uint64_t)(offset)__VA_OPT__(, ) __VA_ARGS__)

static int fail_memory(const struct trace_reader *r, struct trace_error *error)
{
	return trace_fail(error, -ENOMEM, "%s: no memory to read it", r->name);
}

static int read_at(struct trace_reader *r, uint64_t offset, void *to, size_t bytes,
		   struct trace_error *error)
{
	uint8_t *at = to;

	if (offset > r->file_bytes || bytes > r->file_bytes - offset)
		return BAD(r, error, r->file_bytes, "the file ends, %zu bytes wanted at %" PRIu64,
			   bytes, offset);
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
			return BAD(r, error, offset, "the file was cut while it was read");
		at += got;
		offset += (uint64_t)got;
		bytes -= (size_t)got;
	}
	return 0;
}

static bool checksum_differs(const struct trace_reader *r, uint64_t stored, uint64_t computed)
{
	return !r->trust_checksums && stored != computed;
}

/* ---- Header and trailer ------------------------------------------------------------------------------ */

static int check_magic(struct trace_reader *r, struct trace_error *error)
{
	uint8_t start[TRACE_AT_FLAGS];
	uint32_t version;

	if (r->file_bytes < sizeof(start))
		return trace_fail(error, -EINVAL,
				  "%s: not a gnomon trace: %" PRIu64
				  " bytes, the header alone has %d",
				  r->name, r->file_bytes, TRACE_HEADER_BYTES);
	if (read_at(r, 0, start, sizeof(start), error))
		return -EBADMSG;
	if (memcmp(start, TRACE_MAGIC, 8))
		return trace_fail(error, -EINVAL,
				  "%s: byte 0: not a gnomon trace (it would start with GNTRACE; "
				  "lackey and ChampSim traces need gnomon trace convert)",
				  r->name);
	version = trace_get32(start + TRACE_AT_VERSION);
	if (version != TRACE_VERSION)
		return trace_fail(error, -EINVAL,
				  "%s: byte %d: trace version %" PRIu32 ", this program reads %d",
				  r->name, TRACE_AT_VERSION, version, TRACE_VERSION);
	if (r->file_bytes < TRACE_HEADER_BYTES + TRACE_TRAILER_BYTES)
		return BAD(r, error, r->file_bytes,
			   "torn: the file ends inside its header or trailer (%d bytes at least)",
			   TRACE_HEADER_BYTES + TRACE_TRAILER_BYTES);
	return 0;
}

static void decode_header(struct trace_reader *r, const uint8_t *h)
{
	r->info.flags = trace_get32(h + TRACE_AT_FLAGS);
	r->provenance_bytes = trace_get32(h + TRACE_AT_PROVENANCE_BYTES);
	r->info.recorder = (enum trace_recorder)trace_get32(h + TRACE_AT_RECORDER);
	r->info.records = trace_get64(h + TRACE_AT_RECORDS);
	r->info.blocks = trace_get64(h + TRACE_AT_BLOCKS);
	r->index_offset = trace_get64(h + TRACE_AT_INDEX);
	r->index_bytes = trace_get64(h + TRACE_AT_INDEX_BYTES);
	r->info.regions = trace_get64(h + TRACE_AT_REGIONS);
	r->info.encoded_bytes = trace_get64(h + TRACE_AT_ENCODED_BYTES);
	r->info.pages = trace_get64(h + TRACE_AT_PAGES);
	r->info.large_pages = trace_get64(h + TRACE_AT_LARGE_PAGES);
	r->info.instructions = trace_get64(h + TRACE_AT_INSTRUCTIONS);
	for (unsigned kind = 0; kind < TRACE_KINDS; kind++)
		r->info.by_kind[kind] = trace_get64(h + TRACE_AT_BY_KIND + 8 * kind);
	r->header_checksum = trace_get64(h + TRACE_AT_CHECKSUM);
}

/* Every size is compared by subtraction from one already known to be smaller: none can wrap. */
static int check_sizes(struct trace_reader *r, struct trace_error *error)
{
	uint64_t body = r->file_bytes - TRACE_TRAILER_BYTES;
	uint64_t first = TRACE_HEADER_BYTES + trace_padded(r->provenance_bytes);

	if (r->provenance_bytes > TRACE_PROVENANCE_MAX)
		return BAD(r, error, TRACE_AT_PROVENANCE_BYTES,
			   "%" PRIu32 " bytes of provenance, at most %d are allowed",
			   r->provenance_bytes, TRACE_PROVENANCE_MAX);
	if (r->index_offset < first || r->index_offset > body ||
	    r->index_bytes != body - r->index_offset)
		return BAD(r, error, TRACE_AT_INDEX,
			   "torn: an index of %" PRIu64 " bytes at %" PRIu64
			   " does not end where the trailer starts, at %" PRIu64,
			   r->index_bytes, r->index_offset, body);
	if (r->info.blocks > r->index_bytes / TRACE_INDEX_BYTES)
		return BAD(r, error, TRACE_AT_BLOCKS,
			   "%" PRIu64 " blocks do not fit an index of %" PRIu64 " bytes",
			   r->info.blocks, r->index_bytes);
	if (r->info.regions > (r->index_bytes - r->info.blocks * TRACE_INDEX_BYTES) / 3)
		return BAD(r, error, TRACE_AT_REGIONS,
			   "%" PRIu64 " regions do not fit an index of %" PRIu64 " bytes",
			   r->info.regions, r->index_bytes);
	return 0;
}

static int check_header_values(struct trace_reader *r, const uint8_t *h, struct trace_error *error)
{
	if (r->info.flags & ~TRACE_FLAGS_KNOWN)
		return BAD(r, error, TRACE_AT_FLAGS, "unknown flags %#" PRIx32, r->info.flags);
	if (r->info.recorder >= TRACE_RECORDERS)
		return BAD(r, error, TRACE_AT_RECORDER, "an unknown recorder, %u",
			   (unsigned)r->info.recorder);
	for (unsigned at = TRACE_AT_BY_KIND + 8 * TRACE_KINDS; at < TRACE_AT_CHECKSUM; at++)
		if (h[at])
			return BAD(r, error, at, "not zero in the reserved part of the header");
	if (r->info.by_kind[TRACE_NONE])
		return BAD(r, error, TRACE_AT_BY_KIND, "records of no kind");
	return 0;
}

static int check_trailer(struct trace_reader *r, uint64_t *index_checksum,
			 struct trace_error *error)
{
	uint8_t t[TRACE_TRAILER_BYTES];
	uint64_t at = r->file_bytes - TRACE_TRAILER_BYTES, file_bytes;

	if (read_at(r, at, t, sizeof(t), error))
		return -EBADMSG;
	if (memcmp(t + TRACE_AT_END_MAGIC, TRACE_END_MAGIC, 8))
		return BAD(r, error, at, "torn: the file does not end with a trailer");
	if (checksum_differs(r, trace_get64(t + TRACE_AT_END_CHECKSUM),
			     XXH64(t, TRACE_AT_END_CHECKSUM, 0)))
		return BAD(r, error, at, "corrupt: the trailer fails its checksum");
	file_bytes = trace_get64(t + TRACE_AT_FILE_BYTES);
	if (file_bytes != r->file_bytes)
		return BAD(r, error, at + TRACE_AT_FILE_BYTES,
			   "the file has %" PRIu64 " bytes, its trailer says %" PRIu64,
			   r->file_bytes, file_bytes);
	if (checksum_differs(r, trace_get64(t + TRACE_AT_HEADER_CHECKSUM), r->header_checksum))
		return BAD(r, error, at + TRACE_AT_HEADER_CHECKSUM,
			   "the trailer belongs to another trace's header");
	*index_checksum = trace_get64(t + TRACE_AT_INDEX_CHECKSUM);
	return 0;
}

static int read_header(struct trace_reader *r, uint64_t *index_checksum, struct trace_error *error)
{
	uint8_t h[TRACE_HEADER_BYTES];
	uint64_t padded, checksum;
	int err = check_magic(r, error);

	if (!err)
		err = read_at(r, 0, h, sizeof(h), error);
	if (err)
		return err;
	decode_header(r, h);
	err = check_trailer(r, index_checksum, error);
	if (!err)
		err = check_sizes(r, error);
	if (err)
		return err;
	padded = trace_padded(r->provenance_bytes);
	r->provenance = calloc(1, padded + 1);
	if (!r->provenance)
		return fail_memory(r, error);
	err = read_at(r, TRACE_HEADER_BYTES, r->provenance, padded, error);
	if (err)
		return err;
	checksum = XXH64(h, TRACE_AT_CHECKSUM, 0);
	checksum = XXH64(r->provenance, padded, checksum);
	if (checksum_differs(r, r->header_checksum, checksum))
		return BAD(r, error, 0, "corrupt: the header fails its checksum");
	r->provenance[r->provenance_bytes] = '\0';
	return check_header_values(r, h, error);
}

/* ---- Index ------------------------------------------------------------------------------------------- */

static int decode_block_entry(struct trace_reader *r, const uint8_t *entry, uint64_t at,
			      uint64_t expected_offset, struct block *b, struct trace_error *error)
{
	b->offset = trace_get64(entry + TRACE_AT_BLOCK);
	b->checksum = trace_get64(entry + TRACE_AT_BLOCK_CHECKSUM);
	b->stored = trace_get32(entry + TRACE_AT_BLOCK_STORED);
	b->encoded = trace_get32(entry + TRACE_AT_BLOCK_ENCODED);
	b->records = trace_get32(entry + TRACE_AT_BLOCK_RECORDS);
	if (b->offset != expected_offset)
		return BAD(r, error, at, "a block at %" PRIu64 ", the one before ends at %" PRIu64,
			   b->offset, expected_offset);
	if (b->stored == 0 || b->stored > r->index_offset - b->offset)
		return BAD(r, error, at,
			   "a block of %" PRIu32 " bytes at %" PRIu64 " runs into the index",
			   b->stored, b->offset);
	if (b->records == 0 || b->records > TRACE_BLOCK_RECORDS || b->encoded < b->records ||
	    b->encoded > b->records * TRACE_RECORD_MAX_BYTES)
		return BAD(r, error, at,
			   "a block of %" PRIu32 " records in %" PRIu32
			   " bytes (1 to %d records of 1 to %d bytes each)",
			   b->records, b->encoded, TRACE_BLOCK_RECORDS, TRACE_RECORD_MAX_BYTES);
	if (trace_get32(entry + TRACE_AT_BLOCK_ZERO))
		return BAD(r, error, at + TRACE_AT_BLOCK_ZERO, "not zero in a block's entry");
	return 0;
}

static int decode_blocks(struct trace_reader *r, const uint8_t *index, struct trace_error *error)
{
	uint64_t offset = TRACE_HEADER_BYTES + trace_padded(r->provenance_bytes);
	uint64_t records = 0, encoded = 0;

	for (uint64_t i = 0; i < r->info.blocks; i++) {
		struct block *b = &r->blocks[i];
		uint64_t at = i * TRACE_INDEX_BYTES;
		int err = decode_block_entry(r, index + at, r->index_offset + at, offset, b, error);

		if (err)
			return err;
		offset += b->stored;
		records += b->records;
		encoded += b->encoded;
	}
	if (offset != r->index_offset)
		return BAD(r, error, offset, "bytes between the last block and the index");
	if (records != r->info.records || encoded != r->info.encoded_bytes)
		return BAD(r, error, TRACE_AT_RECORDS,
			   "the header counts %" PRIu64 " records, the index %" PRIu64,
			   r->info.records, records);
	return 0;
}

static int decode_regions(struct trace_reader *r, const uint8_t *index, struct trace_error *error)
{
	const uint8_t *at = index + r->info.blocks * TRACE_INDEX_BYTES;
	const uint8_t *end = index + r->index_bytes;
	uint64_t page = 0, pages = 0, large_pages = 0;

	for (uint64_t i = 0; i < r->info.regions; i++) {
		struct trace_region *region = &r->regions[i];
		uint64_t offset = r->index_offset + (uint64_t)(at - index), gap, length;

		at = trace_get_varint(at, end, &gap);
		at = at ? trace_get_varint(at, end, &length) : NULL;
		if (!at || at == end)
			return BAD(r, error, offset, "a torn region");
		if (gap > PAGE_NUMBERS - page || length == 0 ||
		    length > PAGE_NUMBERS - page - gap || (*at & ~GN_RWX) || !(*at & GN_R))
			return BAD(r, error, offset,
				   "a region that is empty, wraps around, or has "
				   "rights other than R, W and X");
		region->start_page = page + gap;
		region->end_page = region->start_page + length;
		region->rights = *at++;
		large_pages += ((region->end_page - 1) >> GN_INDEX_BITS) + 1 -
			       (region->start_page >> GN_INDEX_BITS);
		large_pages -=
			page && (page - 1) >> GN_INDEX_BITS == region->start_page >> GN_INDEX_BITS;
		page = region->end_page;
		pages += length;
	}
	if (at != end)
		return BAD(r, error, r->index_offset + (uint64_t)(at - index),
			   "bytes after the last region");
	if (pages != r->info.pages || large_pages != r->info.large_pages)
		return BAD(r, error, TRACE_AT_PAGES,
			   "the header counts %" PRIu64 " and %" PRIu64
			   " pages, the regions %" PRIu64 " and %" PRIu64,
			   r->info.pages, r->info.large_pages, pages, large_pages);
	return 0;
}

static int read_index(struct trace_reader *r, uint64_t index_checksum, struct trace_error *error)
{
	uint8_t *index = malloc(r->index_bytes + 1);
	int err;

	r->blocks = calloc(r->info.blocks + 1, sizeof(*r->blocks));
	r->regions = calloc(r->info.regions + 1, sizeof(*r->regions));
	if (!index || !r->blocks || !r->regions) {
		err = fail_memory(r, error);
		goto out;
	}
	err = read_at(r, r->index_offset, index, r->index_bytes, error);
	if (err)
		goto out;
	if (checksum_differs(r, index_checksum, XXH64(index, r->index_bytes, 0)))
		err = BAD(r, error, r->index_offset, "corrupt: the index fails its checksum");
	if (!err)
		err = decode_blocks(r, index, error);
	if (!err)
		err = decode_regions(r, index, error);
out:
	free(index);
	return err;
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
	uint64_t index_checksum;
	int err = read_header(r, &index_checksum, error);

	if (!err)
		err = read_index(r, index_checksum, error);
	if (err)
		goto fail;
	for (uint64_t i = 0; i < r->info.blocks; i++) {
		const struct block *b = &r->blocks[i];

		stored_max = b->stored > stored_max ? b->stored : stored_max;
		encoded_max = b->encoded > encoded_max ? b->encoded : encoded_max;
		records_max = b->records > records_max ? b->records : records_max;
	}
	r->stored = malloc((size_t)stored_max + 1);
	r->encoded = malloc((size_t)encoded_max + 1);
	r->records = malloc(((size_t)records_max + 1) * sizeof(*r->records));
	r->zstd = ZSTD_createDCtx();
	if (!r->stored || !r->encoded || !r->records || !r->zstd) {
		err = fail_memory(r, error);
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
			return BAD(r, error, TRACE_AT_BY_KIND + 8 * kind,
				   "the header counts %" PRIu64 " %s records, there are %" PRIu64,
				   r->info.by_kind[kind], trace_kind_desc(kind)->name,
				   r->seen_by_kind[kind]);
	return 0;
}

int trace_reader_next(struct trace_reader *r, const struct trace_record **records, size_t *count,
		      struct trace_error *error)
{
	const struct block *b = &r->blocks[r->next_block];
	const char *why;
	size_t size, at;
	int err;

	*count = 0;
	if (r->next_block == r->info.blocks)
		return check_totals(r, error);
	err = read_at(r, b->offset, r->stored, b->stored, error);
	if (err)
		return err;
	if (checksum_differs(r, b->checksum, XXH64(r->stored, b->stored, 0)))
		return BAD(r, error, b->offset, "corrupt: block %" PRIu64 " fails its checksum",
			   r->next_block);
	size = ZSTD_decompressDCtx(r->zstd, r->encoded, b->encoded, r->stored, b->stored);
	if (ZSTD_isError(size) || size != b->encoded)
		return BAD(r, error, b->offset,
			   "block %" PRIu64 ": not a zstd frame of %" PRIu32 " bytes: %s",
			   r->next_block, b->encoded,
			   ZSTD_isError(size) ? ZSTD_getErrorName(size) : "it holds fewer");
	err = trace_decode(r->encoded, b->encoded, r->records, b->records, &at, &why);
	if (err)
		return BAD(r, error, b->offset, "block %" PRIu64 ", byte %zu when decoded: %s",
			   r->next_block, at, why);
	for (uint32_t i = 0; i < b->records; i++)
		r->seen_by_kind[r->records[i].kind]++;
	r->next_block++;
	*records = r->records;
	*count = b->records;
	return 0;
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
