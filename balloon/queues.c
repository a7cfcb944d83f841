/* SPDX-License-Identifier: MIT */
/*
 * queues.c - a notification: all buffers of the queue, one change of the p2m, one update of the used ring.
 *
 * The driver is told that its buffers are used after the p2m followed, and not before: it may do with the pages
 * what it wants from then on (5.5.6).
 *
 * Bounded work. A register access is an exit of a guest, and its vCPU stands still meanwhile; the lock is held.
 * So one access takes at most the heads that were available when it looked, and stops early once it has looked at
 * as many pages as the guest has and as many descriptors as the queue: all that an honest driver can say. The rest stays pending and the driver's next access, of any register, goes on: it waits
 * for its buffers by InterruptStatus, at the latest.
 *
 * A notification before DRIVER_OK stays pending, too: Linux primes its statistics queue in that order.
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

/* The buffer in b->chain. Statistics are kept instead of used. */
static uint64_t gather(struct gn_balloon *b, unsigned kind, unsigned descriptors)
{
	switch (kind) {
	case GN_BALLOON_HINTING:
		return gn_balloon_take_hints(b, descriptors);
	case GN_BALLOON_REPORTING:
		return gn_balloon_gather_ranges(b, descriptors);
	default:
		return gn_balloon_gather_pfns(b, kind, descriptors);
	}
}

/* Buffers whose pages are gathered, up to @limit of work. The number of heads done; *err: why not all. */
static unsigned gather_buffers(struct gn_balloon *b, unsigned kind, unsigned available,
			       uint64_t limit, int *err)
{
	uint64_t work = 0;
	unsigned done = 0;

	for (*err = 0; done < available && work < limit; done++) {
		unsigned descriptors;

		*err = gn_vq_chain(b->vm, &b->queues[kind], b->heads[done], b->chain, &descriptors);
		if (*err)
			break;
		work += WORK_PER_DESCRIPTOR * descriptors + gather(b, kind, descriptors);
	}
	return done;
}

static void work_on_pages(struct gn_balloon *b, unsigned kind, unsigned available)
{
	struct gn_vq *vq = &b->queues[kind];
	uint64_t limit = b->pages + WORK_PER_DESCRIPTOR * vq->size;
	unsigned done;
	int err;

	done = gather_buffers(b, kind, available, limit, &err);
	gn_vq_take(vq, done);
	if (!gn_balloon_change(b, kind) || (done && !gn_balloon_use(b, kind, b->heads, done)))
		return;
	if (err)
		gn_balloon_queue_failed(b, err);
	else if (done < available)
		b->pending |= 1u << kind;
}

static void work_on_claims(struct gn_balloon *b, unsigned available)
{
	for (unsigned i = 0; i < available; i++) {
		unsigned descriptors;
		int err = gn_vq_chain(b->vm, &b->queues[GN_BALLOON_STATS], b->heads[i], b->chain,
				      &descriptors);

		if (err) {
			gn_balloon_queue_failed(b, err);
			return;
		}
		gn_vq_take(&b->queues[GN_BALLOON_STATS], 1);
		if (!gn_balloon_take_claims(b, b->heads[i], descriptors))
			return;
	}
}

static void work_on(struct gn_balloon *b, unsigned kind)
{
	unsigned available;
	int err;

	if (!b->queues[kind].is_ready) {
		gn_balloon_fault(b, GN_BALLOON_FAULT_NOTIFY);
		return;
	}
	err = gn_vq_peek(b->vm, &b->queues[kind], b->heads, &available);
	if (err)
		gn_balloon_queue_failed(b, err);
	else if (kind == GN_BALLOON_STATS)
		work_on_claims(b, available);
	else if (available)
		work_on_pages(b, kind, available);
}

void gn_balloon_work(struct gn_balloon *b)
{
	unsigned pending = b->pending;

	if (GN_LIKELY(!pending) || !gn_balloon_is_live(b))
		return;
	b->pending = 0;
	for (unsigned kind = 0; kind < GN_BALLOON_QUEUES && gn_balloon_is_live(b); kind++)
		if (pending & 1u << kind)
			work_on(b, kind);
}
