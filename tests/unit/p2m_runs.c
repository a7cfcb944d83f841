/* SPDX-License-Identifier: MIT */
/*
 * p2m_runs.c - many runs by one change: all or nothing or what may go, told once each, no
 * allocation, memory that is the host's when it returns; the counts of the balloon; and what a
 * touch comes to.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>

#include "mmu/audit.h"
#include "support/plain_scheme.h"
#include "support/resident.h"

#define MIB   ((uint64_t)1 << 20)
#define PAGES 4096u

static struct gn_vm *vm;

static void make(enum gn_pool_kind pool, unsigned backing_level)
{
	struct gn_vm_config config = plain_config(PAGES * GN_PAGE_SIZE);

	config.backing_level = backing_level;
	config.pool = pool;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
}

static void tear_down(void)
{
	gn_vm_destroy(vm); /* debug builds abort on a leak */
}

TestSuite(p2m_runs, .fini = tear_down);

static void fill(uint64_t at, uint64_t count)
{
	uint8_t page[GN_PAGE_SIZE];

	memset(page, 7, sizeof(page));
	for (uint64_t i = at; i < at + count; i++)
		cr_assert_eq(gn_vm_write(vm, gfn_to_gpa(gfn(i)), page, sizeof(page)), 0);
}

static uint8_t byte_of(uint64_t at)
{
	uint8_t b = 0xff;

	cr_assert_eq(gn_vm_read(vm, gfn_to_gpa(gfn(at)), &b, 1), 0);
	return b;
}

static uint64_t host_pages(void)
{
	struct gn_pool pool;

	gn_vm_pool(vm, &pool);
	return resident_pages(pool.base, pool.bytes);
}

static struct gn_balloon_usage usage(void)
{
	struct gn_balloon_usage u;

	gn_vm_balloon_usage(vm, &u);
	return u;
}

static void is_sound(void)
{
	struct gn_audit_report report;

	cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
}

static const struct {
	enum gn_pool_kind pool;
	unsigned backing_level;
} pools[] = { { GN_POOL_MEMFD, 1 },
	      { GN_POOL_MEMFD, 2 },
	      { GN_POOL_ANONYMOUS, 1 },
	      { GN_POOL_ANONYMOUS, 2 } };
#define POOLS (sizeof(pools) / sizeof(pools[0]))

Test(p2m_runs, the_host_has_it_at_once)
{
	static struct gn_gfn_run runs[1024];

	for (unsigned p = 0; p < POOLS; p++) {
		uint64_t before, done = 1;

		make(pools[p].pool, pools[p].backing_level);
		fill(0, PAGES);
		before = host_pages();
		for (unsigned i = 0; i < 1023; i++)
			runs[i] = (struct gn_gfn_run){ gfn(2 * i), 1 };
		runs[1023] = (struct gn_gfn_run){ gfn(2048), 512 };
		cr_assert_eq(gn_p2m_balloon_runs(vm, runs, 1024, &done), 0);
		cr_assert_eq(done, 1535);
		cr_assert_eq(host_pages(), before - 1535, "pool %u", p);
		cr_assert_eq(usage().ballooned_pages, 1535);
		cr_assert_eq(usage().released_bytes, 1535 * GN_PAGE_SIZE);
		cr_assert_eq(vm->p2m.backed_pages, PAGES - 1535);
		is_sound();
		cr_assert_eq(byte_of(1), 7);
		cr_assert_eq(gn_p2m_unballoon_runs(vm, runs, 1024, &done), 0);
		cr_assert_eq(done, 1535);
		cr_assert_eq(usage().ballooned_pages, 0);
		cr_assert_eq(host_pages(), before - 1535, "given back by need only");
		is_sound();
		cr_assert_eq(byte_of(0), 0);
		cr_assert_eq(byte_of(2048 + 511), 0);
		cr_assert_eq(plain_query(vm, 2048 + 511).level, pools[p].backing_level);
		is_sound();
		if (p + 1 < POOLS)
			gn_vm_destroy(vm);
	}
}

