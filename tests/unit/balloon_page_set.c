/* SPDX-License-Identifier: MIT */
/*
 * balloon_page_set.c - the set of pages against an array of booleans.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "balloon/page_set.h"

#define PAGES_MAX 70000 /* more than one word of groups */

static bool model[PAGES_MAX + 1];

static void compare(const struct gn_page_set *set, uint64_t pages, unsigned step)
{
	uint64_t at = 0, count = 0, start, length;

	for (;;) {
		uint64_t first = at, end;

		while (first < pages && !model[first])
			first++;
		for (end = first; end < pages && model[end];)
			end++;
		if (!gn_page_set_next_run(set, at, &start, &length)) {
			cr_assert_eq(first, pages, "step %u: a run is missing", step);
			break;
		}
		cr_assert_eq(start, first, "step %u", step);
		cr_assert_eq(length, end - first, "step %u", step);
		count += length;
		at = end;
	}
	cr_assert_eq(set->count, count, "step %u", step);
}

Test(balloon_page_set, is_what_an_array_is)
{
	static const uint64_t sizes[] = { 1, 63, 64, 65, 4096, 4097, PAGES_MAX };
	uint64_t seed = 7;

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		const uint64_t pages = sizes[i];
		struct gn_page_set set;

		memset(model, 0, sizeof(model));
		cr_assert_eq(gn_page_set_init(&set, pages), 0);
		for (unsigned step = 0; step < 400; step++) {
			uint64_t random = seed = seed * 6364136223846793005u + 1442695040888963407u;
			uint64_t start = (random >> 20) % pages;
			uint64_t count = 1 + (random >> 40) % (pages - start);

			switch (random >> 61) {
			case 0:
				gn_page_set_add_run(&set, start, count);
				memset(model + start, true, count);
				break;
			case 1:
			case 2:
				gn_page_set_remove_run(&set, start, count);
				memset(model + start, false, count);
				break;
			case 3:
				if (step % 16)
					break;
				gn_page_set_clear(&set);
				memset(model, 0, sizeof(model));
				break;
			default:
				cr_assert_eq(gn_page_set_has(&set, start), model[start]);
				cr_assert_eq(gn_page_set_add(&set, start), !model[start]);
				model[start] = true;
			}
			if (step % 8 == 0)
				compare(&set, pages, step);
		}
		gn_page_set_fini(&set);
	}
}

Test(balloon_page_set, a_run_from_its_midst)
{
	struct gn_page_set set;
	uint64_t start, count;

	cr_assert_eq(gn_page_set_init(&set, 1000), 0);
	gn_page_set_add_run(&set, 60, 100);
	cr_assert(gn_page_set_next_run(&set, 100, &start, &count));
	cr_assert_eq(start, 100);
	cr_assert_eq(count, 60);
	cr_assert_not(gn_page_set_next_run(&set, 160, &start, &count));
	cr_assert_not(gn_page_set_next_run(&set, 1000, &start, &count), "past the end");
	gn_page_set_fini(&set);
}
