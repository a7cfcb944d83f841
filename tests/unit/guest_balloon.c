/* SPDX-License-Identifier: MIT */
/*
 * guest_balloon.c - the guest kernel's balloon driver against the device, on the software machine: up and down, squeezed,
 * out of memory, and with devices that do not do their part.
 */
#include "support/guest_balloon_rig.h"

/* ---- Up and down --------------------------------------------------------------------------------------------------------- */

static int targets_are_met(const struct workload_params *params, const char **why)
{
	static const uint64_t targets[] = { 16 * MIB, 30 * MIB, 30 * MIB + 5 * K_PAGE,
					    7 * MIB,  33 * MIB, 0 };
	uint64_t kept = filled(5 * MIB), free_and_held = kernel_now().frames_free;

	(void)params;
	(void)why;
	for (unsigned i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		uint64_t target = PAGES(targets[i]), at;
		struct kernel_stats s;

		set_target(target);
		s = kernel_now();
		expect(gn_balloon_actual_pages(rig.balloon) == target);
		expect(s.balloon_pages == target && s.frames_free + target == free_and_held);
		expect(i || s.balloon_blocks == target / K_LARGE_FRAMES);
		/* Live memory is where it was; what is free can be used, and comes zeroed. */
		check(kept, 5 * MIB);
		at = filled(2 * MIB);
		check(at, 2 * MIB);
		expect(!sys_munmap(at, 2 * MIB));
		free_and_held = kernel_now().frames_free + target; /* tables may remain */
	}
	/* All of it came back. */
	kept = filled(30 * MIB);
	check(kept, 30 * MIB);
	return 0;
}

static const struct workload up_and_down = { .name = "up and down", .run = targets_are_met };

Test(guest_balloon, meets_targets_under_every_scheme, .init = register_schemes)
{
	unsigned ran = 0;

	for (unsigned s = 0; gn_scheme_at(s); s++, ran++) {
		rig.scheme = gn_scheme_name(gn_scheme_at(s));
		for (unsigned mode = 0; mode < 2; mode++) {
			rig.pcid = rig.large = mode;
			run_well(&up_and_down, MIB, NULL);
			cr_assert_eq(rig.stats.inflated_pages, rig.stats.deflated_pages);
		}
	}
	cr_assert_geq(ran, 6);
}

static int one_round(const struct workload_params *params, const char **why)
{
	uint64_t kept = filled(MIB), gone = filled(MIB);

	(void)params;
	(void)why;
	expect(!sys_munmap(gone, MIB));
	set_target(PAGES(2 * MIB) + 3);
	expect(gn_balloon_actual_pages(rig.balloon) == PAGES(2 * MIB) + 3);
	set_target(0);
	expect(!gn_balloon_actual_pages(rig.balloon));
	gone = filled(MIB);
	check(gone, MIB);
	check(kept, MIB);
	return 0;
}

static const struct workload short_round = { .name = "one round", .run = one_round };

/* Every set of features a device may offer, half of them to a guest that poisons its pages. The queues' numbers close up. */
Test(guest_balloon, drives_any_device, .init = register_schemes)
{
	unsigned poisons = 0;

	for (uint64_t features = 1; features <= GN_BALLOON_F_ALL; features++) {
		bool poisoned = __builtin_parityll(features);

		rig.features = features;
		rig.poison = poisoned ? 0xaaaaaaaa : 0;
		run_well(&short_round, MIB, NULL);
		cr_assert_eq(rig.stats.features & ~(features | GN_VIRTIO_F_VERSION_1), 0);
		cr_assert_eq(!!(rig.stats.features & GN_BALLOON_F_PAGE_POISON),
			     poisoned && (features & GN_BALLOON_F_PAGE_POISON));
		poisons += !!(rig.stats.features & GN_BALLOON_F_PAGE_POISON);
	}
	cr_assert_eq(poisons, 16);
}

/* ---- Workloads while the target moves ------------------------------------------------------------------------------------ */

static void move_target(void *ctx, double done)
{
	static const uint64_t targets[] = { 20 * MIB, 0, 9 * MIB, 28 * MIB, 3 * MIB };

	(void)ctx;
	(void)done;
	gn_balloon_set_target(rig.balloon, PAGES(targets[rig.turns++ % 5]));
}

