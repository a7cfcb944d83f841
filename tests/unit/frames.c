/* SPDX-License-Identifier: MIT */
/*
 * frames.c - the host frame pool: lowest fit, zeroed frames, blocks, references, the limit; and a random
 * history against an oracle that is an array.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include <gnomon/engine.h>

#include "mmu/frames.h"

#define MIB ((uint64_t)1 << 20)

static struct gn_frames *pool(uint64_t bytes)
{
	struct gn_frames *f;

	cr_assert_eq(gn_frames_new(bytes, GN_POOL_MEMFD, false, &f), 0);
	return f;
}

static void *at(struct gn_frames *f, uint64_t frame)
{
	return gn_frames_at(f, pfn_to_hpa(pfn(frame)));
}

static bool is_zero(struct gn_frames *f, uint64_t frame)
{
	const uint64_t *p = at(f, frame);

	for (unsigned i = 0; i < GN_TABLE_ENTRIES; i++)
		if (p[i])
			return false;
	return true;
}

static uint64_t take(struct gn_frames *f, unsigned level)
{
	pfn_t p = { 0 };

	cr_assert_eq(gn_frames_alloc(f, level, &p), 0, "level %u", level);
	return p.v;
}

static void give(struct gn_frames *f, uint64_t frame, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		cr_assert(gn_frames_put(f, pfn(frame + i)));
}

Test(frames, size_is_rounded_up_and_checked)
{
	struct gn_frames *f = pool(1);

	cr_assert_eq(f->frame_count, 512);
	cr_assert(gn_frames_valid(f, pfn(511)));
	cr_assert_not(gn_frames_valid(f, pfn(512)));
	cr_assert_geq(gn_frames_fd(f), 0);
	gn_frames_destroy(f);
	cr_assert_eq(gn_frames_new(0, GN_POOL_MEMFD, false, &f), -EINVAL);
	cr_assert_eq(gn_frames_new((uint64_t)1 << 60, GN_POOL_MEMFD, false, &f), -EINVAL);
	cr_assert_neq(gn_frames_new((uint64_t)1 << 51, GN_POOL_MEMFD, false, &f), 0,
		      "more than the address space");
	gn_frames_destroy(NULL);
}

Test(frames, lowest_first)
{
	struct gn_frames *f = pool(4 * MIB);

	for (uint64_t i = 0; i < 1024; i++)
		cr_assert_eq(take(f, 1), i);
	cr_assert_eq(gn_frames_used(f), 1024);
	for (uint64_t i = 0; i < 1024; i += 3)
		give(f, i, 1);
	for (uint64_t i = 0; i < 1024; i += 3)
		cr_assert_eq(take(f, 1), i);
	give(f, 700, 1);
	give(f, 5, 1);
	cr_assert_eq(take(f, 1), 5);
	cr_assert_eq(take(f, 1), 700);
	gn_frames_destroy(f);
}

Test(frames, the_limit_is_enomem)
{
	struct gn_frames *f = pool(2 * MIB);
	pfn_t p = { 77 };

	for (unsigned i = 0; i < 512; i++)
		take(f, 1);
	cr_assert_eq(gn_frames_alloc(f, 1, &p), -ENOMEM);
	cr_assert_eq(gn_frames_alloc(f, 2, &p), -ENOMEM);
	cr_assert_eq(gn_frames_alloc(f, 3, &p), -ENOMEM);
	cr_assert_eq(p.v, 77, "out untouched");
	give(f, 100, 1);
	cr_assert_eq(take(f, 1), 100);
	gn_frames_destroy(f);
}

Test(frames, frames_are_zero_whatever_the_last_owner_wrote)
{
	struct gn_frames *f = pool(4 * MIB);
	uint64_t block;

	for (unsigned round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 600; i++) {
			uint64_t frame = take(f, 1);

			cr_assert(is_zero(f, frame));
			memset(at(f, frame), 0xaa, GN_PAGE_SIZE);
		}
		give(f, 0, 600);
		block = take(f, 2);
		for (uint64_t i = 0; i < 512; i++) {
			cr_assert(is_zero(f, block + i));
			memset(at(f, block + i), 0xbb, GN_PAGE_SIZE);
		}
		give(f, block, 512);
	}
	gn_frames_destroy(f);
}

Test(frames, blocks_are_aligned_whole_and_can_be_split)
{
	struct gn_frames *f = pool(8 * MIB);

	cr_assert_eq(take(f, 1), 0);
	cr_assert_eq(take(f, 2), 512);
	cr_assert_eq(take(f, 2), 1024);
	cr_assert_eq(gn_frames_used(f), 1 + 1024);
	for (uint64_t i = 512; i < 1536; i++)
		cr_assert_eq(gn_frames_refs(f, pfn(i)), 1);
	/* A split block gives its frames back one by one, and is a block again in the end. */
	give(f, 600, 1);
	cr_assert_eq(take(f, 1), 1);
	cr_assert_eq(take(f, 2), 1536);
	give(f, 512, 88);
	give(f, 601, 423);
	cr_assert_eq(take(f, 2), 512);
	gn_frames_destroy(f);
}

