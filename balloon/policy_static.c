/* SPDX-License-Identifier: MIT */
/*
 * policy_static.c - the budget divided by shares once and for all: what a host does that never balloons.
 *
 * The division changes only when VMs come or go or a limit is changed. A caller who knows the best division
 * for what will run gives it as shares: the static oracle of `gnomon overcommit balloon`.
 */
#include <errno.h>
#include <stdlib.h>

#include "policy_impl.h"

static int static_create(const struct gn_policy_config *config, struct gn_policy **out)
{
	struct gn_policy *policy = malloc(sizeof(*policy));

	(void)config;
	if (!policy)
		return -ENOMEM;
	gn_policy_init(policy, &gn_policy_static, sizeof(struct gn_policy_entry));
	*out = policy;
	return 0;
}

static void static_destroy(struct gn_policy *policy)
{
	gn_policy_fini(policy);
	free(policy);
}

static int static_round(struct gn_policy *policy, uint64_t now_ns,
			const struct gn_policy_host *host, const struct gn_policy_vm *vms,
			size_t count, struct gn_policy_decision *decisions)
{
	struct gn_policy_claim *claims = calloc(count ? count : 1, sizeof(*claims));

	(void)policy, (void)now_ns;
	if (!claims)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		claims[i].shares = vms[i].shares;
		claims[i].least = (double)vms[i].min_bytes;
		claims[i].most = (double)vms[i].max_bytes;
	}
	gn_policy_fill(claims, count, 1, (double)host->budget_bytes);
	for (size_t i = 0; i < count; i++) {
		decisions[i].wish_bytes = decisions[i].wished_now_bytes = (uint64_t)claims[i].gets;
		decisions[i].reason = decisions[i].wish_bytes == vms[i].target_bytes
					      ? GN_POLICY_STEADY
					      : GN_POLICY_SHARE;
	}
	free(claims);
	return 0;
}

const struct gn_policy_ops gn_policy_static = {
	.name = "static",
	.summary = "the budget divided by shares, whatever the VMs do",
	.create = static_create,
	.destroy = static_destroy,
	.round = static_round,
};
