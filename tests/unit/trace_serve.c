/* SPDX-License-Identifier: MIT */
/*
 * trace_serve.c - a trace handed to a guest in pieces is the trace, and no request of a guest does harm.
 */
#include <criterion/criterion.h>

#include <gnomon/guest.h>
#include <gnomon/schemes.h>

#include "support/trace_forge.h"
#include "workloads/guest/trace_feed.h"
#include "workloads/trace_serve.h"
#include "workloads/trace_source.h"

#define MEM_BYTES ((uint64_t)64 << 20)
#define COUNT	  70000 /* more than a block */

static struct trace_record *records;
static char path[64];
static const char *why;

static void make(void)
{
	records = calloc(COUNT, sizeof(*records));
	for (uint64_t i = 0; i < COUNT; i++)
		records[i] = (struct trace_record){ .kind = TRACE_LOAD,
						    .size = 8,
						    .address = 0x10000 + i * 8 % 0x80000 };
	forge_path(path);
	cr_assert_eq(forge_file(path, records, COUNT, "", 0), 0);
}

static void unmake(void)
{
	unlink(path);
	free(records);
}

static uint64_t ask(struct trace_serve **serve, uint64_t what, void *buffer, size_t bytes,
		    uint64_t reserved)
{
	const struct workload_params params = { .mem_bytes = MEM_BYTES,
						.levels = 4,
						.argument = path };

	why = NULL;
	return trace_serve(serve, &params, reserved, what, buffer, bytes, &why);
}

static void read_all(struct trace_serve **serve, struct trace_record *buffer, size_t capacity)
{
	struct trace_feed_head head;
	uint64_t got, seen = 0;

	got = ask(serve, GN_GUEST_TRACE_OPEN, buffer, capacity * sizeof(*buffer), 0);
	memcpy(&head, buffer, sizeof(head));
	cr_assert_eq(got, sizeof(head) + head.regions * sizeof(struct trace_region), "%s", why);
	cr_assert(head.records == COUNT && head.flags == 0 && head.regions == 1);
	while ((got = ask(serve, GN_GUEST_TRACE_NEXT, buffer, capacity * sizeof(*buffer), 0))) {
		cr_assert_leq(got, capacity, "%s", why);
		for (uint64_t i = 0; i < got; i++)
			cr_assert(forge_same(&buffer[i], &records[seen + i]), "record %lu",
				  (unsigned long)(seen + i));
		seen += got;
	}
	cr_assert_eq(seen, COUNT);
}

Test(trace_serve, every_record_arrives_in_order, .init = make, .fini = unmake)
{
	static struct trace_record buffer[1000];
	struct trace_serve *serve = NULL;

	read_all(&serve, buffer, 1000);
	read_all(&serve, buffer, 7); /* opened again, from the start */
	trace_serve_close(serve);
}

Test(trace_serve, requests_out_of_order_or_out_of_range_are_refused, .init = make, .fini = unmake)
{
	static struct trace_record buffer[100];
	struct trace_serve *serve = NULL;

	cr_assert_eq(ask(&serve, GN_GUEST_TRACE_NEXT, buffer, sizeof(buffer), 0),
		     GN_GUEST_TRACE_FAILED);
	cr_assert_not_null(strstr(why, "before it opened"), "%s", why);
	cr_assert_eq(ask(&serve, 7, buffer, sizeof(buffer), 0), GN_GUEST_TRACE_FAILED);
	cr_assert_not_null(why);
	cr_assert_eq(ask(&serve, GN_GUEST_TRACE_OPEN, buffer, 8, 0), GN_GUEST_TRACE_FAILED);
	cr_assert_not_null(strstr(why, "too small"), "%s", why);
	cr_assert_eq(ask(&serve, GN_GUEST_TRACE_NEXT, buffer, 8, 0), 0, "room for no record");
	cr_assert_eq(ask(&serve, GN_GUEST_TRACE_OPEN, buffer, sizeof(buffer), MEM_BYTES),
		     GN_GUEST_TRACE_FAILED);
	cr_assert_not_null(strstr(why, "guest RAM"), "%s", why);
	cr_assert_eq(ask(&serve, GN_GUEST_TRACE_NEXT, buffer, sizeof(buffer), 0),
		     GN_GUEST_TRACE_FAILED, "a failed opening opens nothing");
	trace_serve_close(serve);
	trace_serve_close(NULL);
}

