/* SPDX-License-Identifier: MIT */
/*
 * balloon_device.c - what the balloon does for an honest driver, feature by feature.
 */
#include <errno.h>

#include "support/balloon_rig.h"

#define NS_PER_S ((uint64_t)1000000000)

TestSuite(balloon_device, .init = rig_setup, .fini = rig_teardown);

Test(balloon_device, inflates_and_deflates)
{
	rig_start(0);
	cr_assert_eq(gn_p2m_populate(vm, gfn(1024), 512), 0);
	cr_assert(driver_tell_pages(&driver, INFLATE, 1024, 1024));
	for (uint64_t page = 1024; page < 2048; page++)
		cr_assert_eq(rig_state(page), GN_P2M_BALLOONED, "page %d", (int)page);
	cr_assert_eq(rig_state(1023), GN_P2M_UNBACKED);
	cr_assert_eq(rig_state(2048), GN_P2M_UNBACKED);
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 1024);
	cr_assert_eq(rig_stats().runs, 1, "one change for neighbours");

	cr_assert(driver_tell_pages(&driver, DEFLATE, 1100, 100));
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 924);
	cr_assert_eq(rig_state(1100), GN_P2M_UNBACKED);
	cr_assert_eq(rig_state(1099), GN_P2M_BALLOONED);
	cr_assert_eq(rig_stats().deflated_pages, 100);
	cr_assert_eq(rig_all_faults(), 0);
}

/* Linux sends 256 pages at a time in the order it found them; ours fills the ring and kicks
 * once. */
Test(balloon_device, a_ring_of_arrays_is_one_change)
{
	struct gn_virtq_used_elem used;
	uint32_t pfns[16];

	rig_start(0);
	/* 16 buffers of 16 pages, dealt out like cards and each backwards: together [512, 768). */
	for (unsigned buffer = 0; buffer < DRIVER_QUEUE_SIZE; buffer++) {
		for (unsigned i = 0; i < 16; i++)
			pfns[15 - i] = 512 + buffer + 16 * i;
		gn_vm_write(vm, gpa(driver_buffer_pa(0) + buffer * sizeof(pfns)), pfns,
			    sizeof(pfns));
		driver_set_desc(
			&driver, INFLATE, buffer,
			(struct gn_virtq_desc){ .addr = driver_buffer_pa(0) + buffer * sizeof(pfns),
						.len = sizeof(pfns) });
		driver_offer(&driver, INFLATE, (uint16_t)buffer);
	}
	driver_notify(&driver, INFLATE);
	for (unsigned buffer = 0; buffer < DRIVER_QUEUE_SIZE; buffer++) {
		cr_assert(driver_collect(&driver, INFLATE, &used));
		cr_assert_eq(used.id, buffer);
	}
	cr_assert_eq(rig_stats().runs, 1);
	cr_assert_eq(rig_stats().buffers, DRIVER_QUEUE_SIZE);
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 256);
	cr_assert_eq(told.interrupts, 1, "one for all");
}

Test(balloon_device, a_chain_of_arrays_is_one_buffer)
{
	const uint32_t pfns[] = { 700, 701, 900 };

	rig_start(0);
	gn_vm_write(vm, gpa(driver_buffer_pa(0)), pfns, sizeof(pfns));
	driver_set_desc(&driver, INFLATE, 3,
			(struct gn_virtq_desc){ .addr = driver_buffer_pa(0),
						.len = 8,
						.flags = GN_VIRTQ_DESC_F_NEXT,
						.next = 9 });
	driver_set_desc(&driver, INFLATE, 9,
			(struct gn_virtq_desc){ .addr = driver_buffer_pa(0) + 8, .len = 4 });
	driver_offer(&driver, INFLATE, 3);
	driver_notify(&driver, INFLATE);
	cr_assert_eq(driver_used_idx(&driver, INFLATE), 1);
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 3);
	cr_assert_eq(rig_stats().runs, 2);
}

