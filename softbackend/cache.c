/* SPDX-License-Identifier: MIT */
/*
 * cache.c - the data caches beyond the L1, and their memory.
 */
#include "cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/arena.h"

#define HOST_LINE 64

static size_t tag_bytes(const struct gn_cache *c)
{
	size_t bytes = ((size_t)c->sets << c->lane_shift) * sizeof(uint32_t);

	return (bytes + HOST_LINE - 1) / HOST_LINE * HOST_LINE;
}

int gn_cache_init(struct gn_cache *c, uint32_t kib, uint32_t ways, bool is_hashed)
{
	memset(c, 0, sizeof(*c));
	if (!kib)
		return 0;
	c->sets = kib * (1024 >> GN_LINE_SHIFT) / ways;
	c->ways = (uint8_t)ways;
	c->lane_shift = ways <= 8 ? 3 : 4;
	c->is_hashed = is_hashed;
	if (gn_alloc_should_fail())
		return -ENOMEM;
	c->tags = aligned_alloc(HOST_LINE, tag_bytes(c));
	if (!c->tags)
		return -ENOMEM;
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
