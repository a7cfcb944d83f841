/* SPDX-License-Identifier: MIT */
/*
 * balloon_reform.c - blocks that the balloon split are formed again: which, when, and which are left alone.
 */
#include <errno.h>

#include "support/balloon_rig.h"

#define BLOCK 512u
#define FIRST (2 * BLOCK) /* a block with nothing of the driver's */

static void large_vm(struct gn_balloon_config config, unsigned backing_level)
{
	const struct gn_vm_config large = { .scheme = "bare",
					    .mem_bytes = MEM_BYTES + 7 * GN_PAGE_SIZE,
					    .vcpus = 1,
					    .backing_level = backing_level };
	int err = gn_scheme_register(&bare_scheme);

	cr_assert(!err || err == -EEXIST);
	cr_assert_eq(gn_vm_create(&large, &vm), 0);
	rig_create(config);
	told.now_ns = 1;
	cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST | GN_BALLOON_F_PAGE_REPORTING));
}

static void setup(void)
{
	large_vm((struct gn_balloon_config){ .touch_answer = GN_TOUCH_GRANT }, 2);
}

static void tear_down(void)
{
	struct gn_audit_report report;

	cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
	rig_teardown();
}

TestSuite(balloon_reform, .init = setup, .fini = tear_down);
TestSuite(balloon_reform_not, .fini = tear_down); /* of VMs and devices of their own */

static void stamp(uint64_t first, uint64_t count)
{
	for (uint64_t at = first; at < first + count; at++)
		cr_assert_eq(gn_vm_write(vm, gfn_to_gpa(gfn(at)), &at, sizeof(at)), 0);
}

static uint64_t stamp_of(uint64_t at)
{
	uint64_t value = UINT64_MAX;

	cr_assert_eq(gn_vm_read(vm, gfn_to_gpa(gfn(at)), &value, sizeof(value)), 0);
	return value;
}

static unsigned level_of(uint64_t at)
{
	struct gn_p2m_info info = { .level = 9 };

	cr_assert_eq(gn_p2m_query(vm, gfn(at), &info), 0);
	return info.level;
}

static void calm(void)
{
	told.now_ns += GN_BALLOON_CALM_NS;
}

static unsigned reform(void)
{
	return gn_balloon_reform(driver.balloon, 100);
}

Test(balloon_reform, what_was_deflated)
{
	stamp(FIRST, BLOCK);
	cr_assert_eq(level_of(FIRST), 2);
	cr_assert(driver_tell_pages(&driver, INFLATE, FIRST + 10, 5));
	cr_assert_eq(level_of(FIRST), 1);
	calm();
	cr_assert_eq(reform(), 0, "nothing came back");
	cr_assert(driver_tell_pages(&driver, DEFLATE, FIRST + 10, 4));
	cr_assert_eq(rig_stats().split_blocks, 1);
	cr_assert_eq(reform(), 0, "a page is in the balloon");
	cr_assert_eq(rig_stats().split_blocks, 0, "till the next one leaves it");
	cr_assert(driver_tell_pages(&driver, DEFLATE, FIRST + 14, 1));
	cr_assert_eq(level_of(FIRST), 1, "not on the guest's time");
	cr_assert_eq(reform(), 1);
	for (uint64_t at = FIRST; at < FIRST + BLOCK; at++) {
		cr_assert_eq(level_of(at), 2);
		cr_assert_eq(stamp_of(at), at < FIRST + 10 || at >= FIRST + 15 ? at : 0);
	}
	cr_assert_eq(rig_stats().reformed_blocks, 1);
	cr_assert_eq(rig_stats().split_blocks, 0);
	cr_assert_eq(reform(), 0);
	cr_assert_eq(rig_all_faults(), 0);
}

Test(balloon_reform, a_balloon_that_breathes_is_left_alone)
{
	stamp(FIRST, BLOCK);
	for (unsigned i = 0; i < 10; i++) {
		cr_assert(driver_tell_pages(&driver, INFLATE, FIRST, 1));
		cr_assert(driver_tell_pages(&driver, DEFLATE, FIRST, 1));
		told.now_ns += GN_BALLOON_CALM_NS - 1;
		cr_assert_eq(reform(), 0);
		cr_assert_eq(rig_stats().split_blocks, 1, "its time will come");
	}
	told.now_ns++;
	cr_assert_eq(reform(), 1);
	cr_assert_eq(level_of(FIRST), 2);
}

/* Half of the block, and a frame more or less. */
Test(balloon_reform, memory_that_is_not_used_is_not_forced_on_anybody)
{
	stamp(FIRST, BLOCK);
	cr_assert(driver_tell_pages(&driver, INFLATE, FIRST, BLOCK / 2 + 1));
	cr_assert(driver_tell_pages(&driver, DEFLATE, FIRST, BLOCK / 2 + 1));
	calm();
	cr_assert_eq(reform(), 0);
	cr_assert_eq(level_of(FIRST), 0);
	cr_assert_eq(rig_stats().split_blocks, 1);
	stamp(FIRST + 3, 1);
	cr_assert_eq(reform(), 1);
	cr_assert_eq(stamp_of(FIRST + 3), FIRST + 3);
	cr_assert_eq(stamp_of(FIRST + 4), 0);
	cr_assert_eq(stamp_of(FIRST + BLOCK / 2 + 1), FIRST + BLOCK / 2 + 1);
	/* As a whole it comes back by itself. */
	cr_assert(driver_tell_pages(&driver, INFLATE, FIRST, BLOCK));
	cr_assert(driver_tell_pages(&driver, DEFLATE, FIRST, BLOCK));
	calm();
	cr_assert_eq(reform(), 0);
	cr_assert_eq(rig_stats().split_blocks, 0);
	stamp(FIRST, 1);
	cr_assert_eq(level_of(FIRST + 400), 2);
}

