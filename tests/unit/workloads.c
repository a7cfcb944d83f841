/* SPDX-License-Identifier: MIT */
/*
 * workloads.c - every workload at its quick size, under every registered scheme: its self-check passes, the
 * tables are clean under audit, guest memory ends the same under all schemes, and a second run counts the same.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <gnomon/schemes.h>

#include "workloads/hosted.h"
#include "workloads/rng.h"
#include "workloads/zipf.h"

#define RAM_BYTES ((uint64_t)128 << 20)

static const struct mode {
	const char *name;
	unsigned levels;
	bool pcid, large;
} modes[] = {
	{ "4 levels", 4, false, false },
	{ "5 levels, PCID, large", 5, true, true },
};
#define MODES (sizeof(modes) / sizeof(modes[0]))

static int run(const char *scheme, const struct workload *w, const struct mode *mode,
	       struct gn_counters *counters, uint64_t *sum, const char **why)
{
	struct gn_soft_config config = {
		.vm = { .scheme = scheme, .mem_bytes = RAM_BYTES, .vcpus = 1 }, .seed = 1
	};
	struct workload_params params = { .size = w->size_quick,
					  .seed = 5,
					  .mem_bytes = RAM_BYTES,
					  .large_pages = mode->large,
					  .pcid = mode->pcid,
					  .levels = mode->levels };
	struct gn_audit_report report;
	struct gn_soft *soft;
	int err = gn_soft_create(&config, &soft);

	cr_assert_eq(err, 0, "%s: gn_soft_create: %d", scheme, err);
	err = workload_run_hosted(gn_soft_cpu(soft, 0), w, &params, NULL, NULL, why);
	cr_assert_eq(gn_audit(gn_soft_vm(soft), &report), 0, "%s, %s: audit: %s", w->name, scheme,
		     report.first);
	gn_soft_counters(soft, counters);
	*sum = gn_vm_memory_sum(gn_soft_vm(soft));
	if (err)
		cr_log_error("%s, %s, %s: %d: %s", w->name, mode->name, scheme, err, *why);
	gn_soft_destroy(soft);
	return err;
}

static void register_schemes(void)
{
	cr_assert_eq(gn_schemes_register_all(), 0);
}

static void run_all_schemes(const struct workload *w, const struct mode *mode)
{
	uint64_t first = 0;

	for (unsigned s = 0; gn_scheme_at(s); s++) {
		const char *scheme = gn_scheme_name(gn_scheme_at(s)), *why;
		struct gn_counters counters;
		uint64_t sum;

		cr_assert_eq(run(scheme, w, mode, &counters, &sum, &why), 0, "%s, %s, %s failed",
			     w->name, mode->name, scheme);
		cr_assert_gt(counters.accesses, 1000, "%s makes few accesses", w->name);
		if (!s)
			first = sum;
		cr_assert_eq(sum, first, "%s, %s, %s: memory differs from the first scheme's",
			     w->name, mode->name, scheme);
	}
}

Test(workloads, pass_and_end_alike_under_every_scheme, .init = register_schemes)
{
	unsigned ran = 0;

	for (unsigned i = 0; workload_at(i); i++) {
		if (workload_at(i)->kind == WORKLOAD_TRACE)
			continue;
		for (unsigned m = 0; m < MODES; m++, ran++)
			run_all_schemes(workload_at(i), &modes[m]);
	}
	cr_assert_geq(ran, 17 * MODES);
}

Test(workloads, count_the_same_twice, .init = register_schemes)
{
	for (unsigned i = 0; workload_at(i); i++) {
		struct gn_counters one, two;
		uint64_t sum_one, sum_two;
		const char *why;

		if (workload_at(i)->kind == WORKLOAD_TRACE)
			continue;
		cr_assert_eq(run("native", workload_at(i), &modes[1], &one, &sum_one, &why), 0);
		cr_assert_eq(run("native", workload_at(i), &modes[1], &two, &sum_two, &why), 0);
		cr_assert_eq(sum_one, sum_two, "%s", workload_at(i)->name);
		cr_assert_arr_eq(&one, &two, sizeof(one), "%s", workload_at(i)->name);
	}
}

Test(workloads, are_found_by_name)
{
	for (unsigned i = 0; workload_at(i); i++) {
		const struct workload *w = workload_at(i);

		cr_assert_eq(workload_find(w->name), w);
		cr_assert(w->models && *w->models && w->size_unit && w->run, "%s", w->name);
		cr_assert(w->size_quick > 0 &&
				  (w->kind == WORKLOAD_TRACE || w->size_quick < w->size_default),
			  "%s", w->name);
	}
	cr_assert_null(workload_find("no-such"));
	cr_assert_null(workload_find("rando"));
	cr_assert_null(workload_find("random:x"));
	cr_assert_eq(workload_find("trace:some/file")->kind, WORKLOAD_TRACE);
}

/* A guest that needs more than it has is stopped and says so. */
Test(workloads, too_little_memory_is_told, .init = register_schemes)
{
	struct gn_soft_config config = {
		.vm = { .scheme = "native", .mem_bytes = (uint64_t)16 << 20, .vcpus = 1 }, .seed = 1
	};
	struct workload_params params = { .size = (uint64_t)64 << 20,
					  .mem_bytes = config.vm.mem_bytes };
	struct gn_soft *soft;
	const char *why;

	cr_assert_eq(gn_soft_create(&config, &soft), 0);
	cr_assert_eq(workload_run_hosted(gn_soft_cpu(soft, 0), workload_find("random"), &params,
					 NULL, NULL, &why),
		     -ECANCELED);
	cr_assert_not_null(strstr(why, "out of memory"), "%s", why);
	gn_soft_destroy(soft);
}

Test(workloads, zipf_ranks_fall_as_they_should)
{
	struct rng rng = rng_seeded(1);
	uint64_t below[3] = { 0 }, draws = 200000;
	struct zipf z;

	zipf_init(&z, 1000000);
	for (uint64_t i = 0; i < draws; i++) {
		uint64_t rank = zipf_rank(&z, &rng);

		cr_assert_lt(rank, 1000000);
		below[0] += rank < 10;
		below[1] += rank < 1000;
		below[2] += rank < 100000;
	}
	/* (k^0.01 - 1) / (n^0.01 - 1) at k = 11, 1001, 100001: 0.1638, 0.4828, 0.8236; +- 1 %. */
	cr_assert(below[0] > draws * 153 / 1000 && below[0] < draws * 173 / 1000);
	cr_assert(below[1] > draws * 473 / 1000 && below[1] < draws * 493 / 1000);
	cr_assert(below[2] > draws * 812 / 1000 && below[2] < draws * 832 / 1000);
}

Test(workloads, permute_is_a_permutation)
{
	static const unsigned bits[] = { 4, 7, 12, 17 };

	for (unsigned i = 0; i < 4; i++) {
		uint64_t count = (uint64_t)1 << bits[i];
		uint8_t *hit = calloc(1, count);

		for (uint64_t x = 0; x < count; x++) {
			uint64_t y = permute(x, bits[i], 3);

			cr_assert(y < count && !hit[y], "%u bits: %lu", bits[i], (unsigned long)x);
			hit[y] = 1;
		}
		free(hit);
	}
}
