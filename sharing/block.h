/* SPDX-License-Identifier: MIT */
/*
 * block.h - what both sides of a domain, in one process or in many, know of large blocks.
 */
#ifndef GN_SHARING_BLOCK_H
#define GN_SHARING_BLOCK_H

#include <gnomon/types.h>

#define GN_BLOCK_PAGES	       ((uint64_t)GN_TABLE_ENTRIES)
#define GN_SPLIT_PAGES_DEFAULT 128 /* of a block that must be sharable to split it */

#endif
