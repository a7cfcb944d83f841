/* SPDX-License-Identifier: MIT */
/*
 * zipf.h - ranks by Zipf's law with exponent 0.99 (YCSB's constant), in integers only.
 */
#ifndef GN_WORKLOADS_ZIPF_H
#define GN_WORKLOADS_ZIPF_H

#include <stdint.h>

#include "rng.h"

struct zipf {
	uint64_t count;
	uint64_t top; /* count^0.01, in 32.32 fixed point */
};

void zipf_init(struct zipf *z, uint64_t count);		   /* 1 .. 2^31 */
uint64_t zipf_rank(const struct zipf *z, struct rng *rng); /* in [0, count), 0 the most frequent */

#endif
