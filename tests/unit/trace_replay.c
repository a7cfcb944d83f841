/* SPDX-License-Identifier: MIT */
/*
 * trace_replay.c - what a replayed record becomes, operation by operation.
 *
 * The CPU and the guest kernel below the replayer are stand-ins of this file: they write down what they
 * are told, and keep just enough memory to answer loads, rightly or, on purpose, wrongly.
 */
#include <criterion/criterion.h>
#include <stdarg.h>

#include "support/trace_forge.h"
#include "workloads/cpu.h"
#include "workloads/kernel.h"
#include "workloads/list.h"

#define MEM_BYTES ((uint64_t)64 << 20)
#define WORDS	  65536

static struct {
	char text[8192]; /* one letter and arguments per operation */
	size_t length;
	uint64_t refs, loads, stores, plain;
	unsigned forks;
	int pid;
	bool wrong; /* answer loads wrongly */
	bool refuse_mmap;
	struct {
		uint64_t va, value;
		int pid;
	} words[WORDS];
} world;

static void note(const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(world.text + world.length, sizeof(world.text) - world.length, format, args);
	va_end(args);
	if (n > 0 && world.length + (size_t)n < sizeof(world.text))
		world.length += (size_t)n;
	world.text[world.length] = '\0';
}

static size_t word_of(uint64_t va)
{
	size_t i = (size_t)(va >> 3) % WORDS;

	while (world.words[i].va && (world.words[i].va != va || world.words[i].pid != world.pid))
		i = (i + 1) % WORDS;
	return i;
}

uint64_t cpu_load64(uint64_t va)
{
	size_t i = word_of(va);

	cr_assert(world.words[i].va, "a checked word was never stored");
	world.loads++;
	return world.words[i].value ^ world.wrong;
}

void cpu_store64(uint64_t va, uint64_t value)
{
	size_t i = word_of(va);

	world.words[i].va = va;
	world.words[i].pid = world.pid;
	world.words[i].value = value;
	world.stores++;
	note("s%" PRIx64 " ", va);
}

void cpu_refs(const struct cpu_ref *refs, size_t count)
{
	world.refs += count;
	for (size_t i = 0; i < count; i++)
		note("%c%" PRIx64 " ", "RWX"[refs[i].kind], (uint64_t)refs[i].va);
}

void cpu_compute(uint64_t count)
{
	world.plain += count;
}

void cpu_measure(void)
{
	note("| ");
}

void cpu_progress(uint64_t done, uint64_t total)
{
	cr_assert_leq(done, total);
}

void sys_tick(void)
{
}

int sys_getpid(void)
{
	return world.pid;
}

uint64_t sys_mmap(uint64_t hint, uint64_t bytes, unsigned prot, unsigned flags)
{
	cr_assert_eq(flags, K_MAP_FIXED);
	note("mmap(%" PRIx64 ",%" PRIx64 ",%u) ", hint, bytes, prot);
	return world.refuse_mmap ? 0 : hint;
}

int sys_munmap(uint64_t va, uint64_t bytes)
{
	note("munmap(%" PRIx64 ",%" PRIx64 ") ", va, bytes);
	return 0;
}

int sys_mprotect(uint64_t va, uint64_t bytes, unsigned prot)
{
	note("mprotect(%" PRIx64 ",%" PRIx64 ",%u) ", va, bytes, prot);
	return 0;
}

int sys_automap(bool on)
{
	note("automap%d ", on);
	return 0;
}

int sys_fork(void)
{
	note("fork ");
	return 10 + (int)world.forks++;
}

int sys_switch(int pid)
{
	note("switch%d ", pid);
	world.pid = pid;
	return 0;
}

static int replay(const struct trace_record *records, size_t count, uint32_t flags,
		  struct workload_params params, const char **why)
{
	char path[64];
	int err;

	memset(&world, 0, sizeof(world));
	world.pid = 1;
	forge_path(path);
	cr_assert_eq(forge_file(path, records, count, "", flags), 0);
	if (!params.argument)
		params.argument = path;
	if (!params.mem_bytes)
		params.mem_bytes = MEM_BYTES;
	if (!params.levels)
		params.levels = 4;
	err = workload_trace.run(&params, why);
	unlink(path);
	return err;
}

#define REPLAY(records, flags, why)                                                                \
	replay(records, sizeof(records) / sizeof((records)[0]), flags,                             \
	       (struct workload_params){ 0 }, why)

