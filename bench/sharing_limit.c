/* SPDX-License-Identifier: MIT */
/*
 * sharing_limit.c - the least that sharing by contents can cost: every page is read once (its hash, unless it is
 * zero), looked up, a duplicate is compared with the first of its kind and given to the host.
 *
 * No guest runs and nothing is protected, so nothing here would be safe. Pages are given back as the engine does it,
 * many in a call.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* XXH3_generateSecret() */
#include <xxhash.h>

#include "control/clock.h"
#include "mmu/host_memory.h"
#include "sharing.h"

#define BLOCK_BYTES ((uint64_t)2 << 20)

struct entry {
	uint64_t tag; /* 0: free */
	uint64_t page;
};

struct limit {
	const struct sharing_contents *contents;
	struct gn_host_memory memory;
	uint8_t secret[XXH3_SECRET_DEFAULT_SIZE];
	struct entry *entries;
	uint64_t mask;
	struct gn_host_range ranges[GN_HOST_RANGES_MAX];
	size_t range_count;
	uint64_t saved_pages;
};

static double cpu_s(void)
{
	return (double)gn_clock_ns(CLOCK_THREAD_CPUTIME_ID) * 1e-9;
}

static uint8_t *page_at(const struct limit *l, uint64_t page)
{
	return l->memory.base + page * SHARING_PAGE_BYTES;
}

/* A page that is not zero mostly shows it at an end. */
static bool is_zero(const uint8_t *bytes)
{
	static const uint8_t zeros[SHARING_PAGE_BYTES];
	uint64_t first, last;

	memcpy(&first, bytes, sizeof(first));
	memcpy(&last, bytes + SHARING_PAGE_BYTES - sizeof(last), sizeof(last));
	return !(first | last) && !memcmp(bytes, zeros, SHARING_PAGE_BYTES);
}

static void give_back(struct limit *l)
{
	l->saved_pages += gn_host_memory_drop_all(&l->memory, l->ranges, l->range_count);
	l->range_count = 0;
}

static void drop(struct limit *l, uint64_t page)
{
	l->ranges[l->range_count++] =
		(struct gn_host_range){ page * SHARING_PAGE_BYTES, SHARING_PAGE_BYTES };
	if (l->range_count == GN_HOST_RANGES_MAX)
		give_back(l);
}

/* True: another page has the same bytes. Else this one is the first of its kind. */
static bool is_duplicate(struct limit *l, uint64_t page)
{
	const uint8_t *bytes = page_at(l, page);
	XXH128_hash_t hash =
		XXH3_128bits_withSecret(bytes, SHARING_PAGE_BYTES, l->secret, sizeof(l->secret));
	uint64_t tag = hash.high64 | 1, at = hash.low64 & l->mask;

	for (; l->entries[at].tag; at = (at + 1) & l->mask)
		if (l->entries[at].tag == tag &&
		    !memcmp(bytes, page_at(l, l->entries[at].page), SHARING_PAGE_BYTES))
			return true;
	l->entries[at] = (struct entry){ tag, page };
	return false;
}

static int share_all(struct limit *l, struct sharing_run *run)
{
	uint64_t total = l->contents->vms * l->contents->vm_pages, step = total / 64 + 1;
	double t0_s = gn_now_s(), cpu0_s = cpu_s();
	int err = 0;

	for (uint64_t page = 0; page < total && !err; page++) {
		if (is_zero(page_at(l, page)) || is_duplicate(l, page))
			drop(l, page);
		if (page % step == step - 1)
			err = sharing_add_point(run, gn_now_s() - t0_s, cpu_s() - cpu0_s,
						l->saved_pages);
	}
	give_back(l);
	run->wall_s = gn_now_s() - t0_s;
	run->cpu_s = run->first_pass_cpu_s = cpu_s() - cpu0_s;
	run->saved_pages = run->first_pass_pages = run->reached_pages = l->saved_pages;
	run->is_there = true;
	return err ? err : sharing_add_point(run, run->wall_s, run->cpu_s, run->saved_pages);
}

/* Table and memory are touched before the clock starts. */
static int prepare(struct limit *l)
{
	uint64_t total = l->contents->vms * l->contents->vm_pages, slots = 1;
	uint64_t bytes = (total * SHARING_PAGE_BYTES + BLOCK_BYTES - 1) & ~(BLOCK_BYTES - 1);
	int err;

	while (slots < 2 * total)
		slots *= 2;
	l->mask = slots - 1;
	l->entries = malloc(slots * sizeof(*l->entries));
	if (!l->entries)
		return -ENOMEM;
	memset(l->entries, 0, slots * sizeof(*l->entries));
	err = gn_host_memory_map(GN_POOL_ANONYMOUS, bytes, false, 0, &l->memory);
	if (err)
		return err;
	for (uint64_t page = 0; page < total; page++)
		sharing_page_fill(l->contents->seed, l->contents->pages[page], page_at(l, page));
	XXH3_generateSecret(l->secret, sizeof(l->secret), &l->contents->seed,
			    sizeof(l->contents->seed));
	return 0;
}

int sharing_limit_run(const struct sharing_contents *contents, struct sharing_run *run)
{
	struct limit *l = calloc(1, sizeof(*l));
	int err;

	if (!l)
		return -ENOMEM;
	l->contents = contents;
	err = prepare(l);
	if (!err)
		err = share_all(l, run);
	if (l->memory.base)
		gn_host_memory_unmap(&l->memory);
	free(l->entries);
	free(l);
	return err;
}
