/* SPDX-License-Identifier: MIT */
/*
 * trace_codec.h - records to bytes and back, within one block.
 *
 * Each record is a tag byte and varints (7 bits a byte, low first, at most 10 bytes):
 *
 *     load, store, modify   tag = kind | base << 4 | code << 6; varint zigzag(address - bases[base]);
 *                           varint size if code is 3 (codes 0, 1, 2 mean 8, 4, 1 bytes)
 *     fetch                 tag = kind | n << 4; varint zigzag(line - last line), in lines of 64 bytes;
 *                           varint size if n is 15, else n is the size
 *     others                tag = kind | n << 4; varint zigzag(address - last such address) if the kind
 *                           has an address; varint value if it has one; size as for fetch
 *
 * The four bases are recent data addresses, the last used first: programs alternate between a stack
 * frame and a few heap objects, and the nearest of four makes nearly all deltas short. An address within
 * TRACE_NEAR_BYTES of its base replaces it, a farther one pushes out the oldest.
 */
#ifndef GN_WORKLOADS_TRACE_CODEC_H
#define GN_WORKLOADS_TRACE_CODEC_H

#include "trace_format.h"

#define TRACE_BASES	       4
#define TRACE_NEAR_BYTES       65536
#define TRACE_RECORD_MAX_BYTES 32 /* tag, three varints, rounded up */

struct trace_codec {
	uint64_t bases[TRACE_BASES];
	uint64_t line;
	uint64_t other;
};

/* Encode a flawless @record at @to (room for TRACE_RECORD_MAX_BYTES); the end of what was written.
 * A zeroed codec starts a block. */
uint8_t *trace_encode(struct trace_codec *codec, const struct trace_record *record, uint8_t *to);

/* Decode exactly @count records from exactly @bytes bytes. 0; -EBADMSG with *at the byte where it went
 * wrong and *why (static text). */
int trace_decode(const uint8_t *from, size_t bytes, struct trace_record *records, size_t count,
		 size_t *at, const char **why);

uint8_t *trace_put_varint(uint8_t *to, uint64_t value);
/* The byte after the varint; NULL: torn at @end or larger than 64 bits. */
const uint8_t *trace_get_varint(const uint8_t *from, const uint8_t *end, uint64_t *value);

#endif