Test(trace_replay, a_plain_trace_maps_its_regions_and_makes_its_references)
{
	static const struct trace_record records[] = {
		{ .kind = TRACE_FETCH, .address = 0x400000, .size = 5 },
		{ .kind = TRACE_LOAD, .address = 0x7004, .size = 4 },
		{ .kind = TRACE_STORE, .address = 0x8ffe, .size = 4 }, /* 0x8 and 0x9 */
		{ .kind = TRACE_MODIFY, .address = 0x9010, .size = 8 },
		{ .kind = TRACE_MARK, .value = 1 },
		{ .kind = TRACE_INVLPG, .address = 0x9000 },
		{ .kind = TRACE_FETCH, .address = 0x400040, .size = 2 },
	};
	const char *why = "";

	cr_assert_eq(REPLAY(records, 0, &why), 0, "%s", why);
	cr_assert_str_eq(world.text, "mmap(7000,3000,3) mmap(400000,1000,5) automap1 | "
				     "X400000 R7004 s8ff8 s9000 R9010 W9010 X400040 ");
	cr_assert_eq(world.plain, 7);
	cr_assert_eq(world.loads, 2, "each stored word is checked at the end");
}

Test(trace_replay, mapping_records_become_system_calls)
{
	static const struct trace_record records[] = {
		{ .kind = TRACE_BRK, .address = 0x600000 },
		{ .kind = TRACE_MMAP, .address = 0x10000, .value = 0x4000, .size = GN_R | GN_W },
		{ .kind = TRACE_STORE, .address = 0x10008, .size = 8 },
		{ .kind = TRACE_MPROTECT, .address = 0x10000, .value = 0x1000, .size = GN_R },
		{ .kind = TRACE_LOAD, .address = 0x10008, .size = 8 },
		{ .kind = TRACE_MUNMAP, .address = 0x10000, .value = 0x4000 },
		{ .kind = TRACE_BRK, .address = 0x601800 },
		{ .kind = TRACE_STORE, .address = 0x601000, .size = 1 },
		{ .kind = TRACE_BRK, .address = 0x600800 },
	};
	const char *why = "";

	cr_assert_eq(REPLAY(records, TRACE_FLAG_MAPPINGS, &why), 0, "%s", why);
	cr_assert_str_eq(world.text, "| mmap(10000,4000,3) s10008 mprotect(10000,1000,1) R10008 "
				     "munmap(10000,4000) mmap(600000,2000,3) s601000 "
				     "munmap(601000,1000) ");
	cr_assert_eq(world.loads, 0, "unmapped words are not checked");
}

Test(trace_replay, cr3_records_become_context_switches)
{
	static const struct trace_record records[] = {
		{ .kind = TRACE_CR3, .value = 0x1000 },
		{ .kind = TRACE_STORE, .address = 0x7000, .size = 8 },
		{ .kind = TRACE_CR3, .value = 0x2000 },
		{ .kind = TRACE_STORE, .address = 0x7000, .size = 8 },
		{ .kind = TRACE_CR3, .value = 0x2000 },
		{ .kind = TRACE_CR3, .value = 0x1000 },
		{ .kind = TRACE_LOAD, .address = 0x7000, .size = 8 },
	};
	struct trace_record many[65];
	const char *why = "";

	cr_assert_eq(REPLAY(records, 0, &why), 0, "%s", why);
	cr_assert(strstr(world.text, "| s7000 fork switch10 s7000 switch1 R7000 "), "%s",
		  world.text);
	cr_assert_eq(world.loads, 2, "each process's word is checked at the end");
	for (unsigned i = 0; i < 65; i++)
		many[i] = (struct trace_record){ .kind = TRACE_CR3, .value = i * 4096 };
	cr_assert_eq(REPLAY(many, 0, &why), -1);
	cr_assert(strstr(why, "64 values"), "%s", why);
}

