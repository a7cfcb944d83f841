/* SPDX-License-Identifier: MIT */
/*
 * sharing_scanner.c - which pages are offered, and when; zeros; areas that are left alone; VMs that cannot tell what they wrote.
 */
#include <errno.h>

#include "sharing/scanner.h"
#include "support/sharing_rig.h"

#define RAM   (8 * MIB)
#define PAGES (RAM / GN_PAGE_SIZE)

struct world {
	struct gn_frames *frames;
	struct gn_vm *vm;
	struct gn_hasher hasher;
	struct gn_scanner *scanner;
	unsigned offered[PAGES]; /* how often */
	bool was_shared[PAGES];	 /* at the latest time */
	uint64_t tags[PAGES];
	uint8_t checks[PAGES];
	unsigned batches, blocks;
	uint64_t last; /* the latest gfn offered */
};

static void note_offers(void *ctx, struct gn_scanner *scanner, const struct gn_offer *offers,
			size_t count, bool is_block)
{
	struct world *w = ctx;

	cr_assert_eq(gn_scanner_vm(scanner), w->vm);
	cr_assert_leq(count, GN_SCANNER_BATCH);
	for (size_t i = 0; i < count; i++) {
		cr_assert(!i || offers[i].at.v > offers[i - 1].at.v);
		w->offered[offers[i].at.v]++;
		w->was_shared[offers[i].at.v] = offers[i].is_shared;
		w->tags[offers[i].at.v] = offers[i].tag.bits;
		w->checks[offers[i].at.v] = offers[i].tag.check;
		w->last = offers[i].at.v;
	}
	w->batches++;
	w->blocks += is_block;
}

static void world_init(struct world *w, const char *scheme, unsigned backing_level, bool quiet)
{
	struct gn_scanner_config config = {
		.hasher = &w->hasher, .quiet = quiet, .offers = note_offers, .ctx = w
	};

	memset(w, 0, sizeof(*w));
	w->frames = rig_pool(4 * RAM, backing_level > 1);
	w->vm = rig_vm(w->frames, scheme, RAM, backing_level);
	config.vm = w->vm;
	cr_assert_eq(gn_hasher_init(&w->hasher, "key", 3, 0), 0);
	cr_assert_eq(gn_scanner_new(&config, &w->scanner), 0);
}

static void world_fini(struct world *w)
{
	gn_scanner_destroy(w->scanner);
	gn_vm_destroy(w->vm);
	gn_frames_destroy(w->frames);
}

static void look(struct world *w)
{
	while (!gn_scanner_step(w->scanner))
		;
}

static void sweep(struct world *w)
{
	cr_assert_eq(gn_scanner_sweep(w->scanner), 0);
	look(w);
}

static void sweeps(struct world *w, unsigned count)
{
	while (count--)
		sweep(w);
}

static struct gn_scanner_stats stats_of(struct world *w)
{
	struct gn_scanner_stats stats;

	gn_scanner_stats(w->scanner, &stats);
	cr_assert_eq(stats.pages_aging + stats.pages_offered + stats.pages_shared +
			     stats.pages_empty,
		     PAGES);
	return stats;
}

Test(sharing_scanner, a_page_is_offered_once_it_stood_still)
{
	static struct world w;

	world_init(&w, "bare", 1, false);
	rig_put(w.vm, 5, 1);
	sweeps(&w, 2); /* the first tells what was written, and the second that nothing was since */
	cr_assert_eq(w.offered[5], 0);
	sweep(&w);
	cr_assert_eq(w.offered[5], 1);
	sweeps(&w, 20);
	cr_assert_eq(w.offered[5], 1, "it is not hashed again");
	cr_assert_eq(stats_of(&w).pages_hashed, 1);
	cr_assert_eq(stats_of(&w).full_scans, 23);

	rig_put(w.vm, 5, 2);
	sweeps(&w, 2);
	cr_assert_eq(w.offered[5], 1, "written, and not still for long enough");
	sweep(&w);
	cr_assert_eq(w.offered[5], 2);
	world_fini(&w);
}

