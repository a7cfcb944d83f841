/* SPDX-License-Identifier: MIT */
/*
 * balloon_hostile.c - guests that lie, tear and loop: each is answered, counted, and hurts nobody
 * but itself.
 *
 * docs/balloon.md has the table of what a guest may do; here is what concerns queues, buffers and
 * their contents, and the bound on what one access costs. Registers, negotiation and the setup of
 * queues are in balloon_mmio.c, touches, ping-pong and hints in balloon_device.c.
 */
#include <errno.h>
#include <stdlib.h>

#include "support/balloon_rig.h"

TestSuite(balloon_hostile, .init = rig_setup, .fini = rig_teardown);

static struct gn_virtq_desc desc(uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	return (struct gn_virtq_desc){ .addr = addr, .len = len, .flags = flags, .next = next };
}

/* One chain from descriptor 0, offered and notified. True: it was used. */
static bool tell_chain(unsigned index, const struct gn_virtq_desc *chain, unsigned count)
{
	struct gn_virtq_used_elem used;

	for (unsigned i = 0; i < count; i++)
		driver_set_desc(&driver, index, i, chain[i]);
	driver_offer(&driver, index, 0);
	driver_notify(&driver, index);
	return driver_collect(&driver, index, &used) && used.len == 0;
}

/* The device is broken and says so; after a reset it is as new. */
static void check_broken_until_reset(enum gn_balloon_fault fault)
{
	cr_assert(rig_is_broken());
	cr_assert_eq(rig_faults(fault), 1, "%s", gn_balloon_fault_name(fault));
	cr_assert_not_null(rig_stats().broken_why);
	cr_assert(told.events & GN_BALLOON_EVENT_BROKEN);
	cr_assert(driver_read(&driver, GN_VIRTIO_INTERRUPT_STATUS) & GN_VIRTIO_INTERRUPT_CONFIG);
	cr_assert_not(driver_tell_pages(&driver, DEFLATE, 2000, 1), "nothing is done");
	cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST));
	cr_assert_not(rig_is_broken());
	cr_assert(driver_tell_pages(&driver, INFLATE, 2000, 1));
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 1);
}

/* ---- Pages ----------------------------------------------------------------------------------- */

Test(balloon_hostile, pages_are_checked_one_by_one)
{
	const uint32_t pfns[] = {
		2000,	    PAGES, /* the first that is not there */
		UINT32_MAX,	   /* nor that */
		2000,		   /* again */
		2001,		   /* ROM */
		2002,		   /* MMIO */
		2003,		   /* ballooned by someone else */
		2004,
	};

	rig_start(0);
	cr_assert_eq(gn_p2m_protect(vm, gfn(2001), 1, true), 0);
	cr_assert_eq(gn_p2m_set_mmio(vm, gfn(2002), 1), 0);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(2003), 1), 0);
	cr_assert(driver_tell(&driver, INFLATE, pfns, sizeof(pfns)));
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_RANGE), 2);
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_DUPLICATE), 1);
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_OWNER), 3);
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 2, "the good ones went");
	cr_assert_eq(rig_state(2001), GN_P2M_READONLY);
	cr_assert_eq(rig_state(2002), GN_P2M_MMIO);

	cr_assert(driver_tell(&driver, INFLATE, pfns, 4));
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_DUPLICATE), 2, "in the balloon already");
	cr_assert(driver_tell_pages(&driver, DEFLATE, 2002, 2));
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_NOT_HELD), 2);
	cr_assert_eq(rig_state(2003), GN_P2M_BALLOONED, "what someone else took stays");
	cr_assert_not(rig_is_broken());
}

Test(balloon_hostile, never_given_back)
{
	rig_start(0);
	cr_assert(driver_tell_pages(&driver, INFLATE, 1024, 1024));
	gn_balloon_set_target(driver.balloon, 0);
	cr_assert(driver_tell_pages(&driver, INFLATE, 2048, 1024), "more than was asked for");
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 2048);
	cr_assert_eq(rig_stats().target_pages, 0, "host and policy see both");
}

/* ---- Rings ----------------------------------------------------------------------------------- */

Test(balloon_hostile, torn_index)
{
	const uint16_t idx = DRIVER_QUEUE_SIZE + 1;

	rig_start(0);
	gn_vm_write(vm, gpa(driver_avail_pa(INFLATE) + 2), &idx, 2);
	driver_notify(&driver, INFLATE);
	check_broken_until_reset(GN_BALLOON_FAULT_INDEX);
}

