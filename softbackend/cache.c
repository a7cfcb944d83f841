/* SPDX-License-Identifier: MIT */
/*
 * cache.c - the data caches beyond the L1, and their memory.
 */
#include "cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mmu/arena.h"

/* The tags of an L3 are megabytes used at random: on huge pages of the host where it gives them. */
#define HOST_LINE      64
#define HOST_HUGE_PAGE ((size_t)2 << 20)

static size_t tag_bytes(const struct gn_cache *c)
{
	size_t bytes = ((size_t)c->sets << c->lane_shift) * sizeof(uint32_t);
	size_t unit = bytes < HOST_HUGE_PAGE / 2 ? HOST_LINE : HOST_HUGE_PAGE;

	return (bytes + unit - 1) / unit * unit;
}

int gn_cache_init(struct gn_cache *c, uint32_t kib, uint32_t ways, bool is_hashed)
{
	size_t bytes;

	memset(c, 0, sizeof(*c));
	if (!kib)
		return 0;
	c->sets = kib * (1024 >> GN_LINE_SHIFT) / ways;
	c->ways = (uint8_t)ways;
	c->lane_shift = ways <= 8 ? 3 : 4;
	c->is_hashed = is_hashed;
	if (gn_alloc_should_fail())
		return -ENOMEM;
	bytes = tag_bytes(c);
	c->tags = aligned_alloc(bytes % HOST_HUGE_PAGE ? HOST_LINE : HOST_HUGE_PAGE, bytes);
	if (!c->tags)
		return -ENOMEM;
	if (bytes % HOST_HUGE_PAGE == 0)
		(void)madvise(c->tags, bytes, MADV_HUGEPAGE);
	gn_cache_clear(c);
	return 0;
}

void gn_cache_fini(struct gn_cache *c)
{
	free(c->tags);
	memset(c, 0, sizeof(*c));
}

void gn_cache_clear(struct gn_cache *c)
{
	if (c->sets)
		memset(c->tags, 0, tag_bytes(c));
}

enum gn_cache_level gn_caches_miss_l1(struct gn_caches *c, uint32_t line)
{
	if (c->l2.sets && gn_cache_use(&c->l2, line))
		return GN_CACHE_L2;
	if (c->l3->sets && gn_cache_use(c->l3, line))
		return GN_CACHE_L3;
	return GN_CACHE_MEMORY;
}