Test(sharing_scanner, a_page_that_is_written_all_the_time_is_never_hashed)
{
	static struct world w;

	world_init(&w, "bare", 1, false);
	for (unsigned i = 0; i < 20; i++) {
		rig_put(w.vm, 5, i + 1);
		sweep(&w);
	}
	cr_assert_eq(stats_of(&w).pages_hashed, 0);
	world_fini(&w);
}

Test(sharing_scanner, equal_pages_have_equal_tags)
{
	static struct world w;

	world_init(&w, "bare", 1, false);
	rig_put(w.vm, 1, 7);
	rig_put(w.vm, 1900, 7);
	rig_put(w.vm, 700, 8);
	sweeps(&w, 3);
	cr_assert_eq(w.tags[1], w.tags[1900]);
	cr_assert_neq(w.tags[1], w.tags[700]);
	world_fini(&w);
}

Test(sharing_scanner, hints)
{
	static struct world w;

	world_init(&w, "bare", 1, false);
	for (uint64_t at = 1; at <= 4; at++)
		rig_put(w.vm, at, at);
	gn_scanner_hint(w.scanner, gfn(2), 1, GN_SHARE_LIKELY);
	gn_scanner_hint(w.scanner, gfn(3), 1, GN_SHARE_NEVER);
	sweeps(&w, 2);
	cr_assert_eq(w.offered[2], 1, "likely: one clean sweep is enough");
	cr_assert_eq(w.offered[1], 0);
	sweeps(&w, 10);
	cr_assert_eq(w.offered[1], 1);
	cr_assert_eq(w.offered[3], 0, "never");
	/* Never, said late: it can't be found any more, also if it was about to be offered again. */
	cr_assert_eq(stats_of(&w).pages_offered, 3);
	cr_assert(gn_scanner_is_current(w.scanner, gfn(4), w.checks[4]));
	gn_scanner_hint(w.scanner, gfn(4), 1, GN_SHARE_NEVER);
	cr_assert_eq(stats_of(&w).pages_offered, 2);
	cr_assert_not(gn_scanner_is_current(w.scanner, gfn(4), w.checks[4]));
	cr_assert_not(gn_scanner_may_share(w.scanner, gfn(4)));
	gn_scanner_reoffer(w.scanner, gfn(1), false);
	cr_assert(gn_scanner_is_current(w.scanner, gfn(1), w.checks[1]));
	gn_scanner_hint(w.scanner, gfn(1), 1, GN_SHARE_NEVER);
	cr_assert_not(gn_scanner_is_current(w.scanner, gfn(1), w.checks[1]));
	gn_scanner_reoffer(w.scanner, gfn(1), false);
	cr_assert_not(gn_scanner_is_current(w.scanner, gfn(1), w.checks[1]));
	/* And taken back. */
	gn_scanner_hint(w.scanner, gfn(3), 2, GN_SHARE_NONE);
	sweeps(&w, 3);
	cr_assert_eq(w.offered[3], 1);
	cr_assert_eq(w.offered[4], 2);
	world_fini(&w);
}

Test(sharing_scanner, verdicts)
{
	static struct world w;

	world_init(&w, "bare", 1, false);
	rig_put(w.vm, 1, 1);
	rig_put(w.vm, 2, 2);
	sweeps(&w, 3);
	gn_scanner_set_shared(w.scanner, gfn(1));
	cr_assert(gn_scanner_is_shared(w.scanner, gfn(1)));
	gn_scanner_reoffer(w.scanner, gfn(2), true);
	sweep(&w);
	cr_assert_eq(w.offered[2], 2, "again, in the next sweep");
	rig_put(w.vm, 1, 3);
	sweep(&w);
	cr_assert_not(gn_scanner_is_shared(w.scanner, gfn(1)), "written");
	world_fini(&w);
}

