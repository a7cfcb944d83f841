/* SPDX-License-Identifier: MIT */
/*
 * kvm_runs.c - which runs of a change the KVM room deals with at once. Needs no /dev/kvm.
 */
#include <criterion/criterion.h>

#include "kvmbackend/nested.h"

Test(kvm_runs, near_ones_are_joined)
{
	static const struct {
		const char *name;
		struct gn_gfn_run runs[3];
		size_t count;
		uint64_t end;
		size_t next;
	} cases[] = {
		{ "one", { { { 7 }, 3 } }, 1, 10, 1 },
		{ "at the gap", { { { 7 }, 3 }, { { 14 }, 1 } }, 2, 15, 2 },
		{ "behind it", { { { 7 }, 3 }, { { 15 }, 1 } }, 2, 10, 1 },
		{ "adjacent", { { { 7 }, 3 }, { { 10 }, 2 } }, 2, 12, 2 },
		{ "from the end of the last",
		  { { { 0 }, 1 }, { { 5 }, 5 }, { { 14 }, 2 } },
		  3,
		  16,
		  3 },
		{ "of no pages", { { { 7 }, 0 }, { { 9 }, 0 }, { { 20 }, 4 } }, 3, 9, 2 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t next;

		cr_assert_eq(gn_kvm_hull_end(cases[i].runs, cases[i].count, 0, 4, &next),
			     cases[i].end, "%s", cases[i].name);
		cr_assert_eq(next, cases[i].next, "%s", cases[i].name);
	}
}

Test(kvm_runs, all_are_dealt_with)
{
	const struct gn_gfn_run runs[] = {
		{ gfn(0), 1 }, { gfn(3), 1 }, { gfn(100), 0 }, { gfn(200), 9 }
	};
	size_t at = 0, turns = 0, next;
	uint64_t end = 0;

	for (; at < 4; at = next, turns++)
		end = gn_kvm_hull_end(runs, 4, at, 4, &next);
	cr_assert(at == 4 && turns == 3 && end == 209);
}