Test(balloon_reform, what_a_reset_returned_and_a_touch_was_granted)
{
	stamp(FIRST, 2 * BLOCK);
	cr_assert(driver_tell_pages(&driver, INFLATE, FIRST + BLOCK - 1, 2));
	stamp(FIRST + BLOCK - 1, 1);
	calm();
	cr_assert_eq(rig_stats().granted_pages, 1); /* found by asking */
	cr_assert_eq(reform(), 1);
	cr_assert_eq(level_of(FIRST), 2);
	cr_assert_eq(level_of(FIRST + BLOCK), 0);
	driver_write(&driver, GN_VIRTIO_STATUS, 0);
	cr_assert_eq(reform(), 1);
	cr_assert_eq(level_of(FIRST + BLOCK), 2);
}

Test(balloon_reform, no_more_blocks_than_the_owner_wants)
{
	for (unsigned i = 0; i < 4; i++) {
		stamp(FIRST + i * BLOCK, BLOCK);
		cr_assert(driver_tell_pages(&driver, INFLATE, FIRST + i * BLOCK, i == 1 ? 300 : 1));
		cr_assert(driver_tell_pages(&driver, DEFLATE, FIRST + i * BLOCK, i == 1 ? 300 : 1));
	}
	calm();
	cr_assert_eq(rig_stats().split_blocks, 4);
	cr_assert_eq(gn_balloon_reform(driver.balloon, 0), 0);
	cr_assert_eq(gn_balloon_reform(driver.balloon, 1), 1);
	cr_assert_eq(level_of(FIRST), 2);
	cr_assert_eq(gn_balloon_reform(driver.balloon, 2), 1, "one of them has few frames");
	cr_assert_eq(gn_balloon_reform(driver.balloon, 2), 1, "it does not hold up the others");
	cr_assert_eq(rig_stats().split_blocks, 1);
	cr_assert_eq(rig_stats().reformed_blocks, 3);
}

Test(balloon_reform, what_the_engine_refuses)
{
	pfn_t squatter;
	struct gn_p2m_info info;

	stamp(FIRST, BLOCK);
	cr_assert_eq(gn_p2m_query(vm, gfn(FIRST), &info), 0);
	cr_assert(driver_tell_pages(&driver, INFLATE, FIRST, 1));
	cr_assert(driver_tell_pages(&driver, DEFLATE, FIRST, 1));
	calm();
	/* Its place is taken, and there is no memory for another. */
	cr_assert_eq(gn_frames_alloc_home(vm->frames, 1, info.pfn, &squatter), 0);
	gn_alloc_fail_nth(1);
	cr_assert_eq(reform(), 0);
	cr_assert_eq(gn_alloc_fail_nth(0), 1);
	cr_assert_eq(rig_stats().split_blocks, 1, "it is tried again");
	gn_frames_put(vm->frames, squatter);
	cr_assert_eq(reform(), 0, "the others first, and there are none");
	/* ROM in the midst of it is not going to go away. */
	cr_assert_eq(gn_p2m_protect(vm, gfn(FIRST + 1), 1, true), 0);
	cr_assert_eq(reform(), 0);
	cr_assert_eq(rig_stats().split_blocks, 0, "it is forgotten");
	cr_assert_eq(rig_stats().reformed_blocks, 0);
	cr_assert_eq(rig_stats().host_failures, 0);
}

/* Pages past the last whole block, and free pages that were reported. */
Test(balloon_reform, what_is_none_of_its_business)
{
	struct gn_virtq_used_elem used;

	cr_assert(driver_tell_pages(&driver, INFLATE, PAGES + 2, 3));
	cr_assert(driver_tell_pages(&driver, DEFLATE, PAGES + 2, 3));
	stamp(FIRST, BLOCK);
	driver_set_desc(&driver, 2, 0,
			(struct gn_virtq_desc){ .addr = (FIRST + 5) * GN_PAGE_SIZE,
						.len = GN_PAGE_SIZE,
						.flags = GN_VIRTQ_DESC_F_WRITE });
	driver_offer(&driver, 2, 0);
	driver_notify(&driver, 2);
	cr_assert(driver_collect(&driver, 2, &used));
	cr_assert_eq(rig_stats().reported_pages, 1);
	cr_assert_eq(level_of(FIRST), 1);
	calm();
	cr_assert_eq(rig_stats().split_blocks, 0);
	cr_assert_eq(reform(), 0);
}

Test(balloon_reform_not, small_frames_are_no_blocks)
{
	large_vm((struct gn_balloon_config){ .features = 0 }, 1);
	stamp(FIRST, BLOCK);
	cr_assert(driver_tell_pages(&driver, INFLATE, FIRST, 5));
	cr_assert(driver_tell_pages(&driver, DEFLATE, FIRST, 5));
	calm();
	cr_assert_eq(rig_stats().split_blocks, 0);
	cr_assert_eq(reform(), 0);
}

Test(balloon_reform_not, a_device_without_memory_for_it)
{
	const struct gn_balloon_config config = { .features = 0 };
	unsigned failures = 0;

	large_vm(config, 2);
	gn_balloon_destroy(driver.balloon);
	for (uint64_t n = 1;; n++) {
		int err;

		gn_alloc_fail_nth(n);
		err = gn_balloon_create(vm, &config, &driver.balloon);
		if (gn_alloc_fail_nth(0) < n) {
			cr_assert_eq(err, 0);
			break;
		}
		cr_assert_eq(err, -ENOMEM);
		failures++;
	}
	cr_assert_eq(failures, 1 + 3 * 2 + 1, "the device, three sets, the times");
}
