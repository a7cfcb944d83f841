/* SPDX-License-Identifier: MIT */
/*
 * sharing_steady.c - probe: what a converged domain costs while a thousandth of its memory is written a second, and how soon
 * it finds a new duplicate. Sweeps follow one another at the same pace and find as much to do, so the median one is judged: what
 * the host takes from one of them, or what the new duplicates add to one, is in the mean beside it.
 */
#include <math.h>
#include <time.h>

#include "control/clock.h"
#include "sharing_peer.h"
#include "sharing_rig.h"
#include "stats.h"

#define GROUP	     "steady state"
#define BYTES	     ((uint64_t)4 << 30)
#define QUICK	     ((uint64_t)64 << 20)
#define PERIOD_S     0.5 /* between sweeps */
#define SCAN_NS	     2000000
#define GOAL_SHARE   0.5 /* per cent of a core */
#define GOAL_FOUND_S 2.0
#define NEW_NUMBERS  ((uint64_t)1 << 40) /* no case has them */
enum { NEW_DUPLICATES = 64, SWEEPS = 40, QUICK_SWEEPS = 6, STORES = 4 };

static void rest_s(double seconds)
{
	if (seconds > 0)
		nanosleep(&(struct timespec){ (time_t)seconds,
					      (long)((seconds - floor(seconds)) * 1e9) },
			  NULL);
}

static uint64_t first_new(const struct sharing_contents *contents)
{
	return contents->vm_pages - NEW_DUPLICATES;
}

/* The last pages of both VMs are free until something is put there; no guest looks. */
static void clear_last_pages(struct sharing_contents *contents)
{
	for (unsigned vm = 0; vm < contents->vms; vm++)
		for (uint64_t page = first_new(contents); page < contents->vm_pages; page++)
			contents->pages[vm * contents->vm_pages + page] = 0;
}

static int write_duplicates(struct sharing_rig *rig)
{
	const struct sharing_contents *contents = rig->config.contents;
	uint8_t bytes[SHARING_PAGE_BYTES];
	int err = 0;

	for (uint64_t page = first_new(contents); page < contents->vm_pages; page++) {
		sharing_page_fill(contents->seed, sharing_common_number(NEW_NUMBERS + page), bytes);
		for (unsigned vm = 0; vm < 2 && !err; vm++)
			err = gn_vm_write(sharing_rig_vm(rig, vm), gpa(page * SHARING_PAGE_BYTES),
					  bytes, sizeof(bytes));
	}
	return err;
}

static bool are_shared(struct sharing_rig *rig)
{
	const struct sharing_contents *contents = rig->config.contents;

	for (uint64_t page = first_new(contents); page < contents->vm_pages; page++) {
		struct gn_p2m_info a, b;

		if (gn_p2m_query(sharing_rig_vm(rig, 0), gfn(page), &a) ||
		    gn_p2m_query(sharing_rig_vm(rig, 1), gfn(page), &b) ||
		    a.state != GN_P2M_SHARED || b.state != GN_P2M_SHARED || a.pfn.v != b.pfn.v)
			return false;
	}
	return true;
}

static int scan_all(struct sharing_rig *rig)
{
	bool done = false;
	int err = gn_domain_sweep(rig->domains[0]);

	while (!err && !done)
		err = gn_domain_scan(rig->domains[0], SCAN_NS, &done);
	return err;
}

