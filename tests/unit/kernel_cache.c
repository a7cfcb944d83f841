/* SPDX-License-Identifier: MIT */
/*
 * kernel_cache.c - files in the guest kernel: what is read is right however little memory there is, what is evicted is
 * counted, and no frame is lost or evicted under a mapping.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <gnomon/guest.h>
#include <gnomon/schemes.h>
#include <gnomon/sharing.h>
#include <gnomon/soft.h>

#include "workloads/hosted.h"

#define MIB ((uint64_t)1 << 20)
#define RAM (16 * MIB)

static void expect_at(bool truth, const char *text)
{
	if (!truth)
		cpu_panic(text);
}
#define expect(cond) expect_at(cond, #cond)

static void register_schemes(void)
{
	cr_assert_eq(gn_schemes_register_all(), 0);
}

/* Frames that nobody uses and file pages that nobody maps. */
static uint64_t reserve(void)
{
	struct kernel_stats s;

	kernel_stats(&s);
	return s.frames_free + s.cache_pages;
}

/* Anonymous memory until only @left_pages frames are free. */
static uint64_t ballast(uint64_t left_pages, uint64_t *bytes)
{
	struct kernel_stats s;
	uint64_t at;

	kernel_stats(&s);
	*bytes = (s.frames_free - left_pages - 16) * K_PAGE;
	at = sys_mmap(0, *bytes, K_READ | K_WRITE, K_MAP_SMALL);
	for (uint64_t i = 0; i < *bytes; i += K_PAGE)
		cpu_store64(at + i, at + i);
	return at;
}

static void check_ballast(uint64_t at, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i += K_PAGE)
		expect(cpu_load64(at + i) == at + i);
}

static void check_file(uint64_t at, uint64_t seed, uint64_t first, uint64_t pages)
{
	for (uint64_t page = 0; page < pages; page++)
		for (unsigned line = 0; line < 64; line += 21)
			expect(cpu_load64(at + page * K_PAGE + line * 64) ==
			       kernel_image_word(seed, first + page, line));
}

/* ---- Cases, as guest code ------------------------------------------------------------------------------------- */

static int with_room_pages_are_read_once(const struct workload_params *params, const char **why)
{
	const uint64_t pages = 600;
	int file = sys_file(pages, 11);
	uint64_t at = sys_mmap_image(file, 0, pages * K_PAGE, K_READ), other;
	struct kernel_stats s;

	(void)params;
	(void)why;
	check_file(at, 11, 0, pages);
	other = sys_mmap_image(file, 100, 50 * K_PAGE, K_READ);
	check_file(other, 11, 100, 50);
	check_file(at, 11, 0, pages);
	kernel_stats(&s);
	expect(s.file_reads == pages && s.cache_pages == pages && !s.refaults && !s.evictions);
	expect(!sys_munmap(at, pages * K_PAGE) && !sys_munmap(other, 50 * K_PAGE));
	kernel_stats(&s);
	expect(s.cache_pages == pages); /* a cache outlives its readers */
	return 0;
}

static int squeezed_pages_come_back_right(const struct workload_params *params, const char **why)
{
	const uint64_t pages = 700, room = 300;
	int one = sys_file(pages / 2, 21), two = sys_file(pages / 2, 22);
	uint64_t a = sys_mmap_image(one, 0, pages / 2 * K_PAGE, K_READ);
	uint64_t b = sys_mmap_image(two, 0, pages / 2 * K_PAGE, K_READ), bytes, anon;
	struct kernel_stats s, t;

	(void)params;
	(void)why;
	anon = ballast(room, &bytes);
	for (unsigned round = 0; round < 3; round++) {
		check_file(a, 21, 0, pages / 2);
		check_file(b, 22, 0, pages / 2);
	}
	check_ballast(anon, bytes);
	kernel_stats(&s);
	expect(s.evictions && s.refaults && s.file_reads == pages + s.refaults);
	expect(s.cache_pages + s.evictions == s.file_reads);
	expect(s.cache_pages <= room && s.cache_pages > room / 2);
	/* What fits is not read again, however often it is used. */
	for (unsigned round = 0; round < 20; round++)
		check_file(a + 40 * K_PAGE, 21, 40, 100);
	kernel_stats(&s);
	for (unsigned round = 0; round < 20; round++)
		check_file(a + 40 * K_PAGE, 21, 40, 100);
	kernel_stats(&t);
	expect(t.file_reads == s.file_reads);
	return 0;
}