Test(p2m_runs, what_is_refused_and_changes_nothing)
{
	static const struct {
		const char *what;
		struct gn_gfn_run runs[3];
	} cases[] = {
		{ "not ascending", { { { 20 }, 2 }, { { 10 }, 2 }, { { 30 }, 1 } } },
		{ "overlapping", { { { 10 }, 2 }, { { 11 }, 2 }, { { 30 }, 1 } } },
		{ "twice", { { { 10 }, 1 }, { { 10 }, 1 }, { { 30 }, 1 } } },
		{ "past the end", { { { 10 }, 1 }, { { 20 }, 1 }, { { PAGES - 1 }, 2 } } },
		{ "far past the end", { { { 10 }, 1 }, { { UINT64_MAX }, 1 }, { { 3 }, 1 } } },
		{ "a sum that overflows", { { { 10 }, 1 }, { { 20 }, UINT64_MAX }, { { 3 }, 1 } } },
		{ "ballooned already", { { { 10 }, 1 }, { { 100 }, 1 }, { { 200 }, 1 } } },
		{ "MMIO", { { { 10 }, 1 }, { { 50 }, 1 }, { { 60 }, 3 } } },
		{ "read-only", { { { 10 }, 1 }, { { 70 }, 5 }, { { 80 }, 3 } } },
	};
	unsigned ranges;
	uint64_t done;

	make(GN_POOL_MEMFD, 1);
	fill(10, 2);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(100), 1), 0);
	cr_assert_eq(gn_p2m_set_mmio(vm, gfn(62), 1), 0);
	cr_assert_eq(gn_p2m_protect(vm, gfn(72), 1, true), 0);
	ranges = plain.ranges;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		done = 1;
		cr_assert_eq(gn_p2m_balloon_runs(vm, cases[i].runs, 3, &done), -EINVAL, "%s",
			     cases[i].what);
		cr_assert_eq(done, 0);
		cr_assert_eq(gn_p2m_unballoon_runs(vm, cases[i].runs, 3, NULL), -EINVAL, "%s",
			     cases[i].what);
	}
	cr_assert_eq(plain.ranges, ranges);
	cr_assert_eq(byte_of(10), 7);
	cr_assert_eq(usage().ballooned_pages, 1);
	is_sound();
}

/* ---- What may not go is left out ------------------------------------------------------------- */

static struct {
	uint64_t count, first, last;
} left;

static void note_left(void *ctx, gfn_t at)
{
	cr_assert_eq(ctx, &left);
	if (!left.count++)
		left.first = at.v;
	cr_assert_geq(at.v, left.last, "in ascending order");
	left.last = at.v;
}

static void drop_allowed(enum gn_p2m_drop_kind kind, const struct gn_gfn_run *runs, size_t count)
{
	memset(&left, 0, sizeof(left));
	gn_p2m_drop_allowed(vm, runs, count, kind, note_left, &left);
}

Test(p2m_runs, what_may_not_go_is_left_out)
{
	const struct gn_gfn_run runs[] = { { { 0 }, 600 }, { { 700 }, 1 }, { { 701 }, 11 } };

	for (unsigned p = 0; p < POOLS; p++) {
		make(pools[p].pool, pools[p].backing_level);
		fill(0, 1024);
		cr_assert_eq(gn_p2m_protect(vm, gfn(10), 1, true), 0);
		cr_assert_eq(gn_p2m_set_mmio(vm, gfn(599), 1), 0);
		cr_assert_eq(gn_p2m_balloon(vm, gfn(711), 1), 0);
		drop_allowed(GN_P2M_DROP_BALLOON, runs, 3);
		cr_assert_eq(left.count, 3);
		cr_assert_eq(left.first, 10);
		cr_assert_eq(left.last, 711);
		cr_assert_eq(usage().ballooned_pages, 612 - 2);
		cr_assert_eq(plain_query(vm, 10).state, GN_P2M_READONLY);
		cr_assert_eq(plain_query(vm, 599).state, GN_P2M_MMIO);
		cr_assert_eq(byte_of(10), 7);
		cr_assert_eq(byte_of(600), 7);
		is_sound();
		drop_allowed(GN_P2M_DROP_DISCARD, runs, 3);
		cr_assert_eq(left.count, 610);
		cr_assert_eq(plain_query(vm, 10).state, GN_P2M_UNBACKED);
		drop_allowed(GN_P2M_DROP_UNBALLOON, runs, 3);
		cr_assert_eq(left.count, 2, "10 and 599 were none of the balloon's");
		cr_assert_eq(usage().ballooned_pages, 0);
		drop_allowed(GN_P2M_DROP_UNBALLOON, runs + 1, 2);
		cr_assert_eq(left.count, 12, "nothing is left to go");
		is_sound();
		if (p + 1 < POOLS)
			gn_vm_destroy(vm);
	}
}