/* 70000 requests take every 16-bit index around. */
Test(balloon_device, indices_wrap)
{
	const uint32_t pfn = 800;

	rig_start(0);
	for (unsigned i = 0; i < 140000; i++)
		if (!driver_tell(&driver, i % 2 ? DEFLATE : INFLATE, &pfn, 4))
			cr_assert_fail("request %u", i);
	cr_assert_eq(rig_stats().inflated_pages, 70000);
	cr_assert_eq(rig_stats().deflated_pages, 70000);
	cr_assert_eq(driver_used_idx(&driver, INFLATE), 70000 % 65536);
}

Test(balloon_device, target_interrupts_and_changes_the_generation)
{
	uint32_t generation;

	rig_start(0);
	generation = driver_read(&driver, GN_VIRTIO_CONFIG_GENERATION);
	gn_balloon_set_target(driver.balloon, 1000);
	cr_assert_eq(told.interrupts, 1);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_INTERRUPT_STATUS), GN_VIRTIO_INTERRUPT_CONFIG);
	cr_assert_neq(driver_read(&driver, GN_VIRTIO_CONFIG_GENERATION), generation);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG), 1000);

	generation = driver_read(&driver, GN_VIRTIO_CONFIG_GENERATION);
	driver_write(&driver, GN_VIRTIO_INTERRUPT_ACK, GN_VIRTIO_INTERRUPT_CONFIG);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_INTERRUPT_STATUS), 0);
	gn_balloon_set_target(driver.balloon, 1000);
	cr_assert_eq(told.interrupts, 1, "nothing changed");
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG_GENERATION), generation);

	gn_balloon_set_target(driver.balloon, UINT64_MAX);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG), PAGES, "no more than there is");
}

Test(balloon_device, actual_is_a_claim)
{
	rig_start(0);
	driver_write(&driver, GN_VIRTIO_CONFIG + 4, 77);
	cr_assert(told.events & GN_BALLOON_EVENT_ACTUAL);
	cr_assert_eq(rig_stats().claimed_pages, 77);
	cr_assert_eq(rig_stats().held_pages, 0);
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 0);
}

Test(balloon_device, driver_may_ask_for_silence)
{
	const uint16_t no_interrupt = GN_VIRTQ_AVAIL_F_NO_INTERRUPT;

	rig_start(0);
	gn_vm_write(vm, gpa(driver_avail_pa(INFLATE)), &no_interrupt, 2);
	cr_assert(driver_tell_pages(&driver, INFLATE, 100, 1));
	cr_assert_eq(told.interrupts, 0);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_INTERRUPT_STATUS), 0);
	cr_assert_eq(rig_stats().suppressed_interrupts, 1);
	cr_assert(driver_tell_pages(&driver, DEFLATE, 100, 1), "the other queue speaks");
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_INTERRUPT_STATUS), GN_VIRTIO_INTERRUPT_USED);
	cr_assert_eq(told.interrupts, 1);
}

Test(balloon_device, reset_empties_the_balloon)
{
	rig_start(0);
	cr_assert(driver_tell_pages(&driver, INFLATE, 1000, 500));
	cr_assert(driver_tell_pages(&driver, INFLATE, 3000, 10));
	driver_write(&driver, GN_VIRTIO_CONFIG + 4, 510);
	driver_write(&driver, GN_VIRTIO_STATUS, 0);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_STATUS), 0);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_INTERRUPT_STATUS), 0);
	cr_assert(told.events & GN_BALLOON_EVENT_RESET);
	cr_assert_eq(rig_state(1000), GN_P2M_UNBACKED);
	cr_assert_eq(rig_state(3009), GN_P2M_UNBACKED);
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 0);
	cr_assert_eq(rig_stats().returned_pages, 510);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG + 4), 0, "actual");
	/* And it works again. */
	cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST));
	cr_assert(driver_tell_pages(&driver, INFLATE, 1000, 500));
}