/* ---- Quiet --------------------------------------------------------------------------------------------- */

/* A page is sealed, its reference anyone's, and the scanner told. */
static void seal(struct world *w, uint64_t at)
{
	struct gn_merge page = { .at = gfn(at) };

	cr_assert_eq(gn_p2m_publish(w->vm, &page, 1, GN_SHARE_SEALED), 0);
	cr_assert_eq(page.result, 0);
	gn_frames_anchor(w->frames, page.frame);
	gn_scanner_set_shared(w->scanner, gfn(at));
}

/* What an owner may say of a sealed page that has a like; of one that has none nothing is said. */
enum said { NOTHING, REOFFERED_BEFORE, REOFFERED_AFTER, OFFERED_ANEW, SAID };

static void use(struct world *w, bool is_write)
{
	if (is_write)
		rig_put(w->vm, 5, 3);
	else
		cr_assert_neq(rig_holds(w->vm, 5, 1), rig_holds(w->vm, 5, 3));
}

/* Sweeps from a page's next use, by a read or a write, before a sweep or amid one, until it is offered again. */
static unsigned sweeps_until_offered(struct world *w, enum said said, bool is_write, bool is_amid)
{
	unsigned count = 0;

	seal(w, 5);
	w->offered[5] = 0;
	if (said == REOFFERED_BEFORE)
		gn_scanner_reoffer(w->scanner, gfn(5), true);
	if (said == OFFERED_ANEW) {
		gn_scanner_reoffer(w->scanner, gfn(5), false);
		sweep(w);
		cr_assert_eq(w->offered[5], 1, "at once: it is sealed still");
		cr_assert(w->was_shared[5]);
		cr_assert_eq(rig_query(w->vm, 5).rights, 0);
		gn_scanner_set_shared(w->scanner, gfn(5));
		w->offered[5] = 0;
	}
	if (is_amid)
		cr_assert_eq(gn_scanner_sweep(w->scanner), 0);
	use(w, is_write);
	if (said == REOFFERED_AFTER)
		gn_scanner_reoffer(w->scanner, gfn(5), false);
	if (is_amid)
		look(w);
	cr_assert_eq(w->offered[5], 0, "it is used");
	for (; !w->offered[5] && count < 20; count++)
		sweep(w);
	cr_assert_not(w->was_shared[5]);
	return count;
}

/* In quiet mode a page that was used is offered, and sealed, when it stood still, whatever became of its offers before. */
Test(sharing_scanner, when_a_page_is_sealed_anew_tells_nothing)
{
	for (unsigned how = 0; how < 4; how++) {
		const bool is_write = how % 2, is_amid = how / 2;
		static struct world w;

		world_init(&w, "bare", 1, true);
		rig_put(w.vm, 5, 1);
		sweeps(&w, 3);
		cr_assert_eq(w.offered[5], 1);
		for (unsigned said = 0; said < SAID; said++) {
			unsigned count =
				sweeps_until_offered(&w, (enum said)said, is_write, is_amid);

			cr_assert_eq(count, is_write ? 3 : 2, "said %u, how %u: %u sweeps", said,
				     how, count);
		}
		gn_frames_drop_anchors(w.frames);
		world_fini(&w);
	}
}

/* ---- Zeros --------------------------------------------------------------------------------------------- */

