/* SPDX-License-Identifier: MIT */
/*
 * balloon_mmio.c - registers and negotiation as virtio 1.2 has them, sections 2.1, 3.1, 4.2.2.
 */
#include "support/balloon_rig.h"

#define NEGOTIATED                                                                                 \
	(GN_VIRTIO_STATUS_ACKNOWLEDGE | GN_VIRTIO_STATUS_DRIVER | GN_VIRTIO_STATUS_FEATURES_OK)

static void setup(void)
{
	rig_setup();
	rig_create((struct gn_balloon_config){ .queue_size_max = 64 });
}

TestSuite(balloon_mmio, .init = setup, .fini = rig_teardown);

Test(balloon_mmio, says_what_it_is)
{
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_MAGIC), 0x74726976);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_VERSION), 2);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_DEVICE_ID), 5);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_STATUS), 0);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_DEVICE_FEATURES), 0x3f);
	driver_write(&driver, GN_VIRTIO_DEVICE_FEATURES_SEL, 1);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_DEVICE_FEATURES), 1, "VERSION_1");
	driver_write(&driver, GN_VIRTIO_DEVICE_FEATURES_SEL, 2);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_DEVICE_FEATURES), 0);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_SHM_LEN_LOW), UINT32_MAX);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_SHM_BASE_HIGH), UINT32_MAX);
	cr_assert_eq(rig_all_faults(), 0);
}

Test(balloon_mmio, features_are_negotiated)
{
	static const struct {
		uint64_t features;
		bool good;
	} cases[] = {
		{ GN_VIRTIO_F_VERSION_1 | GN_BALLOON_F_MUST_TELL_HOST, true },
		{ GN_VIRTIO_F_VERSION_1 | GN_BALLOON_F_ALL, true },
		{ GN_BALLOON_F_ALL, false }, /* legacy */
		{ GN_VIRTIO_F_VERSION_1 | GN_BALLOON_F_STATS_VQ, false },
		{ GN_VIRTIO_F_VERSION_1 | GN_BALLOON_F_ALL | GN_VIRTIO_F_INDIRECT_DESC, false },
		{ GN_VIRTIO_F_VERSION_1 | GN_BALLOON_F_ALL | GN_VIRTIO_F_EVENT_IDX, false },
		{ UINT64_MAX, false },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(driver_negotiate(&driver, cases[i].features), cases[i].good, "case %u",
			     i);
		cr_assert_eq(rig_stats().features, cases[i].good ? cases[i].features : 0);
		/* DRIVER_OK goes nowhere without. */
		driver_ok(&driver);
		cr_assert_eq(
			!!(driver_read(&driver, GN_VIRTIO_STATUS) & GN_VIRTIO_STATUS_DRIVER_OK),
			cases[i].good, "case %u", i);
	}
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_FEATURES), 5);
}

Test(balloon_mmio, features_are_settled_at_features_ok)
{
	const uint64_t features = GN_VIRTIO_F_VERSION_1 | GN_BALLOON_F_MUST_TELL_HOST;

	cr_assert(driver_negotiate(&driver, features));
	driver_write(&driver, GN_VIRTIO_DRIVER_FEATURES_SEL, 0);
	driver_write(&driver, GN_VIRTIO_DRIVER_FEATURES, UINT32_MAX);
	cr_assert_eq(rig_stats().features, features);
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_REGISTER), 1);
}

Test(balloon_mmio, status_bits_do_not_go)
{
	cr_assert(driver_negotiate(&driver, GN_VIRTIO_F_VERSION_1 | GN_BALLOON_F_MUST_TELL_HOST));
	driver_write(&driver, GN_VIRTIO_STATUS, GN_VIRTIO_STATUS_ACKNOWLEDGE);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_STATUS), NEGOTIATED);
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_STATUS), 1);
	driver_write(&driver, GN_VIRTIO_STATUS, NEGOTIATED | GN_VIRTIO_STATUS_NEEDS_RESET);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_STATUS), NEGOTIATED, "that one is ours");
	driver_write(&driver, GN_VIRTIO_STATUS, NEGOTIATED | GN_VIRTIO_STATUS_FAILED);
	cr_assert(driver_read(&driver, GN_VIRTIO_STATUS) & GN_VIRTIO_STATUS_FAILED);
	driver_write(&driver, GN_VIRTIO_STATUS, 0);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_STATUS), 0);
}