Test(balloon_device, pages_stay_when_the_device_goes)
{
	rig_start(0);
	cr_assert(driver_tell_pages(&driver, INFLATE, 1000, 1));
	gn_balloon_destroy(driver.balloon);
	driver.balloon = NULL;
	cr_assert_eq(rig_state(1000), GN_P2M_BALLOONED);
}

/* ---- Statistics ------------------------------------------------------------------------------ */

struct stats_entry {
	uint16_t tag;
	uint64_t value;
} __attribute__((packed));

/* Offer the buffer; true: the device kept it. */
static bool tell_stats(const struct stats_entry *entries, unsigned count)
{
	return !driver_tell(&driver, 2, entries, count * (uint32_t)sizeof(*entries));
}

Test(balloon_device, statistics_go_back_and_forth)
{
	const struct stats_entry first[] = { { GN_BALLOON_STAT_MEMTOT, MEM_BYTES },
					     { GN_BALLOON_STAT_MEMFREE, 4096 },
					     { 999, 1 },
					     { GN_BALLOON_STAT_MAJFLT, 5 } };
	const struct stats_entry second[] = { { GN_BALLOON_STAT_MEMFREE, 8192 } };
	struct gn_virtq_used_elem used;

	rig_start(GN_BALLOON_F_STATS_VQ);
	cr_assert_eq(gn_balloon_request_stats(driver.balloon), -EAGAIN, "no buffer yet");
	told.now_ns = 123;
	cr_assert(tell_stats(first, 4), "kept");
	cr_assert(told.events & GN_BALLOON_EVENT_STATS);
	cr_assert_eq(rig_stats().claims[GN_BALLOON_STAT_MEMFREE], 4096);
	cr_assert_eq(rig_stats().claims_known, 1u << GN_BALLOON_STAT_MEMTOT |
						       1u << GN_BALLOON_STAT_MEMFREE |
						       1u << GN_BALLOON_STAT_MAJFLT);
	cr_assert(rig_stats().claims_are_plausible);
	cr_assert_eq(rig_stats().claims_ns, 123);

	cr_assert_eq(gn_balloon_request_stats(driver.balloon), 0);
	cr_assert_eq(told.interrupts, 1);
	cr_assert_eq(gn_balloon_request_stats(driver.balloon), -EAGAIN, "asked already");
	cr_assert(driver_collect(&driver, 2, &used));
	cr_assert(tell_stats(second, 1));
	cr_assert_eq(rig_stats().claims[GN_BALLOON_STAT_MEMFREE], 8192);
	cr_assert_eq(rig_stats().claims[GN_BALLOON_STAT_MAJFLT], 5, "an optional one stays");
	cr_assert_eq(rig_stats().claims_count, 2);
	cr_assert_eq(rig_all_faults(), 0);
}

/* Linux: the buffer is offered and notified in probe, before DRIVER_OK. */
Test(balloon_device, a_notification_before_driver_ok_is_not_lost)
{
	const struct stats_entry entry = { GN_BALLOON_STAT_AVAIL, 4096 };

	rig_create((struct gn_balloon_config){ .features = 0 });
	cr_assert(driver_negotiate(&driver, GN_VIRTIO_F_VERSION_1 | GN_BALLOON_F_STATS_VQ |
						    GN_BALLOON_F_MUST_TELL_HOST));
	cr_assert(driver_set_queues(&driver));
	cr_assert(tell_stats(&entry, 1));
	cr_assert_eq(rig_stats().claims_count, 0, "nothing is consumed before DRIVER_OK");
	driver_ok(&driver);
	cr_assert_eq(rig_stats().claims_count, 1);
	cr_assert_eq(gn_balloon_request_stats(driver.balloon), 0);
}

Test(balloon_device, no_statistics_without_their_queue)
{
	rig_start(0);
	cr_assert_eq(gn_balloon_request_stats(driver.balloon), -ENODEV);
}

/* ---- Free page reporting, page poison -------------------------------------------------------- */