Test(sharing_scanner, zeros_lose_their_frame)
{
	static struct world w;
	uint64_t used;

	world_init(&w, "bare", 1, false);
	cr_assert_eq(gn_p2m_populate(w.vm, gfn(0), PAGES), 0);
	rig_put(w.vm, 100, 1);
	used = gn_frames_used(w.frames);
	sweeps(&w, 4);
	cr_assert_eq(used - gn_frames_used(w.frames), PAGES - 1);
	cr_assert_eq(stats_of(&w).known_pages, PAGES - 1);
	cr_assert_eq(stats_of(&w).pages_empty, PAGES - 1);
	cr_assert_eq(stats_of(&w).pages_hashed, 1);
	cr_assert(rig_holds(w.vm, 100, 1));

	/* A read brings a frame of zeros back, and nothing tells of it; it is found all the same. */
	for (uint64_t at = 0; at < 50; at++)
		cr_assert(rig_holds(w.vm, at, 0));
	sweeps(&w, GN_LOOK_AFTER_PERIOD + 2); /* each area had its turn, and its pages their time */
	cr_assert_eq(stats_of(&w).known_pages, PAGES - 1 + 50);
	world_fini(&w);
}

Test(sharing_scanner, nearly_zeros_are_hashed)
{
	static struct world w;
	uint8_t one = 1;

	world_init(&w, "bare", 1, false);
	for (uint64_t i = 0; i < 4; i++) /* in its first line, just behind it, and in its last */
		cr_assert_eq(gn_vm_write(w.vm,
					 gpa(i * GN_PAGE_SIZE + (uint64_t[]){ 0, 63, 64, 4095 }[i]),
					 &one, 1),
			     0);
	sweeps(&w, 4);
	cr_assert_eq(stats_of(&w).pages_hashed, 4);
	cr_assert_eq(stats_of(&w).known_pages, 0);
	world_fini(&w);
}

/* ---- Backing off --------------------------------------------------------------------------------------- */

/* Harvests of an area that is written all the time, in 32 sweeps. */
static unsigned harvests_of_area(struct world *w, unsigned pages)
{
	unsigned harvests = 0;

	for (unsigned i = 0; i < 32; i++) {
		for (uint64_t at = 0; at < pages; at++)
			rig_put(w->vm, 512 + at, i + at + 1);
		sweep(w);
		harvests += !gn_dirty_is_marked(w->vm, gfn(512));
	}
	return harvests;
}

Test(sharing_scanner, volatile_areas_are_left_alone)
{
	static struct world w;
	unsigned often;

	world_init(&w, "bare", 1, false);
	rig_put(w.vm, 5, 1);
	often = harvests_of_area(&w, 20);
	cr_assert_eq(often, 32, "little of it is written");
	cr_assert_eq(stats_of(&w).volatile_areas, 0);
	often = harvests_of_area(&w, 400);
	cr_assert(often > 3 && often < 14, "%u of 32", often);
	cr_assert_eq(stats_of(&w).volatile_areas, 1);
	cr_assert_eq(w.offered[5], 1, "its neighbours are looked at");
	cr_assert_eq(w.offered[512], 0);

	/* It comes to rest. */
	sweeps(&w, 16 + 5);
	cr_assert_eq(w.offered[512], 1);
	cr_assert_eq(stats_of(&w).volatile_areas, 0);
	world_fini(&w);
}

Test(sharing_scanner, a_burst_does_not_delay)
{
	static struct world w;

	world_init(&w, "bare", 1, false);
	sweeps(&w, 5);
	for (uint64_t at = 0; at < 512; at++)
		rig_put(w.vm, at, at + 1);
	sweeps(&w, 3);
	for (uint64_t at = 0; at < 512; at++)
		cr_assert_eq(w.offered[at], 1);
	world_fini(&w);
}

/* ---- Other ways to learn what was written ------------------------------------------------------------------ */

Test(sharing_scanner, without_a_dirty_log_hashes_tell)
{
	static struct world w;

	world_init(&w, "native", 1, false);
	rig_put(w.vm, 5, 1);
	sweeps(&w, 5);
	cr_assert_eq(w.offered[5], 1);
	for (unsigned i = 0; i < 20; i++) {
		rig_put(w.vm, 6, i + 2);
		sweep(&w);
	}
	cr_assert_eq(w.offered[6], 0, "it never was the same twice");
	sweeps(&w, 5);
	cr_assert_eq(w.offered[6], 1);
	rig_put(w.vm, 5, 99); /* after it was offered: found within a turn of looking after */
	w.tags[5] = 0;
	sweeps(&w, 14);
	cr_assert_geq(w.offered[5], 2);
	cr_assert_neq(w.tags[5], 0);
	world_fini(&w);
}

