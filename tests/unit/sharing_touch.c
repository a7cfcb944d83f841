/* SPDX-License-Identifier: MIT */
/*
 * sharing_touch.c - touches and what is learnt from their times: kinds that differ are told apart, kinds that do not
 * are not, and neither number nor order of the samples gives anything away.
 */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "bench/sharing_touch.h"

enum { COUNT = 20000 };

/* Times of common pages are @factor as long. */
static struct sharing_touches make(double factor, uint64_t seed)
{
	struct sharing_touches touches = { .items = calloc(COUNT, sizeof(struct sharing_touch)),
					   .count = COUNT };

	for (size_t i = 0; i < COUNT; i++) {
		bool is_common = sharing_random(&seed) & 1;
		double ns = 1000 + (double)(sharing_random(&seed) % 500);

		touches.items[i] =
			(struct sharing_touch){ .page = i,
						.is_common = is_common,
						.ns = (float)(is_common ? ns * factor : ns) };
	}
	return touches;
}

static double tell(double factor, uint64_t seed)
{
	struct sharing_touches touches = make(factor, seed);
	double accuracy;

	cr_assert_eq(sharing_touches_tell(&touches, &accuracy), 0);
	sharing_touches_fini(&touches);
	return accuracy;
}

Test(sharing_touch, kinds_are_told_apart_only_if_they_differ)
{
	for (uint64_t seed = 1; seed < 6; seed++) {
		double same = tell(1, seed), near = tell(1.1, seed);

		cr_assert(same > 0.48 && same < 0.52, "seed %lu: %f", (unsigned long)seed, same);
		cr_assert(near > 0.55 && near < 0.75, "seed %lu: %f", (unsigned long)seed, near);
		cr_assert(tell(3, seed) > 0.999);
		cr_assert(tell(0.3, seed) > 0.999, "common pages may be the faster ones");
	}
}

Test(sharing_touch, median_and_p99_are_of_the_kind)
{
	struct sharing_touches touches = { .items = calloc(200, sizeof(struct sharing_touch)),
					   .count = 200 };
	struct sharing_touch_times times;

	for (unsigned i = 0; i < 200; i++)
		touches.items[i] = (struct sharing_touch){ .page = i,
							   .is_common = i & 1,
							   .has_event = i == 199,
							   .ns = (float)(i & 1 ? 1000 + i : i) };
	/* Common ones: 1101 is the median; of two beyond twice that one had an event. */
	touches.items[197].ns = 5000;
	touches.items[199].ns = 5000;
	cr_assert_eq(sharing_touches_times(&touches, false, &times), 0);
	cr_assert_float_eq(times.median_ns, 100, 0.1);
	cr_assert_float_eq(times.p99_ns, 198, 0.1);
	cr_assert(isnan(times.below), "none is slow");
	cr_assert_eq(sharing_touches_times(&touches, true, &times), 0);
	cr_assert_float_eq(times.median_ns, 1101, 0.1);
	cr_assert_float_eq(times.below, 0.5, 0.01);
	touches.count = 0;
	cr_assert_eq(sharing_touches_times(&touches, true, &times), 0);
	cr_assert(isnan(times.median_ns));
	sharing_touches_fini(&touches);
}

/* As many of each kind, each page once, none that is hot or zero; and neither place nor order tells the kind. */
static void check_pick(const struct sharing_contents *c, size_t most)
{
	size_t common = 0, common_in_first_half = 0, common_below = 0, below = 0;
	uint8_t *seen = calloc(c->vm_pages, 1);
	struct sharing_touches touches;

	cr_assert_eq(sharing_touches_pick(c, 0, most, true, &touches), 0);
	cr_assert_gt(touches.count, 1000);
	for (size_t i = 0; i < touches.count; i++) {
		const struct sharing_touch *touch = &touches.items[i];
		uint64_t number = sharing_page(c, 0, touch->page);

		cr_assert(touch->page >= c->hot_pages && number && !seen[touch->page]++);
		cr_assert_eq(touch->is_common, sharing_page_is_common(number));
		common += touch->is_common;
		below += touch->page < c->vm_pages / 2;
		common_below += touch->is_common && touch->page < c->vm_pages / 2;
		common_in_first_half += touch->is_common && i < touches.count / 2;
	}
	cr_assert_eq(common * 2, touches.count);
	cr_assert(fabs((double)common_in_first_half / (double)common - 0.5) < 0.06,
		  "%zu: the order tells", most);
	cr_assert(fabs((double)common_below / (double)below - 0.5) < 0.06, "%zu: the place tells",
		  most);
	free(seen);
	sharing_touches_fini(&touches);
}

Test(sharing_touch, what_is_touched_gives_nothing_away)
{
	struct sharing_contents c;
	struct sharing_touches touches;

	cr_assert_eq(sharing_contents_init(&c, sharing_case_find("mixed"), 64 << 20, 1), 0);
	check_pick(&c, 2000);
	check_pick(&c, 6000);
	check_pick(&c, 1000000);
	cr_assert_eq(sharing_touches_pick(&c, 0, 10, false, &touches), 0);
	cr_assert_eq(touches.count, 10);
	for (size_t i = 0; i < 10; i++)
		cr_assert(touches.items[i].is_common);
	sharing_touches_fini(&touches);
	sharing_contents_fini(&c);
}

Test(sharing_touch, each_touch_is_timed_and_stores_arrive)
{
	struct sharing_contents c;
	struct sharing_touches touches;
	uint64_t stored = 0;
	uint8_t *memory;

	cr_assert_eq(sharing_contents_init(&c, sharing_case_find("mixed"), 2 << 20, 1), 0);
	memory = mmap(NULL, c.vm_pages * SHARING_PAGE_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(memory, MAP_FAILED);
	cr_assert_eq(sharing_touches_pick(&c, 0, 100, true, &touches), 0);
	sharing_touches_native(&touches, memory, true);
	for (uint64_t i = 0; i < c.vm_pages * SHARING_PAGE_WORDS; i++)
		stored += ((uint64_t *)memory)[i] != 0;
	cr_assert_eq(stored, touches.count - 1, "the first one stores a zero");
	for (size_t i = 0; i < touches.count; i++)
		cr_assert(touches.items[i].ns > 0);
	munmap(memory, c.vm_pages * SHARING_PAGE_BYTES);
	sharing_touches_fini(&touches);
	sharing_contents_fini(&c);
}