Test(frames, gib_blocks)
{
	struct gn_frames *f = pool(2048 * MIB + 2 * MIB);
	pfn_t p;

	cr_assert_eq(take(f, 1), 0);
	cr_assert_eq(take(f, 3), 262144);
	cr_assert_eq(gn_frames_used(f), 262145);
	cr_assert(is_zero(f, 262144 + 777));
	cr_assert_eq(gn_frames_refs(f, pfn(524287)), 1);
	cr_assert_eq(gn_frames_alloc(f, 3, &p), -ENOMEM, "two MiB are no GiB");
	give(f, 0, 1);
	cr_assert_eq(take(f, 3), 0);
	cr_assert_eq(take(f, 2), 524288);
	cr_assert_eq(gn_frames_alloc(f, 1, &p), -ENOMEM);
	give(f, 0, 262144);
	cr_assert_eq(take(f, 2), 0);
	gn_frames_destroy(f);
}

Test(frames, references)
{
	struct gn_frames *f = pool(2 * MIB);
	uint64_t frame = take(f, 1);

	gn_frames_get(f, pfn(frame));
	gn_frames_get(f, pfn(frame));
	cr_assert_eq(gn_frames_refs(f, pfn(frame)), 3);
	cr_assert_not(gn_frames_put(f, pfn(frame)));
	cr_assert_not(gn_frames_put(f, pfn(frame)));
	cr_assert_eq(gn_frames_used(f), 1);
	cr_assert(gn_frames_put(f, pfn(frame)));
	cr_assert_eq(gn_frames_used(f), 0);
	cr_assert_eq(gn_frames_refs(f, pfn(frame)), 0);
	gn_frames_destroy(f);
}

Test(frames, free_memory_goes_back_to_the_host)
{
	struct gn_frames *f = pool(256 * MIB);
	struct stat full, freed;

	for (unsigned i = 0; i < 128; i++) {
		uint64_t block = take(f, 2);

		for (uint64_t page = 0; page < 512; page++)
			*(uint64_t *)at(f, block + page) = page + 1;
	}
	cr_assert_eq(fstat(gn_frames_fd(f), &full), 0);
	cr_assert_geq(full.st_blocks * 512, (long)(256 * MIB));
	give(f, 0, 128 * 512);
	cr_assert_eq(fstat(gn_frames_fd(f), &freed), 0);
	cr_assert_leq(freed.st_blocks * 512, (long)(33 * MIB), "only the kept blocks remain");
	for (unsigned i = 0; i < 128; i++) {
		uint64_t block = take(f, 2);

		cr_assert_eq(block, i * 512u);
		cr_assert(is_zero(f, block) && is_zero(f, block + 511));
	}
	gn_frames_destroy(f);
}

Test(frames, put_of_a_free_frame_is_a_bug, .signal = SIGABRT)
{
	struct gn_frames *f = pool(2 * MIB);

	gn_frames_put(f, pfn(3));
}

Test(frames, get_of_a_free_frame_is_a_bug, .signal = SIGABRT)
{
	struct gn_frames *f = pool(2 * MIB);

	gn_frames_get(f, pfn(3));
}

Test(frames, injected_failures_leave_nothing)
{
	struct gn_frames *f = NULL;
	uint64_t n = 1;

	for (;; n++) {
		gn_alloc_fail_nth(n);
		int err = gn_frames_new(2 * MIB, GN_POOL_MEMFD, false, &f);

		if (!err)
			break;
		cr_assert_eq(err, -ENOMEM);
		cr_assert_null(f);
	}
	cr_assert_geq((long)n, 2);
	gn_alloc_fail_nth(1);
	pfn_t p;

	cr_assert_eq(gn_frames_alloc(f, 1, &p), -ENOMEM);
	cr_assert_eq(gn_frames_used(f), 0);
	cr_assert_eq(take(f, 1), 0);
	gn_frames_destroy(f);
}

/* ---- A random history against an array --------------------------------------------------------------- */

#define FRAMES 4096u
static uint8_t refs[FRAMES];

static uint64_t lowest(unsigned count)
{
	for (uint64_t i = 0; i < FRAMES; i += count) {
		unsigned n = 0;

		while (n < count && !refs[i + n])
			n++;
		if (n == count)
			return i;
	}
	return FRAMES;
}

