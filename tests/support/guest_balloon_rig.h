/* SPDX-License-Identifier: MIT */
/*
 * guest_balloon_rig.h - a software machine with a balloon device, whose guest is the kernel and a piece of code of the test.
 *
 * Guest code and host are one thread here: a case is guest code that plays the host between two system calls. After
 * each run the device must have found nothing wrong with its driver, the audit nothing wrong with the tables.
 */
#ifndef GN_TESTS_GUEST_BALLOON_RIG_H
#define GN_TESTS_GUEST_BALLOON_RIG_H

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <gnomon/balloon.h>
#include <gnomon/schemes.h>
#include <gnomon/soft.h>

#include "workloads/hosted.h"
#include "workloads/kernel_state.h"

#define MIB	     ((uint64_t)1 << 20)
#define RAM	     (48 * MIB)
#define PAGES(bytes) ((bytes) / K_PAGE)
#define SEED	     9

/* ---- The rig ------------------------------------------------------------------------------------------------------- */

static struct rig {
	const char *scheme;
	bool pcid, large;
	unsigned backing_level;
	uint64_t features;
	uint32_t poison;
	struct gn_balloon_config device;

	struct gn_soft *soft;
	struct gn_balloon *balloon;
	struct gn_balloon_stats stats; /* of the device, at the end */
	struct kernel_stats kernel;
	char why[200];
	unsigned events, turns;
	uint64_t hinted;
	bool hinted_wrong;
} rig;

static inline void on_event(void *ctx, unsigned events)
{
	(void)ctx;
	rig.events |= events;
}

static inline void on_hint(void *ctx, gfn_t start, uint64_t count)
{
	(void)ctx;
	for (uint64_t i = 0; i < count; i++)
		rig.hinted_wrong |= !k_frame_is_listed((uint32_t)(start.v + i));
	rig.hinted += count;
}

static inline int run(const struct workload *w, uint64_t size, void (*progress)(void *, double))
{
	const struct gn_soft_config config = { .vm = { .scheme = rig.scheme,
						       .mem_bytes = RAM,
						       .vcpus = 1,
						       .backing_level = rig.backing_level } };
	const struct workload_params params = { .size = size,
						.seed = SEED,
						.mem_bytes = RAM,
						.pcid = rig.pcid,
						.large_pages = rig.large,
						.levels = rig.pcid ? 5 : 4 };
	const struct workload_hosting hosting = { .progress = progress,
						  .balloon_pa = GN_BALLOON_MMIO_GPA,
						  .free_poison = rig.poison,
						  .stats = &rig.kernel };
	struct gn_audit_report report;
	const char *why;
	int err;

	rig.device.features = rig.features;
	rig.device.event = on_event;
	rig.device.hint = on_hint;
	rig.events = rig.turns = 0;
	rig.hinted = 0;
	cr_assert_eq(gn_soft_create(&config, &rig.soft), 0);
	cr_assert_eq(gn_balloon_create(gn_soft_vm(rig.soft), &rig.device, &rig.balloon), 0);
	gn_soft_set_mmio(rig.soft, gn_balloon_mmio, rig.balloon);
	err = workload_run_hosting(gn_soft_cpu(rig.soft, 0), w, &params, &hosting, &why);
	snprintf(rig.why, sizeof(rig.why), "%s", why ? why : ""); /* the machine owns it */
	gn_balloon_stats(rig.balloon, &rig.stats);
	cr_assert_eq(gn_audit(gn_soft_vm(rig.soft), &report), 0, "%s under %s: %s", w->name,
		     config.vm.scheme, report.first);
	gn_balloon_destroy(rig.balloon);
	gn_soft_destroy(rig.soft);
	return err;
}

static inline void check_driver(const char *what)
{
	for (unsigned f = 0; f < GN_BALLOON_FAULTS; f++)
		cr_assert_eq(rig.stats.faults[f], 0, "%s under %s: %llu times %s", what, rig.scheme,
			     (unsigned long long)rig.stats.faults[f], gn_balloon_fault_name(f));
	cr_assert_eq(rig.stats.claimed_pages, rig.stats.held_pages, "%s: claims %llu, holds %llu",
		     what, (unsigned long long)rig.stats.claimed_pages,
		     (unsigned long long)rig.stats.held_pages);
	cr_assert_eq(rig.kernel.balloon_pages, rig.stats.held_pages);
}

static inline void run_well(const struct workload *w, uint64_t size,
			    void (*progress)(void *, double))
{
	int err = run(w, size, progress);

	cr_assert_eq(err, 0, "%s under %s, PCID %d, large %d: %s", w->name, rig.scheme, rig.pcid,
		     rig.large, rig.why);
	check_driver(w->name);
}

static inline void register_schemes(void)
{
	cr_assert_eq(gn_schemes_register_all(), 0);
	rig = (struct rig){ .scheme = "ept" };
}

/* ---- For guest code ---------------------------------------------------------------------------------------------------- */

static inline void expect_at(bool truth, const char *text)
{
	if (!truth)
		cpu_panic(text);
}
#define expect(cond) expect_at(cond, #cond)

static inline struct kernel_stats kernel_now(void)
{
	struct kernel_stats s;

	kernel_stats(&s);
	return s;
}

static inline void some_time(void)
{
	for (unsigned i = 0; i < 40; i++)
		sys_tick();
}

static inline void set_target(uint64_t pages)
{
	gn_balloon_set_target(rig.balloon, pages);
	some_time();
}

static inline uint64_t filled(uint64_t bytes)
{
	uint64_t at = sys_mmap(0, bytes, K_READ | K_WRITE, 0);

	expect(at);
	for (uint64_t i = 0; i < bytes; i += K_PAGE) {
		expect(cpu_load64(at + i + 8) == 0 && cpu_load64(at + i + K_PAGE - 8) == 0);
		cpu_store64(at + i, at + i);
		cpu_store64(at + i + K_PAGE - 8, at - i);
	}
	return at;
}

static inline void check(uint64_t at, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i += K_PAGE)
		expect(cpu_load64(at + i) == at + i && cpu_load64(at + i + 8) == 0 &&
		       cpu_load64(at + i + K_PAGE - 8) == at - i);
}

static inline void check_file(uint64_t at, uint64_t pages)
{
	for (uint64_t page = 0; page < pages; page++)
		expect(cpu_load64(at + page * K_PAGE + 640) == kernel_image_word(SEED, page, 10));
}

#endif
