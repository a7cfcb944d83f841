/* SPDX-License-Identifier: MIT */
/*
 * trace_codec.c - records to bytes and back: the same records, and nothing but what was encoded is taken.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "support/trace_forge.h"
#include "workloads/trace_codec.h"

#define SEED	      0x7ace
#define CODEC_RECORDS 20000

static size_t encode_all(const struct trace_record *records, size_t count, uint8_t *to)
{
	struct trace_codec codec = { 0 };
	uint8_t *end = to;

	for (size_t i = 0; i < count; i++) {
		uint8_t *next = trace_encode(&codec, &records[i], end);

		cr_assert_leq(next - end, TRACE_RECORD_MAX_BYTES);
		end = next;
	}
	return (size_t)(end - to);
}

Test(trace_codec, random_records_come_back)
{
	uint8_t *bytes = malloc((size_t)CODEC_RECORDS * TRACE_RECORD_MAX_BYTES);
	struct trace_record *back = calloc(CODEC_RECORDS, sizeof(*back));
	uint64_t by_kind[TRACE_KINDS] = { 0 };

	for (unsigned round = 0; round < 10; round++) {
		struct trace_record *records = forge_records(SEED + round, CODEC_RECORDS);
		size_t at, size = encode_all(records, CODEC_RECORDS, bytes);
		const char *why;

		cr_assert_eq(trace_decode(bytes, size, back, CODEC_RECORDS, &at, &why), 0,
			     "seed %d: %s", SEED + round, why);
		for (size_t i = 0; i < CODEC_RECORDS; i++) {
			cr_assert(forge_same(&records[i], &back[i]), "seed %d, record %zu",
				  SEED + round, i);
			by_kind[records[i].kind]++;
		}
		free(records);
	}
	for (unsigned kind = 1; kind < TRACE_KINDS; kind++)
		cr_assert_gt(by_kind[kind], 100, "%s is hardly tested",
			     trace_kind_desc(kind)->name);
	free(bytes);
	free(back);
}

Test(trace_codec, extremes_come_back)
{
	static const struct trace_record extremes[] = {
		{ .kind = TRACE_LOAD, .address = 0, .size = 1 },
		{ .kind = TRACE_STORE, .address = UINT64_MAX, .size = 1 },
		{ .kind = TRACE_LOAD, .address = UINT64_MAX / 2, .size = TRACE_ACCESS_MAX },
		{ .kind = TRACE_MODIFY, .address = UINT64_MAX / 2 + 1, .size = 8 },
		{ .kind = TRACE_FETCH, .address = 0, .size = 0 },
		{ .kind = TRACE_FETCH, .address = UINT64_MAX - 63, .size = UINT32_MAX },
		{ .kind = TRACE_FETCH, .address = UINT64_MAX / 2 - 63, .size = 14 },
		{ .kind = TRACE_FETCH, .address = 64, .size = 15 },
		{ .kind = TRACE_MARK, .value = UINT64_MAX },
		{ .kind = TRACE_CR3, .value = UINT64_MAX },
		{ .kind = TRACE_MMAP, .address = 0, .value = UINT64_MAX - 4095, .size = 7 },
		{ .kind = TRACE_MUNMAP, .address = UINT64_MAX - 4095, .value = 4096 },
		{ .kind = TRACE_P2M, .address = 0, .value = UINT64_MAX, .size = 5 },
		{ .kind = TRACE_INVPCID, .address = UINT64_MAX, .value = 4095, .size = 3 },
	};
	enum { COUNT = sizeof(extremes) / sizeof(extremes[0]) };
	uint8_t bytes[COUNT * TRACE_RECORD_MAX_BYTES];
	struct trace_record back[COUNT];
	const char *why;
	size_t at;

	for (size_t i = 0; i < COUNT; i++)
		cr_assert_null(trace_record_flaw(&extremes[i]), "record %zu", i);
	cr_assert_eq(
		trace_decode(bytes, encode_all(extremes, COUNT, bytes), back, COUNT, &at, &why), 0);
	for (size_t i = 0; i < COUNT; i++)
		cr_assert(forge_same(&extremes[i], &back[i]), "record %zu", i);
}

Test(trace_codec, near_references_take_two_bytes)
{
	struct trace_codec codec = { 0 };
	uint8_t bytes[TRACE_RECORD_MAX_BYTES];
	struct trace_record stack = { .kind = TRACE_STORE, .address = 0x1fff000708, .size = 8 };
	struct trace_record heap = { .kind = TRACE_LOAD, .address = 0x4a5b000, .size = 4 };

	trace_encode(&codec, &stack, bytes);
	trace_encode(&codec, &heap, bytes);
	for (unsigned i = 0; i < 20; i++) {
		stack.address -= 8;
		heap.address += 16;
		cr_assert_eq(trace_encode(&codec, &stack, bytes) - bytes, 2);
		cr_assert_eq(trace_encode(&codec, &heap, bytes) - bytes, 2);
	}
}

/* Each record is refused by its own rule. */
Test(trace_codec, flaws_are_named)
{
	static const struct {
		struct trace_record record;
		const char *part;
	} cases[] = {
		{ { .kind = TRACE_NONE }, "kind" },
		{ { .kind = TRACE_KINDS }, "kind" },
		{ { .kind = 255 }, "kind" },
		{ { .kind = TRACE_LOAD, .address = 8 }, "size" },
		{ { .kind = TRACE_LOAD, .address = 8, .size = TRACE_ACCESS_MAX + 1 }, "size" },
		{ { .kind = TRACE_LOAD, .address = 8, .size = 8, .value = 1 }, "field" },
		{ { .kind = TRACE_STORE, .address = UINT64_MAX - 6, .size = 8 }, "wraps" },
		{ { .kind = TRACE_FETCH, .address = 65 }, "line" },
		{ { .kind = TRACE_MMAP, .address = 4096, .value = 100, .size = 3 }, "whole pages" },
		{ { .kind = TRACE_MMAP, .address = 4096, .value = 0, .size = 3 }, "empty" },
		{ { .kind = TRACE_MMAP, .address = 4096, .value = 4096, .size = 8 }, "size" },
		{ { .kind = TRACE_MUNMAP, .address = UINT64_MAX - 4095, .value = 8192 }, "wraps" },
		{ { .kind = TRACE_MARK, .address = 1, .value = 1 }, "field" },
		{ { .kind = TRACE_CR, .address = 3, .value = 1 }, "control register" },
		{ { .kind = TRACE_INVPCID, .size = 4 }, "size" },
		{ { .kind = TRACE_TABLE_WRITE, .address = 4, .value = 1 }, "multiple of 8" },
		{ { .kind = TRACE_P2M, .address = 4, .value = 0 }, "empty" },
		{ { .kind = TRACE_P2M, .address = 4, .value = UINT64_MAX }, "wraps" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *flaw = trace_record_flaw(&cases[i].record);

		cr_assert(flaw && strstr(flaw, cases[i].part), "case %zu: \"%s\" lacks \"%s\"", i,
			  flaw ? flaw : "no flaw", cases[i].part);
	}
}

Test(trace_codec, hostile_bytes_are_refused)
{
	static const struct {
		const char *bytes;
		size_t size, records;
		const char *part;
	} cases[] = {
		{ "", 0, 1, "torn" },
		{ "\x01", 1, 1, "torn" },	  /* no address */
		{ "\x01\x80", 2, 1, "torn" },	  /* in a varint */
		{ "\xc1\x02", 2, 1, "torn" },	  /* no size */
		{ "\xc1\x02\x00", 3, 1, "size" }, /* a load of 0 bytes */
		{ "\x01\x02\x00", 3, 1, "after the last" },
		{ "\x00\x02", 2, 1, "kind" },
		{ "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11, 1, "torn" }, /* 65 bits */
		{ "\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 12, 1,
		  "torn" },					  /* 11 bytes */
		{ "\x01\x01", 2, 1, "wraps" },			  /* 8 bytes at -1 */
		{ "\xf4\x02\xff\xff\xff\xff\x7f", 7, 1, "torn" }, /* size of 35 bits */
		{ "\x85\x00\x80\x20", 4, 1, "size" },		  /* rights 8 */
		{ "\x0f\x00\x05", 3, 1, NULL },
	};
	struct trace_record record;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *why = NULL;
		size_t at = 0;
		int err = trace_decode((const uint8_t *)cases[i].bytes, cases[i].size, &record,
				       cases[i].records, &at, &why);

		if (!cases[i].part) {
			cr_assert_eq(err, 0, "case %zu", i);
			continue;
		}
		cr_assert_eq(err, -EBADMSG, "case %zu", i);
		cr_assert(strstr(why, cases[i].part), "case %zu: %s", i, why);
		cr_assert_leq(at, cases[i].size);
	}
}

Test(trace_codec, random_bytes_never_overrun)
{
	struct test_random random = test_random_seed(SEED);
	struct trace_record records[64], back[64];

	for (unsigned i = 0; i < 200000; i++) {
		size_t size = test_random_next(&random) % 48,
		       count = test_random_next(&random) % 24;
		uint8_t *bytes = malloc(size + 1); /* of its own, for ASan to see the end */
		uint8_t again[64 * TRACE_RECORD_MAX_BYTES];
		const char *why;
		size_t at;

		for (size_t b = 0; b < size; b++)
			bytes[b] = (uint8_t)(test_random_next(&random) & (i & 1 ? 0xff : 0x7f));
		if (trace_decode(bytes, size, records, count, &at, &why) == 0) {
			cr_assert_eq(trace_decode(again, encode_all(records, count, again), back,
						  count, &at, &why),
				     0);
			for (size_t r = 0; r < count; r++)
				cr_assert(forge_same(&records[r], &back[r]));
		}
		free(bytes);
	}
}
