/* SPDX-License-Identifier: MIT */
/*
 * pool.c - segments and their frames.
 */
#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define WORDS	   (GN_SEGMENT_FRAMES / 64)

/* No page of a segment is there before its frame is first used, and then it stays. */
struct segment {
	uint8_t *base; /* NULL: retired */
	int fd;	       /* only to read */
	uint32_t used_count, touched_count;
	unsigned viewer_count;
	bool is_touched[WORDS];
	uint64_t taken[WORDS];
	uint32_t refs[GN_SEGMENT_FRAMES];
};

struct gn_share_pool {
	struct segment **segments;
	unsigned segment_count;
	unsigned room_hint;   /* no segment below has room */
	unsigned empty_count; /* live ones without frames */
	struct gn_share_pool_stats stats;
};

int gn_share_pool_create(uint64_t max_bytes, struct gn_share_pool **out)
{
	struct gn_share_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->segment_count = (unsigned)((max_bytes + GN_SEGMENT_BYTES - 1) / GN_SEGMENT_BYTES);
	p->segments = calloc(p->segment_count, sizeof(struct segment *));
	if (!p->segments) {
		free(p);
		return -ENOMEM;
	}
	*out = p;
	return 0;
}

static void release_memory(struct segment *s)
{
	if (s->base)
		munmap(s->base, GN_SEGMENT_BYTES);
	if (s->fd >= 0)
		close(s->fd);
	s->base = NULL;
	s->fd = -1;
}

void gn_share_pool_destroy(struct gn_share_pool *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < p->segment_count; i++)
		if (p->segments[i]) {
			release_memory(p->segments[i]);
			free(p->segments[i]);
		}
	free(p->segments);
	free(p);
}

unsigned gn_share_pool_segments(const struct gn_share_pool *p)
{
	return p->segment_count;
}

/* The file of @s, mapped to be written by us alone. */
static int make_memory(struct segment *s)
{
	int fd = memfd_create("gnomon-shared", MFD_CLOEXEC | MFD_ALLOW_SEALING), err = 0;
	char path[32];
	void *base;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)GN_SEGMENT_BYTES))
		err = -errno;
	base = err ? MAP_FAILED
		   : mmap(NULL, GN_SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED) {
		err = err ? err : -errno;
		close(fd);
		return err;
	}
	s->base = base;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
		err = -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	s->fd = err ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	if (!err && s->fd < 0)
		err = -errno;
	close(fd);
	if (err)
		release_memory(s);
	return err;
}

static int make_segment(struct gn_share_pool *p, unsigned number)
{
	struct segment *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->fd = -1;
	err = make_memory(s);
	if (err) {
		free(s);
		return err;
	}
	p->segments[number] = s;
	p->stats.live_segments++;
	p->empty_count++;
	return 0;
}

static struct segment *live_segment(const struct gn_share_pool *p, unsigned number)
{
	struct segment *s = number < p->segment_count ? p->segments[number] : NULL;

	return s && s->base ? s : NULL;
}

/* 64 pages at a time: a fault for each would cost more than all else that is done with it. Where the host has no more, the
 * write that follows finds out. */
static void touch(struct gn_share_pool *p, struct segment *s, unsigned word)
{
	if (s->is_touched[word])
		return;
	s->is_touched[word] = true;
	s->touched_count += 64;
	p->stats.resident_pages += 64;
	(void)madvise(s->base + (size_t)word * 64 * PAGE_BYTES, (size_t)64 * PAGE_BYTES,
		      MADV_POPULATE_WRITE);
}

static void take(struct gn_share_pool *p, struct segment *s, unsigned place)
{
	const uint64_t bit = (uint64_t)1 << (place % 64);

	if (!s->used_count++)
		p->empty_count--;
	p->stats.used_pages++;
	s->taken[place / 64] |= bit;
	touch(p, s, place / 64);
	s->refs[place] = 1;
}

int gn_share_pool_alloc(struct gn_share_pool *p, uint64_t *frame)
{
	unsigned number = p->room_hint, word = 0, place;
	struct segment *s = NULL;
	int err;

	while (number < p->segment_count && p->segments[number] &&
	       (!p->segments[number]->base || p->segments[number]->used_count == GN_SEGMENT_FRAMES))
		number++;
	p->room_hint = number;
	if (number == p->segment_count)
		return -ENOSPC;
	if (!p->segments[number] && (err = make_segment(p, number)))
		return err;
	s = p->segments[number];
	while (s->taken[word] == UINT64_MAX)
		word++;
	place = word * 64 + (unsigned)__builtin_ctzll(~s->taken[word]);
	take(p, s, place);
	*frame = (uint64_t)number * GN_SEGMENT_FRAMES + place;
	return 0;
}

static uint32_t *refs_of(const struct gn_share_pool *p, uint64_t frame)
{
	const uint64_t number = frame / GN_SEGMENT_FRAMES;
	struct segment *s = number < p->segment_count ? live_segment(p, (unsigned)number) : NULL;

	return s ? &s->refs[frame % GN_SEGMENT_FRAMES] : NULL;
}

uint8_t *gn_share_pool_at(const struct gn_share_pool *p, uint64_t frame)
{
	return p->segments[frame / GN_SEGMENT_FRAMES]->base +
	       frame % GN_SEGMENT_FRAMES * PAGE_BYTES;
}

void gn_share_pool_get(struct gn_share_pool *p, uint64_t frame)
{
	++*refs_of(p, frame);
}

void gn_share_pool_put(struct gn_share_pool *p, uint64_t frame)
{
	const unsigned number = (unsigned)(frame / GN_SEGMENT_FRAMES);
	const unsigned place = (unsigned)(frame % GN_SEGMENT_FRAMES);
	struct segment *s = p->segments[number];

	if (--s->refs[place])
		return;
	s->taken[place / 64] &= ~((uint64_t)1 << (place % 64));
	p->stats.used_pages--;
	if (!--s->used_count)
		p->empty_count++;
	if (number < p->room_hint)
		p->room_hint = number;
}

uint32_t gn_share_pool_refs(const struct gn_share_pool *p, uint64_t frame)
{
	const uint32_t *refs = refs_of(p, frame);

	return refs ? *refs : 0;
}

int gn_share_pool_view(struct gn_share_pool *p, unsigned number)
{
	struct segment *s = live_segment(p, number);

	if (!s)
		return -ENOENT;
	s->viewer_count++;
	return s->fd;
}

/* A retired segment that nobody has any more is gone. */
static void forget_if_unseen(struct gn_share_pool *p, unsigned number)
{
	struct segment *s = p->segments[number];

	if (s->base || s->viewer_count)
		return;
	p->stats.resident_pages -= s->touched_count;
	p->stats.retired_segments--;
	free(s);
	p->segments[number] = NULL;
	if (number < p->room_hint)
		p->room_hint = number;
}

void gn_share_pool_unview(struct gn_share_pool *p, unsigned number)
{
	p->segments[number]->viewer_count--;
	forget_if_unseen(p, number);
}

bool gn_share_pool_retire(struct gn_share_pool *p, unsigned *segment)
{
	unsigned number = p->segment_count;

	if (!p->empty_count)
		return false;
	do
		number--;
	while (!live_segment(p, number) || p->segments[number]->used_count);
	release_memory(p->segments[number]);
	p->empty_count--;
	p->stats.live_segments--;
	p->stats.retired_segments++;
	p->stats.retirements++;
	*segment = number;
	forget_if_unseen(p, number);
	return true;
}

void gn_share_pool_get_stats(const struct gn_share_pool *p, struct gn_share_pool_stats *out)
{
	*out = p->stats;
}
