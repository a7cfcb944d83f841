/* SPDX-License-Identifier: MIT */
/*
 * sharing_contents.c - the cases, and which page has which contents.
 *
 * Contents come in extents of 16 pages, as files in a page cache do: of an image that all VMs have (common), of
 * zeros, and the VM's own. Common ones lie anywhere in each VM, but in clones, where they lie as in the image.
 * A page's bytes are random from its first word on. That is the best case of whoever compares pages in order (KSM's
 * trees); a filter by hash does not care.
 */
#include "sharing_contents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { EXTENT_PAGES = 16, HOT_PER_PAGES = 1024 };

/* What a page's number says in its highest bits. */
#define COMMON ((uint64_t)1 << 62)
#define OWN    ((uint64_t)1 << 61)

static const struct sharing_case cases[] = {
	{ "mixed", "half of each VM is in the other VM, too, a tenth is zero", 2, 50, 10, false, 0,
	  0 },
	{ "clones", "VMs of one image, fresh", 8, 90, 10, true, 0, 0 },
	{ "drifted", "VMs of one image, a fifth rewritten and a tenth moved since", 8, 90, 10, true,
	  10, 20 },
	{ "unique", "no page is like another", 2, 0, 0, false, 0, 0 },
	{ "zero", "nothing but zeros", 2, 0, 100, false, 0, 0 },
};

const struct sharing_case *sharing_case_at(unsigned index)
{
	return index < sizeof(cases) / sizeof(cases[0]) ? &cases[index] : NULL;
}

const struct sharing_case *sharing_case_find(const char *name)
{
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (!strcmp(cases[i].name, name))
			return &cases[i];
	return NULL;
}

uint64_t sharing_common_number(uint64_t index)
{
	return COMMON | index;
}

uint64_t sharing_own_number(unsigned vm, uint64_t page)
{
	return OWN | (uint64_t)vm << 48 | page;
}

bool sharing_page_is_common(uint64_t number)
{
	return number & COMMON;
}

/* Where the generator stands before the page's first word; it then advances by a constant a word. */
static uint64_t page_state(uint64_t seed, uint64_t number)
{
	return sharing_random(&seed) ^ number * UINT64_C(0xd6e8feb86659fd93);
}

void sharing_page_fill(uint64_t seed, uint64_t number, void *out)
{
	uint64_t state = page_state(seed, number), words[SHARING_PAGE_WORDS];

	if (!number) {
		memset(out, 0, SHARING_PAGE_BYTES);
		return;
	}
	for (size_t i = 0; i < SHARING_PAGE_WORDS; i++)
		words[i] = sharing_random(&state);
	memcpy(out, words, sizeof(words));
}

uint64_t sharing_page_word(uint64_t seed, uint64_t number, unsigned word)
{
	uint64_t state = page_state(seed, number) + word * SHARING_RANDOM_STEP;

	return number ? sharing_random(&state) : 0;
}

static void shuffle(uint64_t *items, uint64_t count, uint64_t *random)
{
	for (uint64_t i = count; i > 1; i--) {
		uint64_t other = sharing_random(random) % i, kept = items[i - 1];

		items[i - 1] = items[other];
		items[other] = kept;
	}
}

/* Extent @from of the image, zero (@from >= the common ones), or the VM's own. */
struct layout {
	uint64_t extents, common, zero;
};

static void place_extent(struct sharing_contents *c, const struct layout *l, unsigned vm,
			 uint64_t extent, uint64_t from)
{
	uint64_t *pages = &c->pages[vm * c->vm_pages + extent * EXTENT_PAGES];

	for (uint64_t i = 0; i < EXTENT_PAGES; i++) {
		if (from < l->common)
			pages[i] = sharing_common_number(from * EXTENT_PAGES + i);
		else if (from < l->common + l->zero)
			pages[i] = 0;
		else
			pages[i] = sharing_own_number(vm, extent * EXTENT_PAGES + i);
	}
}

/* A clone since its birth: some of its extents have changed places, and pages here and there are its own. */
static void drift(struct sharing_contents *c, const struct sharing_case *of, unsigned vm,
		  uint64_t extents, uint64_t *random)
{
	uint64_t *pages = &c->pages[vm * c->vm_pages];

	for (uint64_t n = extents * of->moved_percent / 200; n; n--) {
		uint64_t a = sharing_random(random) % extents * EXTENT_PAGES,
			 b = sharing_random(random) % extents * EXTENT_PAGES, kept[EXTENT_PAGES];

		memcpy(kept, &pages[a], sizeof(kept));
		memmove(&pages[a], &pages[b], sizeof(kept));
		memcpy(&pages[b], kept, sizeof(kept));
	}
	for (uint64_t i = 0; i < c->vm_pages; i++)
		if (sharing_random(random) % 100 < of->rewritten_percent)
			pages[i] = sharing_own_number(vm, i);
}