Test(frames, agrees_with_an_array)
{
	struct gn_frames *f = pool(FRAMES * GN_PAGE_SIZE);
	uint64_t x = 88172645463325252u, used = 0;

	for (unsigned step = 0; step < 300000; step++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		uint64_t i = (x >> 20) % FRAMES;
		/* Phases of growth and of shrinking, or it would hover in the middle. */
		bool grow = ((x >> 40) % 8) < ((step / 20000) & 1 ? 2 : 6);

		if (grow) {
			unsigned level = (x >> 50) % 64 ? 1 : 2, count = level == 1 ? 1 : 512;
			uint64_t expect = lowest(count);
			pfn_t p;
			int err = gn_frames_alloc(f, level, &p);

			cr_assert_eq(err, expect == FRAMES ? -ENOMEM : 0, "step %u", step);
			if (err)
				continue;
			cr_assert_eq(p.v, expect, "step %u", step);
			for (unsigned k = 0; k < count; k++) {
				uint64_t *word = at(f, p.v + k);

				cr_assert(!word[0] && !word[511], "step %u", step);
				word[0] = word[511] = x;
				refs[p.v + k] = 1;
			}
			used += count;
		} else if (refs[i]) {
			if ((x >> 55) % 4 == 0 && refs[i] < 200) {
				gn_frames_get(f, pfn(i));
				refs[i]++;
			} else {
				refs[i]--;
				cr_assert_eq(gn_frames_put(f, pfn(i)), refs[i] == 0);
				used -= refs[i] == 0;
			}
		}
		cr_assert_eq(gn_frames_used(f), used);
	}
	for (uint64_t i = 0; i < FRAMES; i++)
		cr_assert_eq(gn_frames_refs(f, pfn(i)), refs[i]);
	gn_frames_destroy(f);
}

/* Tables of the VMM's own come from the other end, so they never move the guest's frames. */
Test(frames, tables_come_from_the_top)
{
	struct gn_frames *frames;
	pfn_t high, higher, low;
	uint64_t *words;

	cr_assert_eq(gn_frames_new((uint64_t)4 << 20, GN_POOL_MEMFD, false, &frames), 0);
	cr_assert_eq(gn_frames_alloc_table(frames, &higher), 0);
	cr_assert_eq(gn_frames_alloc_table(frames, &high), 0);
	cr_assert_eq(gn_frames_alloc(frames, 1, &low), 0);
	cr_assert_eq(higher.v, frames->frame_count - 1);
	cr_assert_eq(high.v, frames->frame_count - 2);
	cr_assert_eq(low.v, 0);
	words = gn_frames_at(frames, pfn_to_hpa(higher));
	words[5] = 1;
	cr_assert(gn_frames_put(frames, higher));
	cr_assert_eq(gn_frames_alloc_table(frames, &higher), 0);
	cr_assert_eq(higher.v, frames->frame_count - 1);
	cr_assert_eq(words[5], 0, "not cleared");
	for (uint64_t i = 3; i < frames->frame_count; i++)
		cr_assert_eq(gn_frames_alloc_table(frames, &high), 0);
	cr_assert_eq(gn_frames_alloc_table(frames, &high), -ENOMEM);
	cr_assert_eq(gn_frames_used(frames), frames->frame_count);
	for (uint64_t i = 0; i < frames->frame_count; i++)
		cr_assert(gn_frames_put(frames, pfn(i)));
	gn_frames_destroy(frames);
}

/* At home if that is free, else far from other homes. Zeroed, counted, and never given twice. */
Test(frames, home)
{
	struct gn_frames *f = pool(8 * MIB);
	pfn_t p;

	cr_assert_eq(gn_frames_alloc_home(f, 1, pfn(700), &p), 0);
	cr_assert_eq(p.v, 700);
	memset(at(f, 700), 1, GN_PAGE_SIZE);
	cr_assert_eq(gn_frames_alloc_home(f, 1, pfn(700), &p), 0);
	cr_assert_eq(p.v, 2047, "a frame that is hardly anyone's home");
	cr_assert_eq(gn_frames_alloc_home(f, 2, pfn(512), &p), -ENOMEM, "it is in use");
	cr_assert_eq(gn_frames_alloc_home(f, 2, pfn(1024), &p), 0);
	cr_assert_eq(p.v, 1024);
	cr_assert_eq(gn_frames_used(f), 2 + 512);
	give(f, 700, 1);
	cr_assert_eq(gn_frames_alloc_home(f, 1, pfn(700), &p), 0);
	cr_assert_eq(p.v, 700);
	cr_assert(is_zero(f, 700));
	/* Beyond the pool there is no home. */
	cr_assert_eq(gn_frames_alloc_home(f, 1, pfn(1 << 20), &p), 0);
	cr_assert_lt(p.v, f->frame_count);
	cr_assert_eq(gn_frames_alloc_home(f, 3, pfn(0), &p), -ENOMEM);
	gn_alloc_fail_nth(1);
	cr_assert_eq(gn_frames_alloc_home(f, 1, pfn(701), &p), -ENOMEM);
	gn_alloc_fail_nth(0);
	gn_frames_destroy(f);
}