Test(balloon_hostile, index_that_goes_back)
{
	const uint16_t idx = 0;

	rig_start(0);
	cr_assert(driver_tell_pages(&driver, INFLATE, 100, 1));
	gn_vm_write(vm, gpa(driver_avail_pa(INFLATE) + 2), &idx, 2);
	driver_notify(&driver, INFLATE);
	check_broken_until_reset(GN_BALLOON_FAULT_INDEX);
}

Test(balloon_hostile, head_out_of_the_table)
{
	rig_start(0);
	driver_offer(&driver, INFLATE, DRIVER_QUEUE_SIZE);
	driver_notify(&driver, INFLATE);
	check_broken_until_reset(GN_BALLOON_FAULT_CHAIN);
}

Test(balloon_hostile, chains_that_are_none)
{
	const struct gn_virtq_desc cases[][2] = {
		{ desc(0x3000, 4, GN_VIRTQ_DESC_F_NEXT, 0) }, /* itself */
		{ desc(0x3000, 4, GN_VIRTQ_DESC_F_NEXT, 1),
		  desc(0x3000, 4, GN_VIRTQ_DESC_F_NEXT, 0) },		      /* two in a ring */
		{ desc(0x3000, 4, GN_VIRTQ_DESC_F_NEXT, DRIVER_QUEUE_SIZE) }, /* out of it */
		{ desc(0x3000, 4, GN_VIRTQ_DESC_F_NEXT, 65535) },
		{ desc(0x3000, 16, GN_VIRTQ_DESC_F_INDIRECT, 0) },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (unsigned index = 0; index < GN_BALLOON_QUEUES; index++) {
			rig_create((struct gn_balloon_config){ .features = 0 });
			cr_assert(driver_start(&driver, GN_BALLOON_F_ALL));
			cr_assert_not(tell_chain(index, cases[i], 2), "case %u", i);
			check_broken_until_reset(GN_BALLOON_FAULT_CHAIN);
			gn_balloon_destroy(driver.balloon);
			cr_assert_eq(gn_p2m_unballoon(vm, gfn(2000), 1), 0);
		}
	driver.balloon = NULL;
}

/* What came before the bad chain is done and used. */
Test(balloon_hostile, good_buffers_before_a_bad_one)
{
	const uint32_t pfn = 1500;

	rig_start(0);
	gn_vm_write(vm, gpa(driver_buffer_pa(INFLATE)), &pfn, 4);
	driver_set_desc(&driver, INFLATE, 0, desc(driver_buffer_pa(INFLATE), 4, 0, 0));
	driver_set_desc(&driver, INFLATE, 1, desc(0, 4, GN_VIRTQ_DESC_F_NEXT, 1));
	driver_offer(&driver, INFLATE, 0);
	driver_offer(&driver, INFLATE, 1);
	driver_notify(&driver, INFLATE);
	cr_assert_eq(driver_used_idx(&driver, INFLATE), 1);
	cr_assert_eq(rig_state(1500), GN_P2M_BALLOONED);
	check_broken_until_reset(GN_BALLOON_FAULT_CHAIN);
}

/* Rings whose memory goes away under the device. */
static void take_queue_page(unsigned how)
{
	const gfn_t page = gpa_to_gfn(gpa(driver_queue_pa(INFLATE)));

	switch (how) {
	case 0: /* the guest itself gives it away */
		(void)driver_tell_pages(&driver, INFLATE, (uint32_t)page.v, 1);
		break;
	case 1:
		cr_assert_eq(gn_p2m_set_mmio(vm, page, 1), 0);
		driver_notify(&driver, INFLATE);
		break;
	default: /* it can be read, but a used buffer cannot be told */
		driver_set_desc(&driver, INFLATE, 0, desc(driver_buffer_pa(INFLATE), 4, 0, 0));
		driver_offer(&driver, INFLATE, 0);
		cr_assert_eq(gn_p2m_protect(vm, page, 1, true), 0);
		driver_notify(&driver, INFLATE);
	}
}

Test(balloon_hostile, rings_that_go_away)
{
	for (unsigned how = 0; how < 3; how++) {
		rig_create((struct gn_balloon_config){ .features = 0 });
		cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST));
		take_queue_page(how);
		cr_assert(rig_is_broken(), "case %u", how);
		cr_assert_eq(rig_faults(GN_BALLOON_FAULT_RING), 1, "case %u", how);
		driver_write(&driver, GN_VIRTIO_STATUS, 0);
		cr_assert_not(rig_is_broken());
		gn_balloon_destroy(driver.balloon);
		driver.balloon = NULL;
		gn_vm_destroy(vm);
		rig_setup();
	}
}

