/* SPDX-License-Identifier: MIT */
/*
 * trace_layout.h - where the fields of header, index entry and trailer stand. The table of
 * trace_format.h in code; writer and reader share it.
 */
#ifndef GN_WORKLOADS_TRACE_LAYOUT_H
#define GN_WORKLOADS_TRACE_LAYOUT_H

#include <assert.h>

#include "trace_format.h"

enum trace_header_field {
	TRACE_AT_MAGIC = 0,
	TRACE_AT_VERSION = 8,
	TRACE_AT_FLAGS = 12,
	TRACE_AT_PROVENANCE_BYTES = 16,
	TRACE_AT_RECORDER = 20,
	TRACE_AT_RECORDS = 24,
	TRACE_AT_BLOCKS = 32,
	TRACE_AT_INDEX = 40,
	TRACE_AT_INDEX_BYTES = 48,
	TRACE_AT_REGIONS = 56,
	TRACE_AT_ENCODED_BYTES = 64,
	TRACE_AT_PAGES = 72,
	TRACE_AT_LARGE_PAGES = 80,
	TRACE_AT_INSTRUCTIONS = 88,
	TRACE_AT_BY_KIND = 96,
	TRACE_AT_ZERO = 224,
	TRACE_AT_CHECKSUM = 248
};
static_assert(TRACE_KINDS <= (TRACE_AT_ZERO - TRACE_AT_BY_KIND) / 8, "a kind has no counter");
static_assert(TRACE_KINDS <= 16, "a kind must fit the tag's low nibble");
static_assert(TRACE_AT_CHECKSUM + 8 == TRACE_HEADER_BYTES, "the checksum ends the header");

enum trace_index_field {
	TRACE_AT_BLOCK = 0,
	TRACE_AT_BLOCK_CHECKSUM = 8,
	TRACE_AT_BLOCK_STORED = 16,
	TRACE_AT_BLOCK_ENCODED = 20,
	TRACE_AT_BLOCK_RECORDS = 24,
	TRACE_AT_BLOCK_ZERO = 28
};

enum trace_trailer_field {
	TRACE_AT_END_MAGIC = 0,
	TRACE_AT_FILE_BYTES = 8,
	TRACE_AT_INDEX_CHECKSUM = 16,
	TRACE_AT_HEADER_CHECKSUM = 24,
	TRACE_AT_END_CHECKSUM = 32
};

static inline uint64_t trace_padded(uint64_t provenance_bytes)
{
	return (provenance_bytes + 7) & ~(uint64_t)7;
}

#endif