/* Long forgotten pages that are read again are no sign of need; a working set that almost fits is. */
static int refaults_are_told_apart(const struct workload_params *params, const char **why)
{
	const uint64_t pages = 1200, room = 300, little = 400;
	int file = sys_file(pages, 51);
	uint64_t at = sys_mmap_image(file, 0, pages * K_PAGE, K_READ), bytes, anon;
	struct kernel_stats s, t;

	(void)params;
	(void)why;
	anon = ballast(room, &bytes);
	for (unsigned round = 0; round < 3; round++)
		check_file(at, 51, 0, pages);
	kernel_stats(&s);
	expect(s.refaults > 2 * (pages - room) && !s.refaults_close);
	for (unsigned round = 0; round < 6; round++)
		check_file(at, 51, 0, little);
	kernel_stats(&t);
	expect(t.refaults - s.refaults > 5 * (little - room));
	expect(t.refaults_close > (t.refaults - s.refaults) / 2);
	check_ballast(anon, bytes);
	return 0;
}

/* Private pages of a file are anonymous memory: never dropped. The copy itself may need room. */
static int written_pages_stay(const struct workload_params *params, const char **why)
{
	const uint64_t pages = 200;
	int file = sys_file(pages, 31), big = sys_file(600, 32), child;
	uint64_t at = sys_mmap_image(file, 0, pages * K_PAGE, K_READ | K_WRITE), scan, bytes, anon;

	(void)params;
	(void)why;
	scan = sys_mmap_image(big, 0, 600 * K_PAGE, K_READ);
	anon = ballast(260, &bytes);
	check_file(at, 31, 0, pages);
	for (uint64_t page = 0; page < pages; page += 3)
		cpu_store64(at + page * K_PAGE + 8, page + 1);
	child = sys_fork();
	check_file(scan, 32, 0, 600);
	check_file(at, 31, 0, pages);
	sys_switch(child);
	check_file(scan, 32, 0, 600);
	for (uint64_t page = 0; page < pages; page++)
		expect(cpu_load64(at + page * K_PAGE + 8) == (page % 3 ? 0 : page + 1));
	cpu_store64(at + 8, 77);
	sys_exit(0);
	expect(sys_wait(child) == 0 && cpu_load64(at + 8) == 1);
	check_ballast(anon, bytes);
	return 0;
}

static int eviction_gives_to_all_comers(const struct workload_params *params, const char **why)
{
	int file = sys_file(1024, 41);
	uint64_t at = sys_mmap_image(file, 0, 1024 * K_PAGE, K_READ), before, bytes, anon;

	(void)params;
	(void)why;
	check_file(at, 41, 0, 1024);
	before = reserve();
	for (unsigned round = 0; round < 2; round++) {
		anon = ballast(0, &bytes); /* fills what is free, then takes the cache's */
		bytes += 700 * K_PAGE;
		expect(!sys_munmap(anon, bytes - 700 * K_PAGE));
		anon = sys_mmap(0, bytes, K_READ | K_WRITE, 0);
		for (uint64_t i = 0; i < bytes; i += K_PAGE)
			cpu_store64(anon + i, anon + i);
		check_ballast(anon, bytes);
		check_file(at, 41, 0, 1024);
		expect(!sys_munmap(anon, bytes));
		check_file(at, 41, 0, 1024);
	}
	expect(reserve() <= before && reserve() + 16 >= before); /* but for tables */
	return 0;
}