/* All of a queue's parts in one place: the device reads its own writes, and stops at some point or
 * not at all. */
Test(balloon_hostile, rings_that_overlap)
{
	rig_start(0);
	for (unsigned index = 0; index < 2; index++) {
		driver_write(&driver, GN_VIRTIO_QUEUE_SEL, index);
		driver_write(&driver, GN_VIRTIO_QUEUE_READY, 0);
		cr_assert(driver_set_queue(&driver, index, 0x5000, 0x5000, 0x5000, 16));
	}
	for (unsigned i = 0; i < 1000; i++)
		driver_notify(&driver, i % 2);
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 0);
}

/* ---- Buffers --------------------------------------------------------------------------------- */

Test(balloon_hostile, buffers_that_are_none)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags;
		enum gn_balloon_fault fault;
	} cases[] = {
		{ 0x30000, 0, 0, GN_BALLOON_FAULT_LENGTH },
		{ 0x30000, 3, 0, GN_BALLOON_FAULT_LENGTH },
		{ 0x30000, 6, 0, GN_BALLOON_FAULT_LENGTH },
		{ 0x30000, UINT32_MAX, 0, GN_BALLOON_FAULT_LENGTH },
		{ 0x30000, UINT32_MAX - 3, 0, GN_BALLOON_FAULT_LENGTH },
		{ 0x30000, PAGES * 4 + 4, 0, GN_BALLOON_FAULT_LENGTH },
		{ MEM_BYTES, 4, 0, GN_BALLOON_FAULT_ADDRESS },
		{ MEM_BYTES - 2, 4, 0, GN_BALLOON_FAULT_ADDRESS },
		{ UINT64_MAX - 1, 4, 0, GN_BALLOON_FAULT_ADDRESS },
		{ GN_BALLOON_MMIO_GPA, 4, 0, GN_BALLOON_FAULT_ADDRESS },
		{ 0x30000, 4, GN_VIRTQ_DESC_F_WRITE, GN_BALLOON_FAULT_DIRECTION },
	};

	rig_start(0);
	for (unsigned index = 0; index < 2; index++)
		for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			uint64_t before = rig_all_faults(), kind = rig_faults(cases[i].fault);
			struct gn_virtq_desc d =
				desc(cases[i].addr, cases[i].len, cases[i].flags, 0);

			cr_assert(tell_chain(index, &d, 1), "case %u", i);
			cr_assert_eq(rig_faults(cases[i].fault), kind + 1, "case %u", i);
			cr_assert_eq(rig_all_faults(), before + 1, "case %u", i);
		}
	cr_assert_not(rig_is_broken());
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 0);
}

Test(balloon_hostile, many_lengths_that_are_too_much_together)
{
	struct gn_virtq_desc chain[DRIVER_QUEUE_SIZE];

	rig_start(0);
	for (uint16_t i = 0; i < DRIVER_QUEUE_SIZE; i++)
		chain[i] = desc(0x100000, PAGES * 4 / 8, i + 1 < DRIVER_QUEUE_SIZE, i + 1);
	cr_assert(tell_chain(INFLATE, chain, DRIVER_QUEUE_SIZE));
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_LENGTH), 1);
	cr_assert_eq(rig_all_faults(), 1, "and none of the pages was looked at");
}

Test(balloon_hostile, a_buffer_in_ballooned_memory)
{
	struct gn_virtq_desc d = desc(2000 << GN_PAGE_SHIFT, 4, 0, 0);

	rig_start(0);
	cr_assert(driver_tell_pages(&driver, INFLATE, 2000, 1));
	cr_assert(tell_chain(DEFLATE, &d, 1));
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_ADDRESS), 1);
	cr_assert_eq(rig_state(2000), GN_P2M_BALLOONED, "a read by the device is no way back");
}

/* 16 buffers for queue @index, each of which names as many pages as there are, none of which
 * exists. */
