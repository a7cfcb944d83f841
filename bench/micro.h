/* SPDX-License-Identifier: MIT */
/*
 * micro.h - what one measurement of `gnomon micro` is.
 *
 * Each stands beside its limit: the least that any implementation would have to do, run over the same data
 * in the same process, sample by sample in turn, so that a slow moment of the machine hits both. A peer is
 * another program's figure for the same job, as published.
 */
#ifndef GN_BENCH_MICRO_H
#define GN_BENCH_MICRO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct micro_side {
	const char *name;		 /* NULL: there is none */
	double (*sample)(void *context); /* one sample, in the unit; NULL: only .published */
	double published;		 /* a figure from elsewhere */
};

struct micro {
	const char *name, *unit, *what;
	bool more_is_better;
	double target; /* what this project promises */
	/* Build the context; NULL with a line in @why when it cannot be. */
	void *(*setup)(char *why, size_t why_bytes);
	void (*teardown)(void *context);
	struct micro_side subject, limit, peer;
};

extern const struct micro micro_walk4_cached, micro_p2m_lookup, micro_shadow_fill, micro_ept_fill,
	micro_soft_hit, micro_soft_scattered, micro_soft_random_ept;

/* CPU time of this thread; and a value the compiler must believe is used. */
uint64_t micro_now_ns(void);
static inline void micro_use(uint64_t value)
{
	__asm__ volatile("" : : "r"(value));
}

#endif
