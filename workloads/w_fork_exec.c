/* SPDX-License-Identifier: MIT */
/*
 * w_fork_exec.c - a storm of short processes.
 *
 * Models LMbench lat_proc fork+exec, a busy shell script, a CGI server: a parent with 2 MiB of data forks, goes
 * on writing a little (copy on write), the child checks that it sees the data as of the fork, executes a small
 * program (sizes of a static hello-world), runs through its start, exits, and is waited for. Page tables are made,
 * write-protected and torn down at a rate nothing else reaches: the classic worst case of shadow paging.
 */
#include "list.h"
#include "program.h"
#include "region.h"
#include "rng.h"

#define PARENT_PAGES  512
#define PARENT_WRITES 4

static const struct kernel_image hello = {
	.text_pages = 48, .data_pages = 8, .bss_pages = 8, .stack_pages = 8
};

/* The word of a page after the parent wrote it in @round; round 0 is before the first fork. */
static uint64_t value_of(uint64_t seed, uint64_t page, uint64_t round)
{
	return mix64(seed ^ page << 32 ^ round);
}

/* In each round the parent writes the pages of that round only. */
static uint64_t page_of(uint64_t round, unsigned i)
{
	return (round * PARENT_WRITES + i) % PARENT_PAGES;
}

static uint64_t round_before(uint64_t round)
{
	uint64_t period = PARENT_PAGES / PARENT_WRITES;

	return round > period ? round - period : 0;
}

static int child(const struct program *p, uint64_t base, uint64_t seed, uint64_t round,
		 const char **why)
{
	struct kernel_layout layout;

	for (unsigned i = 0; i < PARENT_WRITES; i++) {
		uint64_t page = page_of(round, i);

		if (cpu_load64(base + page * K_PAGE) != value_of(seed, page, round_before(round)))
			return workload_fail(
				why, "fork-exec: the child sees what the parent wrote later");
	}
	if (program_start(p, 24, &layout, why))
		return -1;
	sys_exit((int)(round & 0xff));
	return 0;
}

static int one_round(const struct program *p, uint64_t base, uint64_t seed, uint64_t round,
		     const char **why)
{
	int pid = sys_fork();

	if (pid < 0)
		return workload_fail(why, "fork-exec: fork failed");
	for (unsigned i = 0; i < PARENT_WRITES; i++) {
		uint64_t page = page_of(round, i);

		cpu_store64(base + page * K_PAGE, value_of(seed, page, round));
	}
	if (sys_switch(pid))
		return workload_fail(why, "fork-exec: the child cannot be run");
	if (child(p, base, seed, round, why))
		return -1;
	if (sys_wait(pid) != (int)(round & 0xff))
		return workload_fail(why, "fork-exec: wait gave another status than exit");
	for (unsigned i = 0; i < PARENT_WRITES; i++) {
		uint64_t page = page_of(round, i);

		if (cpu_load64(base + page * K_PAGE) != value_of(seed, page, round))
			return workload_fail(why, "fork-exec: the parent lost its own write");
	}
	return 0;
}

static int run(const struct workload_params *params, const char **why)
{
	uint64_t base = region_map(params, PARENT_PAGES * K_PAGE);
	struct program p;

	if (program_install(&p, params->seed, &hello))
		return workload_fail(why, "fork-exec: the image cannot be installed");
	for (uint64_t page = 0; page < PARENT_PAGES; page++)
		cpu_store64(base + page * K_PAGE, value_of(params->seed, page, 0));
	for (uint64_t round = 1; round <= params->size; round++) {
		if (one_round(&p, base, params->seed, round, why))
			return -1;
		cpu_progress(round, params->size);
	}
	return 0;
}

const struct workload workload_fork_exec = {
	.name = "fork-exec",
	.kind = WORKLOAD_OS,
	.models = "fork, exec, exit, wait of small programs (lat_proc, shell scripts)",
	.size_unit = "processes",
	.size_default = 100,
	.size_quick = 6,
	.run = run,
};
