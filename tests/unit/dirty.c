/* SPDX-License-Identifier: MIT */
/*
 * dirty.c - the dirty log's marks, its harvest at any alignment, what the scheme is asked to protect, and the
 * accessed harvest.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "support/plain_scheme.h"

#define PAGES 1027u /* not a multiple of 8 */

static struct gn_vm *vm;

static void set_up(void)
{
	struct gn_vm_config config = plain_config(PAGES * GN_PAGE_SIZE);

	vm = plain_vm(&config);
	cr_assert_not_null(vm);
}

static void tear_down(void)
{
	gn_vm_destroy(vm);
}

TestSuite(dirty, .init = set_up, .fini = tear_down);

Test(dirty, starts_by_protecting_everything)
{
	uint8_t bitmap[256];

	cr_assert_eq(gn_dirty_harvest(vm, gfn(0), 8, bitmap), -EINVAL, "not on");
	cr_assert_not(gn_dirty_is_logged(vm));
	cr_assert_eq(gn_dirty_start(vm), 0);
	cr_assert(gn_dirty_is_logged(vm));
	cr_assert_eq(plain.ranges, 1);
	cr_assert_eq(plain.start.v, 0);
	cr_assert_eq(plain.end.v, PAGES);
	cr_assert_eq(plain.change, GN_RANGE_WRPROTECT);
	cr_assert(plain.sequence_was_odd);
	cr_assert_eq(plain.flushes, 1);
	cr_assert_not(vm->p2m.sequence & 1);
	cr_assert_eq(gn_dirty_start(vm), -EALREADY);
	gn_dirty_stop(vm);
	gn_dirty_stop(vm);
	cr_assert_not(gn_dirty_is_logged(vm));
	gn_dirty_mark(vm, gfn(3));
	cr_assert_not(gn_dirty_is_marked(vm, gfn(3)));
	cr_assert_eq(gn_dirty_start(vm), 0, "and on again; destroy stops it");
}

Test(dirty, harvest_takes_exactly_the_range)
{
	uint8_t bitmap[256];

	cr_assert_eq(gn_dirty_start(vm), 0);
	for (uint64_t start = 0; start < 20; start++) {
		for (uint64_t count = 1; count < 40; count++) {
			for (uint64_t i = 0; i < 64; i++)
				if (i % 3 != 1)
					gn_dirty_mark(vm, gfn(i));
			memset(bitmap, 0xff, sizeof(bitmap));
			cr_assert_eq(gn_dirty_harvest(vm, gfn(start), count, bitmap), 0);
			for (uint64_t i = 0; i < count; i++)
				cr_assert_eq(bitmap[i / 8] >> (i % 8) & 1, (start + i) % 3 != 1);
			cr_assert_eq(bitmap[(count + 7) / 8], 0xff, "not beyond");
			for (uint64_t i = 0; i < 64; i++)
				cr_assert_eq(gn_dirty_is_marked(vm, gfn(i)),
					     i % 3 != 1 && !(i >= start && i < start + count));
		}
	}
}

/* Few marks, so that whole words have none, at either side of a mark and of the range's ends. */
Test(dirty, harvest_passes_over_words_without_marks)
{
	static const uint64_t marked[] = { 0, 63, 64, 127, 300, 511, 512, 900, 1023, 1024, 1026 };
	static const uint64_t ends[] = { 0, 1, 63, 64, 65, 127, 128, 320, 510, 960, 1024, 1027 };
	enum { MARKED = sizeof(marked) / sizeof(marked[0]), ENDS = sizeof(ends) / sizeof(ends[0]) };
	uint8_t bitmap[PAGES / 8 + 1];

	cr_assert_eq(gn_dirty_start(vm), 0);
	for (unsigned from = 0; from < ENDS; from++) {
		for (unsigned to = from + 1; to < ENDS; to++) {
			const uint64_t start = ends[from], count = ends[to] - start;
			unsigned expected = 0, told = 0;

			for (unsigned i = 0; i < MARKED; i++)
				gn_dirty_mark(vm, gfn(marked[i]));
			cr_assert_eq(gn_dirty_harvest(vm, gfn(start), count, bitmap), 0);
			for (unsigned i = 0; i < MARKED; i++) {
				bool is_in = marked[i] - start < count;

				cr_assert_eq(gn_dirty_is_marked(vm, gfn(marked[i])), !is_in);
				expected += is_in;
				if (is_in)
					cr_assert(bitmap[(marked[i] - start) / 8] >>
							  ((marked[i] - start) % 8) &
						  1);
			}
			for (uint64_t i = 0; i < count; i++)
				told += bitmap[i / 8] >> (i % 8) & 1;
			cr_assert_eq(told, expected, "from %d to %d", (int)start, (int)ends[to]);
		}
	}
}

