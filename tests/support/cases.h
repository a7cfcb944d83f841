/* SPDX-License-Identifier: MIT */
/*
 * cases.h - seeds, case counts and the closing line of test programs with a plain main.
 *
 *     program [SEED [CASES]]
 *
 * GN_TEST_SCALE (percent) scales the full number of cases when none is given.
 */
#ifndef GN_TESTS_CASES_H
#define GN_TESTS_CASES_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct test_run {
	uint64_t seed, cases;
	unsigned passed, failed;
};

static inline struct test_run test_run_start(int argc, char **argv, uint64_t seed, uint64_t cases)
{
	const char *scale = getenv("GN_TEST_SCALE");
	struct test_run run = { seed, cases, 0, 0 };

	if (argc > 1)
		run.seed = strtoull(argv[1], NULL, 0);
	if (argc > 2)
		run.cases = strtoull(argv[2], NULL, 0);
	else if (scale)
		run.cases = cases * strtoull(scale, NULL, 10) / 100;
	if (!run.cases)
		run.cases = 1;
	printf("seed %#" PRIx64 ", %" PRIu64 " cases\n", run.seed, run.cases);
	return run;
}

static inline int test_run_end(const struct test_run *run)
{
	printf("%u passed, %u failed\n", run->passed, run->failed);
	return run->failed != 0;
}

/* xorshift128+: the tests' own generator, so that a seed means the same everywhere. */
struct test_random {
	uint64_t s[2];
};
static inline uint64_t test_random_next(struct test_random *r)
{
	uint64_t a = r->s[0], b = r->s[1];

	r->s[0] = b;
	a ^= a << 23;
	r->s[1] = a ^ b ^ (a >> 18) ^ (b >> 5);
	return r->s[1] + b;
}
static inline struct test_random test_random_seed(uint64_t seed)
{
	struct test_random r = { { seed * 0x9e3779b97f4a7c15 + 1, ~seed ^ 0xd1b54a32d192ed03 } };

	for (int i = 0; i < 8; i++)
		test_random_next(&r);
	return r;
}
static inline uint64_t test_random_below(struct test_random *r, uint64_t n)
{
	return (test_random_next(r) >> 11) % n;
}
/* True once in @n. */
static inline int test_random_once(struct test_random *r, uint64_t n)
{
	return test_random_below(r, n) == 0;
}

#endif
