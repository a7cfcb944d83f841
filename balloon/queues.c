/* SPDX-License-Identifier: MIT */
/*
 * queues.c - a notification: all buffers of the queue, one change of the p2m, one update of the
 * used ring.
 *
 * The driver is told that its buffers are used after the p2m followed, and not before: it may do
 * with the pages what it wants from then on (5.5.6).
 *
 * Bounded work. A register access is an exit of a guest, and its vCPU stands still meanwhile; the
 * lock is held. So one access, whatever the number of queues that are pending, has one budget: as
 * many pages as the guest has, and as many descriptors as a queue may have, which is the most that
 * one buffer can name. What a buffer costs is known from its descriptors; one that does not fit
 * ends the access, and the next access, of any register, goes on: the driver waits for its buffers
 * by InterruptStatus, at the latest. The pending queues take turns at being first, and the first
 * buffer of the first queue always fits: none is kept waiting by the others for ever.
 *
 * A notification before DRIVER_OK stays pending, too: Linux primes its statistics queue in that
 * order.
 */
#include "device.h"

#include <errno.h>

#include "mmu/check.h"

#define WORK_PER_DESCRIPTOR 16 /* pages looked at: a copy from guest memory costs so much */

bool gn_balloon_queue_kind(const struct gn_balloon *b, uint32_t index, unsigned *kind)
{
	static const uint64_t needs[GN_BALLOON_QUEUES] = {
		[GN_BALLOON_STATS] = GN_BALLOON_F_STATS_VQ,
		[GN_BALLOON_HINTING] = GN_BALLOON_F_FREE_PAGE_HINT,
		[GN_BALLOON_REPORTING] = GN_BALLOON_F_PAGE_REPORTING,
	};

	/* Before FEATURES_OK nobody knows which queues there are. */
	if (!(b->status & GN_VIRTIO_STATUS_FEATURES_OK))
		return false;
	for (*kind = 0; *kind < GN_BALLOON_QUEUES; ++*kind)
		if ((!needs[*kind] || gn_balloon_has(b, needs[*kind])) && !index--)
			return true;
	return false;
}

void gn_balloon_queue_failed(struct gn_balloon *b, int err)
{
	switch (err) {
	case -ERANGE:
		gn_balloon_fault(b, GN_BALLOON_FAULT_INDEX);
		gn_balloon_break(b, "an available index ran ahead by more than its queue's size");
		break;
	case -EPROTO:
		gn_balloon_fault(b, GN_BALLOON_FAULT_CHAIN);
		gn_balloon_break(b, "a chain of descriptors leaves its table or does not end");
		break;
	case -EFAULT:
		gn_balloon_fault(b, GN_BALLOON_FAULT_RING);
		gn_balloon_break(b, "a virtqueue does not lie in memory any more");
		break;
	default:
		b->stats.host_failures++;
		gn_balloon_break(b, "the host has no memory for a page of a virtqueue");
	}
}

bool gn_balloon_use(struct gn_balloon *b, unsigned kind, const uint16_t *heads, unsigned count)
{
	bool wants_interrupt;
	int err = gn_vq_use(b->vm, &b->queues[kind], heads, count, &wants_interrupt);

	if (err) {
		gn_balloon_queue_failed(b, err);
		return false;
	}
	b->stats.buffers += count;
	if (wants_interrupt)
		gn_balloon_interrupt(b, GN_VIRTIO_INTERRUPT_USED);
	else
		b->stats.suppressed_interrupts++;
	return true;
}

/* The buffer in b->chain is paid for. False: it does not fit, and nothing does any more. */
static bool afford(struct gn_balloon *b, unsigned kind, unsigned descriptors, uint64_t *budget)
{
	uint64_t cost = WORK_PER_DESCRIPTOR * descriptors;

	if (kind == GN_BALLOON_INFLATE || kind == GN_BALLOON_DEFLATE)
		cost += gn_balloon_pfns_named(b, descriptors);
	else if (kind == GN_BALLOON_REPORTING)
		cost += gn_balloon_pages_named(b, descriptors);
	if (cost > *budget) {
		*budget = 0;
		return false;
	}
	*budget -= cost;
	return true;
}

