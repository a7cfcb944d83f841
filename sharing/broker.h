/* SPDX-License-Identifier: MIT */
/*
 * broker.h - one domain of several VM processes, on the daemon's side: who has which page, and who is to merge what.
 *
 *     offer   a VM says that a page has a tag. Nobody else has it: the page is a candidate. A frame has it: the VM is
 *             ordered to merge. Another candidate has it: the VM is ordered to show its page.
 *     show    the VM copies the page into a slot; we copy that once, and hash the copy. Has it the tag, it becomes a frame, which
 *             is in the index from now on, and all candidates are ordered to merge. If not, the page has changed, or the VM
 *             lies, and nobody else ever sees it; the next candidate is asked. So it is if a VM does not answer for ten ticks of
 *             gn_broker_tidy().
 *     merge   the VM compares under protection and takes the frame, or refuses.
 *     split   so many pages of a large block have their like elsewhere that the VM is ordered to split it (broker_blocks.c).
 *     return  the VM's last use of a frame is gone.
 *
 * Two rules keep contents right. A frame is written once, before anybody has its number. And it is not written again
 * while anybody may use it: a VM is charged with a reference from the moment an order names the frame until it has
 * refused, or, having merged, returned it, or is dead. The books are ours (a bit a VM and frame); what a VM says can only
 * take away its own charge.
 *
 * What a VM says is wrong at worst about its own pages. What it can fill is bounded by the pages it has: entries of the index, and
 * frames it is charged with. One whose exchange makes no sense, or whose connection has ended, is lost (gn_broker_lose()): it takes no
 * part any more, and stays charged until its process is dead.
 *
 * One thread. Nothing here sleeps.
 */
#ifndef GN_SHARING_BROKER_H
#define GN_SHARING_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exchange.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gn_broker;
struct gn_broker_vm;

struct gn_broker_config {
	uint64_t pool_bytes;  /* of frames, at most */
	uint64_t index_pages; /* pages the index has room for, 21 bytes each */
	bool is_dry;	      /* count what could be shared, order nothing */
	unsigned tag_bits;    /* 0: all; fewer in tests, so that different pages meet */
	/* Steps, for fault injection: "ordering", "ordered", "offered", "shown", "published", "merged", "returned",
	 * "retired". May be NULL. */
	void (*step)(const char *name);
};

/* -ENOMEM, -errno. */
int gn_broker_create(const struct gn_broker_config *config, struct gn_broker **out);
/* With all its VMs. */
void gn_broker_destroy(struct gn_broker *broker);

/* A VM of @pages pages. -ENOSPC: there are too many, or more pages than the index is made for; -ENOMEM, -errno. */
int gn_broker_add(struct gn_broker *broker, uint64_t pages, struct gn_broker_vm **out);
/* It is not heard any more, and may go on using what it was charged with. */
void gn_broker_lose(struct gn_broker_vm *vm);
/* Nobody can use what it was charged with any more: its process is dead, or it says so. */
void gn_broker_remove(struct gn_broker_vm *vm);
/* What the VM is given: borrowed. */
int gn_broker_vm_exchange_fd(const struct gn_broker_vm *vm);
/* A segment of the pool for the VM: a borrowed descriptor to read through. -ENOENT: no such segment now. */
int gn_broker_view(struct gn_broker_vm *vm, unsigned segment);

/* Take about @max records of what the VM has put. How many; -EPROTO: its exchange is broken. */
int gn_broker_serve(struct gn_broker_vm *vm, unsigned max);
/* Put what it is to be ordered, as far as there is room. Whether it has new orders since this was last asked: kick it. */
bool gn_broker_vm_take_kick(struct gn_broker_vm *vm);
/* Once a second: let go of frames and segments that nobody uses, and of those who do not answer. */
void gn_broker_tidy(struct gn_broker *broker);

struct gn_broker_stats {
	uint64_t vms;
	uint64_t pages_shared; /* frames in the index */
	uint64_t offers, candidates, index_full;
	uint64_t shows, shows_differing, shows_failed, shows_late;
	uint64_t merges_ordered, merged, refused_differing, refused_busy, refused_state;
	uint64_t returns, bad_records;
	uint64_t splits_ordered;
	uint64_t could_merge; /* dry: offers that had met an equal tag */
	uint64_t pool_full, pool_used_pages, pool_resident_pages, index_entries;
	uint64_t live_segments, retired_segments, retirements;
};
void gn_broker_get_stats(const struct gn_broker *broker, struct gn_broker_stats *out);
struct gn_broker_vm_stats {
	uint64_t charged_pages; /* frames that it may use */
	uint64_t offers, merged, refused, returns, bad_records;
};
void gn_broker_vm_get_stats(const struct gn_broker_vm *vm, struct gn_broker_vm_stats *out);

/* Prove the books right, slowly: a frame's references are those of the index, the VMs and the orders. 0; -EBADMSG with
 * the first difference in @why. */
int gn_broker_audit(const struct gn_broker *broker, char *why, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
