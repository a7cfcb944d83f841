/* SPDX-License-Identifier: MIT */
/*
 * claims.c - memory statistics: what the guest says of itself.
 *
 * The queue runs backwards (5.5.6.3): the driver leaves a buffer with the device, which uses it when it wants to know,
 * and the driver answers with the next one. So one buffer stays here; a second one is more than the driver may offer.
 *
 * All of it is a claim. Claims that contradict each other, the RAM's size or the past are kept and marked, for what to
 * make of a liar is the policy's business.
 */
#include "device.h"

#include <errno.h>
#include <string.h>

#define CLAIMS_BYTES_MAX (64 * GN_BALLOON_STAT_BYTES) /* of a buffer, what is looked at */

/* The beginning of the buffer in b->chain, in one piece. */
static size_t read_buffer(struct gn_balloon *b, unsigned descriptors, uint8_t *bytes)
{
	uint64_t total = 0;
	size_t got = 0;

	for (unsigned i = 0; i < descriptors; i++) {
		const struct gn_virtq_desc *desc = &b->chain[i];
		size_t n = CLAIMS_BYTES_MAX - got;

		if (desc->flags & GN_VIRTQ_DESC_F_WRITE) {
			gn_balloon_fault(b, GN_BALLOON_FAULT_DIRECTION);
			return 0;
		}
		total += desc->len;
		if (n > desc->len)
			n = desc->len;
		if (gn_vm_read(b->vm, gpa(desc->addr), bytes + got, n)) {
			gn_balloon_fault(b, GN_BALLOON_FAULT_ADDRESS);
			return 0;
		}
		got += n;
	}
	if (total % GN_BALLOON_STAT_BYTES)
		gn_balloon_fault(b, GN_BALLOON_FAULT_LENGTH);
	return got;
}

static bool is_known(const struct gn_balloon_stats *s, enum gn_balloon_stat tag)
{
	return s->claims_known & 1u << tag;
}

static bool are_plausible(const struct gn_balloon *b, const struct gn_balloon_stats *before)
{
	static const enum gn_balloon_stat parts[] = { GN_BALLOON_STAT_MEMFREE,
						      GN_BALLOON_STAT_AVAIL,
						      GN_BALLOON_STAT_CACHES };
	static const enum gn_balloon_stat sums[] = {
		GN_BALLOON_STAT_SWAP_IN, GN_BALLOON_STAT_SWAP_OUT,     GN_BALLOON_STAT_MAJFLT,
		GN_BALLOON_STAT_MINFLT,	 GN_BALLOON_STAT_HTLB_PGALLOC, GN_BALLOON_STAT_HTLB_PGFAIL
	};
	const struct gn_balloon_stats *now = &b->stats;
	uint64_t all = b->pages << GN_PAGE_SHIFT;

	if (is_known(now, GN_BALLOON_STAT_MEMTOT)) {
		if (now->claims[GN_BALLOON_STAT_MEMTOT] > all)
			return false;
		all = now->claims[GN_BALLOON_STAT_MEMTOT];
	}
	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (is_known(now, parts[i]) && now->claims[parts[i]] > all)
			return false;
	for (unsigned i = 0; i < sizeof(sums) / sizeof(sums[0]); i++)
		if (is_known(before, sums[i]) && now->claims[sums[i]] < before->claims[sums[i]])
			return false;
	return true;
}

static void note(struct gn_balloon *b, const uint8_t *bytes, size_t count)
{
	const struct gn_balloon_stats before = b->stats;

	for (; count >= GN_BALLOON_STAT_BYTES; count -= GN_BALLOON_STAT_BYTES) {
		uint16_t tag;
		uint64_t value;

		memcpy(&tag, bytes, sizeof(tag));
		memcpy(&value, bytes + sizeof(tag), sizeof(value));
		bytes += GN_BALLOON_STAT_BYTES;
		if (tag >= GN_BALLOON_STATS_TAGS) /* a newer driver's: to be ignored */
			continue;
		b->stats.claims[tag] = value;
		b->stats.claims_known |= 1u << tag;
	}
	b->stats.claims_are_plausible = are_plausible(b, &before);
	if (!b->stats.claims_are_plausible)
		gn_balloon_fault(b, GN_BALLOON_FAULT_STATS);
	b->stats.claims_count++;
	b->stats.claims_ns = gn_balloon_now_ns(b);
	b->outbox.events |= GN_BALLOON_EVENT_STATS;
}

bool gn_balloon_take_claims(struct gn_balloon *b, uint16_t head, unsigned descriptors)
{
	uint8_t bytes[CLAIMS_BYTES_MAX];
	size_t count = read_buffer(b, descriptors, bytes);
	bool had = b->has_stats_buffer;
	uint16_t old = b->stats_head;

	if (count >= GN_BALLOON_STAT_BYTES)
		note(b, bytes, count);
	b->stats_head = head;
	b->has_stats_buffer = true;
	if (!had)
		return true;
	gn_balloon_fault(b, GN_BALLOON_FAULT_STATS);
	return gn_balloon_use(b, GN_BALLOON_STATS, &old, 1);
}

int gn_balloon_request_stats(struct gn_balloon *b)
{
	int err = 0;

	gn_balloon_lock(b);
	if (!gn_balloon_is_live(b) || !gn_balloon_has(b, GN_BALLOON_F_STATS_VQ)) {
		err = -ENODEV;
	} else if (!b->has_stats_buffer) {
		err = -EAGAIN;
	} else {
		b->has_stats_buffer = false;
		if (!gn_balloon_use(b, GN_BALLOON_STATS, &b->stats_head, 1))
			err = -ENODEV;
	}
	gn_balloon_unlock(b);
	return err;
}
