/* SPDX-License-Identifier: MIT */
/*
 * micro_balloon.c - what inflating and deflating a balloon cost the host, in GiB per second of CPU time.
 *
 * A guest under ept on anonymous memory; every page has its frame, its leaf and its host page before it is taken. The
 * engine is given the runs as a device would have them after joining a ring's PFNs.
 *
 *     balloon_scattered   every other page of 4 KiB: no two can be joined
 *     balloon_coalesced   runs of 2 MiB whose host pages are small
 *     balloon_huge        runs of 2 MiB, each one host page
 *     balloon_return      all of it deflated, and each page touched: violation, frame, leaf, first store
 *
 * Limits, over a plain mapping of the same size and state: the kernel's own vectored MADV_DONTNEED of those ranges, 1024
 * a call; for balloon_return the first store to each page.
 *
 * Peers: the same engine as a balloon device of 256 PFNs a kick would drive it, which completes one page before it
 * looks at the next (unmap, flush, grace period, system call). They leave out the kick itself, and go over
 * fewer pages, for they take long.
 */
#include "micro.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mmu/host_memory.h"
#include "mmu/vm.h"

enum { PEER_PAGES = 8 * 256 };
#define BLOCK_PAGES ((uint64_t)GN_TABLE_ENTRIES)

struct balloon_context {
	struct gn_vm *vm;
	struct gn_vcpu *vcpu;
	uint64_t pages;
	bool huge;
	struct gn_gfn_run *runs;      /* what is taken */
	struct gn_host_range *ranges; /* the same of the plain mapping */
	size_t count;
	uint64_t run_pages;	     /* their sum */
	struct gn_host_memory plain; /* the limit's */
	bool has_plain;
};

static double gib_per_s(uint64_t pages, uint64_t ns)
{
	return (double)(pages * GN_PAGE_SIZE) / (double)((uint64_t)1 << 30) / ((double)ns / 1e9);
}

/* The guest stores to a page that has no leaf. */
static bool touch(struct balloon_context *c, uint64_t page)
{
	const struct gn_fault fault = { .access = { .kind = GN_WRITE, .size = 8 },
					.nested = true,
					.gpa = gpa(page * GN_PAGE_SIZE) };
	struct gn_fix fix;
	uint64_t *word = NULL;

	if (gn_vcpu_fault(c->vcpu, &fault, &fix) || fix.kind != GN_FIX_RETRY)
		return false;
	gn_rcu_read_lock();
	word = gn_p2m_pointer(c->vm, fault.gpa);
	if (word)
		*word = page;
	gn_rcu_read_unlock();
	return word != NULL;
}

/* Touch every page of the runs, a large one once. */
static bool touch_runs(struct balloon_context *c)
{
	uint64_t step = c->huge ? BLOCK_PAGES : 1;
	bool fine = true;

	for (size_t i = 0; i < c->count; i++)
		for (uint64_t k = 0; k < c->runs[i].count; k += step)
			fine &= touch(c, c->runs[i].start.v + k);
	return fine;
}

static bool inflate(struct balloon_context *c)
{
	uint64_t done;

	return !gn_p2m_balloon_runs(c->vm, c->runs, c->count, &done) && done == c->run_pages;
}

static bool deflate(struct balloon_context *c)
{
	uint64_t done;

	return !gn_p2m_unballoon_runs(c->vm, c->runs, c->count, &done) && done == c->run_pages;
}

/* ---- Inflating ------------------------------------------------------------------------------------- */

static double sample_inflate(void *context)
{
	struct balloon_context *c = context;
	uint64_t begin = micro_now_ns(), took;
	bool fine = inflate(c);

	took = micro_now_ns() - begin;
	fine = fine && deflate(c) && touch_runs(c);
	return fine ? gib_per_s(c->run_pages, took) : NAN;
}

