/* SPDX-License-Identifier: MIT */
/*
 * sharing_contents.h - what is in the memory of the VMs whose pages are to be shared, and how much could be saved.
 *
 * A page is told by a number: equal numbers, equal bytes; 0 is a page of zeros. The same seed gives the same
 * numbers, and a number gives the same bytes everywhere, so that every way to share is run on the same contents and
 * is held against the same oracle.
 */
#ifndef GN_BENCH_SHARING_CONTENTS_H
#define GN_BENCH_SHARING_CONTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHARING_PAGE_BYTES = 4096, SHARING_PAGE_WORDS = 512, SHARING_MAX_VMS = 8 };

struct sharing_case {
	const char *name, *what;
	unsigned vms;
	/* Of a VM's pages, in per cent; what is left over is like no other page. */
	unsigned common_percent, zero_percent;
	/* Of the common ones: still lie where the image has them, or anywhere; and rewritten since. */
	bool is_in_place;
	unsigned moved_percent, rewritten_percent;
};
const struct sharing_case *sharing_case_at(unsigned index); /* NULL past the last */
const struct sharing_case *sharing_case_find(const char *name);

struct sharing_contents {
	unsigned vms;
	uint64_t vm_pages;  /* of each VM */
	uint64_t hot_pages; /* the first ones of each VM: its guest writes them all the time */
	uint64_t seed;
	uint64_t *pages; /* their numbers, VM after VM */
};

/* @mem_bytes: of all VMs together; each gets an equal part, whole extents. -ENOMEM. */
int sharing_contents_init(struct sharing_contents *contents, const struct sharing_case *of,
			  uint64_t mem_bytes, uint64_t seed);
/* Of a probe's own: page numbers by @number, which are common if more than one page has them. No hot pages. -ENOMEM. */
typedef uint64_t sharing_number_fn(const void *ctx, unsigned vm, uint64_t page);
int sharing_contents_init_by(struct sharing_contents *contents, unsigned vms, uint64_t vm_pages,
			     uint64_t seed, sharing_number_fn *number, const void *ctx);
void sharing_contents_fini(struct sharing_contents *contents);

static inline uint64_t sharing_page(const struct sharing_contents *contents, unsigned vm,
				    uint64_t page)
{
	return contents->pages[vm * contents->vm_pages + page];
}
/* The bytes of page number @number. */
void sharing_page_fill(uint64_t seed, uint64_t number, void *out);
/* One of its 512 words. */
uint64_t sharing_page_word(uint64_t seed, uint64_t number, unsigned word);
/* Numbers of pages that others have as well, and of such that no other page has. */
uint64_t sharing_common_number(uint64_t index);
uint64_t sharing_own_number(unsigned vm, uint64_t page);
bool sharing_page_is_common(uint64_t number);

struct sharing_oracle {
	uint64_t total_pages, zero_pages;
	uint64_t distinct_pages; /* that are not zero */
	uint64_t saved_pages;	 /* total - distinct: one copy of each is kept, and none of zeros */
};
/* -ENOMEM. */
int sharing_contents_oracle(const struct sharing_contents *contents, struct sharing_oracle *out);

/* What a template for these VMs would hold: in each place the number that most of them have there; zeros where no two agree. *saved_pages:
 * of all VMs together, the pages that are like it, less its own. @numbers: of vm_pages. */
void sharing_contents_template(const struct sharing_contents *contents, uint64_t *numbers,
			       uint64_t *saved_pages);

/* A small generator of numbers (splitmix64, Steele, Lea and Flood, OOPSLA'14). */
#define SHARING_RANDOM_STEP UINT64_C(0x9e3779b97f4a7c15)
static inline uint64_t sharing_random(uint64_t *state)
{
	uint64_t z = *state += SHARING_RANDOM_STEP;

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

#endif
