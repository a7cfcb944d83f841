/* SPDX-License-Identifier: MIT */
/*
 * pool.h - the frames that the VMs of one domain share, in segments.
 *
 * A segment is a memfd. We write frames through a mapping of our own, made before the file is sealed against any other
 * (F_SEAL_FUTURE_WRITE) and against changes of its size; VMs have a descriptor that can only be read through, and no
 * way to a better one. The kernel refuses to punch holes into a file with that seal, so memory goes back to the host
 * by the segment: when no frame of it has a reference it is *retired*, ours is unmapped, VMs are told to let theirs
 * go, and its number is used again when all have. New frames are taken from the lowest segment that has room, so that
 * the higher ones empty.
 *
 * A frame has references: the index's, one of each VM that may use it, one of each order under way. It is used again
 * only when all are gone. Whose they are is kept by the broker (broker.h).
 *
 * A frame's number is its segment's number times GN_SEGMENT_FRAMES, plus its place there. One thread.
 */
#ifndef GN_SHARING_POOL_H
#define GN_SHARING_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GN_SEGMENT_FRAMES 8192u
#define GN_SEGMENT_BYTES  ((uint64_t)GN_SEGMENT_FRAMES * 4096)

struct gn_share_pool;

/* Up to @max_bytes, rounded up to a segment. -ENOMEM. */
int gn_share_pool_create(uint64_t max_bytes, struct gn_share_pool **out);
/* VMs that have segments mapped keep them. */
void gn_share_pool_destroy(struct gn_share_pool *pool);
/* Segments that there can be: numbers are below. */
unsigned gn_share_pool_segments(const struct gn_share_pool *pool);

/* A frame with one reference; what it holds is what was there. -ENOSPC: all segments are full, or not let go by all VMs;
 * -errno of making a segment. */
int gn_share_pool_alloc(struct gn_share_pool *pool, uint64_t *frame);
/* Its page, for its maker to write before anybody else has a reference. */
uint8_t *gn_share_pool_at(const struct gn_share_pool *pool, uint64_t frame);
void gn_share_pool_get(struct gn_share_pool *pool, uint64_t frame);
void gn_share_pool_put(struct gn_share_pool *pool, uint64_t frame);
/* 0 also for a number that is no frame's. */
uint32_t gn_share_pool_refs(const struct gn_share_pool *pool, uint64_t frame);

/* A VM is given @segment: the descriptor, borrowed. -ENOENT: there is no such segment now. */
int gn_share_pool_view(struct gn_share_pool *pool, unsigned segment);
/* It has let it go, or its process is dead. */
void gn_share_pool_unview(struct gn_share_pool *pool, unsigned segment);
/* The next segment without frames is retired. False: there is none. */
bool gn_share_pool_retire(struct gn_share_pool *pool, unsigned *segment);

struct gn_share_pool_stats {
	uint64_t used_pages; /* with a reference */
	uint64_t
		resident_pages; /* memory of segments, also of frames without references, and of retired ones */
	unsigned live_segments, retired_segments; /* retired: not let go by all VMs */
	uint64_t retirements;
};
void gn_share_pool_get_stats(const struct gn_share_pool *pool, struct gn_share_pool_stats *out);

#ifdef __cplusplus
}
#endif

#endif