/* Reset, and features that will do: FEATURES_OK is only a matter of order. */
static void begin_anew(void)
{
	driver_write(&driver, GN_VIRTIO_STATUS, 0);
	driver_write(&driver, GN_VIRTIO_DRIVER_FEATURES_SEL, 1);
	driver_write(&driver, GN_VIRTIO_DRIVER_FEATURES, 1);
	driver_write(&driver, GN_VIRTIO_DRIVER_FEATURES_SEL, 0);
	driver_write(&driver, GN_VIRTIO_DRIVER_FEATURES, GN_BALLOON_F_MUST_TELL_HOST);
}

/* Every order of the four steps of 3.1.1, one write each as Linux makes them: a step is taken when
 * those before it were. */
Test(balloon_mmio, status_steps_come_in_their_order)
{
	static const uint32_t steps[] = { GN_VIRTIO_STATUS_ACKNOWLEDGE, GN_VIRTIO_STATUS_DRIVER,
					  GN_VIRTIO_STATUS_FEATURES_OK,
					  GN_VIRTIO_STATUS_DRIVER_OK };
	const uint32_t all = NEGOTIATED | GN_VIRTIO_STATUS_DRIVER_OK;
	unsigned orders = 0, good = 0;

	for (unsigned order = 0; order < 256; order++) {
		uint64_t refused = rig_faults(GN_BALLOON_FAULT_STATUS);
		unsigned taken = 0, seen = 0;

		for (unsigned i = 0; i < 4; i++)
			seen |= 1u << (order >> 2 * i & 3);
		if (seen != 15)
			continue;
		orders++;
		begin_anew();
		for (unsigned i = 0; i < 4; i++) {
			unsigned step = order >> 2 * i & 3;
			uint32_t before = driver_read(&driver, GN_VIRTIO_STATUS);

			driver_write(&driver, GN_VIRTIO_STATUS, before | steps[step]);
			cr_assert_eq(driver_read(&driver, GN_VIRTIO_STATUS),
				     step == taken ? before | steps[step] : before,
				     "order %#x, step %u", order, i);
			taken += step == taken;
		}
		cr_assert_eq(rig_faults(GN_BALLOON_FAULT_STATUS), refused + 4 - taken);
		good += taken == 4;
	}
	cr_assert_eq(orders, 24);
	cr_assert_eq(good, 1);
	/* Together they are taken in order; one that is missing holds up those after it. */
	begin_anew();
	driver_write(&driver, GN_VIRTIO_STATUS, all & ~(uint32_t)GN_VIRTIO_STATUS_DRIVER);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_STATUS), GN_VIRTIO_STATUS_ACKNOWLEDGE);
	told.events = 0;
	driver_write(&driver, GN_VIRTIO_STATUS, all);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_STATUS), all);
	cr_assert(told.events & GN_BALLOON_EVENT_READY);
	/* A driver may give up before it begins. */
	driver_write(&driver, GN_VIRTIO_STATUS, 0);
	driver_write(&driver, GN_VIRTIO_STATUS, GN_VIRTIO_STATUS_FAILED);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_STATUS), GN_VIRTIO_STATUS_FAILED);
}

/* Which queue has which number: those of features that were not negotiated close up. */
Test(balloon_mmio, queues_follow_the_features)
{
	static const struct {
		uint64_t features;
		unsigned count;
	} cases[] = {
		{ 0, 2 },
		{ GN_BALLOON_F_STATS_VQ, 3 },
		{ GN_BALLOON_F_PAGE_REPORTING, 3 },
		{ GN_BALLOON_F_STATS_VQ | GN_BALLOON_F_FREE_PAGE_HINT, 4 },
		{ GN_BALLOON_F_ALL, 5 },
	};

	driver_write(&driver, GN_VIRTIO_QUEUE_SEL, 0);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_QUEUE_NUM_MAX), 0, "nobody knows yet");
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert(driver_negotiate(&driver, GN_VIRTIO_F_VERSION_1 |
							    GN_BALLOON_F_MUST_TELL_HOST |
							    cases[i].features));
		for (unsigned q = 0; q < 8; q++) {
			driver_write(&driver, GN_VIRTIO_QUEUE_SEL, q);
			cr_assert_eq(driver_read(&driver, GN_VIRTIO_QUEUE_NUM_MAX),
				     q < cases[i].count ? 64 : 0, "case %u, queue %u", i, q);
		}
	}
}

