/* SPDX-License-Identifier: MIT */
/*
 * trace_reader_state.h - a reader from the inside, shared by its two parts: trace_head.c checks what stands
 * around the blocks (header, index, trailer), trace_reader.c opens, and reads the blocks.
 */
#ifndef GN_WORKLOADS_TRACE_READER_STATE_H
#define GN_WORKLOADS_TRACE_READER_STATE_H

#include <errno.h>
#include <inttypes.h>
#include <zstd.h>

#include "trace_format.h"

struct trace_block {
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
	uint64_t index_offset, index_bytes, index_checksum, header_checksum;
	char *provenance;
	struct trace_block *blocks;
	struct trace_region *regions;

	uint64_t next_block;
	bool from_start; /* every block since the first was read: totals can be compared */
	uint64_t seen_by_kind[TRACE_KINDS];
	struct trace_record *records;
	uint8_t *stored, *encoded;
	ZSTD_DCtx *zstd;
};

/* A fault of the file at a byte of it: -EBADMSG. */
#define TRACE_BAD(r, error, offset, format, ...)                                                   \
	trace_fail(error, -EBADMSG, "%s: byte %" PRIu64 ": " format, (r)->name,                    \
		   (uint64_t)(offset)__VA_OPT__(, ) __VA_ARGS__)

int trace_no_memory(const struct trace_reader *reader, struct trace_error *error);
/* @bytes at @offset of the file; outside of it: -EBADMSG. */
int trace_read_at(struct trace_reader *reader, uint64_t offset, void *to, size_t bytes,
		  struct trace_error *error);
static inline bool trace_checksum_differs(const struct trace_reader *reader, uint64_t stored,
					  uint64_t computed)
{
	return !reader->trust_checksums && stored != computed;
}

/* Read and check everything but the blocks; fills info, provenance, blocks and regions, which are the
 * reader's to free also on failure. */
int trace_read_head(struct trace_reader *reader, struct trace_error *error);

#endif
