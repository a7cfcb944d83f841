/* SPDX-License-Identifier: MIT */
/*
 * policy.h - how much memory each VM should have: pure functions of what is known, no I/O, no clock.
 *
 * The caller (the daemon, or a simulator) gathers what VMs and the host report and calls gn_policy_round()
 * with the time; the policy answers one target a VM. A round may be called as often as the caller likes:
 * once a second, and at once when something happens (a VM asks, memory arrives, a VM comes or goes). The
 * same calls give the same answers.
 *
 * A policy only wishes. gn_policy_round() itself turns wishes into targets, so that these hold whatever
 * the policy is (tests/model/policy_invariants.c):
 *
 *  1. min_bytes <= target <= max_bytes; except that a VM that comes with less than its minimum waits below it
 *     for as long as the memory is not there.
 *  2. A VM's charge is max(actual, target): what it has, or what it was told it may take. No round raises
 *     the sum of charges above the budget. A VM that was told to shrink is charged for what it still has;
 *     memory is promised only after it has arrived. Where the sum is above already (the budget was cut, a
 *     VM came with more than there is), targets only fall until it is not.
 *  3. With sum(min_bytes) <= budget, which admission sees to (but for VMs that brought more along), a VM below its minimum
 *     is served before all others.
 *
 * Not thread-safe; one thread at a time for one struct gn_policy.
 */
#ifndef GN_BALLOON_POLICY_H
#define GN_BALLOON_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GN_POLICY_UNKNOWN UINT64_MAX /* of a size in bytes: nobody told */

/* What is known of one VM. Sizes are of the guest's memory: mem_bytes less its balloon is actual_bytes. */
struct gn_policy_vm {
	uint64_t id; /* of its own for as long as the policy lives: history hangs on it */
	const char *name;
	uint64_t mem_bytes;	       /* with an empty balloon */
	uint64_t min_bytes, max_bytes; /* 0 < min <= max <= mem; min is the reservation */
	uint64_t actual_bytes; /* now, by the p2m; or the last target it acknowledged, if larger */
	uint64_t target_bytes; /* last told to it; GN_POLICY_UNKNOWN: nothing yet */
	/* Working set by the host's sampling; GN_POLICY_UNKNOWN: all of it. The larger of a fast and a slow moving
	 * average, and the fast one alone (GN_POLICY_UNKNOWN: as the other): what was idle only lately. */
	uint64_t active_bytes, recent_bytes;
	uint32_t shares; /* > 0 */
	/* Claims of the guest. */
	double refaults_per_s;
	uint64_t guest_free_bytes;	/* used for nothing; GN_POLICY_UNKNOWN */
	uint64_t guest_available_bytes; /* could be freed without harm; GN_POLICY_UNKNOWN */
	uint64_t asks_bytes;		/* wants this much beyond actual_bytes of the same report */
	bool claims_trusted;		/* sampling agrees with what the guest says */
	bool is_late;			/* did not shrink to its target by the deadline */
};

struct gn_policy_host {
	uint64_t budget_bytes;	   /* for all VMs together */
	double psi_some, psi_full; /* share of the last 10 s stalled on memory, 0..1 */
};

enum gn_policy_reason {
	GN_POLICY_STEADY,     /* nothing to do, or too little to bother */
	GN_POLICY_HELD,	      /* would turn back too soon after the last turn */
	GN_POLICY_SHARE,      /* by shares, activity and the idle tax (or the policy's own rule) */
	GN_POLICY_ASKED,      /* grows: the guest asked */
	GN_POLICY_REFAULTS,   /* grows: it fetches again what it had to give up */
	GN_POLICY_FOR_OTHERS, /* shrinks: another is short of memory */
	GN_POLICY_HOST_PRESSURE, /* shrinks: the host stalls on memory */
	GN_POLICY_OVER_BUDGET,	 /* shrinks: more is handed out than there is */
	GN_POLICY_WAITING, /* wishes more than has arrived yet: call again when memory arrives */
};

struct gn_policy_decision {
	uint64_t target_bytes; /* tell the VM */
	uint64_t wish_bytes;   /* what the policy would give in the long run */
	uint64_t
		wished_now_bytes; /* and now: hysteresis and pace considered, but not what is there */
	enum gn_policy_reason reason;
};

/* "idle tax", for logs. Never NULL. */
const char *gn_policy_reason_text(enum gn_policy_reason reason);

struct gn_policy_config {
	double tau;		 /* esx: idle memory tax, 0 <= tau < 1 */
	double reserve_fraction; /* esx: of the budget, kept free for spikes while nobody needs it */
	double dead_band_fraction; /* esx: of mem_bytes; a smaller change is not worth a balloon operation */
	double calm_shrink_per_s; /* esx: of mem_bytes; how fast memory is taken while nobody needs it */
	uint64_t
		reversal_ns; /* esx: a VM changes direction at most once in this time, unless pressed */
	double refaults_per_s; /* esx: from here on a guest is short of memory */
};
/* The defaults. policy_esx.c says where each comes from. */
void gn_policy_config_init(struct gn_policy_config *config);

struct gn_policy; /* one policy and its history */

/* A kind of policy: "esx", "static", "mom", "ksmtuned". */
struct gn_policy_ops {
	const char *name, *summary;
	int (*create)(const struct gn_policy_config *config, struct gn_policy **out);
	void (*destroy)(struct gn_policy *policy);
	/* Fills wish_bytes, wished_now_bytes and reason of each decision. */
	int (*round)(struct gn_policy *policy, uint64_t now_ns, const struct gn_policy_host *host,
		     const struct gn_policy_vm *vms, size_t count,
		     struct gn_policy_decision *decisions);
};

/* By index, or NULL past the last; by name, or NULL. */
const struct gn_policy_ops *gn_policy_at(unsigned index);
const struct gn_policy_ops *gn_policy_find(const char *name);

/* @config NULL: defaults. -EINVAL: a figure out of its range; -ENOMEM. */
int gn_policy_create(const struct gn_policy_ops *ops, const struct gn_policy_config *config,
		     struct gn_policy **out);
void gn_policy_destroy(struct gn_policy *policy); /* NULL: nothing */
const struct gn_policy_ops *gn_policy_ops_of(const struct gn_policy *policy);

/*
 * One round over all VMs of now: @decisions[i] is for @vms[i]. A VM that is no longer named is forgotten.
 * @now_ns never goes back. -EINVAL: a VM that makes no sense (sizes, shares, an id twice) or time that went
 * back; -ENOMEM; then nothing is decided and the old targets stand.
 */
int gn_policy_round(struct gn_policy *policy, uint64_t now_ns, const struct gn_policy_host *host,
		    const struct gn_policy_vm *vms, size_t count,
		    struct gn_policy_decision *decisions);

/*
 * Whether @vm claims refaults that show a need for more. Pages fetched again into memory that is free fill it; only
 * where there is none they show a need.
 */
bool gn_policy_is_refaulting(const struct gn_policy_vm *vm, double from_per_s);

/*
 * May @newcomer join @vms? 0; -ENOSPC: the reservations would not fit into the budget any more; -EINVAL: it
 * makes no sense. A newcomer that runs already brings its actual_bytes: others shrink, or it does.
 */
int gn_policy_admit(const struct gn_policy_host *host, const struct gn_policy_vm *vms, size_t count,
		    const struct gn_policy_vm *newcomer);

#ifdef __cplusplus
}
#endif

#endif
