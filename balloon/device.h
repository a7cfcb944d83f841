/* SPDX-License-Identifier: MIT */
/*
 * device.h - struct gn_balloon: what the files of the device share.
 *
 *   device.c    life, the host's side, faults, what is told to the embedder
 *   mmio.c      registers, negotiation, configuration space
 *   queues.c    a notification: buffers out of a queue, their answer
 *   requests.c  pages named by the guest: checked, gathered, changed in the p2m
 *   claims.c    statistics
 *   hinting.c   rounds of free page hinting
 *   churn.c     the limit of ping-pong
 *   reform.c    blocks that were split, formed again
 *
 * Field tags: (c) const after init, [l] lock. The lock comes before every lock of the engine. What has to be told
 * is noted in `outbox` and told by gn_balloon_unlock(), after the lock is left.
 */
#ifndef GN_BALLOON_DEVICE_H
#define GN_BALLOON_DEVICE_H

#include <pthread.h>

#include <gnomon/balloon.h>

#include "page_set.h"
#include "virtqueue.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GN_BALLOON_PFNS_AT_ONCE 1024
#define GN_BALLOON_RUNS_AT_ONCE 1024 /* of one change of the p2m */

/* Ping-pong: see churn.c. */
struct gn_churn {
	uint64_t pages_per_s, burst_pages; /* (c) 0, 0: no limit */
	uint64_t allowance;		   /* [l] pages */
	uint64_t since_ns;		   /* [l] when it was last brought up to date */
};

/* Blocks of 2 MiB that were split: see reform.c. Without a member unless the VM has frames that large. */
struct gn_reform {
	struct gn_page_set split; /* [l] blocks, by number, to which pages came back */
	uint64_t *taken_ns;	  /* [l] by block: when the balloon last took of it; 0: never */
	uint64_t cursor;	  /* [l] the block to go on from */
};

struct gn_balloon_outbox {
	bool interrupt;
	unsigned events; /* enum gn_balloon_event */
};

struct gn_balloon {
	struct gn_vm *vm;		 /* (c) */
	struct gn_balloon_config config; /* (c) defaults filled in */
	uint64_t pages;			 /* (c) of guest RAM */
	uint64_t reserved_pages;	 /* (c) from 0 up */
	pthread_mutex_t lock;

	/* Registers. All [l]. */
	uint32_t status; /* with NEEDS_RESET: nothing is done in the queues */
	uint32_t interrupt_status;
	uint32_t device_features_sel, driver_features_sel;
	uint64_t driver_features;
	uint32_t queue_sel;
	uint32_t config_generation;
	struct gn_virtio_balloon_config space;

	struct gn_vq queues[GN_BALLOON_QUEUES]; /* [l] by kind, whatever their index */
	unsigned pending; /* [l] bit n: queue kind n was notified and is not done */
	unsigned turn;	  /* [l] the queue kind that comes first in the next access */

	struct gn_page_set held;    /* [l] in the balloon by this device */
	struct gn_page_set request; /* [l] of the notification in hand; empty between two */
	struct gn_churn churn;
	struct gn_reform reform;
	uint64_t charged_pages; /* [l] of stats.granted_pages, those that have used up allowance */
	uint64_t touches_granted; /* [l] the engine's count when `held` was last held against it */

	bool has_stats_buffer; /* [l] kept to ask with */
	uint16_t stats_head;   /* [l] */
	uint32_t hint_round;   /* [l] the last number given to a round */
	bool is_hinting;       /* [l] the driver announced the round in force */

	struct gn_balloon_stats stats;	 /* [l] */
	struct gn_balloon_outbox outbox; /* [l] */

	/* Scratch of a notification. [l] */
	uint16_t heads[GN_VQ_SIZE_MAX];
	struct gn_virtq_desc chain[GN_VQ_SIZE_MAX];
	uint32_t pfns[GN_BALLOON_PFNS_AT_ONCE];
	struct gn_gfn_run runs[GN_BALLOON_RUNS_AT_ONCE];
};

/* ---- device.c ---------------------------------------------------------------------------------------------- */

