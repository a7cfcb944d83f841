/* SPDX-License-Identifier: MIT */
/*
 * agent_window.h - which segment of the daemon's pool lies where in the VM's window.
 *
 * A segment has the daemon's number, which is used again for another one, and by the next daemon. Segments of a former
 * daemon stay where they are until no page has a frame of theirs, and are nobody's meanwhile.
 *
 * The agent's thread only.
 */
#ifndef GN_SHARING_AGENT_WINDOW_H
#define GN_SHARING_AGENT_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include <gnomon/engine.h>

#include "pool.h"

struct gn_share_place {
	bool is_used, is_orphan;
	unsigned segment;
	/* A bit a frame: the daemon was told that we use it, and not that we do not. */
	uint64_t held[GN_SEGMENT_FRAMES / 64];
};

struct gn_share_window {
	struct gn_frames *frames; /* (c) */
	struct gn_share_place *places;
	unsigned count;
};

/* -ENOMEM; -EINVAL: @frames has no room for a segment. */
int gn_share_window_init(struct gn_share_window *window, struct gn_frames *frames);
void gn_share_window_fini(struct gn_share_window *window);

bool gn_share_window_has(const struct gn_share_window *window, unsigned segment);
/* @fd is not needed afterwards. -EEXIST; -errno of gn_frames_attach(). */
int gn_share_window_attach(struct gn_share_window *window, unsigned segment, int fd);
/* -ENOENT, -EBUSY: a page has a frame of it. */
int gn_share_window_detach(struct gn_share_window *window, unsigned segment);
/* The daemon's @frame, whose segment is attached, as a frame of the VM's. */
pfn_t gn_share_window_pfn(const struct gn_share_window *window, uint64_t frame);
/* The daemon knows from now on that we use @at. */
void gn_share_window_hold(struct gn_share_window *window, pfn_t at);
/* We do not use @at any more. True: the daemon is to be told, of *frame. */
bool gn_share_window_let_go(struct gn_share_window *window, pfn_t at, uint64_t *frame);
/* The daemon is gone. */
void gn_share_window_orphan(struct gn_share_window *window);

#endif