/* Write to pages from @at on, which were read before, until just @left frames are free. */
static uint64_t write_until(uint64_t at, uint64_t left)
{
	struct kernel_stats s;

	for (kernel_stats(&s); s.frames_free > left; kernel_stats(&s), at += K_PAGE)
		cpu_store64(at, at);
	return at;
}

/* The allocation between finding a page and mapping or copying it must not evict that page. */
static int a_page_under_way_stays(const struct workload_params *params, const char **why)
{
	const uint64_t gap = 2 * K_LARGE_PAGE; /* what lies beyond one has another table */
	int file = sys_file(20, 61);
	uint64_t at = sys_mmap_image(file, 0, 4 * K_PAGE, K_READ | K_WRITE);
	uint64_t one = sys_mmap(0, gap, K_READ, K_MAP_SMALL);
	uint64_t far = sys_mmap_image(file, 10, K_PAGE, K_READ),
		 two = sys_mmap(0, gap, K_READ, K_MAP_SMALL);
	uint64_t next = sys_mmap(0, RAM, K_READ | K_WRITE, K_MAP_SMALL);
	struct kernel_stats before, s;

	(void)params;
	(void)why;
	expect(one && two);
	check_file(at, 61, 0, 4);
	for (uint64_t i = 0; i < RAM; i += K_PAGE)
		cpu_load64(next + i);
	next = write_until(next, 0);
	/* A copy needs a frame: another page of the four goes. */
	kernel_stats(&before);
	cpu_store64(at + 8, 123);
	kernel_stats(&s);
	expect(s.evictions > before.evictions && s.cow_copies == before.cow_copies + 1);
	cpu_store64(next, next);
	expect(cpu_load64(at + 8) == 123 && cpu_load64(at) == kernel_image_word(61, 0, 0));
	expect(cpu_load64(next) == next && cpu_load64(next + 8) == 0);
	/* A first touch takes the last frame for the page, and needs another for its table. */
	expect(!sys_munmap(next - 10 * K_PAGE, 10 * K_PAGE));
	check_file(at + K_PAGE, 61, 1, 3);
	next = write_until(next + K_PAGE, 1);
	kernel_stats(&before);
	check_file(far, 61, 10, 1);
	kernel_stats(&s);
	expect(s.tables == before.tables + 1 && s.evictions > before.evictions);
	for (unsigned i = 0; i < 3; i++) /* what was evicted is used by others */
		cpu_store64(next + i * K_PAGE, ~next);
	expect(!sys_munmap(next - 3 * K_PAGE, 3 * K_PAGE));
	check_file(far, 61, 10, 1);
	expect(cpu_load64(at + 8) == 123);
	return 0;
}

static int calls_are_checked(const struct workload_params *params, const char **why)
{
	int file = sys_file(10, 51);

	(void)params;
	(void)why;
	expect(sys_file(0, 1) == K_EINVAL && sys_file((uint64_t)1 << 40, 1) == K_EINVAL);
	expect(!sys_mmap_image(file, 1, 10 * K_PAGE, K_READ));
	expect(!sys_mmap_image(file, ~(uint64_t)0, K_PAGE, K_READ));
	expect(!sys_mmap_image(file + 1, 0, K_PAGE, K_READ));
	expect(sys_mmap_image(file, 9, K_PAGE, K_READ));
	while (file >= 0)
		file = sys_file(1, 1);
	expect(file == K_ENOMEM);
	return 0;
}

static const struct workload cases[] = {
	{ .name = "with room", .run = with_room_pages_are_read_once },
	{ .name = "squeezed", .run = squeezed_pages_come_back_right },
	{ .name = "told apart", .run = refaults_are_told_apart },
	{ .name = "written", .run = written_pages_stay },
	{ .name = "all comers", .run = eviction_gives_to_all_comers },
	{ .name = "under way", .run = a_page_under_way_stays },
	{ .name = "calls", .run = calls_are_checked },
};