/* The next buffer into b->chain. False: none, for want of budget, or *err. */
static bool next_buffer(struct gn_balloon *b, unsigned kind, uint16_t head, unsigned *descriptors,
			uint64_t *budget, int *err)
{
	*err = gn_vq_chain(b->vm, &b->queues[kind], head, b->chain, descriptors);
	return !*err && afford(b, kind, *descriptors, budget);
}

/* Statistics are kept instead. */
static void gather(struct gn_balloon *b, unsigned kind, unsigned descriptors)
{
	switch (kind) {
	case GN_BALLOON_HINTING:
		gn_balloon_take_hints(b, descriptors);
		break;
	case GN_BALLOON_REPORTING:
		gn_balloon_gather_ranges(b, descriptors);
		break;
	default:
		gn_balloon_gather_pfns(b, kind, descriptors);
	}
}

/* Each returns how many heads are done; *err: an access to the queue failed after them. */
static unsigned work_on_pages(struct gn_balloon *b, unsigned kind, unsigned available,
			      uint64_t *budget, int *err)
{
	unsigned done = 0, descriptors;

	while (done < available &&
	       next_buffer(b, kind, b->heads[done], &descriptors, budget, err)) {
		gather(b, kind, descriptors);
		done++;
	}
	gn_vq_take(&b->queues[kind], done);
	if (kind == GN_BALLOON_REPORTING && done)
		b->outbox.events |= GN_BALLOON_EVENT_REPORTED;
	if (gn_balloon_change(b, kind) && done)
		(void)gn_balloon_use(b, kind, b->heads, done);
	return done;
}

static unsigned work_on_claims(struct gn_balloon *b, unsigned available, uint64_t *budget, int *err)
{
	unsigned done = 0, descriptors;

	while (done < available &&
	       next_buffer(b, GN_BALLOON_STATS, b->heads[done], &descriptors, budget, err)) {
		gn_vq_take(&b->queues[GN_BALLOON_STATS], 1);
		if (!gn_balloon_take_claims(b, b->heads[done++], descriptors))
			break;
	}
	return done;
}

static void work_on(struct gn_balloon *b, unsigned kind, uint64_t *budget)
{
	unsigned available, done;
	int err;

	if (!b->queues[kind].is_ready) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_NOTIFY);
		return;
	}
	err = gn_vq_peek(b->vm, &b->queues[kind], b->heads, &available);
	if (err) {
		gn_balloon_queue_failed(b, err);
		return;
	}
	done = kind == GN_BALLOON_STATS ? work_on_claims(b, available, budget, &err)
					: work_on_pages(b, kind, available, budget, &err);
	if (!gn_balloon_is_live(b))
		return;
	if (err)
		gn_balloon_queue_failed(b, err);
	else if (done < available)
		b->pending |= 1u << kind;
}

/* Of the pending queues, the next in turn. */
static unsigned take_turn(struct gn_balloon *b, unsigned pending)
{
	unsigned kind = b->turn;

	while (!(pending & 1u << kind))
		kind = (kind + 1) % GN_BALLOON_QUEUES;
	b->turn = (kind + 1) % GN_BALLOON_QUEUES;
	return kind;
}

void gn_balloon_work(struct gn_balloon *b)
{
	uint64_t budget = b->pages + WORK_PER_DESCRIPTOR * b->config.queue_size_max;
	unsigned pending = b->pending, first;

	if (GN_LIKELY(!pending) || !gn_balloon_is_live(b))
		return;
	b->pending = 0;
	first = take_turn(b, pending);
	for (unsigned i = 0; i < GN_BALLOON_QUEUES && gn_balloon_is_live(b); i++) {
		unsigned kind = (first + i) % GN_BALLOON_QUEUES;

		if (!(pending & 1u << kind))
			continue;
		if (budget)
			work_on(b, kind, &budget);
		else
			b->pending |= 1u << kind;
	}
}