Test(balloon_mmio, queue_setup_is_checked)
{
	static const struct {
		uint64_t desc, avail, used;
		uint32_t size;
		bool good;
	} cases[] = {
		{ 0x1000, 0x2000, 0x3000, 64, true },
		{ 0x1000, 0x2002, 0x3004, 1, true },
		{ MEM_BYTES - 1024, 0x2000, 0x3000, 64, true },
		{ 0x1000, 0x2000, MEM_BYTES - 4 - 8, 1, true },
		{ 0x1000, 0x2000, 0x3000, 0, false }, /* sizes */
		{ 0x1000, 0x2000, 0x3000, 48, false },
		{ 0x1000, 0x2000, 0x3000, 128, false },
		{ 0x1000, 0x2000, 0x3000, 65536, false },
		{ 0x1000, 0x2000, 0x3000, 65537, false },
		{ 0x1008, 0x2000, 0x3000, 64, false }, /* alignment */
		{ 0x1000, 0x2001, 0x3000, 64, false },
		{ 0x1000, 0x2000, 0x3002, 64, false },
		{ MEM_BYTES - 1008, 0x2000, 0x3000, 64, false }, /* the end of RAM */
		{ 0x1000, MEM_BYTES - 130, 0x3000, 64, false },
		{ 0x1000, 0x2000, MEM_BYTES - 4, 1, false },
		{ MEM_BYTES, 0x2000, 0x3000, 64, false },
		{ GN_BALLOON_MMIO_GPA, 0x2000, 0x3000, 64, false }, /* the device itself */
		{ 0x1000, UINT64_MAX - 1, 0x3000, 64, false },
		{ UINT64_MAX - 15, 0x2000, 0x3000, 64, false },
		{ 0x1000, 0x2000, UINT64_MAX - 3, 64, false },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t before;

		cr_assert(driver_negotiate(&driver,
					   GN_VIRTIO_F_VERSION_1 | GN_BALLOON_F_MUST_TELL_HOST));
		before = rig_faults(GN_BALLOON_FAULT_QUEUE);
		cr_assert_eq(driver_set_queue(&driver, 1, cases[i].desc, cases[i].avail,
					      cases[i].used, cases[i].size),
			     cases[i].good, "case %u", i);
		cr_assert_eq(rig_faults(GN_BALLOON_FAULT_QUEUE) > before, !cases[i].good, "case %u",
			     i);
	}
}

Test(balloon_mmio, a_ready_queue_keeps_its_place)
{
	cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST));
	driver_write(&driver, GN_VIRTIO_QUEUE_SEL, INFLATE);
	driver_write(&driver, GN_VIRTIO_QUEUE_DESC_LOW, 0xdead0000);
	driver_write(&driver, GN_VIRTIO_QUEUE_NUM, 2);
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_REGISTER), 2);
	cr_assert(driver_tell_pages(&driver, INFLATE, 100, 1));
	/* Stopped, it is silent; begun anew, it starts at 0. */
	driver_write(&driver, GN_VIRTIO_QUEUE_READY, 0);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_QUEUE_READY), 0);
	cr_assert_not(driver_tell_pages(&driver, INFLATE, 101, 1));
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_NOTIFY), 1);
	driver.avail[INFLATE] = driver.used[INFLATE] = 0;
	cr_assert(driver_set_queue(&driver, INFLATE, driver_desc_pa(0, 0), driver_avail_pa(0),
				   driver_used_pa(0), DRIVER_QUEUE_SIZE));
	cr_assert(driver_tell_pages(&driver, INFLATE, 101, 1));
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 2);
}

