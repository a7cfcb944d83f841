/* SPDX-License-Identifier: MIT */
/*
 * balloon.h - a virtio-balloon device for a VM of the engine: the host asks for memory back, the guest gives it.
 *
 * The device is the OASIS specification's (1.2, section 5.5) behind virtio over MMIO; registers and rings are in
 * virtio.h. What makes it more than a courtesy: a page in the balloon is GN_P2M_BALLOONED, out of every scheme's
 * tables, its frame given back; a touch is answered by policy and counted.
 *
 * An embedder creates the device on a VM, hands the guest's accesses to the 512 bytes at its place to
 * gn_balloon_mmio_read() and _write(), and sets the target. gn_balloon_mmio() has the shape of the backends' MMIO
 * hooks: gn_soft_set_mmio(soft, gn_balloon_mmio, balloon), gn_kvm_set_mmio(kvm, gn_balloon_mmio, balloon).
 *
 * What a guest says is a claim; what it does is checked. Nothing a guest writes is an error of the host: it is
 * answered, counted in struct gn_balloon_stats, and costs bounded work per access.
 *
 * Threads: any thread may call any of this; a lock of the device's is inside, and the engine is called with it
 * held. Callbacks come on the thread that caused them, with no lock held unless said otherwise.
 */
#ifndef GNOMON_BALLOON_H
#define GNOMON_BALLOON_H

#include <gnomon/engine.h>
#include <gnomon/virtio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gn_balloon;

/* Where the device lies unless config.mmio_gpa says otherwise: beyond any RAM a VM of ours has, below the physical
 * width of any host. */
#define GN_BALLOON_MMIO_GPA ((uint64_t)0x3fffe00000)

/* ---- What a guest did that it should not have ------------------------------------------------------------------ */

enum gn_balloon_fault {
	GN_BALLOON_FAULT_REGISTER, /* an access of a wrong width, place or time; ignored */
	GN_BALLOON_FAULT_STATUS,   /* a step the status register does not allow; ignored */
	GN_BALLOON_FAULT_FEATURES, /* a set of features refused: FEATURES_OK stays 0 */
	GN_BALLOON_FAULT_QUEUE,	   /* a queue's size or addresses refused: QueueReady stays 0 */
	GN_BALLOON_FAULT_NOTIFY,   /* of a queue that is not there or not ready; ignored */
	/* The device is broken until reset (NEEDS_RESET): */
	GN_BALLOON_FAULT_RING,	/* a ring or descriptor table cannot be reached any more */
	GN_BALLOON_FAULT_INDEX, /* the available index ran ahead by more than the queue's size */
	GN_BALLOON_FAULT_CHAIN, /* a head or next out of range, a loop, INDIRECT */
	/* A buffer is used without effect: */
	GN_BALLOON_FAULT_ADDRESS, /* it cannot be read, or lies outside RAM */
	GN_BALLOON_FAULT_LENGTH, /* zero, no multiple of its elements, or more than RAM has pages */
	GN_BALLOON_FAULT_DIRECTION, /* for the device to write where it reads, or the reverse */
	/* A page is left as it was: */
	GN_BALLOON_FAULT_RANGE,	    /* outside RAM */
	GN_BALLOON_FAULT_OWNER,	    /* reserved, read-only, MMIO, or taken by someone else */
	GN_BALLOON_FAULT_DUPLICATE, /* named twice in a request, or in the balloon already */
	GN_BALLOON_FAULT_NOT_HELD,  /* to be deflated, and not in the balloon */
	GN_BALLOON_FAULT_CHURN,	    /* inflated while over the limit of ping-pong (churn_answer) */
	/* A claim is kept and marked: */
	GN_BALLOON_FAULT_STATS, /* statistics that can't be true, or too many buffers of them */
	GN_BALLOON_FAULT_HINT,	/* a hint outside its round; ignored */
	GN_BALLOON_FAULTS
};
const char *gn_balloon_fault_name(enum gn_balloon_fault fault); /* "bad-ring-index"-like; static */

