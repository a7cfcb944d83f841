/* SPDX-License-Identifier: MIT */
/*
 * trace_machine.c - traces replayed on the software machine under every registered scheme: self-checks pass,
 * audits are clean, memory ends the same, and the machine makes exactly the trace's references.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include <gnomon/schemes.h>

#include "support/trace_forge.h"
#include "workloads/hosted.h"

#define RAM_BYTES ((uint64_t)64 << 20)
#define PAGES	  700 /* of heap: more than the first-level TLBs have */
#define HEAP	  ((uint64_t)0x5555557a0000)
#define ARENA	  ((uint64_t)0x7fff10000000)
#define STACK	  ((uint64_t)0x7ffffffde000)
#define TEXT	  ((uint64_t)0x555555554000)

static int run(const char *scheme, const char *path, bool large, uint64_t size,
	       struct gn_counters *counters, uint64_t *sum, const char **why)
{
	struct gn_soft_config config = {
		.vm = { .scheme = scheme, .mem_bytes = RAM_BYTES, .vcpus = 1 }, .seed = 1
	};
	struct workload_params params = { .size = size,
					  .mem_bytes = RAM_BYTES,
					  .large_pages = large,
					  .pcid = large,
					  .levels = large ? 5 : 4,
					  .argument = path };
	struct gn_audit_report report;
	struct gn_soft *soft;
	int err;

	cr_assert_eq(gn_soft_create(&config, &soft), 0);
	err = workload_run_hosted(gn_soft_cpu(soft, 0), workload_find("trace:x"), &params, NULL,
				  NULL, why);
	cr_assert_eq(gn_audit(gn_soft_vm(soft), &report), 0, "%s: audit: %s", scheme, report.first);
	gn_soft_counters(soft, counters);
	*sum = gn_vm_memory_sum(gn_soft_vm(soft));
	gn_soft_destroy(soft);
	return err;
}

static void register_schemes(void)
{
	cr_assert_eq(gn_schemes_register_all(), 0);
}

/* Every scheme agrees with the first; its counters are @out. */
static void run_all(const char *path, bool large, struct gn_counters *out)
{
	uint64_t first_sum = 0;

	for (unsigned s = 0; gn_scheme_at(s); s++) {
		const char *scheme = gn_scheme_name(gn_scheme_at(s)), *why = "";
		struct gn_counters counters, again;
		uint64_t sum, sum_again;

		cr_assert_eq(run(scheme, path, large, 0, &counters, &sum, &why), 0, "%s: %s",
			     scheme, why);
		cr_assert_eq(run(scheme, path, large, 0, &again, &sum_again, &why), 0);
		cr_assert_eq(memcmp(&counters, &again, sizeof(again)), 0, "%s: not deterministic",
			     scheme);
		if (!s) {
			first_sum = sum;
			*out = counters;
		}
		cr_assert_eq(sum, first_sum, "%s: memory differs from the first scheme's", scheme);
		cr_assert_eq(counters.accesses, out->accesses, "%s makes other accesses", scheme);
	}
}

static struct trace_record program_record(struct test_random *random, unsigned i)
{
	uint64_t pick = test_random_next(random);

	switch (i % 4) {
	case 0:
		return (struct trace_record){ .kind = TRACE_FETCH,
					      .address = TEXT + pick % 2048 * 64,
					      .size = pick >> 60 };
	case 1:
		return (struct trace_record){ .kind = TRACE_STORE,
					      .address = STACK + pick % 8192,
					      .size = 8 };
	default:
		return (struct trace_record){ .kind = (uint8_t)(TRACE_LOAD + (pick >> 32) % 3),
					      .address = HEAP + pick % (PAGES * GN_PAGE_SIZE),
					      .size = 1u << (pick >> 40) % 4 };
	}
}

