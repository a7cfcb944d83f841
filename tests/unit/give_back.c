/* SPDX-License-Identifier: MIT */
/*
 * give_back.c - runs of frames to the host: what the host has afterwards, what can be taken again and is zero, and a random
 * history against an array.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mmu/arena.h"
#include "mmu/frames.h"
#include "support/resident.h"

#define MIB   ((uint64_t)1 << 20)
#define POOL  (8 * MIB)
#define PAGES (POOL / GN_PAGE_SIZE)

static const struct {
	enum gn_pool_kind kind;
	bool huge;
} kinds[] = { { GN_POOL_MEMFD, false }, { GN_POOL_ANONYMOUS, false }, { GN_POOL_ANONYMOUS, true } };
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct gn_frames *pool(unsigned kind)
{
	struct gn_frames *f;

	cr_assert_eq(gn_frames_new(POOL, kinds[kind].kind, kinds[kind].huge, &f), 0);
	cr_assert_eq(gn_frames_fd(f) >= 0, kinds[kind].kind == GN_POOL_MEMFD);
	return f;
}

static uint64_t *words_of(struct gn_frames *f, uint64_t frame)
{
	return gn_frames_at(f, pfn_to_hpa(pfn(frame)));
}

static uint64_t resident(struct gn_frames *f)
{
	return resident_pages(f->base, POOL);
}

/* Take all of the pool and write to every frame. */
static void take_all(struct gn_frames *f)
{
	for (uint64_t i = 0; i < PAGES; i++) {
		pfn_t p;

		cr_assert_eq(gn_frames_alloc(f, 1, &p), 0);
		cr_assert_eq(p.v, i);
		cr_assert_eq(words_of(f, i)[0] | words_of(f, i)[511], 0, "frame %d", (int)i);
		words_of(f, i)[0] = words_of(f, i)[511] = i + 1;
	}
}

static void put_all(struct gn_frames *f)
{
	const struct gn_frame_run all = { .first = pfn(0), .count = PAGES, .to_host = true };

	cr_assert_eq(gn_frames_put_runs(f, &all, 1), POOL);
	cr_assert_eq(gn_frames_used(f), 0);
	cr_assert_eq(resident(f), 0);
}

Test(give_back, scattered_neighbouring_and_whole_blocks)
{
	/* Unsorted; two that join, one that is a block, one across the border of two blocks. */
	const struct gn_frame_run runs[] = {
		{ pfn(1536), 512, true }, { pfn(7), 1, true },	   { pfn(70), 3, true },
		{ pfn(6), 1, true },	  { pfn(500), 100, true }, { pfn(0), 1, false },
	};

	for (unsigned k = 0; k < KINDS; k++) {
		struct gn_frames *f = pool(k);

		take_all(f);
		cr_assert_eq(resident(f), PAGES);
		cr_assert_eq(gn_frames_put_runs(f, runs, 6), 617 * GN_PAGE_SIZE);
		cr_assert_eq(gn_frames_used(f), PAGES - 618);
		cr_assert_eq(resident(f), PAGES - 617, "the last run stays with the pool");
		cr_assert_eq(words_of(f, 5)[0], 6);
		cr_assert_eq(words_of(f, 8)[511], 9);
		/* They are had again from the lowest up, zeroed. */
		for (unsigned i = 0; i < 618; i++) {
			pfn_t p;

			cr_assert_eq(gn_frames_alloc(f, 1, &p), 0);
			cr_assert_eq(gn_frames_refs(f, p), 1);
			cr_assert_eq(words_of(f, p.v)[0] | words_of(f, p.v)[511], 0);
		}
		cr_assert_eq(gn_frames_used(f), PAGES);
		put_all(f);
		gn_frames_destroy(f);
	}
}

Test(give_back, a_shared_frame_stays_with_its_other_owner)
{
	const struct gn_frame_run runs[] = { { pfn(3), 2, true }, { pfn(4), 1, true } };

	for (unsigned k = 0; k < KINDS; k++) {
		struct gn_frames *f = pool(k);

		take_all(f);
		gn_frames_get(f, pfn(4));
		cr_assert_eq(gn_frames_put_runs(f, runs, 1), GN_PAGE_SIZE);
		cr_assert_eq(gn_frames_refs(f, pfn(4)), 1);
		cr_assert_eq(words_of(f, 4)[0], 5);
		cr_assert_eq(gn_frames_put_runs(f, runs + 1, 1), GN_PAGE_SIZE);
		cr_assert_eq(gn_frames_refs(f, pfn(4)), 0);
		cr_assert_eq(resident(f), PAGES - 2);
		gn_frames_destroy(f);
	}
}