/* ---- Configuration ------------------------------------------------------------------------------------------------ */

enum gn_balloon_event {
	GN_BALLOON_EVENT_READY = 1 << 0,     /* the driver set DRIVER_OK */
	GN_BALLOON_EVENT_RESET = 1 << 1,     /* the driver reset the device: the balloon is empty */
	GN_BALLOON_EVENT_BROKEN = 1 << 2,    /* NEEDS_RESET: nothing is done until a reset */
	GN_BALLOON_EVENT_ACTUAL = 1 << 3,    /* the driver wrote `actual` */
	GN_BALLOON_EVENT_STATS = 1 << 4,     /* fresh statistics */
	GN_BALLOON_EVENT_HINTS_END = 1 << 5, /* the driver has no more free pages to hint */
	GN_BALLOON_EVENT_CHURN = 1 << 6,     /* over the limit of ping-pong */
	GN_BALLOON_EVENT_REPORTED = 1 << 7, /* the driver told of free pages: it has freed memory */
};
typedef void gn_balloon_event_fn(void *ctx, unsigned events);
/* The device interrupts: a bit of InterruptStatus went from 0 to 1. */
typedef void gn_balloon_irq_fn(void *ctx);
/* The guest says [start, start + count) was free when the round began and has not to be kept (migration). With the
 * device's lock held: must not call back into it. */
typedef void gn_balloon_hint_fn(void *ctx, gfn_t start, uint64_t count);

/* Ping-pong: pages that leave the balloon (by deflation, a reset or a granted touch) use up an allowance that grows
 * with time. While it is used up, what answers an inflation? Deflation is never limited: it must not hang. */
enum gn_balloon_churn_answer {
	GN_BALLOON_CHURN_COUNT,	 /* done, and told */
	GN_BALLOON_CHURN_IGNORE, /* acknowledged, not done: the pages stay the guest's */
	GN_BALLOON_CHURN_BREAK,	 /* NEEDS_RESET */
};

struct gn_balloon_config {
	uint64_t mmio_gpa;	 /* 0: GN_BALLOON_MMIO_GPA */
	uint64_t features;	 /* of GN_BALLOON_F_*, those offered; 0: all */
	unsigned queue_size_max; /* a power of two up to 1024; 0: 256 */
	uint64_t
		reserved_bytes; /* guest memory from 0 up that no balloon takes (firmware, boot page) */
	uint64_t target_pages; /* at first */

	uint64_t churn_pages_per_s, churn_burst_pages; /* the allowance; 0, 0: no limit */
	enum gn_balloon_churn_answer churn_answer;
	uint64_t (*now_ns)(void *ctx); /* NULL: CLOCK_MONOTONIC */

	/* A touch of a ballooned page, see gn_vm_set_ballooned_touch(); in force even when the device is gone. The
	 * callback comes with locks held and must not call the device. */
	enum gn_touch_answer touch_answer;
	gn_touch_fn *touch; /* NULL: counted only */

	gn_balloon_irq_fn *irq; /* each may be NULL */
	gn_balloon_event_fn *event;
	gn_balloon_hint_fn *hint;
	void *ctx;
};

/* -EINVAL (see the log hook), -ENOMEM. The VM outlives the device. */
int gn_balloon_create(struct gn_vm *vm, const struct gn_balloon_config *config,
		      struct gn_balloon **out);
/* Pages in the balloon stay there. NULL is allowed. No guest access is under way. */
void gn_balloon_destroy(struct gn_balloon *balloon);

/* ---- The guest's side: accesses to the registers ------------------------------------------------------------------ */

/* @offset from the device's place. Widths that a register does not have read as 0 and write nothing. */
uint64_t gn_balloon_mmio_read(struct gn_balloon *balloon, uint64_t offset, unsigned bytes);
void gn_balloon_mmio_write(struct gn_balloon *balloon, uint64_t offset, unsigned bytes,
			   uint64_t value);
