/* SPDX-License-Identifier: MIT */
/*
 * sharing_figures.c - what the runs of a case promise: ratios to KSM and to the limit of the same repetition's data.
 */

#include "sharing.h"

#define GOAL_OF_KSM_CPU	  0.1
#define GOAL_KVM_CPU	  0.4 /* of KSM's: arbitrary duplicates under a real guest are mapped in runs */
#define GOAL_TEMPLATE_CPU 0.25 /* each page has one place in a template that it can be equal to */
#define GOAL_OF_LIMIT_CPU 2.0
#define GOAL_OF_KSM_TIME  0.125
#define GOAL_FIRST_PART	  0.99
#define GOAL_LAST_PART	  0.995
#define GOAL_SPREAD	  1.3
#define GOAL_UNIQUE	  1.2  /* one pass, over the limit's */
#define GOAL_NEXT_PASS	  0.05 /* "next to nothing": a pass without news, over the first */
enum { SPREAD_REPEATS = 3 };

static void add(struct sharing_results *r, const struct sharing_case_result *c,
		enum sharing_side side, const char *name, const char *unit, double value,
		enum sharing_promise promise, double goal)
{
	sharing_add_side_figure(r, c->of->name, side, name, unit, value, promise, goal);
}

static bool is_real(enum sharing_side side)
{
	return side == SHARING_KVM || side == SHARING_TEMPLATE;
}

/* Real guests are promised their share and its CPU time; what else is told of them hangs on the host. */
static enum sharing_promise promise_of(enum sharing_side side, enum sharing_promise promise)
{
	return is_real(side) ? SHARING_SHOWN : promise;
}

static double cpu_goal(enum sharing_side side)
{
	if (side == SHARING_TEMPLATE)
		return GOAL_TEMPLATE_CPU;
	return side == SHARING_KVM ? GOAL_KVM_CPU : GOAL_OF_KSM_CPU;
}

/* What the host's limit of mappings leaves of it. */
static void show_walk(struct sharing_results *r, const struct sharing_case_result *c)
{
	add(r, c, SHARING_KVM, "of the memory, its guest's walk", "",
	    sharing_median(c, SHARING_KVM, sharing_walked_part), SHARING_SHOWN, 0);
	add(r, c, SHARING_KVM, "of the oracle's, after the walk", "",
	    sharing_median(c, SHARING_KVM, sharing_walk_part), SHARING_SHOWN, 0);
	add(r, c, SHARING_KVM, "mappings after the walk", "",
	    sharing_median(c, SHARING_KVM, sharing_mappings), SHARING_SHOWN, 0);
	add(r, c, SHARING_KVM, "the walk, a page", "us",
	    sharing_median(c, SHARING_KVM, sharing_walk_page_us), SHARING_SHOWN, 0);
	add(r, c, SHARING_KVM, "the walk, faults a page", "",
	    sharing_median(c, SHARING_KVM, sharing_walk_page_faults), SHARING_SHOWN, 0);
	add(r, c, SHARING_KVM, "faults, while pages were shared", "",
	    sharing_median(c, SHARING_KVM, sharing_pass_faults), SHARING_SHOWN, 0);
}

static void compare_savings(struct sharing_results *r, const struct sharing_case_result *c,
			    enum sharing_side side)
{
	if (!r->no_ksm[0]) {
		add(r, c, side, "CPU per GiB freed over KSM's", "x",
		    sharing_ratio(c, side, SHARING_KSM, sharing_cpu_per_gib), SHARING_AT_MOST,
		    cpu_goal(side));
		add(r, c, side, "time to 99 % over KSM's", "x",
		    sharing_ratio(c, side, SHARING_KSM, sharing_wall),
		    promise_of(side, SHARING_AT_MOST), GOAL_OF_KSM_TIME);
	}
	add(r, c, side, "CPU per GiB freed over the limit's", "x",
	    sharing_ratio(c, side, SHARING_LIMIT, sharing_cpu_per_gib),
	    promise_of(side, SHARING_AT_MOST), GOAL_OF_LIMIT_CPU);
	/* What a template has elsewhere, or not at all, is not its to save. */
	if (side == SHARING_TEMPLATE)
		add(r, c, side, "of what lies as in it, in the end", "",
		    sharing_median(c, side, sharing_possible_part), SHARING_AT_LEAST,
		    GOAL_LAST_PART);
	add(r, c, side, "of the oracle's, after one pass", "",
	    sharing_median(c, side, sharing_first_part),
	    side == SHARING_TEMPLATE ? SHARING_SHOWN : SHARING_AT_LEAST, GOAL_FIRST_PART);
	add(r, c, side, "of the oracle's, in the end", "",
	    sharing_median(c, side, sharing_last_part),
	    side == SHARING_TEMPLATE ? SHARING_SHOWN : SHARING_AT_LEAST, GOAL_LAST_PART);
	if (side == SHARING_KVM)
		show_walk(r, c);
}

/* The others' spread, on which there is no promise, tells how much of ours is the machine's. */
static void compare_spread(struct sharing_results *r, const struct sharing_case_result *c,
			   enum sharing_side side)
{
	enum sharing_promise promise =
		promise_of(side, sharing_side_scheme(side) ? SHARING_AT_MOST : SHARING_SHOWN);

	if (r->setup.repeat < SPREAD_REPEATS || !c->runs[side][0].is_there)
		return;
	add(r, c, side, "CPU per GiB, most over median", "x",
	    sharing_most(c, side, sharing_cpu_per_gib) /
		    sharing_median(c, side, sharing_cpu_per_gib),
	    promise, GOAL_SPREAD);
	add(r, c, side, "time, most over median", "x",
	    sharing_most(c, side, sharing_wall) / sharing_median(c, side, sharing_wall), promise,
	    GOAL_SPREAD);
}

/* Nothing to save: a pass may cost what hashing costs, the next ones nothing. */
static void compare_passes(struct sharing_results *r, const struct sharing_case_result *c,
			   enum sharing_side side)
{
	double first = sharing_median(c, side, sharing_first_pass_cpu);

	add(r, c, side, "one pass over the limit's", "x",
	    sharing_ratio(c, side, SHARING_LIMIT, sharing_first_pass_cpu),
	    promise_of(side, SHARING_AT_MOST), GOAL_UNIQUE);
	add(r, c, side, "a pass without news over the first", "x",
	    sharing_median(c, side, sharing_next_pass_cpu) / first,
	    promise_of(side, SHARING_AT_MOST), GOAL_NEXT_PASS);
}

static void compare_case(struct sharing_results *r, const struct sharing_case_result *c)
{
	for (unsigned side = 0; side < SHARING_SIDES; side++) {
		bool is_ours = sharing_side_scheme((enum sharing_side)side);

		if (is_ours && c->runs[side][0].is_there && c->oracle.saved_pages)
			compare_savings(r, c, (enum sharing_side)side);
		else if (is_ours && c->runs[side][0].is_there)
			compare_passes(r, c, (enum sharing_side)side);
	}
	for (unsigned side = 0; side < SHARING_SIDES && c->oracle.saved_pages; side++)
		compare_spread(r, c, (enum sharing_side)side);
}

void sharing_compare_sides(struct sharing_results *r)
{
	for (size_t i = 0; i < r->setup.case_count; i++)
		compare_case(r, &r->cases[i]);
}
