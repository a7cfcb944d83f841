/* SPDX-License-Identifier: MIT */
/*
 * micro.h - what one measurement of `gnomon micro` is.
 *
 * Each stands beside its limit: the least that any implementation would have to do, run over the same data
 * in the same process, sample by sample in turn, so that a slow moment of the machine hits both. A peer is
 * another way to do the same job, run in the same turn too, or another program's figure, as published.
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

/* What a target is compared with. */
enum micro_promise {
	MICRO_ABSOLUTE,	   /* the median */
	MICRO_TIMES_PEER,  /* the median of (sample / the peer's sample of the same turn) */
	MICRO_TIMES_LIMIT, /* the median of (sample / the limit's sample of the same turn) */
	MICRO_OVER_PEER,   /* the median of (sample - the peer's sample of the same turn) */
};

struct micro {
	const char *name, *unit, *what;
	bool more_is_better;
	double target; /* what this project promises */
	/* Build the context; NULL with a line in @why when it cannot be. */
	void *(*setup)(char *why, size_t why_bytes);
	void (*teardown)(void *context);
	struct micro_side subject, limit, peer;
	enum micro_promise promise;
	bool needs_kvm; /* skipped, with the reason, where KVM is not usable */
};

extern const struct micro micro_walk4_cached, micro_p2m_lookup, micro_shadow_fill, micro_ept_fill,
	micro_soft_hit, micro_soft_scattered, micro_soft_random_ept, micro_kvm_gups,
	micro_kvm_chase, micro_kvm_trap, micro_kvm_shadow_fault, micro_balloon_scattered,
	micro_balloon_coalesced, micro_balloon_huge, micro_balloon_return;

/* CPU time of this thread; and a value the compiler must believe is used. */
uint64_t micro_now_ns(void);
static inline void micro_use(uint64_t value)
{
	__asm__ volatile("" : : "r"(value));
}

#endif