Test(sharing_scanner, large_blocks_are_offered_whole)
{
	static struct world w;

	world_init(&w, "ept", 2, false);
	cr_assert_eq(gn_p2m_populate(w.vm, gfn(0), 1024), 0);
	rig_put(w.vm, 700, 1);
	sweeps(&w, 4);
	cr_assert_eq(w.blocks, 1);
	cr_assert_eq(w.offered[512], 1);
	cr_assert_eq(w.offered[1023], 1);
	cr_assert_eq(rig_query(w.vm, 700).level, 2, "and nothing was split");
	cr_assert_eq(rig_query(w.vm, 0).state, GN_P2M_UNBACKED, "a block of zeros goes as a whole");
	world_fini(&w);
}

Test(sharing_scanner, a_log_that_is_someone_elses)
{
	struct gn_frames *frames = rig_pool(2 * RAM, false);
	struct gn_vm *vm = rig_vm(frames, "bare", RAM, 1);
	struct gn_hasher hasher;
	struct gn_scanner_config config = { .vm = vm, .hasher = &hasher, .offers = note_offers };
	struct gn_scanner *scanner;

	cr_assert_eq(gn_hasher_init(&hasher, "key", 3, 0), 0);
	cr_assert_eq(gn_dirty_start(vm), 0);
	cr_assert_eq(gn_scanner_new(&config, &scanner), -EBUSY);
	cr_assert(gn_dirty_is_logged(vm), "and goes on");
	gn_dirty_stop(vm);
	config.settle_sweeps = GN_SETTLE_SWEEPS_MAX + 1;
	cr_assert_eq(gn_scanner_new(&config, &scanner), -EINVAL);
	gn_vm_destroy(vm);
	gn_frames_destroy(frames);
}

/* Someone stops the log: nothing is known of what was written meanwhile, and so all of it was. */
Test(sharing_scanner, a_log_that_was_stopped)
{
	static struct world w;

	world_init(&w, "bare", 1, false);
	rig_put(w.vm, 5, 1);
	sweeps(&w, 3);
	gn_dirty_stop(w.vm);
	rig_put(w.vm, 5, 2);
	sweep(&w);
	cr_assert(gn_dirty_is_logged(w.vm));
	cr_assert_not(gn_scanner_is_shared(w.scanner, gfn(5)));
	cr_assert_eq(stats_of(&w).pages_offered, 0);
	sweeps(&w, 3);
	cr_assert_eq(w.offered[5], 2);
	world_fini(&w);
}

Test(sharing_scanner, each_allocation_may_fail)
{
	struct gn_frames *frames = rig_pool(2 * RAM, false);
	struct gn_vm *vm = rig_vm(frames, "bare", RAM, 1);
	struct gn_hasher hasher;
	const struct gn_scanner_config config = { .vm = vm,
						  .hasher = &hasher,
						  .offers = note_offers };
	struct gn_scanner *scanner;
	unsigned failures = 0;

	cr_assert_eq(gn_hasher_init(&hasher, "key", 3, 0), 0);
	for (;; failures++) {
		int err;

		gn_alloc_fail_nth(failures + 1);
		err = gn_scanner_new(&config, &scanner);
		gn_alloc_fail_nth(0);
		if (!err)
			break;
		cr_assert_eq(err, -ENOMEM);
		cr_assert_not(gn_dirty_is_logged(vm));
	}
	cr_assert_geq(failures, 6);
	gn_scanner_destroy(scanner);
	cr_assert_not(gn_dirty_is_logged(vm));
	gn_vm_destroy(vm);
	gn_frames_destroy(frames);
}