static void place_vm(struct sharing_contents *c, const struct sharing_case *of, unsigned vm,
		     const struct layout *l, uint64_t *order)
{
	uint64_t random = c->seed ^ (of->is_in_place ? 0 : vm + 1);

	for (uint64_t i = 0; i < l->extents; i++)
		order[i] = i;
	shuffle(order, l->extents, &random);
	for (uint64_t i = 0; i < l->extents; i++)
		place_extent(c, l, vm, i, order[i]);
	random = c->seed + 1000 + vm;
	drift(c, of, vm, l->extents, &random);
	for (uint64_t i = 0; i < c->hot_pages; i++)
		c->pages[vm * c->vm_pages + i] = sharing_own_number(vm, i);
}

int sharing_contents_init(struct sharing_contents *c, const struct sharing_case *of,
			  uint64_t mem_bytes, uint64_t seed)
{
	struct layout l = { .extents = mem_bytes / SHARING_PAGE_BYTES / of->vms / EXTENT_PAGES };
	uint64_t *order;

	*c = (struct sharing_contents){ .vms = of->vms,
					.vm_pages = l.extents * EXTENT_PAGES,
					.seed = seed };
	c->hot_pages = c->vm_pages / HOT_PER_PAGES + 1;
	l.common = l.extents * of->common_percent / 100;
	l.zero = l.extents * (of->common_percent + of->zero_percent) / 100 - l.common;
	order = calloc(l.extents, sizeof(*order));
	c->pages = calloc(c->vms * c->vm_pages, sizeof(*c->pages));
	if (!order || !c->pages) {
		free(order);
		sharing_contents_fini(c);
		return -ENOMEM;
	}
	for (unsigned vm = 0; vm < c->vms; vm++)
		place_vm(c, of, vm, &l, order);
	free(order);
	return 0;
}

int sharing_contents_init_by(struct sharing_contents *c, unsigned vms, uint64_t vm_pages,
			     uint64_t seed, sharing_number_fn *number, const void *ctx)
{
	*c = (struct sharing_contents){ .vms = vms, .vm_pages = vm_pages, .seed = seed };
	c->pages = calloc(vms * vm_pages, sizeof(*c->pages));
	if (!c->pages)
		return -ENOMEM;
	for (unsigned vm = 0; vm < vms; vm++)
		for (uint64_t page = 0; page < vm_pages; page++)
			c->pages[vm * vm_pages + page] = number(ctx, vm, page);
	return 0;
}

void sharing_contents_fini(struct sharing_contents *contents)
{
	free(contents->pages);
	contents->pages = NULL;
}

static int compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int sharing_contents_oracle(const struct sharing_contents *c, struct sharing_oracle *out)
{
	uint64_t total = c->vms * c->vm_pages, *sorted = malloc(total * sizeof(*sorted));

	if (!sorted)
		return -ENOMEM;
	memcpy(sorted, c->pages, total * sizeof(*sorted));
	qsort(sorted, total, sizeof(*sorted), compare_numbers);
	*out = (struct sharing_oracle){ .total_pages = total };
	for (uint64_t i = 0; i < total; i++) {
		if (!sorted[i])
			out->zero_pages++;
		else if (!i || sorted[i] != sorted[i - 1])
			out->distinct_pages++;
	}
	out->saved_pages = total - out->distinct_pages;
	free(sorted);
	return 0;
}

static unsigned count_like(const struct sharing_contents *c, uint64_t page, uint64_t number)
{
	unsigned count = 0;

	for (unsigned vm = 0; vm < c->vms; vm++)
		count += sharing_page(c, vm, page) == number;
	return count;
}

void sharing_contents_template(const struct sharing_contents *c, uint64_t *numbers,
			       uint64_t *saved_pages)
{
	uint64_t like = 0;

	for (uint64_t page = 0; page < c->vm_pages; page++) {
		unsigned most = count_like(c, page, 0);

		numbers[page] = 0;
		for (unsigned vm = 0; vm < c->vms; vm++) {
			const uint64_t number = sharing_page(c, vm, page);
			const unsigned count = count_like(c, page, number);

			if (count > 1 && count > most) {
				numbers[page] = number;
				most = count;
			}
		}
		like += most;
	}
	*saved_pages = like > c->vm_pages ? like - c->vm_pages : 0;
}
