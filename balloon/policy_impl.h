/* SPDX-License-Identifier: MIT */
/*
 * policy_impl.h - what the policies share among themselves: the head of each, and water-filling.
 */
#ifndef GN_BALLOON_POLICY_IMPL_H
#define GN_BALLOON_POLICY_IMPL_H

#include "policy.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GN_POLICY_PAGE_BYTES 4096u

/*
 * What a policy remembers of a VM begins with this; the rest is its own, zero for a VM not met before.
 * During a round .entries holds one a VM, in the order of the round's VMs.
 */
struct gn_policy_entry {
	uint64_t id;
};

/* Each policy's struct begins with this. */
struct gn_policy {
	const struct gn_policy_ops *ops;
	size_t entry_bytes;
	uint64_t last_ns;
	size_t known_count, known_capacity, entry_capacity;
	unsigned char *known;	/* of the last round, sorted by id */
	unsigned char *entries; /* of this round */
};

void gn_policy_init(struct gn_policy *policy, const struct gn_policy_ops *ops, size_t entry_bytes);
void gn_policy_fini(struct gn_policy *policy);
static inline void *gn_policy_entry_at(const struct gn_policy *policy, size_t index)
{
	return policy->entries + index * policy->entry_bytes;
}

/*
 * From wishes to targets, by the rules of policy.h: growth only out of memory that is there, those below
 * their reservation first, then those that are short (asked, refaults), then the others.
 */
void gn_policy_grant(const struct gn_policy_host *host, const struct gn_policy_vm *vms,
		     size_t count, struct gn_policy_decision *decisions);
/* Where a VM moves from: what it was told, or, told nothing, what it has. */
static inline uint64_t gn_policy_base(const struct gn_policy_vm *vm)
{
	return vm->target_bytes == GN_POLICY_UNKNOWN ? vm->actual_bytes : vm->target_bytes;
}
/* Every VM stays where it is. */
void gn_policy_keep(const struct gn_policy_vm *vms, size_t count,
		    struct gn_policy_decision *decisions);
/* What a VM is charged for: the larger of what it has and what it was told. */
uint64_t gn_policy_charge(const struct gn_policy_vm *vm);
/* What of the budget is charged to nobody. */
uint64_t gn_policy_pool(const struct gn_policy_host *host, const struct gn_policy_vm *vms,
			size_t count);

/* One VM's part in a filling, in bytes. */
struct gn_policy_claim {
	double shares, active; /* > 0, >= 0 */
	double least, most;    /* least <= most */
	double gets;	       /* out */
};
/*
 * Divide @total_bytes so that all unclamped claims have the same shares-per-page ratio under an idle page's
 * price of @k active pages: S / (P * (f + k(1-f))) with f = min(active / P, 1). k = 1: shares alone.
 */
void gn_policy_fill(struct gn_policy_claim *claims, size_t count, double k, double total_bytes);

extern const struct gn_policy_ops gn_policy_esx, gn_policy_static, gn_policy_mom,
	gn_policy_ksmtuned;

#ifdef __cplusplus
}
#endif

#endif