/* Offer one range for the device to write. */
static bool tell_range(unsigned index, uint64_t at, uint32_t bytes)
{
	struct gn_virtq_used_elem used;

	driver_set_desc(
		&driver, index, 0,
		(struct gn_virtq_desc){ .addr = at, .len = bytes, .flags = GN_VIRTQ_DESC_F_WRITE });
	driver_offer(&driver, index, 0);
	driver_notify(&driver, index);
	return driver_collect(&driver, index, &used) && used.len == 0;
}

Test(balloon_device, reported_pages_are_discarded)
{
	uint64_t word = 42;

	rig_start(GN_BALLOON_F_PAGE_REPORTING);
	cr_assert_eq(gn_p2m_populate(vm, gfn(1000), 10), 0);
	gn_vm_write(vm, gpa(1002 << GN_PAGE_SHIFT), &word, sizeof(word));
	/* From the midst of page 1000 into the midst of 1005: the whole pages are 1001..1004. Queue
	 * 2. */
	cr_assert(tell_range(2, (1000 << GN_PAGE_SHIFT) + 8, 5 << GN_PAGE_SHIFT));
	for (uint64_t page = 1000; page < 1010; page++)
		cr_assert_eq(rig_state(page),
			     page > 1000 && page < 1005 ? GN_P2M_UNBACKED : GN_P2M_PRIVATE);
	cr_assert_eq(rig_stats().reported_pages, 4);
	cr_assert(told.events & GN_BALLOON_EVENT_REPORTED);
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 0, "not in the balloon");
	/* The guest uses it again without a word. */
	gn_vm_read(vm, gpa(1002 << GN_PAGE_SHIFT), &word, sizeof(word));
	cr_assert_eq(word, 0);
	cr_assert_eq(rig_all_faults(), 0);
}

Test(balloon_device, poisoned_reports_are_kept)
{
	static const struct {
		uint32_t poison;
		enum gn_p2m_state state;
	} cases[] = { { 0, GN_P2M_UNBACKED }, { 0xaaaaaaaa, GN_P2M_PRIVATE } };

	rig_create((struct gn_balloon_config){ .features = 0 });
	for (unsigned i = 0; i < 2; i++) {
		cr_assert(driver_negotiate(
			&driver, GN_VIRTIO_F_VERSION_1 | GN_BALLOON_F_MUST_TELL_HOST |
					 GN_BALLOON_F_PAGE_POISON | GN_BALLOON_F_PAGE_REPORTING));
		cr_assert(driver_set_queues(&driver));
		driver_write(&driver, GN_VIRTIO_CONFIG + 12, cases[i].poison);
		driver_ok(&driver);
		cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG + 12), cases[i].poison);
		cr_assert_eq(gn_p2m_populate(vm, gfn(1000), 1), 0);
		cr_assert(tell_range(2, 1000 << GN_PAGE_SHIFT, GN_PAGE_SIZE));
		cr_assert_eq(rig_state(1000), cases[i].state, "poison %#x", cases[i].poison);
		cr_assert_eq(rig_stats().withheld_pages, i);
		/* A page in the balloon is another matter: the driver fills it when it comes
		 * back. */
		cr_assert(driver_tell_pages(&driver, INFLATE, 1000, 1));
		cr_assert_eq(rig_state(1000), GN_P2M_BALLOONED);
	}
}

/* ---- Free page hinting ----------------------------------------------------------------------- */

static bool tell_command(uint32_t command)
{
	return driver_tell(&driver, 2, &command, sizeof(command));
}

