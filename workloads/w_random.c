/* SPDX-License-Identifier: MIT */
/*
 * w_random.c - GUPS: read-modify-write of random words.
 *
 * Models HPC Challenge RandomAccess: a table of 64-bit words, T[r mod n] ^= r, with r from the benchmark's
 * own generator, the shift register of the polynomial x^63 + x^2 + x + 1 (POLY 7). HPCC makes 4n updates;
 * here one for each 512 bytes, twice: the second run of the same stream undoes the first, which is also how
 * HPCC verifies. HPCC starts from T[i] = i; here from 0, and the first word of each page is a tag that updates
 * leave alone, so that two pages in one frame, which xor would not notice, are seen.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define POLY	     7
#define WORDS_A_PAGE 512
#define COMPUTE_STEP 6

static uint64_t next(uint64_t r)
{
	return r << 1 ^ (r >> 63 ? POLY : 0);
}

/* Any word but the first of a page. */
static uint64_t place(uint64_t base, uint64_t r, uint64_t words)
{
	uint64_t word = (uint64_t)(((unsigned __int128)mix64(r) * words) >> 64);

	return base + (word % WORDS_A_PAGE ? word : word + 1) * 8;
}

static void update_all(uint64_t base, uint64_t words, uint64_t seed, uint64_t steps, uint64_t done)
{
	uint64_t r = seed | 1;

	for (uint64_t i = 0; i < steps; i++) {
		uint64_t at;

		r = next(r);
		at = place(base, r, words);
		cpu_store64(at, cpu_load64(at) ^ r);
		cpu_compute(COMPUTE_STEP);
		region_progress(done + i, 2 * steps);
	}
}

static int run(const struct workload_params *params, const char **why)
{
	uint64_t pages = params->size / K_PAGE, words = pages * WORDS_A_PAGE;
	uint64_t base = region_map(params, pages * K_PAGE);
	uint64_t steps = region_steps(params->size) / 2, r = params->seed | 1;

	for (uint64_t page = 0; page < pages; page++)
		cpu_store64(base + page * K_PAGE, mix64(params->seed ^ page));
	cpu_measure();
	update_all(base, words, params->seed, steps, 0);
	update_all(base, words, params->seed, steps, steps);
	for (uint64_t i = 0; i < steps; i++) {
		r = next(r);
		if (i % 4 == 0 && cpu_load64(place(base, r, words)))
			return workload_fail(why, "random: the second run did not undo the first");
	}
	for (uint64_t page = 0; page < pages; page++)
		if (cpu_load64(base + page * K_PAGE) != mix64(params->seed ^ page))
			return workload_fail(why, "random: the tag of a page was overwritten");
	return 0;
}

const struct workload workload_random = {
	.name = "random",
	.kind = WORKLOAD_MEMORY,
	.models = "GUPS: random read-modify-write (HPC Challenge RandomAccess)",
	.size_unit = "bytes",
	.size_default = (uint64_t)256 << 20,
	.size_quick = (uint64_t)8 << 20,
	.run = run,
};
