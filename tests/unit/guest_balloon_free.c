/* SPDX-License-Identifier: MIT */
/*
 * guest_balloon_free.c - how the guest kernel tells its host what is free: free page reporting, hinting, and poison.
 */
#include "support/guest_balloon_rig.h"

/* ---- Telling what is free ------------------------------------------------------------------------------------------------------ */

static int frees_and_reports(const struct workload_params *params, const char **why)
{
	uint64_t kept = filled(4 * MIB), gone = filled(12 * MIB), first, told;
	struct gn_balloon_stats s;

	(void)params;
	(void)why;
	some_time();
	expect(!sys_munmap(gone, 12 * MIB));
	some_time();
	gn_balloon_stats(rig.balloon, &s);
	first = s.reported_pages + s.withheld_pages;
	expect(first >= PAGES(11 * MIB) && first <= PAGES(13 * MIB));
	expect(kernel_now().reported_frames == first);
	/* Once each: time alone makes no more reports. */
	some_time();
	expect(kernel_now().reported_frames == first);
	/* Used again, freed again, told again. */
	gone = filled(10 * MIB);
	check(gone, 10 * MIB);
	check(kept, 4 * MIB);
	expect(!sys_munmap(gone, 10 * MIB));
	some_time();
	told = kernel_now().reported_frames;
	expect(told >= first + PAGES(9 * MIB) && told <= first + PAGES(11 * MIB));
	check(kept, 4 * MIB);
	/* What comes out of the balloon the host knows to be free, but for poison. */
	set_target(PAGES(20 * MIB));
	told = kernel_now().reported_frames;
	set_target(0);
	expect(kernel_now().reported_frames - told <= (rig.poison ? PAGES(30 * MIB) : PAGES(MIB)));
	check(kept, 4 * MIB);
	return 0;
}

static const struct workload reporting = { .name = "reporting", .run = frees_and_reports };

Test(guest_balloon_free, reports_free_pages, .init = register_schemes)
{
	for (unsigned s = 0; gn_scheme_at(s); s++) {
		rig.scheme = gn_scheme_name(gn_scheme_at(s));
		rig.large = s % 2;
		rig.poison = s % 3 ? 0 : 0x5a5a5a5a;
		run_well(&reporting, MIB, NULL);
		cr_assert_eq(rig.stats.withheld_pages, rig.poison ? rig.kernel.reported_frames : 0);
	}
}

/* A lot is freed at once. The host is told in portions, between which the driver does what the host wants. */
static int reports_between_targets(const struct workload_params *params, const char **why)
{
	const uint64_t freed = 36 * MIB, most = 20 * MIB, wanted = 4 * MIB;
	uint64_t gone = filled(freed), told = kernel_now().reported_frames;

	(void)params;
	(void)why;
	expect(!sys_munmap(gone, freed));
	for (unsigned i = 0; kernel_now().reported_frames == told && i < 40; i++)
		sys_tick();
	told = kernel_now().reported_frames - told;
	expect(told && told <= PAGES(most));
	gn_balloon_set_target(rig.balloon, PAGES(wanted));
	sys_tick();
	expect(gn_balloon_actual_pages(rig.balloon) == PAGES(wanted));
	expect(kernel_now().reported_frames - told <= PAGES(most));
	some_time();
	expect(kernel_now().reported_frames + PAGES(wanted) >= PAGES(freed - 2 * MIB));
	return 0;
}

static const struct workload portions = { .name = "portions", .run = reports_between_targets };

Test(guest_balloon_free, reports_in_portions, .init = register_schemes)
{
	run_well(&portions, MIB, NULL);
	cr_assert_eq(rig.stats.reported_pages, rig.kernel.reported_frames);
}

static int hints_what_is_free(const struct workload_params *params, const char **why)
{
	uint64_t kept = filled(4 * MIB), gone = filled(9 * MIB), scattered = filled(3 * MIB);

	(void)params;
	(void)why;
	expect(!sys_munmap(gone, 9 * MIB));
	for (uint64_t i = 0; i < 3 * MIB; i += 2 * K_PAGE)
		expect(!sys_munmap(scattered + i, K_PAGE));
	for (unsigned round = 1; round <= 3; round++) {
		rig.hinted = 0;
		rig.events = 0;
		expect(!gn_balloon_hint_start(rig.balloon));
		some_time();
		expect(rig.events & GN_BALLOON_EVENT_HINTS_END);
		expect(!rig.hinted_wrong);
		expect(rig.hinted >= PAGES(10 * MIB) && rig.hinted <= PAGES(12 * MIB));
		expect(!gn_balloon_hint_done(rig.balloon));
		some_time();
	}
	check(kept, 4 * MIB);
	gone = filled(9 * MIB);
	check(gone, 9 * MIB);
	return 0;
}

static const struct workload hinting = { .name = "hinting", .run = hints_what_is_free };

Test(guest_balloon_free, hints_free_pages, .init = register_schemes)
{
	for (unsigned s = 0; gn_scheme_at(s); s++) {
		rig.scheme = gn_scheme_name(gn_scheme_at(s));
		run_well(&hinting, MIB, NULL);
		cr_assert_eq(rig.stats.hinted_pages, rig.kernel.hinted_frames);
	}
}

/* ---- Poison ---------------------------------------------------------------------------------------------------------------------- */

static int someone_writes_to_free_memory(const struct workload_params *params, const char **why)
{
	uint64_t at = filled(4 * MIB);
	uint32_t frame;

	(void)params;
	(void)why;
	expect(!sys_munmap(at, 4 * MIB));
	frame = k_now->frames.free_head;
	expect(!gn_vm_write(gn_soft_vm(rig.soft), (gpa_t){ k_gpa(frame) + 80 }, "x", 1));
	filled(4 * MIB);
	return 0;
}

static const struct workload written_to = { .name = "written to",
					    .run = someone_writes_to_free_memory };

Test(guest_balloon_free, poisoned_frames_are_watched, .init = register_schemes)
{
	rig.poison = 0xdeadbeef;
	cr_assert_eq(run(&written_to, MIB, NULL), -ECANCELED);
	cr_assert_not_null(strstr(rig.why, "a free frame was written to"), "%s", rig.why);
	rig.poison = 0;
	run_well(&written_to, MIB, NULL);
}
