/* SPDX-License-Identifier: MIT */
/*
 * w_mprotect_gc.c - a collector that learns of writes by protecting pages.
 *
 * Models the incremental mode of the Boehm-Demers-Weiser collector (MPROTECT_VDB) and its kin (generational
 * barriers by page protection, checkpointers): each cycle protects the whole heap, the mutator writes at random, the
 * first write to a page faults, the handler notes the page in a card table and unprotects it, then the collector
 * scans the noted pages. Rights fall by the thousand at once and rise one page at a time.
 */
#include "list.h"
#include "region.h"
#include "rng.h"

#define CYCLES	      16
#define COMPUTE_WRITE 40
#define WORDS_SCANNED 16

struct heap {
	uint64_t base, cards, pages, seed;
	uint64_t caught; /* in this cycle */
	bool failed;
};

/* SIGSEGV, at CPL 3. */
static bool on_fault(void *ctx, uint64_t va, bool write)
{
	struct heap *h = ctx;
	uint64_t page = (va - h->base) / K_PAGE;

	if (!write || va < h->base || page >= h->pages || cpu_load8(h->cards + page)) {
		h->failed = true; /* a protected page only, once a cycle, by a write */
		return false;
	}
	cpu_store8(h->cards + page, 1);
	h->caught++;
	return sys_mprotect(h->base + page * K_PAGE, K_PAGE, K_READ | K_WRITE) == 0;
}

static uint64_t word_of(const struct heap *h, uint64_t page, uint64_t cycle)
{
	return mix64(h->seed ^ page) << 8 | cycle;
}

static void mutate(const struct heap *h, struct rng *rng, uint64_t cycle)
{
	for (uint64_t i = 0; i < h->pages / 4; i++) {
		uint64_t page = rng_below(rng, h->pages);

		cpu_store64(h->base + page * K_PAGE + i % WORDS_SCANNED * 8,
			    word_of(h, page, cycle));
		cpu_compute(COMPUTE_WRITE);
	}
}

/* A word of the page is 0, or written in this cycle or an earlier one; one at least in this one. */
static int scan_page(const struct heap *h, uint64_t page, uint64_t cycle, const char **why)
{
	bool fresh = false;

	for (unsigned w = 0; w < WORDS_SCANNED; w++) {
		uint64_t word = cpu_load64(h->base + page * K_PAGE + w * 8);

		if (word && (word >> 8 << 8 != word_of(h, page, 0) || (word & 0xff) > cycle))
			return workload_fail(why, "mprotect-gc: a page holds another page's word");
		fresh |= (word & 0xff) == cycle;
	}
	return fresh ? 0 : workload_fail(why, "mprotect-gc: a page was noted but not written");
}

static int collect(const struct heap *h, uint64_t cycle, const char **why)
{
	uint64_t noted = 0;

	for (uint64_t page = 0; page < h->pages; page += 8) {
		uint64_t cards = cpu_load64(h->cards + page);

		for (unsigned i = 0; i < 8; i++) {
			if (!(cards >> i * 8 & 0xff))
				continue;
			noted++;
			if (scan_page(h, page + i, cycle, why))
				return -1;
		}
		cpu_store64(h->cards + page, 0);
	}
	if (noted != h->caught)
		return workload_fail(why, "mprotect-gc: cards and faults disagree");
	return 0;
}

static int run(const struct workload_params *params, const char **why)
{
	struct heap h = { .pages = (params->size / K_PAGE + 7) & ~(uint64_t)7,
			  .seed = params->seed };
	struct rng rng = rng_seeded(params->seed);

	if (!h.pages)
		h.pages = 8;
	h.base = region_map(params, h.pages * K_PAGE);
	h.cards = region_map(params, h.pages);
	sys_sigsegv(on_fault, &h);
	for (uint64_t cycle = 1; cycle <= CYCLES; cycle++) {
		h.caught = 0;
		if (sys_mprotect(h.base, h.pages * K_PAGE, K_READ))
			return workload_fail(why, "mprotect-gc: the heap cannot be protected");
		mutate(&h, &rng, cycle);
		if (h.failed || !h.caught)
			return workload_fail(why, "mprotect-gc: faults came wrongly or not at all");
		if (collect(&h, cycle, why))
			return -1;
		cpu_progress(cycle, CYCLES);
	}
	return 0;
}

const struct workload workload_mprotect_gc = {
	.name = "mprotect-gc",
	.kind = WORKLOAD_OS,
	.models = "write barrier by page protection (Boehm collector, checkpointers)",
	.size_unit = "bytes",
	.size_default = (uint64_t)16 << 20,
	.size_quick = (uint64_t)512 << 10,
	.run = run,
};
