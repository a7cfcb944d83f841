/* SPDX-License-Identifier: MIT */
/*
 * resident.h - how much of a mapping the host really backs. A memfd's pages count when they are in the file, whoever
 * mapped them.
 */
#ifndef GN_TESTS_RESIDENT_H
#define GN_TESTS_RESIDENT_H

#include <criterion/criterion.h>

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <gnomon/types.h>

static inline uint64_t resident_pages(void *base, uint64_t bytes)
{
	uint64_t pages = bytes / GN_PAGE_SIZE, count = 0;
	unsigned char *map = (unsigned char *)malloc(pages);

	cr_assert_not_null(map);
	cr_assert_eq(mincore(base, bytes, map), 0);
	for (uint64_t i = 0; i < pages; i++)
		count += map[i] & 1;
	free(map);
	return count;
}

#endif