/* More parts than one change takes. */
Test(p2m_runs, every_other_page_is_left_out)
{
	const struct gn_gfn_run all = { { 0 }, PAGES };

	make(GN_POOL_ANONYMOUS, 2);
	for (uint64_t at = 0; at < PAGES; at++)
		cr_assert_eq(gn_p2m_balloon(vm, gfn(at), 1), 0);
	gn_vm_set_ballooned_touch(vm, GN_TOUCH_GRANT, NULL, NULL);
	for (uint64_t at = 1; at < PAGES; at += 2)
		fill(at, 1);
	drop_allowed(GN_P2M_DROP_UNBALLOON, &all, 1);
	cr_assert_eq(left.count, PAGES / 2);
	cr_assert_eq(usage().ballooned_pages, 0);
	for (uint64_t at = 0; at < PAGES; at++)
		cr_assert_eq(plain_query(vm, at).state, at % 2 ? GN_P2M_PRIVATE : GN_P2M_UNBACKED);
	cr_assert_eq(byte_of(1), 7);
	is_sound();
}

/* ---- What a change costs --------------------------------------------------------------------- */

Test(p2m_runs, one_change_one_flush)
{
	const struct gn_gfn_run runs[] = {
		{ { 10 }, 2 }, { { 12 }, 0 }, { { 12 }, 1 }, { { 40 }, 8 }, { { 100 }, 1 }
	};
	uint64_t sequence, done;

	make(GN_POOL_MEMFD, 1);
	fill(10, 3);
	fill(40, 4);
	memset(&plain, 0, sizeof(plain));
	sequence = vm->p2m.sequence;
	cr_assert_eq(gn_p2m_balloon_runs(vm, runs, 5, &done), 0);
	cr_assert_eq(done, 12);
	cr_assert_eq(plain.ranges, 1, "all runs at once");
	cr_assert_eq(plain.flushes, 1);
	cr_assert_eq(vm->p2m.sequence, sequence + 2);
	cr_assert(plain.sequence_was_odd);
	/* Nothing was cached of it: no flush. */
	cr_assert_eq(gn_p2m_unballoon_runs(vm, runs, 5, &done), 0);
	cr_assert_eq(plain.flushes, 1);
	cr_assert_eq(gn_p2m_balloon_runs(vm, runs, 0, &done), 0);
	cr_assert_eq(gn_p2m_balloon_runs(vm, runs + 1, 1, &done), 0);
	cr_assert_eq(done, 0);
	cr_assert_eq(plain.ranges, 2);
}

/* A balloon that inflates because memory is short must not need any. */
Test(p2m_runs, no_allocation_at_all)
{
	const struct gn_gfn_run runs[] = { { { 0 }, 600 }, { { 700 }, 1 }, { { 1024 }, 1024 } };

	make(GN_POOL_ANONYMOUS, 2);
	fill(0, PAGES);
	gn_alloc_fail_nth(1);
	cr_assert_eq(gn_p2m_balloon_runs(vm, runs, 3, NULL), 0);
	cr_assert_eq(gn_p2m_unballoon_runs(vm, runs, 3, NULL), 0);
	cr_assert_eq(gn_p2m_discard_runs(vm, runs, 3, NULL), 0);
	cr_assert_eq(gn_alloc_fail_nth(0), 0, "none was asked for");
	is_sound();
}

Test(p2m_runs, a_shared_page_leaves_its_twin_alone)
{
	const struct gn_gfn_run runs[] = { { { 1 }, 1 }, { { 3 }, 1 } };

	make(GN_POOL_MEMFD, 1);
	fill(0, 4);
	cr_assert_eq(gn_p2m_share(vm, gfn(0), gfn(1)), 0);
	cr_assert_eq(gn_p2m_balloon_runs(vm, runs, 2, NULL), 0);
	cr_assert_eq(usage().released_bytes, GN_PAGE_SIZE);
	cr_assert_eq(byte_of(0), 7);
	is_sound();
}

/* Inflated page by page in any order, deflated, touched: a large page again. */
Test(p2m_runs, a_block_is_re_formed)
{
	for (unsigned pool = 0; pool < 2; pool++) {
		make(pool ? GN_POOL_ANONYMOUS : GN_POOL_MEMFD, 2);
		fill(0, 1024);
		for (uint64_t i = 0; i < 512; i++)
			cr_assert_eq(gn_p2m_balloon(vm, gfn(512 + i * 37 % 512), 1), 0);
		is_sound();
		cr_assert_eq(plain_query(vm, 511).level, 2);
		cr_assert_eq(gn_p2m_unballoon(vm, gfn(512), 512), 0);
		fill(700, 1);
		cr_assert_eq(plain_query(vm, 512).level, 2);
		is_sound();
		if (!pool)
			gn_vm_destroy(vm);
	}
}

