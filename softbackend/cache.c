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
#include "mmu/check.h"

/* The tags of an L3 are megabytes used at random: on huge pages of the host where it gives them. */
#define HOST_LINE      ((size_t)64)
#define HOST_HUGE_PAGE ((size_t)2 << 20)

static size_t unit_of(const struct gn_cache *c)
{
	return (size_t)c->sets * c->stride < HOST_HUGE_PAGE / 2 ? HOST_LINE : HOST_HUGE_PAGE;
}

static size_t memory_bytes(const struct gn_cache *c)
{
	size_t unit = unit_of(c);

	return ((size_t)c->sets * c->stride + unit - 1) / unit * unit;
}

int gn_cache_init(struct gn_cache *c, uint32_t kib, uint32_t ways)
{
	memset(c, 0, sizeof(*c));
	if (!kib)
		return 0;
	c->sets = kib * (1024 >> GN_LINE_SHIFT) / ways;
	c->ways = (uint8_t)ways;
	c->units = ways <= 8 ? 2 : (uint8_t)((ways + 3) / 4);
	c->stride = c->units == 2 ? 32 : 64;
	c->full = ((uint32_t)1 << ways) - 1;
	if (gn_alloc_should_fail())
		return -ENOMEM;
	c->memory = aligned_alloc(unit_of(c), memory_bytes(c));
	if (!c->memory)
		return -ENOMEM;
	if (unit_of(c) == HOST_HUGE_PAGE)
		(void)madvise(c->memory, memory_bytes(c), MADV_HUGEPAGE);
	gn_cache_clear(c);
	return 0;
}

void gn_cache_fini(struct gn_cache *c)
{
	free(c->memory);
	memset(c, 0, sizeof(*c));
}

void gn_cache_clear(struct gn_cache *c)
{
	if (c->sets)
		memset(c->memory, 0, memory_bytes(c));
}

void gn_cache_start_over(const struct gn_cache *c, uint32_t *tags, unsigned way)
{
	for (unsigned other = 0; other < c->ways; other++)
		if (other != way || c->ways == 1)
			tags[other] &= ~GN_CACHE_LATELY;
}

enum gn_cache_level gn_caches_use_other(struct gn_caches *c, uint32_t line)
{
	c->last_line = line;
	if (GN_LIKELY(c->l1.sets != 0)) {
		if (gn_cache_use(&c->l1, line, false))
			return GN_CACHE_L1;
	} else {
		c->last_line = GN_CACHE_NO_LINE;
	}
	if (c->l2.sets && gn_cache_use(&c->l2, line, false))
		return GN_CACHE_L2;
	if (c->l3->sets && gn_cache_use(c->l3, line, true))
		return GN_CACHE_L3;
	return GN_CACHE_MEMORY;
}