static void offer_much_work(unsigned index)
{
	static uint32_t pfns[PAGES];

	for (uint32_t i = 0; i < PAGES; i++)
		pfns[i] = UINT32_MAX - i;
	gn_vm_write(vm, gpa(0x100000), pfns, sizeof(pfns));
	for (uint16_t i = 0; i < DRIVER_QUEUE_SIZE; i++) {
		driver_set_desc(&driver, index, i, desc(0x100000, sizeof(pfns), 0, 0));
		driver_offer(&driver, index, i);
	}
}

Test(balloon_hostile, much_work_is_done_by_and_by)
{
	rig_start(0);
	offer_much_work(INFLATE);
	driver_notify(&driver, INFLATE);
	for (unsigned done = 1; done <= DRIVER_QUEUE_SIZE; done++) {
		cr_assert_eq(driver_used_idx(&driver, INFLATE), done);
		cr_assert_eq(rig_faults(GN_BALLOON_FAULT_RANGE), done * PAGES);
		(void)driver_read(&driver, GN_VIRTIO_INTERRUPT_STATUS);
	}
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_RANGE), DRIVER_QUEUE_SIZE * PAGES);
}

/* Every queue is full of work, and all are pending at once: they share what an access may take, and
 * take turns. */
Test(balloon_hostile, queues_share_the_work_of_an_access)
{
	enum { STATS = 2, HINTING, REPORTING };
	uint64_t looked_at = 0, before = 0;
	unsigned accesses = 0;

	rig_create((struct gn_balloon_config){ .queue_size_max = DRIVER_QUEUE_SIZE });
	cr_assert(driver_negotiate(&driver, GN_VIRTIO_F_VERSION_1 | GN_BALLOON_F_ALL));
	cr_assert(driver_set_queues(&driver));
	cr_assert_eq(gn_p2m_set_mmio(vm, gfn(1024), 1024), 0);
	offer_much_work(INFLATE);
	offer_much_work(DEFLATE);
	for (uint16_t i = 0; i < DRIVER_QUEUE_SIZE; i++) {
		/* One long chain, and every head begins it somewhere: 136 descriptors of
		 * statistics. */
		driver_set_desc(&driver, STATS, i,
				desc(0, 0, i + 1 < DRIVER_QUEUE_SIZE, (uint16_t)(i + 1)));
		driver_offer(&driver, STATS, i);
		driver_set_desc(&driver, REPORTING, i,
				desc(1024 << GN_PAGE_SHIFT, 1024 << GN_PAGE_SHIFT,
				     GN_VIRTQ_DESC_F_WRITE, 0));
		driver_offer(&driver, REPORTING, i);
	}
	for (unsigned index = 0; index < GN_BALLOON_QUEUES; index++)
		driver_notify(&driver, index);
	driver_ok(&driver);
	do {
		looked_at = rig_faults(GN_BALLOON_FAULT_RANGE) + rig_faults(GN_BALLOON_FAULT_OWNER);
		cr_assert_leq(looked_at - before, PAGES, "access %u", accesses);
		before = looked_at;
		(void)driver_read(&driver, GN_VIRTIO_INTERRUPT_STATUS);
		/* The queues move on together. */
		cr_assert_leq(
			abs(driver_used_idx(&driver, INFLATE) - driver_used_idx(&driver, DEFLATE)),
			2, "access %u", accesses);
	} while (looked_at < (2 * PAGES + 1024) * DRIVER_QUEUE_SIZE && accesses++ < 100);
	cr_assert_lt(accesses, 100);
	cr_assert_eq(driver_used_idx(&driver, REPORTING), DRIVER_QUEUE_SIZE);
	cr_assert_eq(driver_used_idx(&driver, STATS), DRIVER_QUEUE_SIZE - 1, "one is kept");
	cr_assert_not(rig_is_broken());
}

/* ---- Ranges ---------------------------------------------------------------------------------- */