Test(guest_balloon, workloads_run_while_targets_move, .init = register_schemes)
{
	static const struct {
		const char *name;
		uint64_t size;
	} jobs[] = { { "kv", 16 * MIB },    { "cow", 4 * MIB },		{ "fork-exec", 20 },
		     { "random", 8 * MIB }, { "mprotect-gc", 2 * MIB }, { "phases", 6 * MIB } };

	for (unsigned s = 0; gn_scheme_at(s); s++) {
		rig.scheme = gn_scheme_name(gn_scheme_at(s));
		for (unsigned i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
			rig.pcid = rig.large = (s + i) % 2;
			run_well(workload_find(jobs[i].name), jobs[i].size, move_target);
			cr_assert_gt(rig.turns, 3, "%s: %u", jobs[i].name, rig.turns);
			cr_assert_gt(rig.stats.inflated_pages, PAGES(20 * MIB), "%s", jobs[i].name);
			cr_assert_gt(rig.stats.deflated_pages, 0, "%s", jobs[i].name);
		}
	}
}

/* ---- Squeezed ---------------------------------------------------------------------------------------------------------------- */

static int cache_gives_way(const struct workload_params *params, const char **why)
{
	const uint64_t pages = PAGES(16 * MIB);
	int file = sys_file(pages, SEED);
	uint64_t at = sys_mmap_image(file, 0, pages * K_PAGE, K_READ), kept = filled(8 * MIB);
	struct gn_balloon_stats claims;
	uint64_t before, flushes, changes;

	(void)params;
	(void)why;
	check_file(at, pages);
	expect(kernel_now().file_reads == pages);
	gn_balloon_stats(rig.balloon, &claims);
	changes = claims.changes;
	flushes = kernel_now().invlpg + kernel_now().full_flushes;
	/* More than is free: clean pages go, the target is met, all can still be read. */
	set_target(PAGES(32 * MIB));
	/* The host has what is free before the rest is evicted, and that by and by; mappings go in batches. */
	gn_balloon_stats(rig.balloon, &claims);
	expect(claims.changes - changes > kernel_now().evictions / 1024);
	flushes = kernel_now().invlpg + kernel_now().full_flushes - flushes;
	expect(flushes && flushes < kernel_now().evictions / 64);
	expect(gn_balloon_actual_pages(rig.balloon) == PAGES(32 * MIB));
	expect(kernel_now().evictions > PAGES(8 * MIB));
	check_file(at, pages);
	check(kept, 8 * MIB);
	/* What the host sees of it: nothing to spare, and reads of what was there before. */
	expect(!gn_balloon_request_stats(rig.balloon));
	some_time();
	gn_balloon_stats(rig.balloon, &claims);
	expect(claims.claims_are_plausible);
	expect(claims.claims[GN_BALLOON_STAT_AVAIL] < 8 * MIB);
	expect(claims.claims[GN_BALLOON_STAT_MEMTOT] == RAM - 32 * MIB);
	expect(claims.claims[GN_BALLOON_STAT_MAJFLT] > pages + PAGES(8 * MIB));
	/* Given more, it reads its file once again and then no more. */
	set_target(PAGES(8 * MIB));
	check_file(at, pages);
	before = kernel_now().file_reads;
	check_file(at, pages);
	expect(kernel_now().file_reads == before);
	expect(!gn_balloon_request_stats(rig.balloon));
	some_time();
	gn_balloon_stats(rig.balloon, &claims);
	expect(claims.claims[GN_BALLOON_STAT_MAJFLT] == before);
	expect(claims.claims[GN_BALLOON_STAT_AVAIL] > 20 * MIB);
	expect(claims.claims[GN_BALLOON_STAT_CACHES] == 16 * MIB);
	/* More than there is: what can be given is, and what runs goes on. */
	set_target(PAGES(RAM));
	expect(gn_balloon_actual_pages(rig.balloon) > PAGES(36 * MIB));
	check(kept, 8 * MIB);
	check_file(at, pages);
	set_target(0);
	check(kept, 8 * MIB);
	return 0;
}

static const struct workload squeezed = { .name = "squeezed", .run = cache_gives_way };

Test(guest_balloon, evicts_files_and_says_so, .init = register_schemes)
{
	static const char *const schemes[] = { "native", "shadow", "shadow-vtlb", "ept", "npt" };

	for (unsigned s = 0; s < sizeof(schemes) / sizeof(schemes[0]); s++) {
		rig.scheme = schemes[s];
		run_well(&squeezed, MIB, NULL);
		cr_assert_eq(rig.kernel.refaults, rig.kernel.file_reads - PAGES(16 * MIB));
		cr_assert_geq(rig.kernel.balloon_answers, 3);
	}
}

/* ---- Out of memory ------------------------------------------------------------------------------------------------------------ */

