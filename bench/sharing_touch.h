/* SPDX-License-Identifier: MIT */
/*
 * sharing_touch.h - first touches of pages, each timed as the guest sees it.
 *
 * Pages come in two kinds, mixed at random: such that others have as well, and such that nobody else has. The time is the
 * whole of a store or a load: natively, or on a software machine with the machine's own work in it.
 */
#ifndef GN_BENCH_SHARING_TOUCH_H
#define GN_BENCH_SHARING_TOUCH_H

#include <gnomon/soft.h>

#include "sharing_contents.h"

struct sharing_touch {
	uint64_t page;
	bool is_common;
	bool has_event; /* a page fault, or a switch to another thread, by the kernel's count */
	float ns;
};
struct sharing_touches {
	struct sharing_touch *items;
	size_t count;
	uint64_t pause_ns; /* between two of them, spent awake; 0: none */
};

/* Of VM @vm: up to @most pages, as many of one kind as of the other if @both; else common ones only. -ENOMEM. */
int sharing_touches_pick(const struct sharing_contents *contents, unsigned vm, size_t most,
			 bool both, struct sharing_touches *out);
void sharing_touches_fini(struct sharing_touches *touches);

/* A virtual machine's memory may itself be filled on demand: then the first use ever of each page would be in the times. What it cannot have is
 * left. */
void sharing_warm_host(uint64_t bytes);
void sharing_touches_native(struct sharing_touches *touches, uint8_t *memory, bool is_write);
/* Of a software machine's guest. -errno of gn_soft_run(). */
int sharing_touches_soft(struct sharing_touches *touches, struct gn_soft_cpu *cpu, bool is_write);

struct sharing_touch_times {
	double median_ns, p99_ns; /* NAN: there is none of the kind */
	double below; /* part of those slower than two medians that had no event: what held them up is below this kernel; NAN: none */
};
/* -ENOMEM. */
int sharing_touches_times(const struct sharing_touches *touches, bool is_common,
			  struct sharing_touch_times *out);

/* How often somebody who has learnt from one half of them tells the kinds of the other half apart: by the nearest
 * median, or by the threshold that was best on the first half. 0.5 is a guess. -ENOMEM. */
int sharing_touches_tell(const struct sharing_touches *touches, double *accuracy);

#endif