Test(balloon_hostile, reported_ranges_are_checked)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags;
		enum gn_balloon_fault fault;
		unsigned count;
	} cases[] = {
		{ 0x100000, 4096, 0, GN_BALLOON_FAULT_DIRECTION, 1 },
		{ 0x100000, 0, GN_VIRTQ_DESC_F_WRITE, GN_BALLOON_FAULT_LENGTH, 1 },
		{ 0x100800, 4096, GN_VIRTQ_DESC_F_WRITE, GN_BALLOON_FAULT_LENGTH, 1 },
		{ 0x100000, MEM_BYTES, GN_VIRTQ_DESC_F_WRITE, GN_BALLOON_FAULT_ADDRESS, 1 },
		{ 0x100000, UINT32_MAX, GN_VIRTQ_DESC_F_WRITE, GN_BALLOON_FAULT_LENGTH, 1 },
		{ UINT64_MAX - 4095, 4096, GN_VIRTQ_DESC_F_WRITE, GN_BALLOON_FAULT_ADDRESS, 1 },
		{ UINT64_MAX - 4095, 8192, GN_VIRTQ_DESC_F_WRITE, GN_BALLOON_FAULT_ADDRESS, 1 },
		{ MEM_BYTES, 4096, GN_VIRTQ_DESC_F_WRITE, GN_BALLOON_FAULT_ADDRESS, 1 },
		{ 2000 << 12, 4096 * 4, GN_VIRTQ_DESC_F_WRITE, GN_BALLOON_FAULT_OWNER, 3 },
	};

	rig_create((struct gn_balloon_config){ .features = 0 });
	cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST | GN_BALLOON_F_PAGE_REPORTING));
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), PAGES), 0);
	cr_assert_eq(gn_p2m_protect(vm, gfn(2000), 1, true), 0);
	cr_assert_eq(gn_p2m_set_mmio(vm, gfn(2001), 1), 0);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(2002), 1), 0);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t before = rig_faults(cases[i].fault);
		struct gn_virtq_desc d = desc(cases[i].addr, cases[i].len, cases[i].flags, 0);

		cr_assert(tell_chain(2, &d, 1), "case %u", i);
		cr_assert_eq(rig_faults(cases[i].fault), before + cases[i].count, "case %u", i);
	}
	cr_assert_eq(rig_stats().reported_pages, 1, "2003");
	cr_assert_eq(rig_state(2003), GN_P2M_UNBACKED);
	cr_assert_eq(rig_state(2000), GN_P2M_READONLY);
}

/* ---- Statistics ------------------------------------------------------------------------------ */

struct stats_entry {
	uint16_t tag;
	uint64_t value;
} __attribute__((packed));

Test(balloon_hostile, forged_statistics_are_marked)
{
	static const struct stats_entry cases[][2] = {
		{ { GN_BALLOON_STAT_MEMTOT, MEM_BYTES + 1 } },
		{ { GN_BALLOON_STAT_MEMTOT, MEM_BYTES }, { GN_BALLOON_STAT_MEMFREE, UINT64_MAX } },
		{ { GN_BALLOON_STAT_MEMTOT, 8192 }, { GN_BALLOON_STAT_AVAIL, 8193 } },
		{ { GN_BALLOON_STAT_MEMFREE, MEM_BYTES + 1 } },
		{ { GN_BALLOON_STAT_MAJFLT, 9 } }, /* less than before */
	};
	const struct stats_entry good[] = { { GN_BALLOON_STAT_MAJFLT, 10 },
					    { GN_BALLOON_STAT_MINFLT, 10 } };

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct gn_virtq_used_elem used;

		rig_create((struct gn_balloon_config){ .features = 0 });
		cr_assert(
			driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST | GN_BALLOON_F_STATS_VQ));
		cr_assert_not(driver_tell(&driver, 2, good, sizeof(good)));
		cr_assert(rig_stats().claims_are_plausible);
		cr_assert_eq(gn_balloon_request_stats(driver.balloon), 0);
		cr_assert(driver_collect(&driver, 2, &used));
		cr_assert_not(driver_tell(&driver, 2, cases[i], cases[i][1].value ? 20 : 10));
		cr_assert_not(rig_stats().claims_are_plausible, "case %u", i);
		cr_assert_eq(rig_faults(GN_BALLOON_FAULT_STATS), 1, "case %u", i);
		gn_balloon_destroy(driver.balloon);
	}
	driver.balloon = NULL;
}