Test(balloon_mmio, configuration_space)
{
	uint64_t before;

	cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST));
	gn_balloon_set_target(driver.balloon, 0x123);
	cr_assert_eq(gn_balloon_mmio_read(driver.balloon, GN_VIRTIO_CONFIG, 1), 0x23);
	cr_assert_eq(gn_balloon_mmio_read(driver.balloon, GN_VIRTIO_CONFIG + 1, 1), 0x01);
	cr_assert_eq(gn_balloon_mmio_read(driver.balloon, GN_VIRTIO_CONFIG, 2), 0x123);
	cr_assert_eq(rig_all_faults(), 0);

	before = rig_faults(GN_BALLOON_FAULT_REGISTER);
	driver_write(&driver, GN_VIRTIO_CONFIG, 5);			   /* the device's */
	driver_write(&driver, GN_VIRTIO_CONFIG + 8, 5);			   /* so */
	driver_write(&driver, GN_VIRTIO_CONFIG + 12, 5);		   /* not negotiated */
	driver_write(&driver, GN_VIRTIO_CONFIG + 16, 5);		   /* beyond */
	driver_write(&driver, GN_VIRTIO_CONFIG + 5, 5);			   /* across two fields */
	gn_balloon_mmio_write(driver.balloon, GN_VIRTIO_CONFIG + 4, 1, 5); /* half a field */
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_REGISTER), before + 6);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG), 0x123);
	cr_assert_eq(rig_stats().claimed_pages, 0);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG + 16), 0);
}

Test(balloon_mmio, poison_is_settled_at_driver_ok)
{
	cr_assert(driver_start(&driver, GN_BALLOON_F_MUST_TELL_HOST | GN_BALLOON_F_PAGE_POISON));
	driver_write(&driver, GN_VIRTIO_CONFIG + 12, 0xaa);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_CONFIG + 12), 0);
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_REGISTER), 1);
}

Test(balloon_mmio, odd_accesses_do_nothing)
{
	static const unsigned widths[] = { 0, 1, 2, 3, 5, 8, 255 };

	for (unsigned i = 0; i < sizeof(widths) / sizeof(widths[0]); i++)
		for (uint64_t offset = 0; offset < GN_VIRTIO_CONFIG; offset++) {
			cr_assert_eq(gn_balloon_mmio_read(driver.balloon, offset, widths[i]), 0);
			gn_balloon_mmio_write(driver.balloon, offset, widths[i], UINT64_MAX);
		}
	cr_assert_eq(rig_faults(GN_BALLOON_FAULT_REGISTER), 7 * 2 * 256);
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_STATUS), 0);
	for (uint64_t offset = GN_VIRTIO_CONFIG; offset < 2 * GN_VIRTIO_MMIO_BYTES; offset++)
		for (unsigned bytes = 0; bytes < 10; bytes++)
			(void)gn_balloon_mmio_read(driver.balloon, offset, bytes);
	(void)gn_balloon_mmio_read(driver.balloon, UINT64_MAX, 4);
	gn_balloon_mmio_write(driver.balloon, UINT64_MAX - 3, 4, 1);
}

Test(balloon_mmio, the_hook_knows_its_place)
{
	uint64_t value = 0;

	cr_assert(gn_balloon_mmio(driver.balloon, 0, GN_BALLOON_MMIO_GPA, 4, false, &value));
	cr_assert_eq(value, GN_VIRTIO_MAGIC_VALUE);
	cr_assert_not(
		gn_balloon_mmio(driver.balloon, 0, GN_BALLOON_MMIO_GPA - 4, 4, false, &value));
	cr_assert_not(gn_balloon_mmio(driver.balloon, 0, GN_BALLOON_MMIO_GPA + GN_VIRTIO_MMIO_BYTES,
				      4, false, &value));
	value = 1;
	cr_assert(gn_balloon_mmio(driver.balloon, 3, GN_BALLOON_MMIO_GPA + GN_VIRTIO_STATUS, 4,
				  true, &value));
	cr_assert_eq(driver_read(&driver, GN_VIRTIO_STATUS), 1);
}

Test(balloon_mmio, faults_have_names)
{
	for (unsigned i = 0; i < GN_BALLOON_FAULTS; i++)
		cr_assert_not_null(gn_balloon_fault_name((enum gn_balloon_fault)i), "%u", i);
	cr_assert_null(gn_balloon_fault_name(GN_BALLOON_FAULTS));
}
