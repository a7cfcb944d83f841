/* SPDX-License-Identifier: MIT */
/*
 * window.c - frames of other processes' memory behind the pool's own.
 *
 * A VM that shares pages with VMs of other processes maps their common memory read-only. To everybody else such a frame is one
 * like any: a number above those of the pool's own frames, an addition away from the base, with a count of references. It differs
 * in three things. It can't be allocated: whoever owns the memory lends it. Nobody may write it: a gfn that has it is SHARED and
 * gets a copy, also when it is the last. And it is not free when its last reference is put, but returned, which its owner has to be
 * told.
 *
 * The count tells where a frame is, and so it goes from none to one and from one to none under the lock, with what is known of
 * the frame besides. All other steps are free of it.
 *
 * Up to GN_WINDOW_PARTS memories are in the window at a time: an owner may have several, and one that died has a successor while
 * guests still use what they have of the former.
 *
 * Deliberately absent: trust. That the contents stand still is the owner's promise (mmu/p2m_merge.c compares; it can't know what
 * comes later), that the file does not shrink is its seal's.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "arena.h"
#include "check.h"
#include "frames_impl.h"

static struct gn_window_part *part_of(const struct gn_frames *frames, uint64_t index)
{
	struct gn_window_part *parts = frames->impl->parts;

	for (unsigned i = 0; i < GN_WINDOW_PARTS; i++)
		if (index - parts[i].first < parts[i].count)
			return &parts[i];
	return NULL;
}

/* ---- Memories come and go ------------------------------------------------------------------------ */

/* The lowest place for @count frames. */
static bool find_room(const struct gn_frames *frames, uint64_t count, uint64_t *first)
{
	const uint64_t window_count = frames->frame_count - frames->own_count;
	const struct gn_window_part *parts = frames->impl->parts;
	uint64_t at = 0;

	for (unsigned i = 0; i < GN_WINDOW_PARTS; i++) {
		if (!parts[i].count || at + count <= parts[i].first ||
		    parts[i].first + parts[i].count <= at)
			continue;
		at = parts[i].first + parts[i].count;
		i = (unsigned)-1; /* it may meet one that was passed */
	}
	*first = at;
	return count <= window_count && at <= window_count - count;
}

static int check_file(int fd, uint64_t bytes)
{
	return !bytes || bytes % GN_PAGE_SIZE ? -EINVAL
					      : gn_host_memory_check(fd, F_SEAL_SHRINK, bytes);
}

/* @fd stays ours if it works out. */
static int attach_locked(struct gn_frames *frames, int fd, uint64_t count, uint64_t *first)
{
	struct gn_frames_impl *impl = frames->impl;
	struct gn_window_part *part = impl->parts;
	int err;

	while (part < impl->parts + GN_WINDOW_PARTS && part->count)
		part++;
	if (part == impl->parts + GN_WINDOW_PARTS || !find_room(frames, count, first))
		return -ENOSPC;
	err = gn_host_memory_show(&impl->memory, *first * GN_PAGE_SIZE, count * GN_PAGE_SIZE, fd);
	if (err)
		return err;
	impl->part_serial = impl->part_serial % (GN_WINDOW_SERIALS - 1) + 1;
	*part = (struct gn_window_part){
		.first = *first, .count = count, .fd = fd, .serial = impl->part_serial
	};
	return 0;
}

int gn_frames_attach(struct gn_frames *frames, int fd, uint64_t bytes, pfn_t *first)
{
	int err = check_file(fd, bytes);
	uint64_t at;
	int own;

	if (err)
		return err;
	if (gn_alloc_should_fail())
		return -ENOMEM;
	own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (own < 0)
		return -errno;
	gn_lock(&frames->impl->lock);
	err = attach_locked(frames, own, bytes / GN_PAGE_SIZE, &at);
	gn_unlock(&frames->impl->lock);
	if (err)
		close(own);
	else
		*first = pfn(frames->own_count + at);
	return err;
}