static int idle(struct sharing_results *r, struct sharing_rig *rig, enum sharing_side side)
{
	double percent[SWEEPS], cpu_s = 0, written_s = NAN, found_s = NAN, t0_s = gn_now_s();
	unsigned sweeps = r->setup.quick ? QUICK_SWEEPS : SWEEPS;
	int err = 0;

	for (unsigned sweep = 0; sweep < sweeps && !err; sweep++) {
		double begin_s = gn_now_s(),
		       cpu0_s = (double)gn_clock_ns(CLOCK_THREAD_CPUTIME_ID) * 1e-9, took_s;

		err = scan_all(rig);
		took_s = (double)gn_clock_ns(CLOCK_THREAD_CPUTIME_ID) * 1e-9 - cpu0_s;
		cpu_s += took_s;
		if (isnan(found_s) && !isnan(written_s) && are_shared(rig))
			found_s = gn_now_s() - written_s;
		if (!sweep && !err) {
			err = write_duplicates(rig);
			written_s = gn_now_s();
		}
		rest_s(PERIOD_S - (gn_now_s() - begin_s));
		percent[sweep] = 100 * took_s / (gn_now_s() - begin_s);
	}
	if (err)
		return err;
	sharing_add_side_figure(r, GROUP, side, "CPU, the median sweep", "% of a core",
				stats_summarise(percent, sweeps).median, SHARING_AT_MOST,
				GOAL_SHARE);
	sharing_add_side_figure(r, GROUP, side, "CPU, mean", "% of a core",
				100 * cpu_s / (gn_now_s() - t0_s), SHARING_SHOWN, 0);
	sharing_add_side_figure(r, GROUP, side, "until new duplicates are merged", "s",
				isnan(found_s) ? (double)INFINITY : found_s, SHARING_AT_MOST,
				GOAL_FOUND_S);
	return 0;
}

/* Each hot page once a second. */
static uint64_t pause_of(const struct sharing_contents *contents)
{
	return (uint64_t)1000000000 * STORES / contents->hot_pages;
}

static int steady_own(struct sharing_results *r, const struct sharing_contents *contents,
		      const struct sharing_oracle *oracle, enum sharing_side side)
{
	const struct sharing_rig_config config = { .contents = contents,
						   .scheme = sharing_side_scheme(side) };
	struct sharing_run run = { 0 };
	struct sharing_rig rig;
	int err = sharing_rig_init(&rig, &config), failed;

	if (err)
		return err;
	err = sharing_rig_converge(&rig, oracle, &run);
	if (!err)
		err = sharing_rig_start_guests(&rig, pause_of(contents));
	if (!err)
		err = idle(r, &rig, side);
	failed = sharing_rig_stop_guests(&rig);
	sharing_run_fini(&run);
	sharing_rig_fini(&rig);
	return err ? err : failed;
}

/* At the speed at which it converged. */
static int steady_ksm(struct sharing_results *r, struct sharing_ksm *ksm,
		      const struct sharing_contents *contents, const struct sharing_oracle *oracle)
{
	double seconds = r->setup.quick ? 1 : 5;
	struct sharing_ksm_counts before, after;
	struct sharing_peer peer;
	int err = sharing_peer_init_converged(&peer, ksm, contents, oracle);

	if (err)
		return err;
	sharing_ksm_read(ksm, &before);
	rest_s(seconds);
	sharing_ksm_read(ksm, &after);
	sharing_add_figure(r, GROUP, "KSM, as fast as above", "% of a core",
			   (double)(after.cpu_ns - before.cpu_ns) * 1e-7 / seconds, SHARING_SHOWN,
			   0);
	sharing_peer_fini(&peer);
	return 0;
}

static int run_probe(struct sharing_results *r, struct sharing_ksm *ksm)
{
	struct sharing_contents contents;
	struct sharing_oracle oracle;
	int err = sharing_probe_contents(r, BYTES, QUICK, &contents, &oracle);

	if (err)
		return err;
	clear_last_pages(&contents);
	err = sharing_contents_oracle(&contents, &oracle);
	if (!err && ksm)
		err = steady_ksm(r, ksm, &contents, &oracle);
	if (!err)
		err = steady_own(r, &contents, &oracle, SHARING_EPT);
	if (!err)
		err = steady_own(r, &contents, &oracle, SHARING_SHADOW);
	sharing_contents_fini(&contents);
	return err;
}

const struct sharing_probe sharing_probe_steady = {
	"steady",
	"a converged domain, and new duplicates",
	run_probe,
};
