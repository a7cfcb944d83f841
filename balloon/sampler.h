/* SPDX-License-Identifier: MIT */
/*
 * sampler.h - how much of its memory a VM really uses, seen from outside.
 *
 * Statistical, as in ESX (Waldspurger, OSDI 2002, section 5.3): a period begins by choosing some gfns at random and
 * clearing their accessed bits; when it ends, the part of them that was accessed estimates the part of the VM's memory
 * that is in use. The guest has no say in it.
 *
 * Threads: one at a time for a sampler (it may be any). The VM may run meanwhile, and outlives the sampler.
 *
 * Hardware that walks tables of its own (KVM in nested mode) is the backend's affair: aged pages are taken from it, and come
 * back, with their bit, at the next use.
 *
 * Uses up the accessed bits of the sampled gfns: two who harvest the same VM disturb each other.
 */
#ifndef GN_BALLOON_SAMPLER_H
#define GN_BALLOON_SAMPLER_H

#include <gnomon/engine.h>

struct gn_sampler;

/* 0 in a field: the default. */
struct gn_sampler_config {
	unsigned
		samples; /* gfns in a period; 128, at most 65536. The error is about 0.5 / sqrt(samples) */
	double slow_weight; /* of the newest period in the slow moving average, up to 1; 1/16 */
	double fast_weight; /* the same, fast; 1/2 */
	uint64_t seed;
};

struct gn_working_set {
	uint64_t active_pages;	   /* the largest of the three, of what is not ballooned now */
	uint64_t population_pages; /* RAM that is not ballooned now */
	double slow, fast;	   /* moving averages of the part in use, 0..1 */
	double rising;		   /* the fast one, if the running period ended now */
	uint64_t periods; /* that ended; 0: nothing is known yet, and all is taken to be active */
};

/* -ENOMEM, -EINVAL. */
int gn_sampler_new(struct gn_vm *vm, const struct gn_sampler_config *config,
		   struct gn_sampler **out);
void gn_sampler_destroy(struct gn_sampler *sampler);

/* The running period ends, the next one begins. -EOPNOTSUPP: the scheme in force keeps no tables, so nothing can
 * be seen; -errno: nothing changed but that no period is running any more. */
int gn_sampler_next_period(struct gn_sampler *sampler);
/* Look in the middle of a period, so that a working set that grows shows at once (.rising). Errors as above. */
int gn_sampler_look(struct gn_sampler *sampler);
void gn_sampler_estimate(const struct gn_sampler *sampler, struct gn_working_set *out);

#endif