Test(trace_machine, a_program_under_every_scheme, .init = register_schemes, .timeout = 120)
{
	enum { COUNT = 60000 };
	struct trace_record *records = calloc(COUNT, sizeof(*records));
	struct test_random random = test_random_seed(0x9a2e);
	struct gn_counters small, large;
	char path[64];

	for (unsigned i = 0; i < COUNT; i++)
		records[i] = program_record(&random, i);
	forge_path(path);
	cr_assert_eq(forge_file(path, records, COUNT, "", 0), 0);
	run_all(path, false, &small);
	cr_assert_gt(small.accesses, COUNT);
	cr_assert_gt(small.guest_faults, PAGES, "every page is touched for the first time once");
	run_all(path, true, &large);
	cr_assert_lt(large.guest_faults, small.guest_faults);
	unlink(path);
	free(records);
}

/* Mappings come and go, and two processes take turns. */
Test(trace_machine, system_calls_and_switches_under_every_scheme, .init = register_schemes,
     .timeout = 120)
{
	enum { ROUNDS = 120, EACH = 40 };
	struct trace_record *records = calloc(ROUNDS * (EACH + 8), sizeof(*records));
	struct test_random random = test_random_seed(0xc0de);
	struct gn_counters counters;
	char path[64];
	size_t n = 0;

	records[n++] = (struct trace_record){ .kind = TRACE_CR3, .value = 0x1000 };
	records[n++] = (struct trace_record){ .kind = TRACE_BRK, .address = HEAP };
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t base = ARENA + round % 8 * 0x100000, bytes = 16 * GN_PAGE_SIZE;

		records[n++] = (struct trace_record){
			.kind = TRACE_MMAP, .address = base, .value = bytes, .size = GN_R | GN_W
		};
		records[n++] =
			(struct trace_record){ .kind = TRACE_BRK,
					       .address = HEAP + (round % 9 + 1) * GN_PAGE_SIZE };
		for (unsigned i = 0; i < EACH; i++)
			records[n++] = (struct trace_record){
				.kind = (uint8_t)(TRACE_LOAD + test_random_next(&random) % 3),
				.address = (i % 5 ? base : HEAP) +
					   test_random_next(&random) % (i % 5 ? bytes - 8 : 4088),
				.size = 8
			};
		records[n++] = (struct trace_record){
			.kind = TRACE_MPROTECT, .address = base, .value = bytes, .size = GN_R
		};
		records[n++] =
			(struct trace_record){ .kind = TRACE_LOAD, .address = base, .size = 8 };
		if (round % 3)
			records[n++] = (struct trace_record){ .kind = TRACE_MUNMAP,
							      .address = base,
							      .value = bytes };
		if (round % 10 == 9)
			records[n++] =
				(struct trace_record){ .kind = TRACE_CR3,
						       .value = round % 20 > 10 ? 0x1000 : 0x2000 };
	}
	forge_path(path);
	cr_assert_eq(forge_file(path, records, n, "", TRACE_FLAG_MAPPINGS), 0);
	run_all(path, false, &counters);
	run_all(path, true, &counters);
	unlink(path);
	free(records);
}

Test(trace_machine, a_stopped_replay_leaves_nothing_behind, .init = register_schemes)
{
	/* Complete mappings are claimed, but there are none: the guest is stopped by the first touch. */
	static const struct trace_record record = { .kind = TRACE_LOAD,
						    .address = HEAP,
						    .size = 8 };
	struct gn_counters counters;
	const char *why = "";
	char path[64];
	uint64_t sum;

	forge_path(path);
	cr_assert_eq(forge_file(path, &record, 1, "", TRACE_FLAG_MAPPINGS), 0);
	for (unsigned i = 0; i < 50; i++)
		cr_assert_eq(run("native", path, false, 0, &counters, &sum, &why), -ECANCELED, "%s",
			     why);
	unlink(path);
	cr_assert_eq(run("native", path, false, 0, &counters, &sum, &why), -EBADMSG);
	cr_assert(strstr(why, "cannot open"), "%s", why);
}