Test(dirty, harvest_protects_runs_of_marked_pages)
{
	uint8_t bitmap[256];

	cr_assert_eq(gn_dirty_start(vm), 0);
	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(gn_dirty_harvest(vm, gfn(0), PAGES, bitmap), 0);
	cr_assert_eq(plain.ranges + plain.flushes, 0, "nothing marked, nothing done");
	for (uint64_t i = 100; i < 110; i++)
		gn_dirty_mark(vm, gfn(i));
	cr_assert_eq(gn_dirty_harvest(vm, gfn(0), PAGES, bitmap), 0);
	cr_assert_eq(plain.ranges, 1);
	cr_assert_eq(plain.start.v, 100);
	cr_assert_eq(plain.end.v, 110);
	cr_assert_eq(plain.change, GN_RANGE_WRPROTECT);
	cr_assert_eq(plain.flushes, 1);
	gn_dirty_mark(vm, gfn(PAGES - 1));
	gn_dirty_mark(vm, gfn(PAGES)); /* no such page: ignored */
	cr_assert_eq(gn_dirty_harvest(vm, gfn(0), PAGES, bitmap), 0);
	cr_assert_eq(plain.start.v, PAGES - 1);
	cr_assert_eq(plain.end.v, PAGES);
	cr_assert_eq(gn_dirty_harvest(vm, gfn(1), PAGES, bitmap), -EINVAL);
}

Test(dirty, the_engines_own_writes_are_marked)
{
	uint64_t value = 1;
	bool done;

	cr_assert_eq(gn_dirty_start(vm), 0);
	cr_assert_eq(gn_vm_write(vm, gpa(5 * 4096 - 1), &value, 2), 0);
	cr_assert_eq(gn_vcpu_store(gn_vm_vcpu(vm, 0), gpa(9 * 4096), &value, 8), 0);
	/* Marked before it looks whether it stores. */
	cr_assert_eq(gn_vcpu_exchange(gn_vm_vcpu(vm, 0), gpa(13 * 4096), 7, 8, 8, &done), 0);
	cr_assert_not(done);
	cr_assert_eq(gn_vm_read(vm, gpa(11 * 4096), &value, 8), 0);
	cr_assert_eq(gn_p2m_discard(vm, gfn(5), 1), 0);
	for (uint64_t i = 0; i < 20; i++)
		cr_assert_eq(gn_dirty_is_marked(vm, gfn(i)), i == 4 || i == 5 || i == 9 || i == 13,
			     "gfn %u", (unsigned)i);
}

Test(dirty, leaves_are_small_while_logging)
{
	p2m_word_t w = gn_p2m_word(GN_P2M_PRIVATE, GN_RWX, 2, pfn(512));

	cr_assert_eq(gn_vm_leaf_level(vm, w), 2);
	vm->config.max_leaf_level = 1;
	cr_assert_eq(gn_vm_leaf_level(vm, w), 1);
	vm->config.max_leaf_level = 3;
	cr_assert_eq(gn_dirty_start(vm), 0);
	cr_assert_eq(gn_vm_leaf_level(vm, w), 1);
}

Test(dirty, the_log_goes_on_over_a_switch_but_not_into_the_dark)
{
	cr_assert_eq(gn_dirty_start(vm), 0);
	gn_dirty_mark(vm, gfn(3));
	cr_assert_eq(gn_vm_switch_scheme(vm, "plain-guest"), -EBUSY);
	cr_assert_str_eq(gn_vm_scheme(vm), "plain");
	cr_assert(gn_dirty_is_marked(vm, gfn(3)));
	gn_dirty_stop(vm);
	cr_assert_eq(gn_vm_switch_scheme(vm, "plain-guest"), 0);
	cr_assert_eq(gn_dirty_start(vm), -EOPNOTSUPP);
}

Test(dirty, accessed_harvest)
{
	uint8_t bitmap[4] = { 0xff, 0xff, 0xff, 0xff };

	cr_assert_eq(gn_accessed_harvest(vm, gfn(0), 20, bitmap), 0);
	cr_assert_eq(bitmap[0], 1);
	cr_assert_eq(bitmap[2], 0);
	cr_assert_eq(bitmap[3], 0xff);
	cr_assert_eq(plain.flushes, 1);
	cr_assert_eq(gn_accessed_harvest(vm, gfn(0), 0, bitmap), 0);
	cr_assert_eq(plain.flushes, 1);
	cr_assert_eq(gn_accessed_harvest(vm, gfn(0), PAGES + 1, bitmap), -EINVAL);
	cr_assert_eq(gn_vm_switch_scheme(vm, "plain-guest"), 0);
	cr_assert_eq(gn_accessed_harvest(vm, gfn(0), 20, bitmap), -EOPNOTSUPP);
}
