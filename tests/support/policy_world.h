/* SPDX-License-Identifier: MIT */
/*
 * policy_world.h - a few VMs and a host for tests of the policies, and the moves between two rounds.
 */
#ifndef GN_TESTS_POLICY_WORLD_H
#define GN_TESTS_POLICY_WORLD_H

#include <stdint.h>
#include <string.h>

#include "balloon/policy.h"

#define MIB	  (UINT64_C(1) << 20)
#define SECOND_NS UINT64_C(1000000000)
enum { WORLD_VMS = 16 };

struct policy_world {
	struct gn_policy *policy;
	uint64_t now_ns;
	struct gn_policy_host host;
	struct gn_policy_vm vms[WORLD_VMS];
	struct gn_policy_decision decisions[WORLD_VMS];
	size_t count;
};

/* 0, or what gn_policy_create() says. */
static inline int policy_world_init(struct policy_world *w, const char *policy,
				    const struct gn_policy_config *config, uint64_t budget_bytes)
{
	memset(w, 0, sizeof(*w));
	w->now_ns = SECOND_NS;
	w->host = (struct gn_policy_host){ .budget_bytes = budget_bytes };
	return gn_policy_create(gn_policy_find(policy), config, &w->policy);
}

static inline void policy_world_fini(struct policy_world *w)
{
	gn_policy_destroy(w->policy);
}

/* A VM of @mem bytes that has @actual and uses @active of it; min is a sixteenth. */
static inline struct gn_policy_vm *policy_world_add(struct policy_world *w, uint64_t mem,
						    uint64_t actual, uint64_t active)
{
	struct gn_policy_vm *vm = &w->vms[w->count++];

	*vm = (struct gn_policy_vm){ .id = 100 + w->count,
				     .name = "vm",
				     .mem_bytes = mem,
				     .min_bytes = mem / 16,
				     .max_bytes = mem,
				     .actual_bytes = actual,
				     .target_bytes = actual,
				     .active_bytes = active,
				     .recent_bytes = GN_POLICY_UNKNOWN,
				     .shares = 1000,
				     .guest_free_bytes = GN_POLICY_UNKNOWN,
				     .guest_available_bytes = GN_POLICY_UNKNOWN,
				     .claims_trusted = true };
	return vm;
}

/* A round @after_ns later; the VMs are told. */
static inline int policy_world_round(struct policy_world *w, uint64_t after_ns)
{
	int err;

	w->now_ns += after_ns;
	err = gn_policy_round(w->policy, w->now_ns, &w->host, w->vms, w->count, w->decisions);
	for (size_t i = 0; i < w->count && !err; i++)
		w->vms[i].target_bytes = w->decisions[i].target_bytes;
	return err;
}

/* Every VM does as it was told. */
static inline void policy_world_obey(struct policy_world *w)
{
	for (size_t i = 0; i < w->count; i++)
		w->vms[i].actual_bytes = w->vms[i].target_bytes;
}

#endif
