/* SPDX-License-Identifier: MIT */
/*
 * policy.c - the face of the policies: what is checked before a round, and what is remembered after it.
 *
 * History hangs on a VM's id. Each round starts with an entry a VM, filled from the last round's entries
 * (binary search) or zero, and ends by sorting them: VMs that were not named are forgotten, no table has to
 * be cleaned, and a round that fails has changed nothing.
 */
#include "policy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy_impl.h"

#define ROOM_PART 64 /* of a guest's memory; where less is free there is none */

static const struct gn_policy_ops *const policies[] = {
	&gn_policy_esx,
	&gn_policy_static,
	&gn_policy_mom,
	&gn_policy_ksmtuned,
};

const struct gn_policy_ops *gn_policy_at(unsigned index)
{
	return index < sizeof(policies) / sizeof(policies[0]) ? policies[index] : NULL;
}

const struct gn_policy_ops *gn_policy_find(const char *name)
{
	const struct gn_policy_ops *ops;

	for (unsigned i = 0; (ops = gn_policy_at(i)); i++)
		if (!strcmp(ops->name, name))
			return ops;
	return NULL;
}

const char *gn_policy_reason_text(enum gn_policy_reason reason)
{
	static const char *const texts[] = {
		[GN_POLICY_STEADY] = "steady",
		[GN_POLICY_HELD] = "held",
		[GN_POLICY_SHARE] = "share",
		[GN_POLICY_ASKED] = "asked",
		[GN_POLICY_REFAULTS] = "refaults",
		[GN_POLICY_FOR_OTHERS] = "for others",
		[GN_POLICY_HOST_PRESSURE] = "host pressure",
		[GN_POLICY_OVER_BUDGET] = "over budget",
		[GN_POLICY_WAITING] = "waiting",
	};

	return (unsigned)reason < sizeof(texts) / sizeof(texts[0]) ? texts[reason] : "unknown";
}

void gn_policy_config_init(struct gn_policy_config *config)
{
	*config = (struct gn_policy_config){
		.tau = 0.75,
		.reserve_fraction = 0.06,
		.dead_band_fraction = 1.0 / 64,
		.calm_shrink_per_s = 0.05,
		.reversal_ns = 30u * UINT64_C(1000000000),
		.refaults_per_s = 50,
	};
}

/* Written so that a NaN fails too. */
static bool is_sane_config(const struct gn_policy_config *config)
{
	return config->tau >= 0 && config->tau <= 0.9999 && config->reserve_fraction >= 0 &&
	       config->reserve_fraction <= 0.5 && config->dead_band_fraction >= 0 &&
	       config->dead_band_fraction <= 0.5 && config->calm_shrink_per_s > 0 &&
	       config->calm_shrink_per_s <= 1e6 && config->refaults_per_s > 0;
}

int gn_policy_create(const struct gn_policy_ops *ops, const struct gn_policy_config *config,
		     struct gn_policy **out)
{
	struct gn_policy_config defaults;

	gn_policy_config_init(&defaults);
	if (!config)
		config = &defaults;
	if (!is_sane_config(config))
		return -EINVAL;
	return ops->create(config, out);
}

void gn_policy_destroy(struct gn_policy *policy)
{
	if (policy)
		policy->ops->destroy(policy);
}

const struct gn_policy_ops *gn_policy_ops_of(const struct gn_policy *policy)
{
	return policy->ops;
}

void gn_policy_init(struct gn_policy *policy, const struct gn_policy_ops *ops, size_t entry_bytes)
{
	*policy = (struct gn_policy){ .ops = ops, .entry_bytes = entry_bytes };
}

void gn_policy_fini(struct gn_policy *policy)
{
	free(policy->known);
	free(policy->entries);
}

static bool is_sane_vm(const struct gn_policy_vm *vm)
{
	return vm->min_bytes && vm->min_bytes <= vm->max_bytes && vm->max_bytes <= vm->mem_bytes &&
	       vm->mem_bytes <= UINT64_MAX / 4 && vm->actual_bytes <= vm->mem_bytes &&
	       (vm->target_bytes == GN_POLICY_UNKNOWN || vm->target_bytes <= vm->mem_bytes) &&
	       vm->shares && vm->refaults_per_s >= 0;
}