Test(balloon_hostile, statistics_buffers_that_are_none)
{
	struct gn_virtq_desc d = desc(MEM_BYTES - 4, 100, 0, 0);
	const struct stats_entry entry = { GN_BALLOON_STAT_MEMFREE, 1 };

	rig_start(GN_BALLOON_F_STATS_VQ);
	cr_assert_not(driver_tell(&driver, 2, &entry, 9), "kept, though it holds nothing");
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_LENGTH), 1);
	cr_assert_eq(rig_stats().claims_count, 0);
	/* A second buffer, while the driver may offer one: the first goes back at once. */
	cr_assert(tell_chain(2, &d, 1));
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_ADDRESS), 1);
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_STATS), 1);
	d = desc(0, UINT32_MAX, 0, 0);
	cr_assert(tell_chain(2, &d, 1), "4 GiB of statistics: the first 640 bytes are looked at");
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_LENGTH), 2);
	cr_assert_eq(rig_stats().claims_count, 1);
	cr_assert_eq(gn_balloon_request_stats(driver.balloon), 0);
	cr_assert_not(rig_is_broken());
}

/* The guest's ring of used statistics buffers is gone when the host asks: who asked learns of
 * it. */
Test(balloon_hostile, a_question_that_cannot_be_put)
{
	const struct stats_entry entry = { GN_BALLOON_STAT_MEMFREE, 1 };
	const gfn_t page = gpa_to_gfn(gpa(driver_queue_pa(2)));

	rig_start(GN_BALLOON_F_STATS_VQ);
	cr_assert_not(driver_tell(&driver, 2, &entry, sizeof(entry)));
	cr_assert_eq(gn_p2m_protect(vm, page, 1, true), 0);
	cr_assert_eq(gn_balloon_request_stats(driver.balloon), -ENODEV);
	cr_assert(rig_is_broken());
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_RING), 1);
	cr_assert_eq(gn_balloon_request_stats(driver.balloon), -ENODEV, "broken");
}

/* ---- Order and time -------------------------------------------------------------------------- */

Test(balloon_hostile, notifications_of_nothing)
{
	rig_start(0);
	driver_notify(&driver, 2);
	driver_notify(&driver, UINT32_MAX);
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_NOTIFY), 2);
	for (unsigned i = 0; i < 100; i++)
		driver_notify(&driver, INFLATE);
	cr_assert_eq(rig_all_faults(), 2);
	cr_assert_eq(told.interrupts, 0);
}

Test(balloon_hostile, reset_in_the_midst)
{
	struct gn_virtq_desc d;
	const uint32_t pfn = 1500;

	rig_start(GN_BALLOON_F_STATS_VQ);
	/* Offered, notified never; a statistics buffer is held; then all is gone. */
	gn_vm_write(vm, gpa(driver_buffer_pa(INFLATE)), &pfn, 4);
	d = desc(driver_buffer_pa(INFLATE), 4, 0, 0);
	driver_set_desc(&driver, INFLATE, 0, d);
	driver_offer(&driver, INFLATE, 0);
	cr_assert_not(driver_tell(&driver, 2, &pfn, 0));
	driver_write(&driver, GN_VIRTIO_STATUS, 0);
	driver_notify(&driver, INFLATE);
	cr_assert_eq(driver_used_idx(&driver, INFLATE), 0, "no access after reset");
	cr_assert_eq(rig_state(1500), GN_P2M_UNBACKED);
	cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST | GN_BALLOON_F_STATS_VQ));
	cr_assert_neq(gn_balloon_request_stats(driver.balloon), 0,
		      "that buffer was of another life");
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 0);
}

Test(balloon_hostile, failed_drivers_are_left_alone)
{
	rig_start(0);
	driver_write(&driver, GN_VIRTIO_STATUS,
		     driver_read(&driver, GN_VIRTIO_STATUS) | GN_VIRTIO_STATUS_FAILED);
	cr_assert_not(driver_tell_pages(&driver, INFLATE, 1500, 1));
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 0);
}

/* Another VM's memory and balloon are another world. */
Test(balloon_hostile, other_machines_do_not_notice)
{
	struct gn_vm *other;
	uint32_t pfns[1024];

	cr_assert_eq(bare_vm_new(MEM_BYTES, 0, 0, &other), 0);
	cr_assert_eq(gn_p2m_populate(other, gfn(0), PAGES), 0);
	rig_start(0);
	for (unsigned i = 0; i < 1024; i++)
		pfns[i] = i * 2654435761u;
	cr_assert(driver_tell(&driver, INFLATE, pfns, sizeof(pfns)));
	for (uint64_t page = 0; page < PAGES; page++) {
		struct gn_p2m_info info;

		cr_assert_eq(gn_p2m_query(other, gfn(page), &info), 0);
		cr_assert_eq(info.state, GN_P2M_PRIVATE);
	}
	gn_vm_destroy(other);
}
