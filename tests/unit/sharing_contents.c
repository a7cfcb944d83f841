/* SPDX-License-Identifier: MIT */
/*
 * sharing_contents.c - what `gnomon overcommit sharing` puts into memory: equal numbers are equal bytes and others
 * differ, the oracle counts what a comparison of all bytes counts, and a seed says it all.
 */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "bench/sharing_contents.h"

#define MIB ((uint64_t)1 << 20)

static void make(struct sharing_contents *c, const struct sharing_case *of, uint64_t seed)
{
	cr_assert_eq(sharing_contents_init(c, of, 8 * MIB, seed), 0);
}

static int compare_pages(const void *a, const void *b)
{
	return memcmp(a, b, SHARING_PAGE_BYTES);
}

/* Of the bytes themselves, with no look at the numbers. */
static uint64_t count_saved(const struct sharing_contents *c)
{
	static const uint8_t zeros[SHARING_PAGE_BYTES];
	uint64_t total = c->vms * c->vm_pages, kept = 0;
	uint8_t *bytes = malloc(total * SHARING_PAGE_BYTES);

	for (uint64_t i = 0; i < total; i++)
		sharing_page_fill(c->seed, c->pages[i], bytes + i * SHARING_PAGE_BYTES);
	qsort(bytes, total, SHARING_PAGE_BYTES, compare_pages);
	for (uint64_t i = 0; i < total; i++) {
		const uint8_t *page = bytes + i * SHARING_PAGE_BYTES;

		kept += memcmp(page, zeros, sizeof(zeros)) &&
			(!i || memcmp(page, page - SHARING_PAGE_BYTES, SHARING_PAGE_BYTES));
	}
	free(bytes);
	return total - kept;
}

Test(sharing_contents, the_oracle_is_what_comparing_all_bytes_says)
{
	const struct sharing_case *of;

	for (unsigned i = 0; (of = sharing_case_at(i)); i++)
		for (uint64_t seed = 1; seed < 4; seed++) {
			struct sharing_contents c;
			struct sharing_oracle oracle;

			make(&c, of, seed);
			cr_assert_eq(sharing_contents_oracle(&c, &oracle), 0);
			cr_assert_eq(oracle.saved_pages, count_saved(&c), "%s, seed %lu", of->name,
				     (unsigned long)seed);
			cr_assert_eq(oracle.total_pages, c.vms * c.vm_pages);
			sharing_contents_fini(&c);
		}
}

/* Saved, in thousandths of all pages: what the case's name promises, but for the guests' hot pages. */
static const struct {
	const char *name;
	unsigned least, most;
} shares[] = {
	{ "mixed", 330, 352 }, { "clones", 870, 888 }, { "drifted", 580, 720 },
	{ "unique", 0, 0 },    { "zero", 990, 1000 },
};

Test(sharing_contents, as_much_can_be_saved_as_the_case_says)
{
	for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		struct sharing_contents c;
		struct sharing_oracle oracle;
		uint64_t part;

		make(&c, sharing_case_find(shares[i].name), 7);
		cr_assert_eq(sharing_contents_oracle(&c, &oracle), 0);
		part = oracle.saved_pages * 1000 / oracle.total_pages;
		cr_assert(part >= shares[i].least && part <= shares[i].most, "%s: %lu of 1000",
			  shares[i].name, (unsigned long)part);
		sharing_contents_fini(&c);
	}
	cr_assert_null(sharing_case_find("mix"));
}

Test(sharing_contents, a_seed_says_it_all_and_hot_pages_are_nobody_elses)
{
	const struct sharing_case *of;

	for (unsigned i = 0; (of = sharing_case_at(i)); i++) {
		struct sharing_contents a, b, other;
		size_t bytes;

		make(&a, of, 5);
		make(&b, of, 5);
		make(&other, of, 6);
		bytes = a.vms * a.vm_pages * sizeof(*a.pages);
		cr_assert_eq(memcmp(a.pages, b.pages, bytes), 0, "%s", of->name);
		if (of->common_percent)
			cr_assert_neq(memcmp(a.pages, other.pages, bytes), 0, "%s", of->name);
		for (unsigned vm = 0; vm < a.vms; vm++)
			for (uint64_t page = 0; page < a.hot_pages; page++) {
				uint64_t number = sharing_page(&a, vm, page);

				cr_assert(number && !sharing_page_is_common(number));
			}
		sharing_contents_fini(&a);
		sharing_contents_fini(&b);
		sharing_contents_fini(&other);
	}
}

Test(sharing_contents, one_number_has_other_bytes_under_another_seed)
{
	uint8_t a[SHARING_PAGE_BYTES], b[SHARING_PAGE_BYTES];

	sharing_page_fill(1, 77, a);
	sharing_page_fill(2, 77, b);
	cr_assert_neq(memcmp(a, b, sizeof(a)), 0);
	sharing_page_fill(1, 77, b);
	cr_assert_eq(memcmp(a, b, sizeof(a)), 0);
	sharing_page_fill(1, 78, b);
	cr_assert_neq(memcmp(a, b, 8), 0, "pages differ from their first word on");
	for (unsigned word = 0; word < SHARING_PAGE_WORDS; word++) {
		uint64_t there;

		memcpy(&there, b + word * sizeof(there), sizeof(there));
		cr_assert_eq(sharing_page_word(1, 78, word), there, "word %u", word);
		cr_assert_eq(sharing_page_word(1, 0, word), 0);
	}
}

Test(sharing_contents, a_template_has_what_most_have)
{
	static const char *const names[] = { "clones", "drifted" };
	struct sharing_contents c;

	for (unsigned n = 0; n < 2; n++) {
		uint64_t *numbers, saved = 0, like = 0;

		make(&c, sharing_case_find(names[n]), 3);
		numbers = malloc(c.vm_pages * sizeof(*numbers));
		sharing_contents_template(&c, numbers, &saved);
		for (uint64_t page = 0; page < c.vm_pages; page++) {
			unsigned most = 0, has = 0;

			for (unsigned vm = 0; vm < c.vms; vm++) {
				unsigned same = 0;

				for (unsigned other = 0; other < c.vms; other++)
					same += sharing_page(&c, other, page) ==
						sharing_page(&c, vm, page);
				most = same > most ? same : most;
				has += sharing_page(&c, vm, page) == numbers[page];
			}
			cr_assert(has == most || (most == 1 && !numbers[page]), "%s, page %zu",
				  names[n], (size_t)page);
			like += has;
		}
		cr_assert_eq(saved, like - c.vm_pages);
		cr_assert_gt(saved, (n ? 4 : 6) * c.vm_pages);
		free(numbers);
		sharing_contents_fini(&c);
	}
}