static void touch_plain(struct balloon_context *c)
{
	uint64_t step = c->huge ? BLOCK_PAGES : 1;

	for (size_t i = 0; i < c->count; i++)
		for (uint64_t k = 0; k < c->ranges[i].bytes / GN_PAGE_SIZE; k += step)
			*(volatile uint64_t *)(c->plain.base + c->ranges[i].offset +
					       k * GN_PAGE_SIZE) = k;
}

static bool drop_plain(struct balloon_context *c)
{
	size_t done = 0;

	while (done < c->count) {
		size_t n =
			c->count - done < GN_HOST_RANGES_MAX ? c->count - done : GN_HOST_RANGES_MAX;

		if (gn_host_memory_drop_all(&c->plain, c->ranges + done, n) != n)
			return false;
		done += n;
	}
	return true;
}

static double sample_inflate_limit(void *context)
{
	struct balloon_context *c = context;
	uint64_t begin = micro_now_ns(), took;
	bool fine = drop_plain(c);

	took = micro_now_ns() - begin;
	touch_plain(c);
	return fine ? gib_per_s(c->run_pages, took) : NAN;
}

/* The first PEER_PAGES pages of the runs, one by one. */
static bool one_by_one(struct balloon_context *c, int (*change)(struct gn_vm *, gfn_t, uint64_t),
		       bool then_touch)
{
	uint64_t done = 0;
	bool fine = true;

	for (size_t i = 0; i < c->count; i++)
		for (uint64_t k = 0; k < c->runs[i].count && done < PEER_PAGES; k++, done++) {
			uint64_t at = c->runs[i].start.v + k;

			fine &= !change(c->vm, gfn(at), 1);
			if (then_touch)
				fine &= touch(c, at);
		}
	return fine && done == PEER_PAGES;
}

static double sample_inflate_peer(void *context)
{
	struct balloon_context *c = context;
	uint64_t begin = micro_now_ns(), took;
	bool fine = one_by_one(c, gn_p2m_balloon, false);

	took = micro_now_ns() - begin;
	fine = fine && one_by_one(c, gn_p2m_unballoon, false) && touch_runs(c);
	return fine ? gib_per_s(PEER_PAGES, took) : NAN;
}

/* ---- Deflating -------------------------------------------------------------------------------------- */

static double sample_return(void *context)
{
	struct balloon_context *c = context;
	uint64_t begin, took;
	bool fine = inflate(c);

	begin = micro_now_ns();
	fine = fine && deflate(c) && touch_runs(c);
	took = micro_now_ns() - begin;
	return fine ? gib_per_s(c->run_pages, took) : NAN;
}

static double sample_return_limit(void *context)
{
	struct balloon_context *c = context;
	uint64_t begin;

	if (!drop_plain(c))
		return NAN;
	begin = micro_now_ns();
	touch_plain(c);
	return gib_per_s(c->run_pages, micro_now_ns() - begin);
}

static double sample_return_peer(void *context)
{
	struct balloon_context *c = context;
	bool fine = one_by_one(c, gn_p2m_balloon, false);
	uint64_t begin = micro_now_ns();

	fine = fine && one_by_one(c, gn_p2m_unballoon, true);
	return fine ? gib_per_s(PEER_PAGES, micro_now_ns() - begin) : NAN;
}

/* ---- The guest ---------------------------------------------------------------------------------------- */

static void balloon_teardown(void *context)
{
	struct balloon_context *c = context;

	gn_vm_destroy(c->vm);
	if (c->has_plain)
		gn_host_memory_unmap(&c->plain);
	free(c->runs);
	free(c->ranges);
	free(c);
}

/* Runs of @run_pages, @gap_pages between them. */
static int lay_out(struct balloon_context *c, uint64_t run_pages, uint64_t gap_pages)
{
	c->count = c->pages / (run_pages + gap_pages);
	c->run_pages = c->count * run_pages;
	c->runs = calloc(c->count, sizeof(*c->runs));
	c->ranges = calloc(c->count, sizeof(*c->ranges));
	if (!c->runs || !c->ranges)
		return -ENOMEM;
	for (size_t i = 0; i < c->count; i++) {
		uint64_t first = i * (run_pages + gap_pages);

		c->runs[i] = (struct gn_gfn_run){ gfn(first), run_pages };
		c->ranges[i] =
			(struct gn_host_range){ first * GN_PAGE_SIZE, run_pages * GN_PAGE_SIZE };
	}
	return 0;
}