void gn_balloon_lock(struct gn_balloon *b);
void gn_balloon_unlock(struct gn_balloon *b); /* and tell what there is to tell */
/* The rest: the lock is held. */
static inline void gn_balloon_fault(struct gn_balloon *b, enum gn_balloon_fault fault)
{
	b->stats.faults[fault]++;
}
/* Nothing goes on before a reset. @why: static text. */
void gn_balloon_break(struct gn_balloon *b, const char *why);
/* @bit of InterruptStatus. */
void gn_balloon_interrupt(struct gn_balloon *b, uint32_t bit);
/* The configuration space changed by our hand. */
void gn_balloon_config_changed(struct gn_balloon *b);
void gn_balloon_reset(struct gn_balloon *b);
uint64_t gn_balloon_now_ns(const struct gn_balloon *b);

static inline bool gn_balloon_has(const struct gn_balloon *b, uint64_t feature)
{
	return (b->status & GN_VIRTIO_STATUS_FEATURES_OK) && (b->driver_features & feature);
}
/* The driver drives, and nothing is broken. */
static inline bool gn_balloon_is_live(const struct gn_balloon *b)
{
	return (b->status & (GN_VIRTIO_STATUS_DRIVER_OK | GN_VIRTIO_STATUS_NEEDS_RESET |
			     GN_VIRTIO_STATUS_FAILED)) == GN_VIRTIO_STATUS_DRIVER_OK;
}

/* ---- queues.c ---------------------------------------------------------------------------------------------- */

/* Which kind the driver's queue number @index is. False: there is no such queue. */
bool gn_balloon_queue_kind(const struct gn_balloon *b, uint32_t index, unsigned *kind);
/* What is pending is done, as far as one access may take; the next access goes on. */
void gn_balloon_work(struct gn_balloon *b);
/* @count buffers of queue @kind are used; interrupts. False: the device is broken. */
bool gn_balloon_use(struct gn_balloon *b, unsigned kind, const uint16_t *heads, unsigned count);
/* A failed access to a queue (an error of virtqueue.h): breaks the device. */
void gn_balloon_queue_failed(struct gn_balloon *b, int err);

/* ---- requests.c: one buffer's pages are gathered; then all of them are changed ------------------------------ */

/* How many pages gathering would look at, by the lengths in b->chain; no more than RAM has. */
uint64_t gn_balloon_pfns_named(const struct gn_balloon *b, unsigned descriptors);
uint64_t gn_balloon_pages_named(const struct gn_balloon *b, unsigned descriptors);
void gn_balloon_gather_pfns(struct gn_balloon *b, unsigned kind, unsigned descriptors);
void gn_balloon_gather_ranges(struct gn_balloon *b, unsigned descriptors);
/* False: the device is broken. */
bool gn_balloon_change(struct gn_balloon *b, unsigned kind);
/* Everything leaves the balloon. */
void gn_balloon_return_all(struct gn_balloon *b);
/* What was granted to a touch is not held any more. */
void gn_balloon_find_granted(struct gn_balloon *b);
/* The whole pages of a range the device may write. False: refused, counted. */
bool gn_balloon_range(struct gn_balloon *b, const struct gn_virtq_desc *desc, gfn_t *start,
		      uint64_t *count);

/* ---- claims.c ---------------------------------------------------------------------------------------------- */

/* The buffer of b->chain holds statistics; it is kept to ask again. False: the device is broken. */
bool gn_balloon_take_claims(struct gn_balloon *b, uint16_t head, unsigned descriptors);

/* ---- hinting.c --------------------------------------------------------------------------------------------- */

void gn_balloon_take_hints(struct gn_balloon *b, unsigned descriptors);
void gn_balloon_hint_reset(struct gn_balloon *b);

/* ---- churn.c ----------------------------------------------------------------------------------------------- */

void gn_churn_init(struct gn_churn *churn, const struct gn_balloon_config *config, uint64_t now_ns);
/* @pages left the balloon. */
void gn_churn_spend(struct gn_churn *churn, uint64_t pages, uint64_t now_ns);
bool gn_churn_is_over(struct gn_churn *churn, uint64_t now_ns);

/* ---- reform.c ---------------------------------------------------------------------------------------------- */

int gn_reform_init(struct gn_balloon *b); /* -ENOMEM; to be followed by fini all the same */
void gn_reform_fini(struct gn_balloon *b);
/* [start, start + count) went into the balloon; left it. */
void gn_reform_note_taken(struct gn_balloon *b, uint64_t start, uint64_t count, uint64_t now_ns);
void gn_reform_note_left(struct gn_balloon *b, uint64_t start, uint64_t count);

#ifdef __cplusplus
}
#endif
#endif
