/* SPDX-License-Identifier: MIT */
/*
 * sharing_fan_out.c - probe: one frame with very many sharers costs no more per page than frames with two.
 *
 * The same number of pages twice: all alike, and in pairs that lie far apart. Both are scanned and merged, then some of the
 * sharers write.
 */
#include <math.h>
#include <stdio.h>

#include "sharing_rig.h"
#include "sharing_touch.h"

#define GROUP "sharers of one frame"
#define GOAL  1.2
enum { PAGES = 1000000, QUICK_PAGES = 20000, BREAKS = 2000 };

struct fan_out {
	uint64_t kinds; /* of pages */
	double scan_ns, break_ns;
};

static uint64_t number_of(const void *ctx, unsigned vm, uint64_t page)
{
	const struct fan_out *f = ctx;

	(void)vm;
	return sharing_common_number(page % f->kinds);
}

static int measure(const struct sharing_results *r, struct fan_out *f)
{
	uint64_t pages = r->setup.quick ? QUICK_PAGES : PAGES;
	struct sharing_touches touches = { .items = NULL };
	struct sharing_touch_times times = { NAN, NAN, NAN };
	struct sharing_rig_config config = { .scheme = "ept" };
	struct sharing_contents contents;
	struct sharing_oracle oracle;
	struct sharing_run run = { 0 };
	struct sharing_rig rig;
	int err = sharing_contents_init_by(&contents, 1, pages, r->setup.seed, number_of, f);

	if (err)
		return err;
	config.contents = &contents;
	err = sharing_contents_oracle(&contents, &oracle);
	if (!err)
		err = sharing_rig_init(&rig, &config);
	if (err) {
		sharing_contents_fini(&contents);
		return err;
	}
	err = sharing_rig_converge(&rig, &oracle, &run);
	f->scan_ns = run.reached_pages ? run.cpu_s * 1e9 / (double)pages : (double)NAN;
	if (!err)
		err = sharing_touches_pick(&contents, 0, BREAKS, false, &touches);
	if (!err)
		err = sharing_touches_soft(&touches, sharing_rig_cpu(&rig, 0), true);
	if (!err)
		err = sharing_touches_times(&touches, true, &times);
	f->break_ns = times.median_ns;
	sharing_touches_fini(&touches);
	sharing_run_fini(&run);
	sharing_rig_fini(&rig);
	sharing_contents_fini(&contents);
	return err;
}

static int run_probe(struct sharing_results *r, struct sharing_ksm *ksm)
{
	uint64_t pages = r->setup.quick ? QUICK_PAGES : PAGES;
	struct fan_out pairs = { .kinds = pages / 2 }, all = { .kinds = 1 };
	char name[64];
	int err = measure(r, &pairs);

	(void)ksm;
	if (!err)
		err = measure(r, &all);
	if (err)
		return err;
	sharing_add_figure(r, GROUP, "two: scan, proof and merge of a page", "ns", pairs.scan_ns,
			   SHARING_SHOWN, 0);
	snprintf(name, sizeof(name), "%lu over two: CPU per page", (unsigned long)pages);
	sharing_add_figure(r, GROUP, name, "x", all.scan_ns / pairs.scan_ns, SHARING_AT_MOST, GOAL);
	snprintf(name, sizeof(name), "%lu over two: a break, median", (unsigned long)pages);
	sharing_add_figure(r, GROUP, name, "x", all.break_ns / pairs.break_ns, SHARING_AT_MOST,
			   GOAL);
	return 0;
}

const struct sharing_probe sharing_probe_fan_out = {
	"fan-out",
	"one page that very many have",
	run_probe,
};
