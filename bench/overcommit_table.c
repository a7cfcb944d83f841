/* SPDX-License-Identifier: MIT */
/*
 * overcommit_table.c - the results for people: one row a policy, the goals under it.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "cli.h"
#include "overcommit.h"
#include "table.h"

static enum table_style style_of(bool is_good)
{
	return is_good ? TABLE_PLAIN : TABLE_BAD;
}

static void print_wait(struct table *t, const struct overcommit_run *run, double quantile)
{
	double ms = overcommit_wait_ms(run, quantile);

	if (isnan(ms))
		table_cell(t, TABLE_DIM, "no asks");
	else if (isinf(ms))
		table_cell(t, TABLE_BAD, "never");
	else
		table_cell(t, style_of(ms <= OVERCOMMIT_GOAL_GRANT_MS), "%.0f ms", ms);
}

static void print_row(struct table *t, const struct overcommit_results *r,
		      const struct overcommit_run *run)
{
	double against = overcommit_against_oracle(r, run), turns = overcommit_turns(r, run);
	unsigned kills = overcommit_oom_kills(r, run);

	table_cell(t, TABLE_HEAD, "%s", run->policy);
	table_cell(t, TABLE_PLAIN, "%.3fx", overcommit_worst_slowdown(r, run));
	if (against > 0)
		table_cell(t, style_of(against <= OVERCOMMIT_GOAL_SLOWDOWN), "%.3fx", against);
	else
		table_cell(t, TABLE_DIM, "-");
	print_wait(t, run, 0.5);
	print_wait(t, run, 0.99);
	table_cell(t, TABLE_PLAIN, "%" PRIu64 "/%" PRIu64, run->asks - run->asks_unmet, run->asks);
	table_cell(t, style_of(!kills), "%u", kills);
	table_cell(t, style_of(!run->reservations_broken), "%" PRIu64, run->reservations_broken);
	table_cell(t, style_of(!run->over_budget), "%" PRIu64, run->over_budget);
	table_cell(t, style_of(turns <= OVERCOMMIT_GOAL_TURNS), "%.0f", turns);
	table_cell(t, TABLE_PLAIN, "%.2f M", (double)overcommit_refaults(r, run) / 1e6);
}

void overcommit_print(const struct overcommit_results *r, FILE *to, bool colour)
{
	static const char *const heads[] = { "policy",	  "worst VM",	    "of oracle",
					     "grant p50", "grant p99",	    "asks met",
					     "OOM kills", "reserv. broken", "over budget",
					     "turns/min", "refaults" };
	char about[160], grant[32];
	struct table t;

	fprintf(to, "%s.\n%s.\n\n", overcommit_label(r),
		overcommit_describe(r, about, sizeof(about)));
	table_init(&t, sizeof(heads) / sizeof(heads[0]), 1);
	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
		table_cell(&t, TABLE_HEAD, "%s", heads[i]);
	for (size_t i = 0; i < r->run_count; i++)
		print_row(&t, r, &r->runs[i]);
	table_print(&t, to, colour);
	table_fini(&t);
	fprintf(to,
		"\nworst VM: its time over the time with all of its memory. grant: from an ask "
		"until %s are "
		"there\n(or all that was asked). turns: of a target's direction, at rest, the most "
		"in a "
		"minute. Goals of esx:\nof oracle <= %.2fx, grant p99 <= %.0f ms, nothing killed "
		"or "
		"broken, turns <= %.0f.\n",
		cli_format_bytes(OVERCOMMIT_GRANT_BYTES, grant, sizeof(grant)),
		OVERCOMMIT_GOAL_SLOWDOWN, OVERCOMMIT_GOAL_GRANT_MS, OVERCOMMIT_GOAL_TURNS);
}