static int compare_ids(const void *a, const void *b)
{
	uint64_t left = ((const struct gn_policy_entry *)a)->id,
		 right = ((const struct gn_policy_entry *)b)->id;

	return left < right ? -1 : left > right;
}

/* An entry a VM: as remembered, or zero. */
static int recall(struct gn_policy *policy, const struct gn_policy_vm *vms, size_t count)
{
	if (count > policy->entry_capacity) {
		void *more = realloc(policy->entries, count * policy->entry_bytes);

		if (!more)
			return -ENOMEM;
		policy->entries = more;
		policy->entry_capacity = count;
	}
	for (size_t i = 0; i < count; i++) {
		struct gn_policy_entry *entry = gn_policy_entry_at(policy, i);
		const struct gn_policy_entry key = { vms[i].id };
		const void *known = policy->known_count
					    ? bsearch(&key, policy->known, policy->known_count,
						      policy->entry_bytes, compare_ids)
					    : NULL;

		if (known)
			memcpy(entry, known, policy->entry_bytes);
		else
			memset(entry, 0, policy->entry_bytes);
		entry->id = vms[i].id;
	}
	return 0;
}

/* The round is good: its entries are the memory from now on. */
static void remember(struct gn_policy *policy, size_t count)
{
	unsigned char *entries = policy->entries;
	size_t capacity = policy->entry_capacity;

	if (count)
		qsort(entries, count, policy->entry_bytes, compare_ids);
	policy->entries = policy->known;
	policy->entry_capacity = policy->known_capacity;
	policy->known = entries;
	policy->known_capacity = capacity;
	policy->known_count = count;
}

static int check_ids(const struct gn_policy_vm *vms, size_t count)
{
	struct gn_policy_entry *ids = malloc((count ? count : 1) * sizeof(*ids));
	int err = 0;

	if (!ids)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		ids[i].id = vms[i].id;
	qsort(ids, count, sizeof(*ids), compare_ids);
	for (size_t i = 1; i < count && !err; i++)
		err = ids[i].id == ids[i - 1].id ? -EINVAL : 0;
	free(ids);
	return err;
}

int gn_policy_round(struct gn_policy *policy, uint64_t now_ns, const struct gn_policy_host *host,
		    const struct gn_policy_vm *vms, size_t count,
		    struct gn_policy_decision *decisions)
{
	int err;

	if (now_ns < policy->last_ns || !(host->psi_some >= 0) || !(host->psi_full >= 0))
		return -EINVAL;
	for (size_t i = 0; i < count; i++)
		if (!is_sane_vm(&vms[i]))
			return -EINVAL;
	err = check_ids(vms, count);
	if (!err)
		err = recall(policy, vms, count);
	if (!err)
		err = policy->ops->round(policy, now_ns, host, vms, count, decisions);
	if (err)
		return err;
	gn_policy_grant(host, vms, count, decisions);
	remember(policy, count);
	policy->last_ns = now_ns;
	return 0;
}

bool gn_policy_is_refaulting(const struct gn_policy_vm *vm, double from_per_s)
{
	return vm->refaults_per_s >= from_per_s &&
	       (vm->guest_free_bytes == GN_POLICY_UNKNOWN ||
		vm->guest_free_bytes < vm->mem_bytes / ROOM_PART);
}

int gn_policy_admit(const struct gn_policy_host *host, const struct gn_policy_vm *vms, size_t count,
		    const struct gn_policy_vm *newcomer)
{
	uint64_t left = host->budget_bytes;

	if (!is_sane_vm(newcomer))
		return -EINVAL;
	for (size_t i = 0; i < count; i++) {
		if (vms[i].min_bytes > left)
			return -ENOSPC;
		left -= vms[i].min_bytes;
	}
	return newcomer->min_bytes > left ? -ENOSPC : 0;
}