Test(balloon_device, hints_count_inside_their_round)
{
	uint32_t round;

	rig_start(GN_BALLOON_F_FREE_PAGE_HINT);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG + 8), GN_BALLOON_HINT_STOP);
	cr_assert_eq(gn_balloon_hint_start(driver.balloon), 0);
	cr_assert_eq(told.interrupts, 1);
	round = driver_read(&driver, GN_VIRTIO_CONFIG + 8);
	cr_assert_geq(round, 2);
	cr_assert(tell_command(round));
	cr_assert(tell_range(2, 2 << 20, 1 << 20));
	cr_assert_eq(told.hint_start.v, 512);
	cr_assert_eq(told.hint_count, 256);
	cr_assert_eq(rig_stats().hinted_pages, 256);
	cr_assert(tell_command(GN_BALLOON_HINT_STOP));
	cr_assert(told.events & GN_BALLOON_EVENT_HINTS_END);
	cr_assert_eq(rig_all_faults(), 0);
	cr_assert(tell_range(2, 4 << 20, 1 << 20));
	cr_assert_eq(told.hints, 1, "after its round");
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_HINT), 1);

	/* The next round has another number, and the old one counts no more. */
	cr_assert_eq(gn_balloon_hint_start(driver.balloon), 0);
	cr_assert_neq(driver_read(&driver, GN_VIRTIO_CONFIG + 8), round);
	cr_assert(tell_command(round));
	cr_assert(tell_range(2, 4 << 20, 1 << 20));
	cr_assert_eq(told.hints, 1);
	cr_assert_eq(gn_balloon_hint_stop(driver.balloon), 0);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG + 8), GN_BALLOON_HINT_STOP);
	cr_assert_eq(gn_balloon_hint_done(driver.balloon), 0);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG + 8), GN_BALLOON_HINT_DONE);
	cr_assert_eq(rig_state(512), GN_P2M_UNBACKED, "the device itself does not touch them");
}

Test(balloon_device, no_hints_without_their_feature)
{
	rig_start(0);
	cr_assert_eq(gn_balloon_hint_start(driver.balloon), -ENODEV);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG + 8), 0);
}

/* ---- Policy ---------------------------------------------------------------------------------- */

Test(balloon_device, reserved_memory_is_not_taken)
{
	rig_create((struct gn_balloon_config){ .reserved_bytes = 1000 << GN_PAGE_SHIFT });
	cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST | GN_BALLOON_F_PAGE_REPORTING));
	gn_balloon_set_target(driver.balloon, PAGES);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG), PAGES - 1000);
	cr_assert(driver_tell_pages(&driver, INFLATE, 998, 4));
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 2);
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_OWNER), 2);
	cr_assert(tell_range(2, 998 << GN_PAGE_SHIFT, 4 << GN_PAGE_SHIFT));
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_OWNER), 2 + 4, "reserved, and in the balloon");
}

Test(balloon_device, ping_pong_meets_its_limit)
{
	static const enum gn_balloon_churn_answer answers[] = { GN_BALLOON_CHURN_COUNT,
								GN_BALLOON_CHURN_IGNORE,
								GN_BALLOON_CHURN_BREAK };

	for (unsigned i = 0; i < 3; i++) {
		rig_create((struct gn_balloon_config){ .churn_pages_per_s = 100,
						       .churn_burst_pages = 200,
						       .churn_answer = answers[i] });
		cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST));
		told.events = 0;
		for (unsigned turn = 0; turn < 2; turn++) {
			cr_assert(driver_tell_pages(&driver, INFLATE, 1000, 100));
			cr_assert(driver_tell_pages(&driver, DEFLATE, 1000, 100));
		}
		cr_assert_eq(rig_all_faults(), 0, "the burst");
		cr_assert_eq(driver_tell_pages(&driver, INFLATE, 1000, 100),
			     answers[i] != GN_BALLOON_CHURN_BREAK);
		cr_assert(told.events & GN_BALLOON_EVENT_CHURN);
		cr_assert_eq(rig_faults(GN_BALLOON_FAULT_CHURN), 100);
		cr_assert_eq(gn_balloon_actual_pages(driver.balloon),
			     answers[i] == GN_BALLOON_CHURN_COUNT ? 100 : 0);
		cr_assert_eq(rig_is_broken(), answers[i] == GN_BALLOON_CHURN_BREAK);
		if (answers[i] == GN_BALLOON_CHURN_IGNORE) {
			told.now_ns += NS_PER_S / 50;
			cr_assert(driver_tell_pages(&driver, INFLATE, 1000, 100));
			cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 100, "time heals");
		}
		/* Leaving is never refused. */
		driver_write(&driver, GN_VIRTIO_STATUS, 0);
		cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 0);
		gn_balloon_destroy(driver.balloon);
		driver.balloon = NULL;
	}
}