static int detach_locked(struct gn_frames *frames, uint64_t first)
{
	struct gn_frames_impl *impl = frames->impl;
	struct gn_window_part *part = part_of(frames, first);
	int err;

	if (!part || part->first != first)
		return -EINVAL;
	if (part->lent)
		return -EBUSY;
	err = gn_host_memory_show(&impl->memory, first * GN_PAGE_SIZE, part->count * GN_PAGE_SIZE,
				  -1);
	if (err)
		return err;
	for (uint64_t i = first; i < first + part->count; i++)
		gn_bit_clear(impl->returned, i);
	close(part->fd);
	*part = (struct gn_window_part){ 0 };
	return 0;
}

int gn_frames_detach(struct gn_frames *frames, pfn_t first)
{
	int err;

	gn_lock(&frames->impl->lock);
	err = detach_locked(frames, first.v - frames->own_count);
	gn_unlock(&frames->impl->lock);
	return err;
}

void gn_window_fini(struct gn_frames_impl *impl)
{
	for (unsigned i = 0; i < GN_WINDOW_PARTS; i++)
		if (impl->parts[i].count)
			close(impl->parts[i].fd);
}

int gn_window_find(const struct gn_frames *frames, pfn_t frame, struct gn_window_place *out)
{
	const struct gn_window_part *part;
	uint64_t index = frame.v - frames->own_count;

	if (gn_frames_is_own(frames, frame) || !gn_frames_valid(frames, frame))
		return -EINVAL;
	gn_lock(&frames->impl->lock);
	part = part_of(frames, index);
	if (part)
		*out = (struct gn_window_place){ .fd = part->fd,
						 .offset = (index - part->first) * GN_PAGE_SIZE,
						 .serial = part->serial };
	gn_unlock(&frames->impl->lock);
	return part ? 0 : -EINVAL;
}

/* ---- Frames come and go -------------------------------------------------------------------------- */

static int lend_locked(struct gn_frames *frames, uint64_t index)
{
	struct gn_frames_impl *impl = frames->impl;
	struct gn_window_part *part = part_of(frames, index);
	bool was_returned;

	if (!part)
		return -EINVAL;
	if (atomic_fetch_add_explicit(&impl->refs[frames->own_count + index], 1,
				      memory_order_acquire))
		return 1;
	part->lent++;
	was_returned = gn_bit_get(impl->returned, index);
	gn_bit_clear(impl->returned, index);
	return was_returned;
}

int gn_frames_lend(struct gn_frames *frames, pfn_t frame)
{
	int answer;

	if (gn_frames_is_own(frames, frame) || !gn_frames_valid(frames, frame))
		return -EINVAL;
	gn_lock(&frames->impl->lock);
	answer = lend_locked(frames, frame.v - frames->own_count);
	gn_unlock(&frames->impl->lock);
	return answer;
}

/* The last reference was put. */
static void give_back(struct gn_frames *frames, uint64_t index)
{
	struct gn_frames_impl *impl = frames->impl;

	part_of(frames, index)->lent--;
	gn_bit_set(impl->returned, index);
	if (index / 64 < impl->returned_hint)
		impl->returned_hint = index / 64;
}

bool gn_window_put(struct gn_frames *frames, pfn_t frame)
{
	struct gn_frames_impl *impl = frames->impl;
	_Atomic(uint32_t) *refs = &impl->refs[frame.v];
	uint32_t old = atomic_load_explicit(refs, memory_order_relaxed);

	while (old > 1)
		if (atomic_compare_exchange_weak_explicit(refs, &old, old - 1, memory_order_acq_rel,
							  memory_order_relaxed))
			return false;
	gn_lock(&impl->lock);
	old = atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel);
	GN_BUG_ON(old == 0);
	if (old == 1)
		give_back(frames, frame.v - frames->own_count);
	gn_unlock(&impl->lock);
	return old == 1;
}

size_t gn_frames_take_returned(struct gn_frames *frames, pfn_t *out, size_t max)
{
	const uint64_t words = (frames->frame_count - frames->own_count) / 64;
	struct gn_frames_impl *impl = frames->impl;
	size_t count = 0;

	gn_lock(&impl->lock);
	while (impl->returned_hint < words && count < max) {
		uint64_t *word = &impl->returned[impl->returned_hint];

		if (!*word) {
			impl->returned_hint++;
			continue;
		}
		out[count++] = pfn(frames->own_count + impl->returned_hint * 64 +
				   (unsigned)__builtin_ctzll(*word));
		*word &= *word - 1;
	}
	gn_unlock(&impl->lock);
	return count;
}