static int needs_more_than_is_left(const struct workload_params *params, const char **why)
{
	uint64_t at, held;

	(void)params;
	(void)why;
	set_target(PAGES(36 * MIB));
	expect(gn_balloon_actual_pages(rig.balloon) == PAGES(36 * MIB));
	at = filled(20 * MIB);
	check(at, 20 * MIB);
	held = gn_balloon_actual_pages(rig.balloon);
	expect(held < PAGES(30 * MIB) && kernel_now().balloon_relieved >= PAGES(36 * MIB) - held);
	/* The host knows, and the driver does not take it again of its own accord. */
	some_time();
	expect(gn_balloon_actual_pages(rig.balloon) == held);
	expect(!sys_munmap(at, 20 * MIB));
	some_time();
	expect(gn_balloon_actual_pages(rig.balloon) == held);
	set_target(PAGES(36 * MIB) + 1);
	expect(gn_balloon_actual_pages(rig.balloon) == PAGES(36 * MIB) + 1);
	return 0;
}

static const struct workload needy = { .name = "needy", .run = needs_more_than_is_left };

Test(guest_balloon, deflates_rather_than_dies, .init = register_schemes)
{
	static const char *const schemes[] = { "native", "shadow", "shadow-vtlb", "ept", "interp" };

	for (unsigned s = 0; s < sizeof(schemes) / sizeof(schemes[0]); s++) {
		rig.scheme = schemes[s];
		rig.large = s % 2;
		run_well(&needy, MIB, NULL);
	}
}

Test(guest_balloon, keeps_its_word_where_it_may_not_deflate, .init = register_schemes)
{
	rig.features = GN_BALLOON_F_ALL & ~GN_BALLOON_F_DEFLATE_ON_OOM;
	cr_assert_eq(run(&needy, MIB, NULL), -ECANCELED);
	cr_assert_not_null(strstr(rig.why, "out of memory"), "%s", rig.why);
	cr_assert_eq(rig.stats.held_pages, PAGES(36 * MIB));
}

/* Every fourth page is freed, ballooned and taken back; the blocks they left are formed again under the guest. */
static uint64_t later_ns;

static uint64_t now_ns(void *ctx)
{
	(void)ctx;
	return later_ns;
}

static int lets_blocks_be_formed(const struct workload_params *params, const char **why)
{
	const uint64_t bytes = 16 * MIB, kept = filled(bytes);
	struct gn_balloon_stats s;
	uint64_t more;

	(void)params;
	(void)why;
	for (uint64_t i = 0; i < bytes; i += 4 * K_PAGE)
		expect(!sys_munmap(kept + i, K_PAGE));
	set_target(kernel_now().frames_free - 100);
	set_target(0);
	expect(!gn_balloon_actual_pages(rig.balloon));
	expect(!gn_balloon_reform(rig.balloon, 100));
	later_ns += GN_BALLOON_CALM_NS;
	gn_balloon_stats(rig.balloon, &s);
	expect(s.split_blocks >= bytes / (2 * MIB));
	expect(gn_balloon_reform(rig.balloon, 100) >= bytes / (2 * MIB) - 1);
	for (uint64_t i = 0; i < bytes; i += K_PAGE)
		if (i % (4 * K_PAGE))
			expect(cpu_load64(kept + i) == kept + i);
	more = filled(8 * MIB);
	check(more, 8 * MIB);
	return 0;
}

static const struct workload formed = { .name = "formed", .run = lets_blocks_be_formed };

Test(guest_balloon, has_its_blocks_formed_again, .init = register_schemes)
{
	rig.backing_level = 2;
	rig.device.now_ns = now_ns;
	for (unsigned s = 0; gn_scheme_at(s); s++) {
		rig.scheme = gn_scheme_name(gn_scheme_at(s));
		run_well(&formed, MIB, NULL);
		cr_assert_gt(rig.stats.reformed_blocks, 0);
	}
}

/* A target that fell, but was not seen yet, is leave to deflate. */
static int needs_what_was_granted(const struct workload_params *params, const char **why)
{
	uint64_t at = sys_mmap(0, 20 * MIB, K_READ | K_WRITE, 0);

	(void)params;
	(void)why;
	set_target(PAGES(36 * MIB));
	gn_balloon_set_target(rig.balloon, PAGES(20 * MIB));
	for (uint64_t i = 0; i < 20 * MIB; i += K_PAGE)
		cpu_store64(at + i, i);
	return 0;
}

static const struct workload granted = { .name = "granted", .run = needs_what_was_granted };

Test(guest_balloon, uses_what_it_was_granted, .init = register_schemes)
{
	rig.features = GN_BALLOON_F_MUST_TELL_HOST;
	run_well(&granted, MIB, NULL);
	cr_assert_eq(rig.stats.held_pages, PAGES(20 * MIB));
}

/* ---- Devices that do not do their part --------------------------------------------------------------------------------------------- */

static int survives_a_broken_device(const struct workload_params *params, const char **why)
{
	uint64_t kept = filled(5 * MIB), at;

	(void)params;
	(void)why;
	for (unsigned i = 0; i < 6; i++)
		set_target(i % 2 ? PAGES(MIB) : PAGES(12 * MIB));
	check(kept, 5 * MIB);
	at = filled(8 * MIB);
	check(at, 8 * MIB);
	return 0;
}

