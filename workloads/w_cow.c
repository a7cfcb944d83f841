/* SPDX-License-Identifier: MIT */
/*
 * w_cow.c - copy on write after a fork.
 *
 * Models Redis BGSAVE: a store forks; the child reads everything, in order, to save the state as of the fork; the
 * parent meanwhile goes on writing a quarter of its pages at random places. The two take turns. A page's word
 * names the page and the round it was written in: the child must never see its parent's round, the parent
 * always its own.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define SNAPSHOTS    2
#define SLICES	     16
#define LINES_A_PAGE 4
#define COMPUTE_STEP 30

struct store {
	uint64_t base, seed, pages;
	unsigned bits;
};

static uint64_t value_of(const struct store *s, uint64_t page, uint64_t round)
{
	return (mix64(s->seed ^ page) & ~(uint64_t)0xff) | round;
}

/* The snapshot process saves its share of a slice. */
static int save(const struct store *s, uint64_t slice, uint64_t round, const char **why)
{
	for (uint64_t page = slice * s->pages / SLICES; page < (slice + 1) * s->pages / SLICES;
	     page++) {
		uint64_t word = cpu_load64(s->base + page * K_PAGE);

		if ((word | 0xff) != (value_of(s, page, 0) | 0xff))
			return workload_fail(why, "cow: the snapshot has another page's word");
		if ((word & 0xff) >= round)
			return workload_fail(why, "cow: the snapshot changed under its reader");
		for (unsigned line = 1; line < LINES_A_PAGE; line++)
			if (cpu_load64(s->base + page * K_PAGE + line * 1024))
				return workload_fail(why, "cow: a copied page has stray words");
		cpu_compute(COMPUTE_STEP);
	}
	return 0;
}

/* The parent's share: a quarter of the pages over all slices, each once a round. */
static void serve(const struct store *s, uint64_t slice, uint64_t round)
{
	uint64_t writes = s->pages / 4;

	for (uint64_t i = slice * writes / SLICES; i < (slice + 1) * writes / SLICES; i++) {
		uint64_t page = permute(i, s->bits, s->seed + round);

		cpu_store64(s->base + page * K_PAGE, value_of(s, page, round));
		cpu_compute(COMPUTE_STEP);
	}
}

static int check_parent(const struct store *s, uint64_t round, const char **why)
{
	for (uint64_t i = 0; i < s->pages / 4; i++) {
		uint64_t page = permute(i, s->bits, s->seed + round);

		if (cpu_load64(s->base + page * K_PAGE) != value_of(s, page, round))
			return workload_fail(why, "cow: the parent lost a write");
	}
	return 0;
}

static int snapshot(const struct store *s, uint64_t round, const char **why)
{
	int parent = sys_getpid(), child = sys_fork();

	if (child < 0)
		return workload_fail(why, "cow: fork failed");
	for (uint64_t slice = 0; slice < SLICES; slice++) {
		serve(s, slice, round);
		if (sys_switch(child))
			return workload_fail(why, "cow: the child cannot be run");
		if (save(s, slice, round, why))
			return -1;
		if (sys_switch(parent))
			return workload_fail(why, "cow: the parent cannot be run");
		cpu_progress((round - 1) * SLICES + slice, SNAPSHOTS * SLICES);
	}
	sys_switch(child);
	sys_exit(0);
	if (sys_wait(child))
		return workload_fail(why, "cow: the child did not exit");
	return check_parent(s, round, why);
}

static int run(const struct workload_params *params, const char **why)
{
	struct store s = { .seed = params->seed, .bits = floor_log2(params->size / K_PAGE | 16) };

	s.pages = (uint64_t)1 << s.bits;
	s.base = region_map(params, s.pages * K_PAGE);
	for (uint64_t page = 0; page < s.pages; page++)
		cpu_store64(s.base + page * K_PAGE, value_of(&s, page, 0));
	for (uint64_t round = 1; round <= SNAPSHOTS; round++)
		if (snapshot(&s, round, why))
			return -1;
	return 0;
}

const struct workload workload_cow = {
	.name = "cow",
	.kind = WORKLOAD_OS,
	.models = "writes after a fork while the child reads a snapshot (Redis BGSAVE)",
	.size_unit = "bytes",
	.size_default = (uint64_t)16 << 20,
	.size_quick = (uint64_t)1 << 20,
	.run = run,
};
