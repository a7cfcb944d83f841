/* SPDX-License-Identifier: MIT */
/*
 * sharing_passes.c - the loop of whoever shares, and what it notes.
 *
 * The domains' own counters draw the curves between passes, and nothing else: what was saved is told by the caller, out of
 * the pool.
 */
#include "sharing_passes.h"

#include <time.h>

#include "control/clock.h"

#define SLICE_NS      5000000
#define PASS_PAUSE_NS 10000000
/* Without gain, until it is believed. */
enum { IDLE_PASSES = 4, MOST_PASSES = 200 };

/* Where the points of a run begin; without a run none are made. */
struct since {
	struct sharing_run *run;
	double t_s, cpu_s;
};

static double cpu_now_s(const struct sharing_passes *p)
{
	return p->cpu_s ? p->cpu_s(p->ctx) : (double)gn_clock_ns(CLOCK_THREAD_CPUTIME_ID) * 1e-9;
}

static struct gn_domain *domain_at(const struct sharing_passes *p, size_t i)
{
	return i < p->most_domains ? p->domains[i] : NULL;
}

/* As the domain counts it: the pool would have to be drained. */
static int add_point(const struct sharing_passes *p, const struct since *since)
{
	uint64_t saved = 0;

	for (size_t i = 0; domain_at(p, i); i++) {
		struct gn_sharing_stats stats;

		gn_domain_stats(p->domains[i], &stats);
		saved += stats.pages_sharing + stats.zero_pages;
	}
	return sharing_add_point(since->run, gn_now_s() - since->t_s, cpu_now_s(p) - since->cpu_s,
				 saved > p->kept_pages ? saved - p->kept_pages : 0);
}

static int pass(const struct sharing_passes *p, const struct since *since)
{
	int err = 0;

	for (size_t i = 0; domain_at(p, i) && !err; i++) {
		bool done = false;

		err = gn_domain_sweep(p->domains[i]);
		while (!err && !done) {
			err = gn_domain_scan(p->domains[i], SLICE_NS, &done);
			if (!err && since->run)
				err = add_point(p, since);
		}
	}
	return err;
}

int sharing_pass(const struct sharing_passes *passes)
{
	return pass(passes, &(struct since){ NULL, 0, 0 });
}

static bool has_looked(const struct sharing_passes *p)
{
	struct gn_sharing_stats stats;

	gn_domain_stats(p->domains[0], &stats);
	return stats.pages_scanned + stats.zero_pages;
}

static void note_pass(const struct sharing_passes *p, const struct sharing_oracle *oracle,
		      struct sharing_run *run, double t_s, double cpu_s)
{
	run->saved_pages = p->saved_pages(p->ctx);
	if (run->first_pass_cpu_s <= 0 && has_looked(p)) {
		run->first_pass_pages = run->saved_pages;
		run->first_pass_cpu_s = cpu_s;
		if (!oracle->saved_pages) {
			run->wall_s = t_s;
			run->cpu_s = cpu_s;
		}
	}
	if (!run->reached_pages && oracle->saved_pages &&
	    run->saved_pages >= sharing_enough_pages(oracle)) {
		run->reached_pages = run->saved_pages;
		run->wall_s = t_s;
		run->cpu_s = cpu_s;
	}
}

int sharing_converge(const struct sharing_passes *p, const struct sharing_oracle *oracle,
		     struct sharing_run *run)
{
	const struct since since = { run, gn_now_s(), cpu_now_s(p) };
	unsigned idle = 0;
	int err = 0;

	for (unsigned i = 0; i < MOST_PASSES && idle < IDLE_PASSES && !err; i++) {
		uint64_t before = run->saved_pages;
		double pass_cpu_s = cpu_now_s(p);

		err = pass(p, &since);
		run->next_pass_cpu_s = cpu_now_s(p) - pass_cpu_s;
		note_pass(p, oracle, run, gn_now_s() - since.t_s, cpu_now_s(p) - since.cpu_s);
		if (run->first_pass_cpu_s > 0)
			idle = run->saved_pages > before + oracle->total_pages / 10000 ? 0
										       : idle + 1;
		nanosleep(&(struct timespec){ 0, PASS_PAUSE_NS }, NULL);
	}
	run->is_there = true;
	return err;
}
