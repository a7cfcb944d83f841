/* SPDX-License-Identifier: MIT */
/*
 * trace_bytes.h - little-endian fields of a trace file, at any alignment.
 */
#ifndef GN_WORKLOADS_TRACE_BYTES_H
#define GN_WORKLOADS_TRACE_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t trace_get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

static inline uint32_t trace_get32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static inline void trace_put64(uint8_t *at, uint64_t value)
{
	value = htole64(value);
	memcpy(at, &value, sizeof(value));
}

static inline void trace_put32(uint8_t *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

#endif