/* A block that left piece by piece is a block again, and not one of those that are kept unpunched. */
Test(give_back, a_block_comes_together_again)
{
	for (unsigned k = 0; k < KINDS; k++) {
		struct gn_frames *f = pool(k);
		pfn_t block;

		take_all(f);
		for (uint64_t i = 0; i < 2; i++)
			for (uint64_t at = 512 + i; at < 1024; at += 2) {
				const struct gn_frame_run run = { pfn(at), 1, true };

				gn_frames_put_runs(f, &run, 1);
			}
		cr_assert_eq(resident(f), PAGES - 512);
		cr_assert_eq(gn_frames_alloc(f, 2, &block), 0);
		cr_assert_eq(block.v, 512);
		for (uint64_t i = 0; i < 512; i++)
			cr_assert_eq(words_of(f, 512 + i)[0], 0);
		gn_frames_destroy(f);
	}
}

/* What the host would not take back is free, and cleared by hand. */
Test(give_back, locked_memory_stays_with_the_pool)
{
	const struct gn_frame_run runs[] = { { pfn(1), 1, true },
					     { pfn(3), 1, true },
					     { pfn(5), 1, true } };
	struct gn_frames *f = pool(1);

	take_all(f);
	/* The kernel's own: AddressSanitizer's mlock() does nothing. */
	cr_assert_eq(syscall(SYS_mlock, words_of(f, 3), GN_PAGE_SIZE), 0);
	cr_assert_eq(gn_frames_put_runs(f, runs, 3), 2 * GN_PAGE_SIZE);
	cr_assert_eq(gn_frames_used(f), PAGES - 3);
	for (unsigned i = 0; i < 3; i++) {
		pfn_t p;

		cr_assert_eq(gn_frames_alloc(f, 1, &p), 0);
		cr_assert_eq(p.v, 2 * i + 1);
		cr_assert_eq(words_of(f, p.v)[0] | words_of(f, p.v)[511], 0);
	}
	gn_frames_destroy(f);
}

/* More ranges than a system call takes. */
Test(give_back, a_big_pool_scattered)
{
	static struct gn_frame_run runs[4096];

	for (unsigned k = 0; k < KINDS; k++) {
		struct gn_frames *f;

		cr_assert_eq(gn_frames_new(32 * MIB, kinds[k].kind, kinds[k].huge, &f), 0);
		for (unsigned i = 0; i < 8192; i++) {
			pfn_t p;

			cr_assert_eq(gn_frames_alloc(f, 1, &p), 0);
			words_of(f, p.v)[9] = 1;
		}
		for (unsigned i = 0; i < 4096; i++)
			runs[i] = (struct gn_frame_run){ pfn(2 * ((i * 1237u) % 4096)), 1, true };
		cr_assert_eq(gn_frames_put_runs(f, runs, 4096), 4096 * GN_PAGE_SIZE);
		cr_assert_eq(resident_pages(f->base, 32 * MIB), 4096);
		for (unsigned i = 0; i < 4096; i++)
			cr_assert_eq(words_of(f, 2 * i + 1)[9], 1);
		gn_frames_destroy(f);
	}
}

Test(give_back, of_a_free_frame_is_a_bug, .signal = SIGABRT)
{
	const struct gn_frame_run run = { pfn(3), 1, true };
	struct gn_frames *f = pool(0);

	gn_frames_put_runs(f, &run, 1);
}

Test(give_back, outside_the_pool_is_a_bug, .signal = SIGABRT)
{
	const struct gn_frame_run run = { pfn(PAGES - 1), 2, true };
	struct gn_frames *f = pool(0);

	take_all(f);
	gn_frames_put_runs(f, &run, 1);
}

Test(give_back, injected_failures_of_every_kind_of_pool)
{
	for (unsigned k = 0; k < KINDS; k++) {
		struct gn_frames *f = NULL;
		uint64_t n = 1;

		for (;; n++) {
			gn_alloc_fail_nth(n);
			int err = gn_frames_new(POOL, kinds[k].kind, kinds[k].huge, &f);

			if (!err)
				break;
			cr_assert_eq(err, -ENOMEM);
			cr_assert_null(f);
		}
		gn_alloc_fail_nth(0);
		cr_assert_geq((long)n, 2);
		gn_frames_destroy(f);
	}
}
