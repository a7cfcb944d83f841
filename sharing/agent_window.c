/* SPDX-License-Identifier: MIT */
/*
 * agent_window.c - all memories in the window are segments of one size, so a place is a frame's number divided.
 */
#include "agent_window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/frames.h"

int gn_share_window_init(struct gn_share_window *w, struct gn_frames *frames)
{
	w->frames = frames;
	w->count = (unsigned)((frames->frame_count - frames->own_count) / GN_SEGMENT_FRAMES);
	if (!w->count)
		return -EINVAL;
	w->places = calloc(w->count, sizeof(*w->places));
	return w->places ? 0 : -ENOMEM;
}

void gn_share_window_fini(struct gn_share_window *w)
{
	free(w->places);
}

static struct gn_share_place *find(const struct gn_share_window *w, unsigned segment)
{
	for (unsigned i = 0; i < w->count; i++)
		if (w->places[i].is_used && !w->places[i].is_orphan &&
		    w->places[i].segment == segment)
			return &w->places[i];
	return NULL;
}

static pfn_t first_of(const struct gn_share_window *w, const struct gn_share_place *place)
{
	return pfn(w->frames->own_count + (uint64_t)(place - w->places) * GN_SEGMENT_FRAMES);
}

static struct gn_share_place *place_of(const struct gn_share_window *w, pfn_t at)
{
	return &w->places[(at.v - w->frames->own_count) / GN_SEGMENT_FRAMES];
}

bool gn_share_window_has(const struct gn_share_window *w, unsigned segment)
{
	return find(w, segment) != NULL;
}

/* Places of former daemons that no page needs are free again. */
static void drop_orphans(struct gn_share_window *w)
{
	for (unsigned i = 0; i < w->count; i++)
		if (w->places[i].is_orphan &&
		    !gn_frames_detach(w->frames, first_of(w, &w->places[i])))
			memset(&w->places[i], 0, sizeof(w->places[i]));
}

int gn_share_window_attach(struct gn_share_window *w, unsigned segment, int fd)
{
	struct gn_share_place *place;
	pfn_t first;
	int err;

	if (find(w, segment))
		return -EEXIST;
	drop_orphans(w);
	err = gn_frames_attach(w->frames, fd, GN_SEGMENT_BYTES, &first);
	if (err)
		return err;
	place = place_of(w, first);
	*place = (struct gn_share_place){ .is_used = true, .segment = segment };
	return 0;
}

int gn_share_window_detach(struct gn_share_window *w, unsigned segment)
{
	struct gn_share_place *place = find(w, segment);
	int err = place ? gn_frames_detach(w->frames, first_of(w, place)) : -ENOENT;

	if (!err)
		memset(place, 0, sizeof(*place));
	return err;
}

pfn_t gn_share_window_pfn(const struct gn_share_window *w, uint64_t frame)
{
	const struct gn_share_place *place = find(w, (unsigned)(frame / GN_SEGMENT_FRAMES));

	return pfn(first_of(w, place).v + frame % GN_SEGMENT_FRAMES);
}

void gn_share_window_hold(struct gn_share_window *w, pfn_t at)
{
	const uint64_t n = (at.v - w->frames->own_count) % GN_SEGMENT_FRAMES;

	place_of(w, at)->held[n / 64] |= (uint64_t)1 << (n % 64);
}

bool gn_share_window_let_go(struct gn_share_window *w, pfn_t at, uint64_t *frame)
{
	const uint64_t n = (at.v - w->frames->own_count) % GN_SEGMENT_FRAMES;
	const uint64_t bit = (uint64_t)1 << (n % 64);
	struct gn_share_place *place = place_of(w, at);

	if (!(place->held[n / 64] & bit))
		return false;
	place->held[n / 64] &= ~bit;
	*frame = (uint64_t)place->segment * GN_SEGMENT_FRAMES + n;
	return !place->is_orphan;
}

void gn_share_window_orphan(struct gn_share_window *w)
{
	for (unsigned i = 0; i < w->count; i++)
		w->places[i].is_orphan = w->places[i].is_used;
}
