/* SPDX-License-Identifier: MIT */
/*
 * balloon_rig.h - a VM of 16 MiB without tables, a balloon device on it, a driver; and what the device told its embedder.
 */
#ifndef GN_TESTS_BALLOON_RIG_H
#define GN_TESTS_BALLOON_RIG_H

#include <criterion/criterion.h>

#include "support/balloon_driver.h"

#define MEM_BYTES ((uint64_t)16 << 20)
#define PAGES	  ((uint32_t)(MEM_BYTES >> GN_PAGE_SHIFT))

enum { INFLATE, DEFLATE }; /* queue numbers that never change */

static struct gn_vm *vm;
static struct balloon_driver driver;
static struct {
	unsigned interrupts, events, hints;
	uint64_t now_ns;
	gfn_t hint_start;
	uint64_t hint_count;
} told;

static inline void rig_irq(void *ctx)
{
	(void)ctx;
	told.interrupts++;
}
static inline void rig_event(void *ctx, unsigned events)
{
	(void)ctx;
	told.events |= events;
}
static inline void rig_hint(void *ctx, gfn_t start, uint64_t count)
{
	(void)ctx;
	told.hint_start = start;
	told.hint_count = count;
	told.hints++;
}
static inline uint64_t rig_now_ns(void *ctx)
{
	(void)ctx;
	return told.now_ns;
}

static inline void rig_create(struct gn_balloon_config config)
{
	config.irq = rig_irq;
	config.event = rig_event;
	config.hint = rig_hint;
	config.now_ns = rig_now_ns;
	cr_assert_eq(gn_balloon_create(vm, &config, &driver.balloon), 0);
	driver.vm = vm;
}

/* A device that offers everything, a driver that takes @features. */
static inline void rig_start(uint64_t features)
{
	rig_create((struct gn_balloon_config){ .features = 0 });
	cr_assert(driver_start(&driver, features | GN_BALLOON_F_MUST_TELL_HOST));
	told.events = 0;
}

static inline void rig_setup(void)
{
	cr_assert_eq(bare_vm_new(MEM_BYTES, 0, 0, &vm), 0);
}
static inline void rig_teardown(void)
{
	gn_balloon_destroy(driver.balloon);
	gn_vm_destroy(vm);
}

static inline struct gn_balloon_stats rig_stats(void)
{
	struct gn_balloon_stats s;

	gn_balloon_stats(driver.balloon, &s);
	return s;
}
static inline uint64_t rig_faults(enum gn_balloon_fault fault)
{
	return rig_stats().faults[fault];
}
static inline uint64_t rig_all_faults(void)
{
	struct gn_balloon_stats s = rig_stats();
	uint64_t sum = 0;

	for (unsigned i = 0; i < GN_BALLOON_FAULTS; i++)
		sum += s.faults[i];
	return sum;
}
static inline bool rig_is_broken(void)
{
	return driver_read(&driver, GN_VIRTIO_STATUS) & GN_VIRTIO_STATUS_NEEDS_RESET;
}

static inline enum gn_p2m_state rig_state(uint64_t page)
{
	struct gn_p2m_info info = { .state = GN_P2M_STATES };

	cr_assert_eq(gn_p2m_query(vm, gfn(page), &info), 0);
	return info.state;
}

#endif
