/* SPDX-License-Identifier: MIT */
/*
 * w_pipeline.c - shell pipelines.
 *
 * Models `cat f | tr | sort` run again and again by a shell (LMbench's "sh" entry, text-processing scripts): the
 * shell forks three children, each executes its program; the first makes the text, the second translates it,
 * the third collects it in growing memory and adds it up; they run in turns as the pipes fill and drain. A mix of
 * process creation, copies through the kernel, demand-zero memory and switches.
 */
#include "list.h"
#include "program.h"
#include "region.h"
#include "rng.h"

#define STAGES	     3
#define CHUNK	     ((uint64_t)8192)
#define CHUNKS	     8
#define COMPUTE_WORD 8
#define SHELL_PAGES  256

static const struct kernel_image tool = {
	.text_pages = 32, .data_pages = 6, .bss_pages = 16, .stack_pages = 8
};

struct pipeline {
	struct program program;
	int shell, pids[STAGES], pipes[STAGES - 1];
	struct kernel_layout layout;
	uint64_t heap; /* of the last stage */
	uint64_t seed;
};

static uint64_t text_word(const struct pipeline *p, uint64_t word)
{
	return mix64(p->seed + word);
}

static uint64_t translate(uint64_t word)
{
	return ~word ^ 0x2020202020202020;
}

/* Each stage's buffer is in its bss, past the part that program_start() used. */
static uint64_t buffer(const struct pipeline *p)
{
	return p->layout.bss + 8 * K_PAGE;
}

static int start(struct pipeline *p, const char **why)
{
	for (unsigned s = 0; s < STAGES; s++) {
		sys_switch(p->shell);
		p->pids[s] = sys_fork();
		if (p->pids[s] < 0 || sys_switch(p->pids[s]))
			return workload_fail(why, "pipeline: fork failed");
		if (program_start(&p->program, 12, &p->layout, why))
			return -1;
	}
	p->heap = sys_mmap(0, CHUNKS * CHUNK, K_READ | K_WRITE, 0);
	return p->heap ? 0 : workload_fail(why, "pipeline: mmap failed");
}

static int produce(const struct pipeline *p, uint64_t chunk, const char **why)
{
	sys_switch(p->pids[0]);
	for (uint64_t i = 0; i < CHUNK; i += 8) {
		cpu_store64(buffer(p) + i, text_word(p, (chunk * CHUNK + i) / 8));
		cpu_compute(COMPUTE_WORD);
	}
	if (sys_pipe_write(p->pipes[0], buffer(p), CHUNK) != (int64_t)CHUNK)
		return workload_fail(why, "pipeline: a write to the pipe fell short");
	return 0;
}

static int filter(const struct pipeline *p, const char **why)
{
	sys_switch(p->pids[1]);
	if (sys_pipe_read(p->pipes[0], buffer(p), CHUNK) != (int64_t)CHUNK)
		return workload_fail(why, "pipeline: a read from the pipe fell short");
	for (uint64_t i = 0; i < CHUNK; i += 8) {
		cpu_store64(buffer(p) + i, translate(cpu_load64(buffer(p) + i)));
		cpu_compute(COMPUTE_WORD);
	}
	if (sys_pipe_write(p->pipes[1], buffer(p), CHUNK) != (int64_t)CHUNK)
		return workload_fail(why, "pipeline: a write to the pipe fell short");
	return 0;
}

static int gather(const struct pipeline *p, uint64_t chunk, const char **why)
{
	sys_switch(p->pids[2]);
	if (sys_pipe_read(p->pipes[1], p->heap + chunk * CHUNK, CHUNK) != (int64_t)CHUNK)
		return workload_fail(why, "pipeline: a read from the pipe fell short");
	return 0;
}

static int check(const struct pipeline *p, const char **why)
{
	for (uint64_t word = 0; word < CHUNKS * CHUNK / 8; word += 8)
		if (cpu_load64(p->heap + word * 8) != translate(text_word(p, word)))
			return workload_fail(why, "pipeline: the text arrived changed");
	return 0;
}

static int stop(const struct pipeline *p, const char **why)
{
	for (unsigned s = 0; s < STAGES; s++) {
		sys_switch(p->pids[s]);
		sys_exit((int)s);
		if (sys_wait(p->pids[s]) != (int)s)
			return workload_fail(why, "pipeline: wait gave another status than exit");
	}
	return 0;
}

static int one(struct pipeline *p, const char **why)
{
	if (start(p, why))
		return -1;
	for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
		if (produce(p, chunk, why) || filter(p, why) || gather(p, chunk, why))
			return -1;
	return check(p, why) ? -1 : stop(p, why);
}

static int run(const struct workload_params *params, const char **why)
{
	struct pipeline p = { .shell = sys_getpid(), .seed = params->seed };
	uint64_t shell_data = region_map(params, SHELL_PAGES * K_PAGE);

	if (program_install(&p.program, params->seed, &tool))
		return workload_fail(why, "pipeline: the image cannot be installed");
	p.pipes[0] = sys_pipe();
	p.pipes[1] = sys_pipe();
	for (uint64_t i = 0; i < params->size; i++) {
		p.seed = params->seed + i * 0x10001;
		cpu_store64(shell_data + i % SHELL_PAGES * K_PAGE, p.seed);
		if (one(&p, why))
			return -1;
		if (cpu_load64(shell_data + i % SHELL_PAGES * K_PAGE) != p.seed)
			return workload_fail(why, "pipeline: the shell lost its data");
		cpu_progress(i, params->size);
	}
	return 0;
}

const struct workload workload_pipeline = {
	.name = "pipeline",
	.kind = WORKLOAD_OS,
	.models = "shell pipelines of three programs (cat | tr | sort)",
	.size_unit = "pipelines",
	.size_default = 24,
	.size_quick = 2,
	.run = run,
};
