/* SPDX-License-Identifier: MIT */
/*
 * w_ctx_switch.c - a token around a ring of processes.
 *
 * Models LMbench lat_ctx with working sets of 64 KiB: N processes pass a word through pipes; each sums its array
 * when its turn comes. All arrays lie at the same address, so an address space that was not really switched shows
 * at once. Without PCIDs every turn begins with cold user TLBs, and a scheme whose hardware root follows CR3 pays
 * an exit.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define ARRAY_PAGES  16
#define LINES	     (ARRAY_PAGES * K_PAGE / 64)
#define LINES_STEP   4 /* of the array, every fourth line in one turn */
#define TURNS_EACH   250
#define RING_MAX     128
#define COMPUTE_LINE 10

struct ring {
	uint64_t array, token, seed;
	int pids[RING_MAX], pipe;
	uint64_t count;
};

static uint64_t value_of(const struct ring *r, uint64_t member, uint64_t line)
{
	return mix64(r->seed ^ member << 40 ^ line);
}

static int make(struct ring *r, const char **why)
{
	r->pids[0] = sys_getpid();
	for (uint64_t m = 1; m < r->count; m++) {
		r->pids[m] = sys_fork();
		if (r->pids[m] < 0)
			return workload_fail(why, "ctx-switch: fork failed");
	}
	for (uint64_t m = 0; m < r->count; m++) {
		sys_switch(r->pids[m]);
		for (uint64_t line = 0; line < LINES; line++)
			cpu_store64(r->array + line * 64, value_of(r, m, line));
	}
	return 0;
}

static int turn(struct ring *r, uint64_t number, const char **why)
{
	uint64_t member = number % r->count;

	if (sys_switch(r->pids[member]))
		return workload_fail(why, "ctx-switch: a process cannot be run");
	if (number && sys_pipe_read(r->pipe, r->token, 8) != 8)
		return workload_fail(why, "ctx-switch: the token is lost");
	if (number && cpu_load64(r->token) != mix64(r->seed + number))
		return workload_fail(why, "ctx-switch: a wrong token came");
	for (uint64_t line = number % LINES_STEP; line < LINES; line += LINES_STEP) {
		if (cpu_load64(r->array + line * 64) != value_of(r, member, line))
			return workload_fail(why,
					     "ctx-switch: a process sees another one's memory");
		cpu_compute(COMPUTE_LINE);
	}
	cpu_store64(r->token, mix64(r->seed + number + 1));
	if (sys_pipe_write(r->pipe, r->token, 8) != 8)
		return workload_fail(why, "ctx-switch: the token cannot be passed");
	return 0;
}

static int run(const struct workload_params *params, const char **why)
{
	struct ring r = { .seed = params->seed, .count = params->size };
	uint64_t turns;

	if (r.count < 2)
		r.count = 2;
	if (r.count > RING_MAX)
		r.count = RING_MAX;
	turns = r.count * TURNS_EACH;
	r.array = region_map(params, ARRAY_PAGES * K_PAGE);
	r.token = region_map(params, K_PAGE);
	r.pipe = sys_pipe();
	if (make(&r, why))
		return -1;
	cpu_measure();
	for (uint64_t number = 0; number < turns; number++) {
		if (turn(&r, number, why))
			return -1;
		region_progress(number * 64, turns * 64);
	}
	return 0;
}

const struct workload workload_ctx_switch = {
	.name = "ctx-switch",
	.kind = WORKLOAD_OS,
	.models = "a token around a ring of processes with working sets (lat_ctx)",
	.size_unit = "processes",
	.size_default = 16,
	.size_quick = 4,
	.run = run,
};