static int balloon_prepare(struct balloon_context *c)
{
	const struct gn_vm_config config = { .scheme = "ept",
					     .mem_bytes = c->pages * GN_PAGE_SIZE,
					     .vcpus = 1,
					     .backing_level = c->huge ? 2 : 1,
					     .pool = GN_POOL_ANONYMOUS };
	uint64_t bytes = c->pages * GN_PAGE_SIZE;
	int err = gn_vm_create(&config, &c->vm);

	if (err)
		return err;
	c->vcpu = gn_vm_vcpu(c->vm, 0);
	err = gn_host_memory_map(GN_POOL_ANONYMOUS, bytes, c->huge, 0, &c->plain);
	c->has_plain = !err;
	if (err)
		return err;
	/* The pages between the runs are there as well. */
	for (uint64_t page = 0; page < c->pages; page++) {
		if (!touch(c, page))
			return -ENOMEM;
		c->plain.base[page * GN_PAGE_SIZE] = 1;
	}
	return 0;
}

static void *balloon_setup(uint64_t mib, bool huge, uint64_t run_pages, uint64_t gap_pages,
			   char *why, size_t why_bytes)
{
	struct balloon_context *c = calloc(1, sizeof(*c));
	int err = -ENOMEM;

	if (c) {
		c->pages = mib << (20 - GN_PAGE_SHIFT);
		c->huge = huge;
		err = lay_out(c, run_pages, gap_pages);
	}
	if (!err)
		err = balloon_prepare(c);
	if (!err)
		return c;
	snprintf(why, why_bytes, "setting up the guest: %s", strerror(-err));
	if (c)
		balloon_teardown(c);
	return NULL;
}

static void *setup_scattered(char *why, size_t why_bytes)
{
	return balloon_setup(256, false, 1, 1, why, why_bytes);
}

static void *setup_coalesced(char *why, size_t why_bytes)
{
	return balloon_setup(256, false, BLOCK_PAGES, 0, why, why_bytes);
}

static void *setup_huge(char *why, size_t why_bytes)
{
	return balloon_setup(256, true, BLOCK_PAGES, 0, why, why_bytes);
}

#define INFLATE(var, label, text, set_up)                                                          \
	const struct micro var = {                                                                 \
		label,                                                                             \
		"GiB/cpu-s",                                                                       \
		text,                                                                              \
		true,                                                                              \
		0.75,                                                                              \
		set_up,                                                                            \
		balloon_teardown,                                                                  \
		{ "gn_p2m_balloon_runs", sample_inflate, 0 },                                      \
		{ "vectored MADV_DONTNEED", sample_inflate_limit, 0 },                             \
		{ "page by page, 256 PFNs a kick", sample_inflate_peer, 0 },                       \
		MICRO_TIMES_LIMIT,                                                                 \
		false,                                                                             \
	}

INFLATE(micro_balloon_scattered, "balloon_scattered", "inflating by every other page of 4 KiB",
	setup_scattered);
INFLATE(micro_balloon_coalesced, "balloon_coalesced",
	"inflating by 2 MiB whose host pages are small", setup_coalesced);
INFLATE(micro_balloon_huge, "balloon_huge", "inflating by 2 MiB, each one host page", setup_huge);

const struct micro micro_balloon_return = {
	"balloon_return",
	"GiB/cpu-s",
	"deflating, and the fault of each page",
	true,
	0.8,
	setup_coalesced,
	balloon_teardown,
	{ "gn_p2m_unballoon_runs and faults", sample_return, 0 },
	{ "first store to each page", sample_return_limit, 0 },
	{ "page by page, 256 PFNs a kick", sample_return_peer, 0 },
	MICRO_TIMES_LIMIT,
	false,
};