static void run_under(const char *scheme, const struct workload *w,
		      const struct workload_params *params, struct kernel_stats *stats,
		      uint64_t *sum)
{
	struct gn_soft_config config = {
		.vm = { .scheme = scheme, .mem_bytes = params->mem_bytes, .vcpus = 1 }
	};
	struct workload_hosting hosting = { .stats = stats };
	struct gn_audit_report report;
	struct gn_soft *soft;
	const char *why;
	int err;

	cr_assert_eq(gn_soft_create(&config, &soft), 0);
	err = workload_run_hosting(gn_soft_cpu(soft, 0), w, params, &hosting, &why);
	cr_assert_eq(err, 0, "%s under %s, PCID %d, large %d: %s", w->name, scheme, params->pcid,
		     params->large_pages, why);
	cr_assert_eq(gn_audit(gn_soft_vm(soft), &report), 0, "%s under %s: %s", w->name, scheme,
		     report.first);
	*sum = gn_vm_memory_sum(gn_soft_vm(soft));
	gn_soft_destroy(soft);
}

Test(kernel_cache, keeps_its_promises_under_every_scheme, .init = register_schemes)
{
	for (unsigned c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		for (unsigned mode = 0; mode < 2; mode++) {
			struct workload_params params = { .size = MIB,
							  .mem_bytes = RAM,
							  .pcid = mode,
							  .large_pages = mode,
							  .levels = mode ? 5 : 4 };
			uint64_t first = 0, sum;
			struct kernel_stats stats;

			for (unsigned i = 0; gn_scheme_at(i); i++) {
				run_under(gn_scheme_name(gn_scheme_at(i)), &cases[c], &params,
					  &stats, &sum);
				first = first ? first : sum;
				cr_assert_eq(sum, first, "%s under %s: other memory", cases[c].name,
					     gn_scheme_name(gn_scheme_at(i)));
			}
		}
	}
}

/* ---- The workload `phases` ---------------------------------------------------------------------------------------- */

struct told {
	unsigned phases;
	uint64_t operations;
};

static void on_phase(void *ctx, unsigned phase, uint64_t operations)
{
	struct told *t = ctx;

	cr_assert_eq(phase, t->phases++);
	cr_assert_gt(operations, t->operations);
	t->operations = operations;
}

#define WHY_BYTES 200

static int run_phases(uint64_t mem_bytes, const char *schedule, struct told *told,
		      struct kernel_stats *stats, uint64_t *cycles, char why[WHY_BYTES])
{
	struct gn_soft_config config = {
		.vm = { .scheme = "native", .mem_bytes = mem_bytes, .vcpus = 1 }
	};
	struct workload_params params = {
		.size = 8 * MIB, .mem_bytes = mem_bytes, .seed = 3, .argument = schedule
	};
	struct workload_hosting hosting = { .phase = on_phase, .ctx = told, .stats = stats };
	struct gn_counters counters;
	struct gn_soft *soft;
	const char *text;
	int err;

	*told = (struct told){ 0 };
	cr_assert_eq(gn_soft_create(&config, &soft), 0);
	err = workload_run_hosting(gn_soft_cpu(soft, 0), workload_find("phases"), &params, &hosting,
				   &text);
	snprintf(why, WHY_BYTES, "%s", text ? text : ""); /* the machine owns it */
	gn_soft_counters(soft, &counters);
	*cycles = counters.cycles;
	gn_soft_destroy(soft);
	return err;
}

