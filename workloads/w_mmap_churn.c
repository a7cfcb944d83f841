/* SPDX-License-Identifier: MIT */
/*
 * w_mmap_churn.c - regions that come and go.
 *
 * Models the large allocations of a server under a malloc that maps them (glibc above M_MMAP_THRESHOLD, 128 KiB),
 * and LMbench lat_mmap: 32 slots, each step maps a region of 1 to 64 pages into an empty slot and writes up to
 * eight of its pages, or checks and unmaps a full one, one time in four in two halves. Much of the cost is the
 * flush after each unmap and the tables that come and go.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define SLOTS	      32
#define PAGES_MAX     64
#define TOUCHES_MAX   8
#define COMPUTE_TOUCH 50

struct slot {
	uint64_t va, pages, tag;
};

/* The touches are spread evenly over the region. */
static uint64_t touch_at(const struct slot *s, uint64_t i)
{
	uint64_t touches = s->pages < TOUCHES_MAX ? s->pages : TOUCHES_MAX;

	return i < touches ? s->va + i * s->pages / touches * K_PAGE + i * 64 : 0;
}

static int fill(struct slot *s, uint64_t pages, uint64_t tag, const char **why)
{
	uint64_t at;

	s->va = sys_mmap(0, pages * K_PAGE, K_READ | K_WRITE, 0);
	s->pages = pages;
	s->tag = tag;
	if (!s->va)
		return workload_fail(why, "mmap-churn: mmap failed");
	for (uint64_t i = 0; (at = touch_at(s, i)); i++) {
		if (cpu_load64(at))
			return workload_fail(why, "mmap-churn: fresh memory was not zero");
		cpu_store64(at, mix64(tag + i));
		cpu_compute(COMPUTE_TOUCH);
	}
	return 0;
}

static int empty(struct slot *s, bool in_halves, const char **why)
{
	uint64_t half = in_halves && s->pages > 1 ? s->pages / 2 * K_PAGE : 0, at;

	for (uint64_t i = 0; (at = touch_at(s, i)); i++) {
		if (cpu_load64(at) != mix64(s->tag + i))
			return workload_fail(why, "mmap-churn: a region lost what was written");
		cpu_compute(COMPUTE_TOUCH);
	}
	if (half && sys_munmap(s->va + half, s->pages * K_PAGE - half))
		return workload_fail(why, "mmap-churn: munmap of an upper half failed");
	if (half && cpu_load64(touch_at(s, 0)) != mix64(s->tag))
		return workload_fail(why, "mmap-churn: unmapping one half harmed the other");
	if (sys_munmap(s->va, half ? half : s->pages * K_PAGE))
		return workload_fail(why, "mmap-churn: munmap failed");
	s->pages = 0;
	return 0;
}

static int run(const struct workload_params *params, const char **why)
{
	struct slot slots[SLOTS] = { 0 };
	struct rng rng = rng_seeded(params->seed);

	for (uint64_t step = 0; step < params->size; step++) {
		struct slot *s = &slots[rng_below(&rng, SLOTS)];
		uint64_t r = rng_next(&rng);

		if (s->pages ? empty(s, r % 4 == 0, why) : fill(s, 1 + r % PAGES_MAX, r, why))
			return -1;
		cpu_progress(step, params->size);
	}
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots[i].pages && empty(&slots[i], false, why))
			return -1;
	return 0;
}

const struct workload workload_mmap_churn = {
	.name = "mmap-churn",
	.kind = WORKLOAD_OS,
	.models = "mmap, touch, munmap of many sizes (mapped malloc, lat_mmap)",
	.size_unit = "steps",
	.size_default = 800,
	.size_quick = 80,
	.run = run,
};
