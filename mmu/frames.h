/* SPDX-License-Identifier: MIT */
/*
 * frames.h - host frames: a pool of 4 KiB frames (a memfd or anonymous memory), handed out singly
 * or in aligned blocks of 2 MiB and 1 GiB, each counted.
 *
 * An HPA is an offset into the pool. The whole pool is mapped once, so a frame's host pointer is an
 * addition. The pool is sparse: a frame costs memory once touched; a freed one is given back to the
 * host when its 2 MiB block is free as a whole, or at once if it was put with gn_frames_put_runs(),
 * or it is zeroed at its next allocation (frames are always handed out zeroed). Frame numbers are
 * handed out deterministically: the lowest fitting one, for tables of the VMM's own the highest.
 *
 * A block of level 2 or 3 is 512 or 512*512 frames with one reference each; freeing frames of a
 * block one by one is legal (that is how a huge page is split).
 *
 * Behind the pool's own frames there may be a window (window.c): frames of others, which can be read, referenced and put like
 * any, but neither allocated nor written.
 *
 * Threads: any; takes GN_RANK_FRAMES. gn_frames_at() takes nothing.
 */
#ifndef GN_MMU_FRAMES_H
#define GN_MMU_FRAMES_H

#include <gnomon/engine.h>

struct gn_frames {
	uint8_t *base;	      /* (c) host address of HPA 0 */
	uint64_t frame_count; /* (c) with the window's */
	uint64_t own_count;   /* (c) the first ones, which are the pool's */
	struct gn_frames_impl *impl;
};

/* gn_frames_new(), gn_frames_destroy() and what else is public: <gnomon/engine.h>. */
/* gn_frames_new() with room for @window_bytes (rounded up to 2 MiB) of frames of others. */
int gn_frames_new_windowed(uint64_t bytes, enum gn_pool_kind kind, bool huge, uint64_t window_bytes,
			   struct gn_frames **out);
int gn_frames_fd(
	const struct gn_frames *frames); /* for a backend that maps it elsewhere; -1: anonymous */

/* Where a frame of the window lies, for a backend that maps it elsewhere. */
struct gn_window_place {
	int fd; /* the window's: the caller has a reference to the frame, or knows that somebody keeps one meanwhile */
	uint64_t offset; /* bytes */
	uint32_t
		serial; /* of the memory: no two in GN_WINDOW_SERIALS that were ever attached have the same, and none has 0 */
};
#define GN_WINDOW_SERIALS ((uint32_t)1 << 20)
/* -EINVAL: no such frame is attached. */
int gn_window_find(const struct gn_frames *frames, pfn_t frame, struct gn_window_place *out);

/* One frame (level 1) or an aligned block, zeroed, each frame with one reference.
 * -ENOMEM: the pool's limit is reached, or no aligned block of that size is free. */
int gn_frames_alloc(struct gn_frames *frames, unsigned level, pfn_t *out);
/* The same, but @home (aligned to the level) if it is free. If not: the highest free frame; for a
 * block -ENOMEM, since its pages may still be at home. */
int gn_frames_alloc_home(struct gn_frames *frames, unsigned level, pfn_t home, pfn_t *out);
/* One frame for a table of the VMM's own: the highest free one. -ENOMEM. */
int gn_frames_alloc_table(struct gn_frames *frames, pfn_t *out);
/* One frame of guest memory that is no gfn's home: the highest free one. -ENOMEM. */
int gn_frames_alloc_away(struct gn_frames *frames, pfn_t *out);
/* One frame, zeroed, for a page whose zeros were taken, out of the reserve if need be; @home as below. -ENOMEM. */
int gn_frames_alloc_lent(struct gn_frames *frames, const pfn_t *home, pfn_t *out);
/* One frame for the copy of a shared one, out of the reserve if need be; not zeroed: the caller fills all of it. @home (may be
 * NULL) if it is free, as gn_frames_alloc_home(). -ENOMEM. */
int gn_frames_alloc_copy(struct gn_frames *frames, const pfn_t *home, pfn_t *out);
/* The @count frames from @first on will be written as a whole, soon: gn_host_memory_populate(). */
void gn_frames_populate(struct gn_frames *frames, pfn_t first, uint64_t count);
void gn_frames_get(struct gn_frames *frames, pfn_t frame); /* one more reference */
bool gn_frames_put(struct gn_frames *frames,
		   pfn_t frame); /* one less; true: it was the last, now free */
/* Neighbouring frames on their way out. */
struct gn_frame_run {
	pfn_t first;
	uint64_t count : 63;
	uint64_t to_host : 1; /* what becomes free goes back to the host at once */
};
/* One less for each frame of each run. Returns the bytes the host got back. Takes GN_RANK_GIVE. */
uint64_t gn_frames_put_runs(struct gn_frames *frames, const struct gn_frame_run *runs,
			    size_t count);

/* A pool whose first @template_bytes are private memory over the file @template_fd (GN_POOL_TEMPLATE). Their frames are taken, one
 * reference each: they are the creator's, who says when they can be put, for good. Errors of gn_host_memory_map_template(). */
int gn_frames_new_over(uint64_t bytes, int template_fd, uint64_t template_bytes,
		       struct gn_frames **out);
/* What the template holds in @frame, which is one of those. */
const void *gn_frames_template_of(const struct gn_frames *frames, pfn_t frame);
/* Which of [first, first + count), all of those, were written and are copies: gn_host_memory_find_copies(). */
int gn_frames_find_copies(const struct gn_frames *frames, pfn_t first, uint64_t count,
			  uint64_t *bitmap);
/* Frames of those show the template's page again. Who asks sees to it that nobody writes them. Returns how many did: what the host
 * would not drop is as it was. */
uint64_t gn_frames_drop_copies(struct gn_frames *frames, const struct gn_frame_run *runs,
			       size_t count);

/* A reference of the caller's becomes the frame's anchor, the pool's own; is it anchored already, the reference is put. While a frame is
 * anchored, whoever leaves it is not the last. Not needed by who holds references of his own and looks after them. */
void gn_frames_anchor(struct gn_frames *frames, pfn_t frame);
/* Anchors that are left: their frames, the pool's own and the window's, and the references that those of the window have besides. */
struct gn_anchors {
	uint64_t own, lent, lent_uses;
};
/* Frames that have nothing but their anchor are put, their memory to the host. Who has lent frames of the window in another thread at
 * the same time has references to them. Takes GN_RANK_GIVE. */
void gn_frames_lift_anchors(struct gn_frames *frames, struct gn_anchors *left);
/* There are no anchors any more. */
void gn_frames_drop_anchors(struct gn_frames *frames);
/* The caller has the only reference beside the anchor: then the frame is his alone, and anchored no more. */
bool gn_frames_give_anchor(struct gn_frames *frames, pfn_t frame);
uint32_t gn_frames_refs(const struct gn_frames *frames, pfn_t frame);
/* It will be asked soon; any number will do. */
void gn_frames_prefetch_refs(const struct gn_frames *frames, pfn_t frame);
uint64_t gn_frames_used(const struct gn_frames *frames); /* frames with a reference */

static inline void *gn_frames_at(const struct gn_frames *frames, hpa_t at)
{
	return frames->base + at.v;
}
static inline bool gn_frames_valid(const struct gn_frames *frames, pfn_t frame)
{
	return frame.v < frames->frame_count;
}
static inline bool gn_frames_is_own(const struct gn_frames *frames, pfn_t frame)
{
	return frame.v < frames->own_count;
}

#endif
