/* SPDX-License-Identifier: MIT */
/*
 * policy_mom.c - the default balloon rules of the Memory Overcommitment Manager, as a baseline.
 *
 * Source: github.com/oVirt/mom, doc/balloon.rules and doc/mom-balloon.conf (the shipped defaults), written anew
 * from the rules. Statistics are sampled every 5 s and averaged over 10 samples; every 10 s the rules run:
 *
 *   pressure	the host's free part is below 20 %: each guest shrinks towards what it uses plus a part of
 *		its memory (20 % scaled by how far the host is below the threshold; at or below 5 % free the
 *		part is host_free - 5 %, which is negative and makes guests swap), not below its minimum,
 *		by at most 5 % of its memory a time;
 *   no pressure each ballooned guest grows by 5 %, or at once to what it uses plus 20 %;
 *   either	only when the change is more than 0.25 % of the guest's memory.
 *
 * The host's free memory is, for us, what the VMs leave of the budget. A later version of the rules takes the
 * smaller of the guest's minimum and its need where earlier ones took the larger; the larger is what the comments
 * describe and what is done here. "Uses" counts page cache: MoM reads unused memory. A guest that tells
 * nothing is left alone, as MoM leaves guests without statistics.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "policy_impl.h"

#define SAMPLE_NS	   UINT64_C(5000000000)
#define RULES_NS	   UINT64_C(10000000000)
#define PRESSURE_THRESHOLD 0.20
#define PRESSURE_CRITICAL  0.05
#define MIN_GUEST_FREE	   0.20
#define MAX_BALLOON_CHANGE 0.05
#define MIN_BALLOON_CHANGE 0.0025
enum { HISTORY = 10 };

/* The last samples, and their mean. */
struct mom_average {
	double samples[HISTORY];
	unsigned count, next;
};

struct mom_entry {
	struct gn_policy_entry entry;
	struct mom_average used;
};

struct mom {
	struct gn_policy policy;
	struct mom_average free;
	uint64_t sampled_ns, ruled_ns;
	bool has_sampled, has_ruled;
};

static void average_add(struct mom_average *average, double sample)
{
	average->samples[average->next] = sample;
	average->next = (average->next + 1) % HISTORY;
	if (average->count < HISTORY)
		average->count++;
}

static double average_of(const struct mom_average *average)
{
	double sum = 0;

	for (unsigned i = 0; i < average->count; i++)
		sum += average->samples[i];
	return average->count ? sum / average->count : 0;
}

static void take_samples(struct mom *mom, const struct gn_policy_host *host,
			 const struct gn_policy_vm *vms, size_t count)
{
	double left = (double)host->budget_bytes;

	for (size_t i = 0; i < count; i++) {
		const struct gn_policy_vm *vm = &vms[i];
		struct mom_entry *entry = gn_policy_entry_at(&mom->policy, i);

		left -= (double)vm->actual_bytes;
		if (vm->guest_free_bytes <= vm->actual_bytes)
			average_add(&entry->used,
				    (double)(vm->actual_bytes - vm->guest_free_bytes));
	}
	average_add(&mom->free, fmax(left, 0));
}

static double shrunk(const struct gn_policy_vm *vm, double used, double host_free)
{
	double cur = (double)vm->actual_bytes;
	double part = host_free <= PRESSURE_CRITICAL
			      ? host_free - 0.05
			      : MIN_GUEST_FREE * host_free / PRESSURE_THRESHOLD;
	double least = fmax((double)vm->min_bytes, used + part * cur);

	return fmin(fmax(cur * (1 - MAX_BALLOON_CHANGE), least), cur);
}

static double grown(const struct gn_policy_vm *vm, double used)
{
	double cur = (double)vm->actual_bytes;
	double least = fmax((double)vm->min_bytes, used + MIN_GUEST_FREE * cur);

	return fmin(fmax(cur * (1 + MAX_BALLOON_CHANGE), least), (double)vm->max_bytes);
}

static void apply_rules(struct mom *mom, const struct gn_policy_host *host,
			const struct gn_policy_vm *vms, size_t count,
			struct gn_policy_decision *decisions)
{
	double host_free =
		host->budget_bytes ? average_of(&mom->free) / (double)host->budget_bytes : 0;

	for (size_t i = 0; i < count; i++) {
		const struct mom_entry *entry = gn_policy_entry_at(&mom->policy, i);
		double cur = (double)vms[i].actual_bytes, size = cur;

		if (!entry->used.count)
			continue;
		if (host_free < PRESSURE_THRESHOLD)
			size = shrunk(&vms[i], average_of(&entry->used), host_free);
		else if (vms[i].actual_bytes < vms[i].max_bytes)
			size = grown(&vms[i], average_of(&entry->used));
		if (fabs(size - cur) <= MIN_BALLOON_CHANGE * cur)
			continue;
		decisions[i].wish_bytes = decisions[i].wished_now_bytes = (uint64_t)size;
		decisions[i].reason = size < cur ? GN_POLICY_HOST_PRESSURE : GN_POLICY_SHARE;
	}
}

static int mom_round(struct gn_policy *policy, uint64_t now_ns, const struct gn_policy_host *host,
		     const struct gn_policy_vm *vms, size_t count,
		     struct gn_policy_decision *decisions)
{
	struct mom *mom = (struct mom *)policy;

	gn_policy_keep(vms, count, decisions);
	if (!mom->has_sampled || now_ns - mom->sampled_ns >= SAMPLE_NS) {
		take_samples(mom, host, vms, count);
		mom->sampled_ns = now_ns;
		mom->has_sampled = true;
	}
	if (!mom->has_ruled || now_ns - mom->ruled_ns >= RULES_NS) {
		apply_rules(mom, host, vms, count, decisions);
		mom->ruled_ns = now_ns;
		mom->has_ruled = true;
	}
	return 0;
}

static int mom_create(const struct gn_policy_config *config, struct gn_policy **out)
{
	struct mom *mom = calloc(1, sizeof(*mom));

	(void)config;
	if (!mom)
		return -ENOMEM;
	gn_policy_init(&mom->policy, &gn_policy_mom, sizeof(struct mom_entry));
	*out = &mom->policy;
	return 0;
}

static void mom_destroy(struct gn_policy *policy)
{
	gn_policy_fini(policy);
	free(policy);
}

const struct gn_policy_ops gn_policy_mom = {
	.name = "mom",
	.summary = "baseline: the default balloon rules of oVirt's Memory Overcommitment Manager",
	.create = mom_create,
	.destroy = mom_destroy,
	.round = mom_round,
};