/* In by a request and out by a touch is ping-pong as well, whoever finds the granted pages: the
 * host's question, the next inflation, a deflation in good faith. */
Test(balloon_device, granted_touches_are_ping_pong)
{
	for (unsigned finder = 0; finder < 3; finder++) {
		rig_create((struct gn_balloon_config){ .churn_pages_per_s = 100,
						       .churn_burst_pages = 200,
						       .churn_answer = GN_BALLOON_CHURN_IGNORE,
						       .touch_answer = GN_TOUCH_GRANT });
		cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST));
		for (unsigned turn = 0; turn < 3; turn++) {
			cr_assert(driver_tell_pages(&driver, INFLATE, 1000, 100));
			cr_assert_eq(gn_balloon_actual_pages(driver.balloon), turn < 2 ? 100 : 0,
				     "finder %u, turn %u", finder, turn);
			cr_assert_eq(rig_faults(GN_BALLOON_FAULT_CHURN), turn < 2 ? 0 : 100);
			for (uint64_t page = 1000; page < 1100; page++)
				cr_assert_eq(gn_vm_write(vm, gpa(page << GN_PAGE_SHIFT), "x", 1),
					     0);
			if (finder == 1)
				cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 0);
			if (finder == 2)
				cr_assert(driver_tell_pages(&driver, DEFLATE, 1000, 100));
		}
		cr_assert_eq(rig_stats().granted_pages, 200, "each is charged once");
		told.now_ns += NS_PER_S / 50;
		cr_assert(driver_tell_pages(&driver, INFLATE, 1000, 100));
		cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 100, "time heals");
		gn_balloon_destroy(driver.balloon);
		driver.balloon = NULL;
		for (uint64_t page = 1000; page < 1100; page++)
			cr_assert_eq(gn_vm_write(vm, gpa(page << GN_PAGE_SHIFT), "x", 1), 0);
	}
}

static struct {
	unsigned count;
	gfn_t at;
	enum gn_touch_answer answer;
} touched;

static void on_touch(struct gn_vm *of, gfn_t at, bool write, enum gn_touch_answer answer, void *ctx)
{
	(void)write;
	(void)ctx;
	cr_assert_eq(of, vm);
	touched.count++;
	touched.at = at;
	touched.answer = answer;
}

Test(balloon_device, touches_are_answered_by_policy)
{
	static const enum gn_touch_answer answers[] = { GN_TOUCH_DENY, GN_TOUCH_GRANT };

	for (unsigned i = 0; i < 2; i++) {
		uint64_t word;

		rig_create((struct gn_balloon_config){ .touch_answer = answers[i],
						       .touch = on_touch });
		cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST));
		cr_assert(driver_tell_pages(&driver, INFLATE, 1000, 3));
		cr_assert_eq(gn_vm_read(vm, gpa(1001 << GN_PAGE_SHIFT), &word, 8),
			     i == 0 ? -EFAULT : 0);
		cr_assert_eq(touched.count, i + 1);
		cr_assert_eq(touched.at.v, 1001);
		cr_assert_eq(touched.answer, answers[i]);
		cr_assert_eq(rig_stats().touches_denied, 1);
		cr_assert_eq(rig_stats().touches_granted, i);
		cr_assert_eq(rig_stats().granted_pages, i);
		cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 3 - i);
		driver_write(&driver, GN_VIRTIO_STATUS, 0);
		cr_assert_eq(rig_stats().returned_pages, 3 - i);
		gn_balloon_destroy(driver.balloon);
		driver.balloon = NULL;
	}
}

/* Its pages stay away, and the touches' answer too; but who was told of them may be gone with
 * it. */
