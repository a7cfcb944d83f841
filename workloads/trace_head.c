/* SPDX-License-Identifier: MIT */
/*
 * trace_head.c - header, trailer and index of a trace file, each field checked before it is used.
 *
 * The order of checks is from certain to specific: the magic before anything ("this is no trace"), the
 * sizes that header, trailer and file must agree on before checksums ("torn"), so that the message names
 * the cause and not its consequence. Sizes are compared by subtraction from one that is already known to be
 * larger, so nothing wraps, and every count is bounded by the bytes that would have to hold it, so a file
 * can make us allocate a few times its own size at most.
 */
#include "trace_reader_state.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <gnomon/types.h>

#include "trace_bytes.h"
#include "trace_codec.h"
#include "trace_layout.h"

#define PAGE_NUMBERS ((uint64_t)1 << (64 - GN_PAGE_SHIFT))

/* ---- Header and trailer ------------------------------------------------------------------------------ */

static int check_magic(struct trace_reader *r, struct trace_error *error)
{
	uint8_t start[TRACE_AT_FLAGS];
	uint32_t version;
	int err;

	if (r->file_bytes < sizeof(start))
		return trace_fail(error, -EINVAL,
				  "%s: not a gnomon trace: %" PRIu64
				  " bytes, the header alone has %d",
				  r->name, r->file_bytes, TRACE_HEADER_BYTES);
	err = trace_read_at(r, 0, start, sizeof(start), error);
	if (err)
		return err;
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
		return TRACE_BAD(
			r, error, r->file_bytes,
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

static int check_sizes(struct trace_reader *r, struct trace_error *error)
{
	uint64_t body = r->file_bytes - TRACE_TRAILER_BYTES;
	uint64_t first = TRACE_HEADER_BYTES + trace_padded(r->provenance_bytes);

	if (r->provenance_bytes > TRACE_PROVENANCE_MAX)
		return TRACE_BAD(r, error, TRACE_AT_PROVENANCE_BYTES,
				 "%" PRIu32 " bytes of provenance, at most %d are allowed",
				 r->provenance_bytes, TRACE_PROVENANCE_MAX);
	if (r->index_offset < first || r->index_offset > body ||
	    r->index_bytes != body - r->index_offset)
		return TRACE_BAD(r, error, TRACE_AT_INDEX,
				 "torn: an index of %" PRIu64 " bytes at %" PRIu64
				 " does not end where the trailer starts, at %" PRIu64,
				 r->index_bytes, r->index_offset, body);
	if (r->info.blocks > r->index_bytes / TRACE_INDEX_BYTES)
		return TRACE_BAD(r, error, TRACE_AT_BLOCKS,
				 "%" PRIu64 " blocks do not fit an index of %" PRIu64 " bytes",
				 r->info.blocks, r->index_bytes);
	if (r->info.regions > (r->index_bytes - r->info.blocks * TRACE_INDEX_BYTES) / 3)
		return TRACE_BAD(r, error, TRACE_AT_REGIONS,
				 "%" PRIu64 " regions do not fit an index of %" PRIu64 " bytes",
				 r->info.regions, r->index_bytes);
	return 0;
}

static int check_header_values(struct trace_reader *r, const uint8_t *h, struct trace_error *error)
{
	if (r->info.flags & ~TRACE_FLAGS_KNOWN)
		return TRACE_BAD(r, error, TRACE_AT_FLAGS, "unknown flags %#" PRIx32,
				 r->info.flags);
	if (r->info.recorder >= TRACE_RECORDERS)
		return TRACE_BAD(r, error, TRACE_AT_RECORDER, "an unknown recorder, %u",
				 (unsigned)r->info.recorder);
	for (unsigned at = TRACE_AT_BY_KIND + 8 * TRACE_KINDS; at < TRACE_AT_CHECKSUM; at++)
		if (h[at])
			return TRACE_BAD(r, error, at,
					 "not zero in the reserved part of the header");
	if (r->info.by_kind[TRACE_NONE])
		return TRACE_BAD(r, error, TRACE_AT_BY_KIND, "records of no kind");
	return 0;
}

static int check_trailer(struct trace_reader *r, struct trace_error *error)
{
	uint8_t t[TRACE_TRAILER_BYTES];
	uint64_t at = r->file_bytes - TRACE_TRAILER_BYTES, file_bytes;
	int err = trace_read_at(r, at, t, sizeof(t), error);

	if (err)
		return err;
	if (memcmp(t + TRACE_AT_END_MAGIC, TRACE_END_MAGIC, 8))
		return TRACE_BAD(
			r, error, at,
			"torn: the file has %" PRIu64 " bytes and no trailer at its end; by "
			"its header it has %" PRIu64,
			r->file_bytes, r->index_offset + r->index_bytes + TRACE_TRAILER_BYTES);
	if (trace_checksum_differs(r, trace_get64(t + TRACE_AT_END_CHECKSUM),
				   XXH64(t, TRACE_AT_END_CHECKSUM, 0)))
		return TRACE_BAD(r, error, at, "corrupt: the trailer fails its checksum");
	file_bytes = trace_get64(t + TRACE_AT_FILE_BYTES);
	if (file_bytes != r->file_bytes)
		return TRACE_BAD(r, error, at + TRACE_AT_FILE_BYTES,
				 "the file has %" PRIu64 " bytes, its trailer says %" PRIu64,
				 r->file_bytes, file_bytes);
	if (trace_checksum_differs(r, trace_get64(t + TRACE_AT_HEADER_CHECKSUM),
				   r->header_checksum))
		return TRACE_BAD(r, error, at + TRACE_AT_HEADER_CHECKSUM,
				 "the trailer belongs to another trace's header");
	r->index_checksum = trace_get64(t + TRACE_AT_INDEX_CHECKSUM);
	return 0;
}

static int read_header(struct trace_reader *r, struct trace_error *error)
{
	uint8_t h[TRACE_HEADER_BYTES];
	uint64_t padded, checksum;
	int err = check_magic(r, error);

	if (!err)
		err = trace_read_at(r, 0, h, sizeof(h), error);
	if (err)
		return err;
	decode_header(r, h);
	err = check_trailer(r, error);
	if (!err)
		err = check_sizes(r, error);
	if (err)
		return err;
	padded = trace_padded(r->provenance_bytes);
	r->provenance = calloc(1, padded + 1);
	if (!r->provenance)
		return trace_no_memory(r, error);
	err = trace_read_at(r, TRACE_HEADER_BYTES, r->provenance, padded, error);
	if (err)
		return err;
	checksum = XXH64(h, TRACE_AT_CHECKSUM, 0);
	checksum = XXH64(r->provenance, padded, checksum);
	if (trace_checksum_differs(r, r->header_checksum, checksum))
		return TRACE_BAD(r, error, 0, "corrupt: the header fails its checksum");
	r->provenance[r->provenance_bytes] = '\0';
	return check_header_values(r, h, error);
}

/* ---- Index ------------------------------------------------------------------------------------------- */

static int decode_block_entry(struct trace_reader *r, const uint8_t *entry, uint64_t at,
			      uint64_t expected_offset, struct trace_block *b,
			      struct trace_error *error)
{
	b->offset = trace_get64(entry + TRACE_AT_BLOCK);
	b->checksum = trace_get64(entry + TRACE_AT_BLOCK_CHECKSUM);
	b->stored = trace_get32(entry + TRACE_AT_BLOCK_STORED);
	b->encoded = trace_get32(entry + TRACE_AT_BLOCK_ENCODED);
	b->records = trace_get32(entry + TRACE_AT_BLOCK_RECORDS);
	if (b->offset != expected_offset)
		return TRACE_BAD(r, error, at,
				 "a block at %" PRIu64 ", the one before ends at %" PRIu64,
				 b->offset, expected_offset);
	if (b->stored == 0 || b->stored > r->index_offset - b->offset)
		return TRACE_BAD(r, error, at,
				 "a block of %" PRIu32 " bytes at %" PRIu64 " runs into the index",
				 b->stored, b->offset);
	if (b->records == 0 || b->records > TRACE_BLOCK_RECORDS || b->encoded < b->records ||
	    b->encoded > b->records * TRACE_RECORD_MAX_BYTES)
		return TRACE_BAD(r, error, at,
				 "a block of %" PRIu32 " records in %" PRIu32
				 " bytes (1 to %d records of 1 to %d bytes each)",
				 b->records, b->encoded, TRACE_BLOCK_RECORDS,
				 TRACE_RECORD_MAX_BYTES);
	if (trace_get32(entry + TRACE_AT_BLOCK_ZERO))
		return TRACE_BAD(r, error, at + TRACE_AT_BLOCK_ZERO, "not zero in a block's entry");
	return 0;
}

static int decode_blocks(struct trace_reader *r, const uint8_t *index, struct trace_error *error)
{
	uint64_t offset = TRACE_HEADER_BYTES + trace_padded(r->provenance_bytes);
	uint64_t records = 0, encoded = 0;

	for (uint64_t i = 0; i < r->info.blocks; i++) {
		struct trace_block *b = &r->blocks[i];
		uint64_t at = i * TRACE_INDEX_BYTES;
		int err = decode_block_entry(r, index + at, r->index_offset + at, offset, b, error);

		if (err)
			return err;
		offset += b->stored;
		records += b->records;
		encoded += b->encoded;
	}
	if (offset != r->index_offset)
		return TRACE_BAD(r, error, offset, "bytes between the last block and the index");
	if (records != r->info.records || encoded != r->info.encoded_bytes)
		return TRACE_BAD(r, error, TRACE_AT_RECORDS,
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
			return TRACE_BAD(r, error, offset, "a torn region");
		if (gap > PAGE_NUMBERS - page || length == 0 ||
		    length > PAGE_NUMBERS - page - gap || (*at & ~GN_RWX) || !(*at & GN_R))
			return TRACE_BAD(r, error, offset,
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
		return TRACE_BAD(r, error, r->index_offset + (uint64_t)(at - index),
				 "bytes after the last region");
	if (pages != r->info.pages || large_pages != r->info.large_pages)
		return TRACE_BAD(r, error, TRACE_AT_PAGES,
				 "the header counts %" PRIu64 " and %" PRIu64
				 " pages, the regions %" PRIu64 " and %" PRIu64,
				 r->info.pages, r->info.large_pages, pages, large_pages);
	return 0;
}

static int read_index(struct trace_reader *r, struct trace_error *error)
{
	uint8_t *index = malloc(r->index_bytes + 1);
	int err;

	r->blocks = calloc(r->info.blocks + 1, sizeof(*r->blocks));
	r->regions = calloc(r->info.regions + 1, sizeof(*r->regions));
	if (!index || !r->blocks || !r->regions) {
		err = trace_no_memory(r, error);
		goto out;
	}
	err = trace_read_at(r, r->index_offset, index, r->index_bytes, error);
	if (err)
		goto out;
	if (trace_checksum_differs(r, r->index_checksum, XXH64(index, r->index_bytes, 0)))
		err = TRACE_BAD(r, error, r->index_offset, "corrupt: the index fails its checksum");
	if (!err)
		err = decode_blocks(r, index, error);
	if (!err)
		err = decode_regions(r, index, error);
out:
	free(index);
	return err;
}

int trace_read_head(struct trace_reader *r, struct trace_error *error)
{
	int err = read_header(r, error);

	return err ? err : read_index(r, error);
}
