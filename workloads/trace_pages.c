/* SPDX-License-Identifier: MIT */
/*
 * trace_pages.c - an open-addressing set of pages with the rights each was used with.
 *
 * A program of 1 GiB has 262,144 pages: 4 MiB of slots. Nothing is ever removed, so probing stops at the
 * first empty slot. Instruction pages and others stay apart in regions, since a program's text is mapped
 * apart from its data; a written page makes its whole region writable, since heaps are mapped as a whole.
 */
#include "trace_pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/types.h>

#define RIGHTS_BITS 3
#define RIGHTS_MASK ((uint64_t)7)
#define SLOTS_FIRST 4096

static size_t slot_of(const struct trace_pages *pages, uint64_t page)
{
	return (size_t)((page * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (pages->slot_count - 1);
}

static uint64_t *find(struct trace_pages *pages, uint64_t page)
{
	size_t i = slot_of(pages, page);

	while (pages->slots[i] && pages->slots[i] >> RIGHTS_BITS != page)
		i = (i + 1) & (pages->slot_count - 1);
	return &pages->slots[i];
}

static int grow(struct trace_pages *pages)
{
	struct trace_pages bigger = *pages;

	bigger.slot_count = pages->slot_count ? pages->slot_count * 2 : SLOTS_FIRST;
	bigger.slots = calloc(bigger.slot_count, sizeof(*bigger.slots));
	if (!bigger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < pages->slot_count; i++)
		if (pages->slots[i])
			*find(&bigger, pages->slots[i] >> RIGHTS_BITS) = pages->slots[i];
	free(pages->slots);
	*pages = bigger;
	return 0;
}

static int add_page(struct trace_pages *pages, uint64_t page, uint64_t rights, uint64_t *last)
{
	uint64_t *slot;

	if (pages->used * 2 >= pages->slot_count) {
		int err = grow(pages);

		if (err)
			return err;
	}
	slot = find(pages, page);
	pages->used += *slot == 0;
	*slot |= page << RIGHTS_BITS | rights;
	*last = *slot;
	return 0;
}

int trace_pages_add(struct trace_pages *pages, const struct trace_record *record)
{
	static const uint8_t rights_of[] = { [TRACE_LOAD] = GN_R,
					     [TRACE_STORE] = GN_R | GN_W,
					     [TRACE_MODIFY] = GN_R | GN_W,
					     [TRACE_FETCH] = GN_R | GN_X };
	uint64_t first, end, rights;
	uint64_t *last;

	if (record->kind > TRACE_FETCH)
		return 0;
	rights = rights_of[record->kind];
	last = &pages->last[record->kind == TRACE_FETCH];
	first = record->address >> GN_PAGE_SHIFT;
	end = record->kind == TRACE_FETCH
		      ? first + 1
		      : ((record->address + record->size - 1) >> GN_PAGE_SHIFT) + 1;
	for (uint64_t page = first; page < end; page++) {
		int err = 0;

		if (*last >> RIGHTS_BITS != page || (*last & rights) != rights)
			err = add_page(pages, page, rights, last);
		if (err)
			return err;
	}
	return 0;
}

void trace_pages_fini(struct trace_pages *pages)
{
	free(pages->slots);
	memset(pages, 0, sizeof(*pages));
}

static int by_page(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static bool joins(const struct trace_region *region, uint64_t page, uint8_t rights)
{
	return region->end_page == page && !((region->rights ^ rights) & GN_X);
}

int trace_pages_finish(struct trace_pages *pages, struct trace_region **regions, size_t *count,
		       uint64_t *large_pages)
{
	struct trace_region *made;
	size_t filled = 0, made_count = 0;
	uint64_t large = 0;

	for (size_t i = 0; i < pages->slot_count; i++)
		if (pages->slots[i])
			pages->slots[filled++] = pages->slots[i];
	if (filled)
		qsort(pages->slots, filled, sizeof(*pages->slots), by_page);
	made = malloc((filled + 1) * sizeof(*made));
	if (!made)
		return -ENOMEM;
	for (size_t i = 0; i < filled; i++) {
		uint64_t page = pages->slots[i] >> RIGHTS_BITS;
		uint8_t rights = pages->slots[i] & RIGHTS_MASK;

		large += i == 0 || page >> GN_INDEX_BITS !=
					   pages->slots[i - 1] >> (RIGHTS_BITS + GN_INDEX_BITS);
		if (made_count && joins(&made[made_count - 1], page, rights)) {
			made[made_count - 1].end_page++;
			made[made_count - 1].rights |= rights;
		} else {
			made[made_count++] = (struct trace_region){ page, page + 1, rights };
		}
	}
	*regions = made;
	*count = made_count;
	*large_pages = large;
	return 0;
}

static size_t merge_gaps_up_to(struct trace_region *regions, size_t count, size_t limit,
			       uint64_t gap_pages)
{
	size_t kept = 0;

	for (size_t i = 1; i < count; i++) {
		struct trace_region *into = &regions[kept];
		bool merge = kept + 1 + (count - i) > limit &&
			     regions[i].start_page - into->end_page <= gap_pages &&
			     !((into->rights ^ regions[i].rights) & GN_X);

		if (merge) {
			into->end_page = regions[i].end_page;
			into->rights |= regions[i].rights;
		} else {
			regions[++kept] = regions[i];
		}
	}
	return count ? kept + 1 : 0;
}

size_t trace_regions_coalesce(struct trace_region *regions, size_t count, size_t limit)
{
	/* Gaps of up to 2^35 pages span the whole user half of 47 bits. */
	for (unsigned shift = 0; shift <= 35 && count > limit; shift++)
		count = merge_gaps_up_to(regions, count, limit, (uint64_t)1 << shift);
	return count;
}