Test(balloon_device, a_device_that_is_gone_tells_of_no_touch)
{
	uint64_t word;

	rig_create((struct gn_balloon_config){ .touch = on_touch });
	cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST));
	cr_assert(driver_tell_pages(&driver, INFLATE, 1000, 3));
	gn_balloon_destroy(driver.balloon);
	driver.balloon = NULL;
	cr_assert_eq(gn_vm_read(vm, gpa(1001 << GN_PAGE_SHIFT), &word, 8), -EFAULT);
	cr_assert_eq(touched.count, 0);
}

/* The driver goes on in good faith: it deflates a page that was granted, or inflates it once
 * more. */
Test(balloon_device, a_granted_page_is_found_at_its_next_mention)
{
	uint64_t word;

	rig_create((struct gn_balloon_config){ .touch_answer = GN_TOUCH_GRANT });
	cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST));
	cr_assert(driver_tell_pages(&driver, INFLATE, 1000, 4));
	cr_assert_eq(gn_vm_read(vm, gpa(1001 << GN_PAGE_SHIFT), &word, 8), 0);
	cr_assert_eq(gn_vm_read(vm, gpa(1003 << GN_PAGE_SHIFT), &word, 8), 0);
	cr_assert(driver_tell_pages(&driver, DEFLATE, 1000, 3));
	cr_assert(driver_tell_pages(&driver, INFLATE, 1003, 1));
	cr_assert_eq(rig_stats().granted_pages, 2);
	cr_assert_eq(rig_stats().deflated_pages, 2);
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 1);
	cr_assert_eq(rig_state(1003), GN_P2M_BALLOONED);
	cr_assert_eq(rig_all_faults(), 0);
}

/* Every other page, backwards: more runs than one change takes. */
Test(balloon_device, scattered_pages)
{
	static uint32_t pfns[1500];
	const uint32_t count = sizeof(pfns) / sizeof(pfns[0]);
	struct gn_virtq_used_elem used;

	rig_start(0);
	for (uint32_t i = 0; i < count; i++)
		pfns[i] = PAGES - 1 - 2 * i;
	gn_vm_write(vm, gpa(0x30000), pfns, sizeof(pfns));
	for (unsigned index = 0; index < 2; index++) {
		driver_set_desc(&driver, index, 0,
				(struct gn_virtq_desc){ .addr = 0x30000, .len = sizeof(pfns) });
		driver_offer(&driver, index, 0);
		driver_notify(&driver, index);
		cr_assert(driver_collect(&driver, index, &used));
		cr_assert_eq(rig_stats().runs, (index + 1) * count);
		cr_assert_eq(rig_stats().changes, (index + 1) * 2);
		cr_assert_eq(gn_balloon_actual_pages(driver.balloon), index ? 0 : count);
		cr_assert_eq(rig_state(PAGES - 1), index ? GN_P2M_UNBACKED : GN_P2M_BALLOONED);
		cr_assert_eq(rig_state(PAGES - 2), GN_P2M_UNBACKED);
	}
	cr_assert_eq(rig_all_faults(), 0);
}

Test(balloon_device, bad_configurations_are_refused)
{
	static const struct gn_balloon_config cases[] = {
		{ .features = (uint64_t)1 << 6 }, { .queue_size_max = 48 },
		{ .queue_size_max = 2048 },	  { .reserved_bytes = 100 },
		{ .mmio_gpa = 0x1000 },		  { .mmio_gpa = ((uint64_t)1 << 40) + 8 },
		{ .churn_pages_per_s = 1 },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		cr_assert_eq(gn_balloon_create(vm, &cases[i], &driver.balloon), -EINVAL, "case %u",
			     i);
	for (unsigned n = 1;; n++) {
		const struct gn_balloon_config config = { .features = 0 };
		int err;

		gn_alloc_fail_nth(n);
		err = gn_balloon_create(vm, &config, &driver.balloon);
		gn_alloc_fail_nth(0);
		if (!err) {
			cr_assert_gt(n, 4, "every allocation failed once");
			break;
		}
		cr_assert_eq(err, -ENOMEM);
	}
}
