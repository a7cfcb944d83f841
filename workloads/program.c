/* SPDX-License-Identifier: MIT */
/*
 * program.c - exec and the touches of a program's start.
 *
 * What a dynamic loader and the C start-up do to an address space: text is fetched a line here and there,
 * half of the data pages are relocated (written, so copied), bss is used for the first time, the stack grows.
 */
#include "program.h"

#include "cpu.h"
#include "rng.h"
#include "workload.h"

#define LINES_A_PAGE   4
#define COMPUTE_A_LINE 16

int program_install(struct program *p, uint64_t seed, const struct kernel_image *parts)
{
	p->seed = seed;
	p->parts = *parts;
	p->image = sys_image(parts, seed);
	return p->image < 0 ? p->image : 0;
}

static int fetch_text(const struct program *p, uint64_t text, uint32_t pages, const char **why)
{
	for (uint32_t n = 0; n < pages; n++) {
		uint64_t page = (uint64_t)n * p->parts.text_pages / pages;

		for (unsigned i = 0; i < LINES_A_PAGE; i++) {
			cpu_fetch(text + page * K_PAGE + (page + i) % 64 * 64);
			cpu_compute(COMPUTE_A_LINE);
		}
		if (cpu_load64(text + page * K_PAGE) != kernel_image_word(p->seed, page, 0))
			return workload_fail(why, "exec: text is not the image's");
	}
	return 0;
}

static int relocate_data(const struct program *p, uint64_t data, const char **why)
{
	for (uint64_t page = 0; page < p->parts.data_pages; page++) {
		uint64_t at = data + page * K_PAGE;
		uint64_t word = kernel_image_word(p->seed, p->parts.text_pages + page, 0);

		if (cpu_load64(at) != word)
			return workload_fail(why, "exec: data is not the image's");
		if (page % 2)
			continue;
		cpu_store64(at, ~word);
		if (cpu_load64(at) != ~word ||
		    cpu_load64(at + 64) !=
			    kernel_image_word(p->seed, p->parts.text_pages + page, 1))
			return workload_fail(why, "exec: a private copy of data is wrong");
	}
	return 0;
}

static int use_fresh(uint64_t base, uint64_t pages, uint64_t step, const char **why)
{
	for (uint64_t page = 0; page < pages; page += step) {
		uint64_t at = base + page * K_PAGE + 128;

		if (cpu_load64(at))
			return workload_fail(why, "exec: fresh memory was not zero");
		cpu_store64(at, mix64(at));
		if (cpu_load64(at) != mix64(at))
			return workload_fail(why,
					     "exec: fresh memory does not hold what was written");
	}
	return 0;
}

int program_start(const struct program *p, uint32_t text_pages, struct kernel_layout *layout,
		  const char **why)
{
	if (sys_exec(p->image, layout))
		return workload_fail(why, "exec failed");
	if (fetch_text(p, layout->text, text_pages, why) || relocate_data(p, layout->data, why) ||
	    use_fresh(layout->bss, p->parts.bss_pages, 2, why))
		return -1;
	/* The lowest half of the stack stays untouched, as it mostly does. */
	return use_fresh(layout->stack + p->parts.stack_pages / 2 * K_PAGE,
			 p->parts.stack_pages - p->parts.stack_pages / 2, 1, why);
}
