/* SPDX-License-Identifier: MIT */
/*
 * downgrade.h - what is owed to a vCPU's hardware before the guest runs on: one queue a vCPU.
 */
#ifndef GN_KVM_DOWNGRADE_H
#define GN_KVM_DOWNGRADE_H

#include "monitor.h"

#define GN_DOWNGRADE_SLOTS 256

struct gn_downgrades {
	pthread_mutex_t lock; /* innermost; held for a few stores, or to make one program */
	hpa_t slots[GN_DOWNGRADE_SLOTS]; /* [lock] entries to touch */
	unsigned slot_count;		 /* [lock] */
	uint64_t *tables;		 /* [lock] a bit a pool frame: tables to touch */
	uint64_t first_word, end_word;	 /* [lock] where bits may be set */
	uint64_t word_count;		 /* (c) */
	bool flush;			 /* [lock] everything */
};

/* What was drained. */
struct gn_downgrade_work {
	unsigned operations;	/* in the program; 0: no program */
	unsigned program_bytes; /* HLT included, the last */
	uint64_t base;		/* RBX at the program's start */
	bool flush;
};

/* @frames: of the pool. -ENOMEM. */
int gn_downgrades_init(struct gn_downgrades *queue, uint64_t frames);
void gn_downgrades_fini(struct gn_downgrades *queue);

/* Any thread, under any lock: cannot fail, never wait for a vCPU. */
void gn_downgrades_post_entry(struct gn_downgrades *queue, hpa_t slot);
void gn_downgrades_post_table(struct gn_downgrades *queue, pfn_t table);
void gn_downgrades_post_flush(struct gn_downgrades *queue);

/* vCPU thread: take what is there, at most what fits @program (GN_MONITOR_PROGRAM_BYTES), as code that reaches HPA 0
 * at @linear_base. The rest stays, and the next call takes it. */
void gn_downgrades_drain(struct gn_downgrades *queue, uint64_t linear_base, uint8_t *program,
			 struct gn_downgrade_work *work);
/* Forget everything: the hardware's copies are gone. */
void gn_downgrades_clear(struct gn_downgrades *queue);

#endif