Test(kernel_cache, phases_is_slower_with_less_memory_and_never_wrong, .init = register_schemes)
{
	static const char schedule[] = "20/10/2000,90/5/4000,10/90/3000x2";
	struct kernel_stats roomy, tight;
	uint64_t fast, slow;
	struct told told;
	char why[WHY_BYTES];

	cr_assert_eq(run_phases(64 * MIB, schedule, &told, &roomy, &fast, why), 0, "%s", why);
	cr_assert_eq(told.phases, 6);
	cr_assert_eq(told.operations, 2 * 9000);
	cr_assert_eq(roomy.refaults, 0);
	cr_assert_eq(roomy.file_reads, 8 * MIB / K_PAGE + 1);
	cr_assert_eq(run_phases(12 * MIB, schedule, &told, &tight, &slow, why), 0, "%s", why);
	cr_assert_eq(told.operations, 2 * 9000);
	cr_assert_gt(tight.refaults, 500, "%llu refaults, %llu evictions, %llu free of %llu",
		     (unsigned long long)tight.refaults, (unsigned long long)tight.evictions,
		     (unsigned long long)tight.frames_free, (unsigned long long)tight.frames_total);
	cr_assert_gt(slow, 2 * fast);
	/* Anonymous memory cannot be dropped. */
	cr_assert_eq(run_phases(8 * MIB, schedule, &told, &tight, &slow, why), -ECANCELED);
	cr_assert_not_null(strstr(why, "out of memory"), "%s", why);
}

struct hints {
	unsigned calls;
	uint64_t pages, limit_gfn;
	uint64_t answer;
	bool is_wrong;
};

static uint64_t on_hypercall(void *ctx, uint64_t nr, uint64_t arg)
{
	struct hints *h = ctx;
	uint64_t first = arg >> 12, count = (arg >> 2) % GN_GUEST_SHARE_HINT_MAX_PAGES + 1;

	h->calls++;
	h->pages += count;
	h->is_wrong |= nr != GN_GUEST_HYPERCALL_SHARE_HINT || (arg & 3) != GN_SHARE_LIKELY ||
		       first + count > h->limit_gfn;
	return h->answer;
}

static int read_a_file(const struct workload_params *params, const char **why)
{
	int file = sys_file(200, 31);
	uint64_t at = sys_mmap_image(file, 0, 200 * K_PAGE, K_READ);

	(void)params;
	(void)why;
	check_file(at, 31, 0, 200);
	return 0;
}

static void run_hinted(struct hints *hints)
{
	const struct gn_soft_config config = {
		.vm = { .scheme = "ept", .mem_bytes = RAM, .vcpus = 1 }
	};
	const struct workload workload = { .name = "case", .run = read_a_file };
	struct workload_params params = { .size = MIB, .mem_bytes = RAM };
	struct workload_hosting hosting = { .phase = NULL };
	struct gn_soft *soft;
	const char *why;

	hints->limit_gfn = RAM / K_PAGE;
	cr_assert_eq(gn_soft_create(&config, &soft), 0);
	gn_soft_set_hypercalls(soft, on_hypercall, hints);
	cr_assert_eq(workload_run_hosting(gn_soft_cpu(soft, 0), &workload, &params, &hosting, &why),
		     0, "%s", why);
	gn_soft_destroy(soft);
}

/* All but the last run of frames, to which more may be added yet. */
Test(kernel_cache, what_is_read_is_told_by_runs, .init = register_schemes)
{
	struct hints listens = { .answer = 0 }, does_not = { .answer = (uint64_t)-ENOSYS };

	run_hinted(&listens);
	cr_assert(!listens.is_wrong);
	cr_assert(listens.pages >= 200 - 64 && listens.pages <= 200, "%llu pages",
		  (unsigned long long)listens.pages);
	cr_assert_leq(listens.calls, 20);
	run_hinted(&does_not);
	cr_assert_eq(does_not.calls, 1);
}

Test(kernel_cache, phases_refuses_what_is_no_schedule, .init = register_schemes)
{
	static const char *const bad[] = { "1/2",    "101/5/5", "1/101/5", "5/5/0",  "5/5/5,",
					   "5/5/5x", "5/5/5x0", "x",	   "5/5/5 ", "5/-5/5" };
	struct kernel_stats stats;
	struct told told;
	uint64_t cycles;
	char why[WHY_BYTES];

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(run_phases(64 * MIB, bad[i], &told, &stats, &cycles, why), -EBADMSG,
			     "%s", bad[i]);
		cr_assert_not_null(strstr(why, "schedule"));
	}
}
