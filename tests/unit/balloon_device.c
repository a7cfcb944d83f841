/* SPDX-License-Identifier: MIT */
/*
 * balloon_device.c - what the balloon does for an honest driver, feature by feature.
 */
#include <criterion/criterion.h>

#include "support/balloon_driver.h"

#define MEM_BYTES ((uint64_t)16 << 20)
#define PAGES	  (MEM_BYTES >> GN_PAGE_SHIFT)

static struct gn_vm *vm;
static struct balloon_driver driver;
static struct {
	unsigned interrupts, events;
	uint64_t now_ns;
	gfn_t hint_start;
	uint64_t hint_count, hints;
} told;

static void irq(void *ctx)
{
	(void)ctx;
	told.interrupts++;
}
static void event(void *ctx, unsigned events)
{
	(void)ctx;
	told.events |= events;
}
static void hint(void *ctx, gfn_t start, uint64_t count)
{
	(void)ctx;
	told.hint_start = start;
	told.hint_count = count;
	told.hints++;
}
static uint64_t now_ns(void *ctx)
{
	(void)ctx;
	return told.now_ns;
}

static void start_with(struct gn_balloon_config config, uint64_t features)
{
	config.irq = irq;
	config.event = event;
	config.hint = hint;
	config.now_ns = now_ns;
	cr_assert_eq(gn_balloon_create(vm, &config, &driver.balloon), 0);
	driver.vm = vm;
	cr_assert(driver_start(&driver, features));
}

static void start(uint64_t features)
{
	start_with((struct gn_balloon_config){ .features = 0 }, features);
}

static struct gn_balloon_stats stats(void)
{
	struct gn_balloon_stats s;

	gn_balloon_stats(driver.balloon, &s);
	return s;
}

static enum gn_p2m_state state_of(uint64_t page)
{
	struct gn_p2m_info info;

	cr_assert_eq(gn_p2m_query(vm, gfn(page), &info), 0);
	return info.state;
}

static void setup(void)
{
	memset(&told, 0, sizeof(told));
	cr_assert_eq(bare_vm_new(MEM_BYTES, 0, 0, &vm), 0);
}

static void teardown(void)
{
	gn_balloon_destroy(driver.balloon);
	gn_vm_destroy(vm);
}

TestSuite(balloon_device, .init = setup, .fini = teardown);

Test(balloon_device, inflates_and_deflates)
{
	start(GN_BALLOON_F_MUST_TELL_HOST);
	cr_assert_eq(gn_p2m_populate(vm, gfn(1024), 512), 0);
	cr_assert(driver_tell_pages(&driver, 0, 1024, 1024));
	for (uint64_t page = 1024; page < 2048; page++)
		cr_assert_eq(state_of(page), GN_P2M_BALLOONED, "page %llu",
			     (unsigned long long)page);
	cr_assert_eq(state_of(1023), GN_P2M_UNBACKED);
	cr_assert_eq(state_of(2048), GN_P2M_UNBACKED);
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 1024);
	cr_assert_eq(stats().runs, 1, "one change for neighbours");

	cr_assert(driver_tell_pages(&driver, 1, 1100, 100));
	cr_assert_eq(gn_balloon_actual_pages(driver.balloon), 924);
	cr_assert_eq(state_of(1100), GN_P2M_UNBACKED);
	cr_assert_eq(state_of(1099), GN_P2M_BALLOONED);
	cr_assert_eq(stats().deflated_pages, 100);
}