/* Many pages, many loads: the checks find a CPU that answers wrongly, and change no count. */
Test(trace_replay, a_wrong_word_is_found)
{
	enum { PAGES = 600, ROUNDS = 40, COUNT = PAGES * ROUNDS };
	struct trace_record *records = calloc(COUNT, sizeof(*records));
	const char *why = "";

	for (unsigned i = 0; i < COUNT; i++)
		records[i] = (struct trace_record){ .kind = i < PAGES ? TRACE_STORE : TRACE_LOAD,
						    .address = 0x100000 + i % PAGES * 4096 +
							       i / PAGES * 8,
						    .size = 8 };
	cr_assert_eq(replay(records, COUNT, 0, (struct workload_params){ 0 }, &why), 0, "%s", why);
	cr_assert_geq(world.stores, PAGES / 2);
	cr_assert_gt(world.loads, COUNT / 1024);
	for (unsigned limit = 0; limit < 2; limit++) {
		char path[64];

		forge_path(path);
		cr_assert_eq(forge_file(path, records, COUNT, "", 0), 0);
		memset(&world, 0, sizeof(world));
		world.pid = 1;
		world.wrong = true;
		cr_assert_eq(
			workload_trace.run(&(struct workload_params){ .argument = path,
								      .mem_bytes = MEM_BYTES,
								      .levels = 4,
								      .size = limit ? PAGES : 0 },
					   &why),
			-1);
		cr_assert(strstr(why, "wrong translation"), "%s", why);
		cr_assert_eq(world.loads, 1);
		unlink(path);
	}
	free(records);
}

Test(trace_replay, a_limit_of_records_is_kept)
{
	struct trace_record *records = calloc(1000, sizeof(*records));
	const char *why = "";

	for (unsigned i = 0; i < 1000; i++)
		records[i] =
			(struct trace_record){ .kind = TRACE_LOAD, .address = 0x1000, .size = 1 };
	for (uint64_t size = 1; size < 1500; size += 499) {
		cr_assert_eq(
			replay(records, 1000, 0, (struct workload_params){ .size = size }, &why),
			0);
		cr_assert_eq(world.refs, size < 1000 ? size : 1000);
	}
	free(records);
}

Test(trace_replay, what_cannot_be_replayed_is_told_in_one_line)
{
	static const struct trace_record null[] = {
		{ .kind = TRACE_LOAD, .address = 8, .size = 8 }
	};
	static const struct trace_record kernel[] = {
		{ .kind = TRACE_LOAD, .address = 0xffff888000000000, .size = 8 }
	};
	static const struct trace_record fine[] = {
		{ .kind = TRACE_LOAD, .address = 0x1000, .size = 8 }
	};
	struct trace_record *big = calloc(20000, sizeof(*big));
	struct workload_params params = { .size = 100 };
	const char *why = "";

	cr_assert_eq(REPLAY(null, 0, &why), -1);
	cr_assert(strstr(why, "address 0,"), "%s", why);
	cr_assert_eq(REPLAY(kernel, 0, &why), -1);
	cr_assert(strstr(why, "0xffff888000000000"), "%s", why);
	cr_assert_eq(
		replay(fine, 1, 0, (struct workload_params){ .argument = "/nonexistent" }, &why),
		-1);
	cr_assert(strstr(why, "/nonexistent: cannot open"), "%s", why);
	cr_assert_eq(replay(fine, 1, 0, (struct workload_params){ .argument = "" }, &why), -1);
	cr_assert(strstr(why, "trace:FILE"), "%s", why);
	for (unsigned i = 0; i < 20000; i++)
		big[i] = (struct trace_record){ .kind = TRACE_LOAD,
						.address = 0x100000 + (uint64_t)i * 4096,
						.size = 8 };
	cr_assert_eq(replay(big, 20000, 0, (struct workload_params){ 0 }, &why), -1);
	cr_assert(strstr(why, "touches 78 MiB, guest RAM is 64 MiB"), "%s", why);
	cr_assert_eq(replay(big, 20000, 0, params, &why), 0, "%s", why);
	free(big);
}

Test(trace_replay, a_corrupt_trace_ends_the_guest)
{
	size_t bytes;
	uint8_t *all = forge_bytes(1, 70000, &bytes);
	struct workload_params params = { .mem_bytes = (uint64_t)1 << 40, .levels = 5 };
	const char *why = "";
	char path[64];
	FILE *f;

	all[TRACE_HEADER_BYTES + 1000] ^= 1;
	forge_path(path);
	f = fopen(path, "wb");
	fwrite(all, 1, bytes, f);
	fclose(f);
	params.argument = path;
	memset(&world, 0, sizeof(world));
	cr_assert_eq(workload_trace.run(&params, &why), -1);
	cr_assert(strstr(why, "which no user process") || strstr(why, "checksum"), "%s", why);
	unlink(path);
	free(all);
}
