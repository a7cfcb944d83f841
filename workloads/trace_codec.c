/* SPDX-License-Identifier: MIT */
/*
 * trace_codec.c - see trace_codec.h for the encoding.
 *
 * Encoder and decoder keep the same predictors by the same function (remember), so they cannot drift
 * apart. The decoder trusts nothing: each record it hands out has passed trace_record_flaw().
 */
#include "trace_codec.h"

#include <errno.h>
#include <string.h>

#define SIZE_CODE_EXPLICIT 3
#define NIBBLE_EXPLICIT	   15

static const uint32_t size_of_code[SIZE_CODE_EXPLICIT] = { 8, 4, 1 };

static uint64_t zigzag(uint64_t delta)
{
	return (delta << 1) ^ (uint64_t)((int64_t)delta >> 63);
}

static uint64_t unzigzag(uint64_t coded)
{
	return (coded >> 1) ^ (0 - (coded & 1));
}

uint8_t *trace_put_varint(uint8_t *to, uint64_t value)
{
	while (value >= 0x80) {
		*to++ = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	*to++ = (uint8_t)value;
	return to;
}

const uint8_t *trace_get_varint(const uint8_t *from, const uint8_t *end, uint64_t *value)
{
	uint64_t result = 0;

	for (unsigned shift = 0; shift < 64 && from < end; shift += 7) {
		uint8_t byte = *from++;

		if (shift == 63 && byte > 1)
			return NULL;
		result |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*value = result;
			return from;
		}
	}
	return NULL;
}

static void remember(struct trace_codec *codec, unsigned base, uint64_t address)
{
	uint64_t distance = zigzag(address - codec->bases[base]) >> 1;
	unsigned slot = distance < TRACE_NEAR_BYTES ? base : TRACE_BASES - 1;

	for (; slot > 0; slot--)
		codec->bases[slot] = codec->bases[slot - 1];
	codec->bases[0] = address;
}

static unsigned nearest_base(const struct trace_codec *codec, uint64_t address, uint64_t *delta)
{
	unsigned best = 0;

	*delta = zigzag(address - codec->bases[0]);
	for (unsigned i = 1; i < TRACE_BASES && *delta >= 64; i++) {
		uint64_t other = zigzag(address - codec->bases[i]);

		if (other < *delta) {
			*delta = other;
			best = i;
		}
	}
	return best;
}

static uint8_t *encode_access(struct trace_codec *codec, const struct trace_record *r, uint8_t *to)
{
	uint64_t delta;
	unsigned base = nearest_base(codec, r->address, &delta);
	unsigned code = 0;

	while (code < SIZE_CODE_EXPLICIT && size_of_code[code] != r->size)
		code++;
	*to++ = (uint8_t)(r->kind | base << 4 | code << 6);
	to = trace_put_varint(to, delta);
	if (code == SIZE_CODE_EXPLICIT)
		to = trace_put_varint(to, r->size);
	remember(codec, base, r->address);
	return to;
}

uint8_t *trace_encode(struct trace_codec *codec, const struct trace_record *r, uint8_t *to)
{
	const struct trace_kind_desc *desc = trace_kind_desc(r->kind);
	unsigned nibble = r->size < NIBBLE_EXPLICIT ? r->size : NIBBLE_EXPLICIT;

	if (r->kind <= TRACE_MODIFY)
		return encode_access(codec, r, to);
	*to++ = (uint8_t)(r->kind | nibble << 4);
	if (r->kind == TRACE_FETCH) {
		to = trace_put_varint(to, zigzag(r->address / TRACE_LINE_BYTES - codec->line));
		codec->line = r->address / TRACE_LINE_BYTES;
	} else {
		if (desc->has_address) {
			to = trace_put_varint(to, zigzag(r->address - codec->other));
			codec->other = r->address;
		}
		if (desc->has_value)
			to = trace_put_varint(to, r->value);
	}
	if (nibble == NIBBLE_EXPLICIT)
		to = trace_put_varint(to, r->size);
	return to;
}

/* ---- Decoding ------------------------------------------------------------------------------------ */

/* A varint that is mostly one or two bytes long. */
static inline const uint8_t *get(const uint8_t *from, const uint8_t *end, uint64_t *value)
{
	if (from < end && *from < 0x80) {
		*value = *from;
		return from + 1;
	}
	return trace_get_varint(from, end, value);
}

static const uint8_t *get_size(const uint8_t *from, const uint8_t *end, uint32_t *size)
{
	uint64_t wide;

	from = get(from, end, &wide);
	if (!from || wide > UINT32_MAX)
		return NULL;
	*size = (uint32_t)wide;
	return from;
}

static inline const uint8_t *decode_access(struct trace_codec *codec, uint8_t tag,
					   const uint8_t *from, const uint8_t *end,
					   struct trace_record *r)
{
	unsigned base = (tag >> 4) & (TRACE_BASES - 1), code = tag >> 6;
	uint64_t delta;

	from = get(from, end, &delta);
	if (!from)
		return NULL;
	r->address = codec->bases[base] + unzigzag(delta);
	remember(codec, base, r->address);
	if (code == SIZE_CODE_EXPLICIT)
		return get_size(from, end, &r->size);
	r->size = size_of_code[code];
	return from;
}

static const uint8_t *decode_other(struct trace_codec *codec, const uint8_t *from,
				   const uint8_t *end, struct trace_record *r)
{
	const struct trace_kind_desc *desc = trace_kind_desc(r->kind);
	uint64_t delta;

	if (desc && desc->has_address) {
		from = get(from, end, &delta);
		if (!from)
			return NULL;
		r->address = codec->other + unzigzag(delta);
		codec->other = r->address;
	}
	return desc && desc->has_value ? get(from, end, &r->value) : from;
}

static const uint8_t *decode_fetch(struct trace_codec *codec, const uint8_t *from,
				   const uint8_t *end, struct trace_record *r)
{
	uint64_t delta;

	from = get(from, end, &delta);
	if (!from)
		return NULL;
	codec->line += unzigzag(delta);
	r->address = codec->line * TRACE_LINE_BYTES;
	return codec->line > UINT64_MAX / TRACE_LINE_BYTES ? NULL : from;
}

static inline const uint8_t *decode_one(struct trace_codec *codec, const uint8_t *from,
					const uint8_t *end, struct trace_record *r)
{
	uint8_t tag = *from++;

	memset(r, 0, sizeof(*r));
	r->kind = tag & 15;
	if (r->kind >= TRACE_LOAD && r->kind <= TRACE_MODIFY)
		return decode_access(codec, tag, from, end, r);
	r->size = tag >> 4;
	if (r->kind == TRACE_FETCH)
		from = decode_fetch(codec, from, end, r);
	else
		from = decode_other(codec, from, end, r);
	if (from && r->size == NIBBLE_EXPLICIT)
		return get_size(from, end, &r->size);
	return from;
}

int trace_decode(const uint8_t *from, size_t bytes, struct trace_record *records, size_t count,
		 size_t *at, const char **why)
{
	struct trace_codec codec = { 0 };
	const uint8_t *start = from, *end = from + bytes;

	for (size_t i = 0; i < count; i++) {
		const uint8_t *next =
			from < end ? decode_one(&codec, from, end, &records[i]) : NULL;

		*at = (size_t)(from - start);
		*why = next ? trace_record_flaw(&records[i]) : "a torn record";
		if (*why)
			return -EBADMSG;
		from = next;
	}
	*at = (size_t)(from - start);
	*why = "bytes after the last record";
	return from == end ? 0 : -EBADMSG;
}