/* ---- Touches --------------------------------------------------------------------------------- */

static struct {
	unsigned calls, writes;
	gfn_t at;
	enum gn_touch_answer answer;
	void *ctx;
} told;

static void note(struct gn_vm *of, gfn_t at, bool write, enum gn_touch_answer answer, void *ctx)
{
	cr_assert_eq(of, vm);
	told.calls++;
	told.writes += write;
	told.at = at;
	told.answer = answer;
	told.ctx = ctx;
}

Test(p2m_runs, a_touch_is_answered_by_policy)
{
	struct gn_fix fix = { 0 };
	p2m_word_t word;

	make(GN_POOL_MEMFD, 2);
	fill(0, 512);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(0), 512), 0);
	/* Unless told otherwise: denied, counted. */
	cr_assert_eq(gn_vm_write(vm, gpa(0x5000), "x", 1), -EFAULT);
	cr_assert_eq(gn_p2m_resolve(vm, gfn(5), false, &word, &fix), 0);
	cr_assert_eq(fix.kind, GN_FIX_DENIED);
	cr_assert_eq(usage().touches_denied, 2);
	gn_vm_set_ballooned_touch(vm, GN_TOUCH_DENY, note, &told);
	cr_assert_eq(gn_p2m_resolve(vm, gfn(6), true, &word, &fix), 0);
	cr_assert_eq(fix.kind, GN_FIX_DENIED);
	cr_assert_eq(told.calls, 1);
	cr_assert_eq(told.at.v, 6);
	cr_assert_eq(told.answer, GN_TOUCH_DENY);
	cr_assert_eq(told.ctx, &told);
	/* A walk of the p2m that resolves nothing is no touch. */
	cr_assert_eq(gn_p2m_fault_in(vm, gfn(6), true, &word), 0);
	cr_assert_eq(usage().touches_denied, 3);
	cr_assert_eq(usage().ballooned_pages, 512);

	gn_vm_set_ballooned_touch(vm, GN_TOUCH_GRANT, note, NULL);
	cr_assert_eq(gn_p2m_resolve(vm, gfn(6), true, &word, &fix), 0);
	cr_assert_eq(fix.kind, GN_FIX_RETRY);
	cr_assert(gn_p2m_word_grants(word, GN_RWX));
	cr_assert_eq(gn_p2m_word_level(word), 1);
	cr_assert_eq(usage().touches_granted, 1);
	cr_assert_eq(usage().ballooned_pages, 511);
	cr_assert_eq(told.calls, 2);
	cr_assert_eq(told.writes, 2);
	cr_assert_eq(told.answer, GN_TOUCH_GRANT);
	cr_assert_eq(byte_of(7), 0);
	cr_assert_eq(byte_of(7), 0, "once granted it is memory as any other");
	cr_assert_eq(usage().touches_granted, 2);
	is_sound();
}

Test(p2m_runs, a_grant_without_memory_stays_ballooned)
{
	struct gn_fix fix = { 0 };
	p2m_word_t word;

	make(GN_POOL_MEMFD, 1);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(3), 1), 0);
	gn_vm_set_ballooned_touch(vm, GN_TOUCH_GRANT, note, NULL);
	gn_alloc_fail_nth(1);
	cr_assert_eq(gn_p2m_resolve(vm, gfn(3), true, &word, &fix), -ENOMEM);
	cr_assert_eq(plain_query(vm, 3).state, GN_P2M_BALLOONED);
	cr_assert_eq(usage().touches_granted, 0);
	cr_assert_eq(usage().touches_denied, 1);
	cr_assert_eq(told.calls, 1);
	cr_assert_eq(told.at.v, 3);
	cr_assert_eq(told.answer, GN_TOUCH_DENY);
	cr_assert_eq(gn_p2m_resolve(vm, gfn(3), true, &word, &fix), 0);
	cr_assert_eq(usage().touches_granted, 1);
	cr_assert_eq(usage().touches_denied, 1);
	cr_assert_eq(told.answer, GN_TOUCH_GRANT);
	is_sound();
}
