/* SPDX-License-Identifier: MIT */
/*
 * sharing_break.c - probe: what the first store to a shared page costs, ours and KSM's.
 *
 * Ours is the whole of a store on the software machine, whose work (its TLBs, its walk, its exit's book-keeping) stands
 * where hardware has a world switch; the same store to a page that is not shared is shown beside it. KSM's is a native
 * store and its page fault. Afterwards the pages the others have must be what they were.
 *
 * Stores come one by one, 100 us apart, and the domain goes on being scanned: a guest that writes here and there. What a storm of
 * them costs is another probe.
 */
#include <errno.h>
#include <math.h>
#include <sys/mman.h>

#include "sharing_keeper.h"
#include "sharing_peer.h"
#include "sharing_rig.h"
#include "sharing_touch.h"

#define GROUP	    "break of sharing"
#define BYTES	    ((uint64_t)512 << 20)
#define QUICK	    ((uint64_t)64 << 20)
#define PAUSE_NS    100000
#define GOAL_P99    2.0 /* medians */
#define GOAL_OF_KSM 1.0
enum { BREAKS = 20000 };

static void add(struct sharing_results *r, enum sharing_side side, const char *name,
		const char *unit, double value, enum sharing_promise promise, double goal)
{
	sharing_add_side_figure(r, GROUP, side, name, unit, value, promise, goal);
}

/* The others' pages still have the contents. */
static int check_others(struct sharing_rig *rig, const struct sharing_touches *touches)
{
	const struct sharing_contents *c = rig->config.contents;

	for (uint64_t page = c->hot_pages; page < c->vm_pages; page++) {
		uint64_t number = sharing_page(c, 1, page), word;
		int err = gn_vm_read(sharing_rig_vm(rig, 1), gpa(page * SHARING_PAGE_BYTES), &word,
				     sizeof(word));

		if (err)
			return err;
		if (word != sharing_page_word(c->seed, number, 0))
			return -EBADMSG;
	}
	return touches->count ? 0 : -EINVAL;
}

static int break_own(const struct sharing_contents *contents, const struct sharing_oracle *oracle,
		     enum sharing_side side, struct sharing_touches *touches)
{
	const struct sharing_rig_config config = { .contents = contents,
						   .scheme = sharing_side_scheme(side) };
	struct sharing_keeper *keeper = NULL;
	struct sharing_run run = { 0 };
	struct sharing_rig rig;
	int err = sharing_rig_init(&rig, &config), failed;

	if (err)
		return err;
	err = sharing_rig_converge(&rig, oracle, &run);
	if (!err)
		err = sharing_keeper_start(&rig, &keeper);
	if (!err)
		err = sharing_touches_soft(touches, sharing_rig_cpu(&rig, 0), true);
	failed = sharing_keeper_stop(keeper);
	if (!err)
		err = failed;
	if (!err)
		err = check_others(&rig, touches);
	sharing_run_fini(&run);
	sharing_rig_fini(&rig);
	return err;
}

static int break_ksm(struct sharing_ksm *ksm, const struct sharing_contents *contents,
		     const struct sharing_oracle *oracle, struct sharing_touches *touches)
{
	struct sharing_peer peer;
	int err = sharing_peer_init_converged(&peer, ksm, contents, oracle);

	sharing_ksm_stop(ksm);
	if (err)
		return err;
	sharing_touches_native(touches, peer.memory[0], true);
	sharing_peer_fini(&peer);
	return 0;
}

static int measure(struct sharing_results *r, struct sharing_ksm *ksm,
		   const struct sharing_contents *contents, const struct sharing_oracle *oracle,
		   enum sharing_side side, struct sharing_touch_times *ksms)
{
	struct sharing_touch_times shared, private;
	struct sharing_touches touches;
	int err = sharing_touches_pick(contents, 0, BREAKS, true, &touches);

	touches.pause_ns = PAUSE_NS;
	if (!err)
		err = side == SHARING_KSM ? break_ksm(ksm, contents, oracle, &touches)
					  : break_own(contents, oracle, side, &touches);
	if (!err)
		err = sharing_touches_times(&touches, true, &shared);
	if (!err)
		err = sharing_touches_times(&touches, false, &private);
	sharing_touches_fini(&touches);
	if (err)
		return err;
	if (side == SHARING_KSM)
		*ksms = shared;
	add(r, side, "median", "ns", shared.median_ns, SHARING_SHOWN, 0);
	add(r, side, "p99", "ns", shared.p99_ns, SHARING_SHOWN, 0);
	if (!isnan(shared.below))
		add(r, side, "over two medians, and nothing in this kernel", "%",
		    100 * shared.below, SHARING_SHOWN, 0);
	add(r, side, "first store to a page not shared, median", "ns", private.median_ns,
	    SHARING_SHOWN, 0);
	add(r, side, "first store to a page not shared, p99", "ns", private.p99_ns, SHARING_SHOWN,
	    0);
	if (side == SHARING_KSM)
		return 0;
	if (!isnan(ksms->median_ns)) {
		add(r, side, "median over KSM's", "x", shared.median_ns / ksms->median_ns,
		    SHARING_AT_MOST, GOAL_OF_KSM);
		add(r, side, "p99 over KSM's", "x", shared.p99_ns / ksms->p99_ns, SHARING_SHOWN, 0);
	}
	add(r, side, "p99 over median", "x", shared.p99_ns / shared.median_ns, SHARING_AT_MOST,
	    GOAL_P99);
	return 0;
}

/* What the kernel alone takes to give a process a page: the least a break can cost. */
static int measure_limit(struct sharing_results *r, const struct sharing_contents *contents)
{
	size_t bytes = contents->vm_pages * SHARING_PAGE_BYTES;
	struct sharing_touches touches;
	struct sharing_touch_times times;
	uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int err = memory == MAP_FAILED ? -errno
				       : sharing_touches_pick(contents, 0, BREAKS, false, &touches);

	if (err)
		return err;
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	touches.pause_ns = PAUSE_NS;
	sharing_touches_native(&touches, memory, true);
	err = sharing_touches_times(&touches, true, &times);
	if (!err)
		add(r, SHARING_LIMIT, "a first touch of plain memory, median", "ns",
		    times.median_ns, SHARING_SHOWN, 0);
	if (!err)
		add(r, SHARING_LIMIT, "a first touch of plain memory, p99", "ns", times.p99_ns,
		    SHARING_SHOWN, 0);
	sharing_touches_fini(&touches);
	munmap(memory, bytes);
	return err;
}

static int run_probe(struct sharing_results *r, struct sharing_ksm *ksm)
{
	static const enum sharing_side sides[] = { SHARING_KSM, SHARING_EPT, SHARING_SHADOW };
	struct sharing_touch_times ksms = { NAN, NAN, NAN };
	struct sharing_contents contents;
	struct sharing_oracle oracle;
	int err = sharing_probe_contents(r, BYTES, QUICK, &contents, &oracle);

	if (err)
		return err;
	for (size_t i = 0; i < sizeof(sides) / sizeof(sides[0]) && !err; i++)
		if (sides[i] != SHARING_KSM || ksm)
			err = measure(r, ksm, &contents, &oracle, sides[i], &ksms);
	if (!err)
		err = measure_limit(r, &contents);
	sharing_contents_fini(&contents);
	return err;
}

const struct sharing_probe sharing_probe_break = {
	"break",
	"the first store to a shared page",
	run_probe,
};