/* The same as a backend's hook; @balloon is the ctx. False: @gpa is not of this device. */
bool gn_balloon_mmio(void *balloon, unsigned cpu, uint64_t at, unsigned bytes, bool is_write,
		     uint64_t *value);

/* ---- The host's side ------------------------------------------------------------------------------------------------ */

/* How many pages the balloon should have. More than RAM minus reserved is cut to that. */
void gn_balloon_set_target(struct gn_balloon *balloon, uint64_t balloon_pages);
/* How many it has: the p2m's truth, not the driver's claim. */
uint64_t gn_balloon_actual_pages(struct gn_balloon *balloon);
/* Ask for fresh statistics; they come with GN_BALLOON_EVENT_STATS. -ENODEV: no such queue (yet), or the device is
 * broken, maybe by this very attempt; -EAGAIN: asked already, and the guest has not answered. */
int gn_balloon_request_stats(struct gn_balloon *balloon);
/* Blocks of 2 MiB that the balloon split and whose pages are all back become one block again, if the VM has frames that
 * large: up to @max_blocks of them are looked at. For a thread of the owner's, now and then; a block formed is up to 2 MiB
 * copied, with the guest running. One of which pages were taken within GN_BALLOON_CALM_NS has its time yet to come.
 * Returns how many were formed. Not inside a guest access. */
#define GN_BALLOON_CALM_NS ((uint64_t)5000000000)
unsigned gn_balloon_reform(struct gn_balloon *balloon, unsigned max_blocks);

/* Free page hinting: begin a round; pause it, if hints are of no use now (the guest keeps the hinted pages aside);
 * end it (the guest takes them back). -ENODEV: not negotiated. */
int gn_balloon_hint_start(struct gn_balloon *balloon);
int gn_balloon_hint_stop(struct gn_balloon *balloon);
int gn_balloon_hint_done(struct gn_balloon *balloon);

struct gn_balloon_stats {
	/* What is so. */
	uint64_t target_pages, held_pages; /* held: in the balloon now */
	uint64_t
		split_blocks; /* of 2 MiB, pages of which came back: for gn_balloon_reform() to look at */
	uint32_t status;			 /* enum gn_virtio_status */
	uint64_t features;			 /* negotiated; 0: not (yet) */
	uint64_t inflated_pages, deflated_pages; /* sums */
	uint64_t returned_pages;		 /* given back by resets */
	uint64_t granted_pages; /* left the balloon by a touch that policy granted */
	uint64_t touches_denied,
		touches_granted;  /* of the VM's ballooned pages, the engine's counts */
	uint64_t reformed_blocks; /* of 2 MiB, by gn_balloon_reform() */
	uint64_t reported_pages;  /* discarded by free page reporting */
	uint64_t withheld_pages;  /* reported, and kept: the guest wants its poison back */
	uint64_t hinted_pages;
	uint64_t notifications, buffers; /* queue notifications, buffers used */
	uint64_t changes, runs; /* of the p2m: pages / runs tells how well they coalesced */
	uint64_t interrupts, suppressed_interrupts;
	uint64_t resets;
	uint64_t host_failures; /* the engine had no memory for what was asked */

	/* What the guest claims. */
	uint64_t claimed_pages;			/* `actual` as the driver wrote it */
	uint64_t claims[GN_BALLOON_STATS_TAGS]; /* by enum gn_balloon_stat */
	uint32_t claims_known;			/* bit n: claims[n] was ever told */
	bool claims_are_plausible; /* the latest did not contradict themselves or the RAM's size */
	uint64_t claims_count;	   /* buffers of statistics */
	uint64_t claims_ns;	   /* when the latest came, by now_ns */
	uint32_t poison;	   /* poison_val */

	/* What it should not have done, by enum gn_balloon_fault. */
	uint64_t faults[GN_BALLOON_FAULTS];
	const char *broken_why; /* with NEEDS_RESET; static, NULL: not broken */
};
void gn_balloon_stats(struct gn_balloon *balloon, struct gn_balloon_stats *out);

#ifdef __cplusplus
}
#endif
#endif