/* The hosted replayer closes what its thread left open; a trace being served is not its to close. */
Test(trace_serve, a_served_trace_is_nobody_elses, .init = make, .fini = unmake)
{
	static struct trace_record buffer[100];
	const struct workload_params params = { .mem_bytes = MEM_BYTES,
						.levels = 4,
						.argument = path };
	struct trace_serve *serve = NULL;
	struct trace_source *mine, *again;

	cr_assert_neq(ask(&serve, GN_GUEST_TRACE_OPEN, buffer, sizeof(buffer), 0),
		      GN_GUEST_TRACE_FAILED);
	cr_assert_eq(trace_source_open(&params, &mine, &why), 0);
	cr_assert_eq(trace_source_open(&params, &again, &why), 0);
	cr_assert_eq(ask(&serve, GN_GUEST_TRACE_NEXT, buffer, sizeof(buffer), 0), 100);
	cr_assert(forge_same(&buffer[99], &records[99]));
	trace_serve_close(serve);
	cr_assert_eq(trace_source_info(again)->records, COUNT);
	trace_source_close(again);
}

/* What a guest in a VM gets, wherever its buffer may lie. */
Test(trace_serve, answers_into_guest_memory_and_nowhere_else, .init = make, .fini = unmake)
{
	static const struct {
		uint64_t what, pa, bytes, result;
	} calls[] = {
		{ GN_GUEST_TRACE_NEXT, 0x200000, 4096, GN_GUEST_TRACE_FAILED },
		{ GN_GUEST_TRACE_OPEN, 0x200000, 4096,
		  sizeof(struct trace_feed_head) + sizeof(struct trace_region) },
		{ GN_GUEST_TRACE_NEXT, 0x200000, 24 * 24, 24 },
		{ GN_GUEST_TRACE_NEXT, MEM_BYTES - 8, 24 * 24, GN_GUEST_TRACE_FAILED },
		{ GN_GUEST_TRACE_NEXT, UINT64_MAX - 8, 24 * 24, GN_GUEST_TRACE_FAILED },
		{ GN_GUEST_TRACE_NEXT, 0x200000, UINT64_MAX, TRACE_BLOCK_RECORDS - 3 * 24 },
		{ UINT64_MAX, 0x200000, 4096, GN_GUEST_TRACE_FAILED },
	};
	const struct workload_params params = { .mem_bytes = MEM_BYTES,
						.levels = 4,
						.argument = path };
	const struct gn_vm_config config = { .scheme = "interp",
					     .mem_bytes = MEM_BYTES,
					     .vcpus = 1 };
	struct trace_serve *serve = NULL;
	struct gn_vm *vm;

	cr_assert_eq(gn_schemes_register_all(), 0);
	cr_assert_eq(gn_vm_create(&config, &vm), 0);
	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		struct gn_guest_boot boot = { .call_nr = calls[i].what,
					      .trace_pa = calls[i].pa,
					      .trace_bytes = calls[i].bytes };

		cr_assert_eq(gn_vm_write(vm, gpa(GN_GUEST_BOOT_PA), &boot, sizeof(boot)), 0);
		cr_assert_eq(trace_serve_call(&serve, &params, vm), 0);
		cr_assert_eq(gn_vm_read(vm, gpa(GN_GUEST_BOOT_PA), &boot, sizeof(boot)), 0);
		cr_assert_eq(boot.call_result, calls[i].result, "call %u: %lu, %s", i,
			     (unsigned long)boot.call_result, boot.why);
		cr_assert((boot.call_result == GN_GUEST_TRACE_FAILED) == (boot.why[0] != 0));
	}
	trace_serve_close(serve);
	gn_vm_destroy(vm);
}