static const struct workload survivor = { .name = "survivor", .run = survives_a_broken_device };

Test(guest_balloon, goes_on_without_a_device_that_broke, .init = register_schemes)
{
	rig.device.churn_pages_per_s = 1;
	rig.device.churn_burst_pages = 100;
	rig.device.churn_answer = GN_BALLOON_CHURN_BREAK;
	cr_assert_eq(run(&survivor, MIB, NULL), 0, "%s", rig.why);
	cr_assert_not_null(rig.stats.broken_why);
	cr_assert(rig.stats.status & GN_VIRTIO_STATUS_FAILED);
}

/* Pages the device acknowledged and did not take: they come back as they were, and must not pass for zeros. */
static int gets_its_own_pages_back(const struct workload_params *params, const char **why)
{
	uint64_t kept = filled(5 * MIB), at;

	(void)params;
	(void)why;
	for (unsigned i = 0; i < 4; i++) {
		at = filled(24 * MIB);
		check(at, 24 * MIB);
		expect(!sys_munmap(at, 24 * MIB));
		set_target(PAGES(30 * MIB));
		set_target(0);
	}
	at = filled(34 * MIB);
	check(at, 34 * MIB);
	check(kept, 5 * MIB);
	return 0;
}

static const struct workload ignored = { .name = "ignored", .run = gets_its_own_pages_back };

Test(guest_balloon, pages_that_were_not_taken_are_cleared, .init = register_schemes)
{
	rig.device.churn_pages_per_s = 1;
	rig.device.churn_burst_pages = 100;
	rig.device.churn_answer = GN_BALLOON_CHURN_IGNORE;
	for (unsigned large = 0; large < 2; large++) {
		rig.large = large;
		cr_assert_eq(run(&ignored, MIB, NULL), 0, "%s", rig.why);
		cr_assert_gt(rig.stats.faults[GN_BALLOON_FAULT_CHURN], PAGES(20 * MIB));
	}
}

Test(guest_balloon, nothing_there_is_no_balloon, .init = register_schemes)
{
	const struct gn_soft_config config = {
		.vm = { .scheme = "ept", .mem_bytes = RAM, .vcpus = 1 }
	};
	const struct workload_params params = { .size = MIB, .mem_bytes = RAM };
	struct workload_hosting hosting = { .balloon_pa = GN_BALLOON_MMIO_GPA };
	struct gn_soft *soft;
	const char *why;

	for (unsigned i = 0; i < 2; i++) {
		int err;

		cr_assert_eq(gn_soft_create(&config, &soft), 0);
		err = workload_run_hosting(gn_soft_cpu(soft, 0), workload_find("kv"), &params,
					   &hosting, &why);
		cr_assert_eq(err, i ? -ECANCELED : 0, "%s", why);
		cr_assert(!i || strstr(why, "in RAM"), "%s", why);
		gn_soft_destroy(soft);
		hosting.balloon_pa = 4 * MIB; /* in RAM */
	}
}

/* ---- The image's twin ------------------------------------------------------------------------------------------------------------------ */

Test(guest_balloon, twins_have_one_too, .init = register_schemes)
{
	const struct gn_soft_config config = {
		.vm = { .scheme = "shadow", .mem_bytes = RAM, .vcpus = 1 }
	};
	struct gn_guest_ops ops[2];

	for (unsigned i = 0; i < 2; i++) {
		struct gn_guest_boot boot = { .magic = GN_GUEST_MAGIC,
					      .mem_bytes = RAM,
					      .user_start = 10 * MIB,
					      .reserved_bytes = 12 * MIB,
					      .levels = 4,
					      .size = MIB,
					      .seed = SEED,
					      .balloon_pa = GN_BALLOON_MMIO_GPA,
					      .workload = "phases" };
		const struct gn_balloon_config device = { .target_pages = PAGES(20 * MIB) };
		struct gn_balloon *balloon;
		struct gn_soft *soft;

		cr_assert_eq(gn_soft_create(&config, &soft), 0);
		cr_assert_eq(gn_balloon_create(gn_soft_vm(soft), &device, &balloon), 0);
		gn_soft_set_mmio(soft, gn_balloon_mmio, balloon);
		cr_assert_eq(workload_run_twin(gn_soft_cpu(soft, 0), &boot, NULL), 0, "%s",
			     boot.why);
		cr_assert_eq(gn_balloon_actual_pages(balloon), PAGES(20 * MIB));
		ops[i] = boot.ops;
		gn_balloon_destroy(balloon);
		gn_soft_destroy(soft);
	}
	cr_assert_arr_eq(&ops[0], &ops[1], sizeof(ops[0]));
}
