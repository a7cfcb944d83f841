/* SPDX-License-Identifier: MIT */
/*
 * w_build.c - a parallel build.
 *
 * Models `make -j4` of a C project, the usual "real" load of virtualization papers (kernel compile): make forks; the
 * child executes the compiler, a large image of which a third is run; it maps its source, shared headers among
 * it, reads it, grows a heap by mmap, works in it at random with locality (symbol tables, trees), unmaps scratch
 * memory, and exits. Four compilers are alive at a time and take turns. Last comes one linker with more memory.
 */
#include "list.h"
#include "program.h"
#include "region.h"
#include "rng.h"

#define JOBS	      4
#define SLICES	      6
#define HEAP_PAGES    48   /* a slice adds */
#define TOUCHES	      2000 /* a slice makes in the heap */
#define SOURCE_PAGES  32
#define HEADER_PAGES  64
#define SCRATCH_PAGES 16
#define MAKE_PAGES    512
#define COMPUTE_TOUCH 30
#define LINK_SLICES   10

static const struct kernel_image compiler = {
	.text_pages = 384, .data_pages = 24, .bss_pages = 32, .stack_pages = 16
};
static const struct kernel_image sources = { .text_pages = HEADER_PAGES,
					     .data_pages = SOURCE_PAGES };

struct job {
	int pid;
	struct kernel_layout layout;
	uint64_t seed, heap[LINK_SLICES];
	struct rng rng;
};

struct build {
	int make;
	struct program compiler, files;
	struct job jobs[JOBS];
};

static uint64_t value_of(const struct job *j, uint64_t va)
{
	return mix64(j->seed ^ va);
}

/* Reads what a compiler reads: all headers and its source, four lines a page. */
static int read_sources(const struct build *b, const char **why)
{
	uint64_t pages = HEADER_PAGES + SOURCE_PAGES;
	uint64_t va = sys_mmap_image(b->files.image, 0, pages * K_PAGE, K_READ);

	if (!va)
		return workload_fail(why, "build: a source file cannot be mapped");
	for (uint64_t page = 0; page < pages; page++) {
		for (unsigned line = 0; line < 64; line += 16) {
			uint64_t word = cpu_load64(va + page * K_PAGE + line * 64);

			if (word != kernel_image_word(b->files.seed, page, line))
				return workload_fail(why,
						     "build: a source file has other contents");
			cpu_compute(COMPUTE_TOUCH);
		}
	}
	return sys_munmap(va, pages * K_PAGE) ? workload_fail(why, "build: munmap failed") : 0;
}

static int start(const struct build *b, struct job *j, uint64_t seed, const char **why)
{
	j->seed = seed;
	j->rng = rng_seeded(seed);
	sys_switch(b->make);
	j->pid = sys_fork();
	if (j->pid < 0 || sys_switch(j->pid))
		return workload_fail(why, "build: fork failed");
	if (program_start(&b->compiler, b->compiler.parts.text_pages / 3, &j->layout, why))
		return -1;
	return read_sources(b, why);
}

/* A word is either still zero or what its address says. */
static int touch_heap(struct job *j, unsigned slices, const char **why)
{
	for (unsigned i = 0; i < TOUCHES; i++) {
		/* Recent memory more often: the minimum of two draws counts back from the newest. */
		uint64_t a = rng_below(&j->rng, slices), b = rng_below(&j->rng, slices);
		uint64_t slice = slices - 1 - (a < b ? a : b);
		uint64_t va = j->heap[slice] + rng_below(&j->rng, HEAP_PAGES * 64) * 64;
		uint64_t word = cpu_load64(va);

		if (word && word != value_of(j, va))
			return workload_fail(why,
					     "build: the heap holds what was never written there");
		if (!word)
			cpu_store64(va, value_of(j, va));
		cpu_compute(COMPUTE_TOUCH);
		if (i % 8 == 0)
			cpu_fetch(j->layout.text + rng_below(&j->rng, 64) * K_PAGE + i % 64 * 64);
	}
	return 0;
}

static int run_slice(struct job *j, unsigned slice, const char **why)
{
	uint64_t scratch;

	if (sys_switch(j->pid))
		return workload_fail(why, "build: a compiler cannot be run");
	j->heap[slice] = sys_mmap(0, HEAP_PAGES * K_PAGE, K_READ | K_WRITE, 0);
	scratch = sys_mmap(0, SCRATCH_PAGES * K_PAGE, K_READ | K_WRITE, 0);
	if (!j->heap[slice] || !scratch)
		return workload_fail(why, "build: mmap failed");
	for (uint64_t page = 0; page < SCRATCH_PAGES; page += 2)
		cpu_store64(scratch + page * K_PAGE, page);
	if (touch_heap(j, slice + 1, why))
		return -1;
	if (cpu_load64(scratch + 8 * K_PAGE) != 8 || sys_munmap(scratch, SCRATCH_PAGES * K_PAGE))
		return workload_fail(why, "build: scratch memory was lost");
	return 0;
}

static int finish(const struct build *b, struct job *j, const char **why)
{
	sys_switch(j->pid);
	sys_exit(0);
	sys_switch(b->make);
	return sys_wait(j->pid) ? workload_fail(why, "build: a compiler did not exit well") : 0;
}

/* Up to JOBS compilers side by side. */
static int compile(struct build *b, uint64_t first, uint64_t count, uint64_t seed, const char **why)
{
	for (uint64_t i = 0; i < count; i++)
		if (start(b, &b->jobs[i], mix64(seed + first + i), why))
			return -1;
	for (unsigned slice = 0; slice < SLICES; slice++)
		for (uint64_t i = 0; i < count; i++)
			if (run_slice(&b->jobs[i], slice, why))
				return -1;
	for (uint64_t i = 0; i < count; i++)
		if (finish(b, &b->jobs[i], why))
			return -1;
	return 0;
}

static int link(struct build *b, uint64_t seed, const char **why)
{
	struct job *j = &b->jobs[0];

	if (start(b, j, mix64(~seed), why))
		return -1;
	for (unsigned slice = 0; slice < LINK_SLICES; slice++)
		if (run_slice(j, slice, why))
			return -1;
	return finish(b, j, why);
}

static int run(const struct workload_params *params, const char **why)
{
	struct build b = { .make = sys_getpid() };
	uint64_t data = region_map(params, MAKE_PAGES * K_PAGE);

	for (uint64_t page = 0; page < MAKE_PAGES; page++)
		cpu_store64(data + page * K_PAGE, mix64(page));
	if (program_install(&b.compiler, params->seed, &compiler) ||
	    program_install(&b.files, params->seed + 1, &sources))
		return workload_fail(why, "build: an image cannot be installed");
	for (uint64_t unit = 0; unit < params->size; unit += JOBS) {
		uint64_t left = params->size - unit;

		if (compile(&b, unit, left < JOBS ? left : JOBS, params->seed, why))
			return -1;
		cpu_progress(unit, params->size);
	}
	if (link(&b, params->seed, why))
		return -1;
	for (uint64_t page = 0; page < MAKE_PAGES; page++)
		if (cpu_load64(data + page * K_PAGE) != mix64(page))
			return workload_fail(why, "build: make lost its data");
	return 0;
}

const struct workload workload_build = {
	.name = "build",
	.kind = WORKLOAD_OS,
	.models = "make -j4 of a C project: fork, exec, mapped files, growing heaps",
	.size_unit = "compilation units",
	.size_default = 8,
	.size_quick = 1,
	.run = run,
};
