/* SPDX-License-Identifier: MIT */
/*
 * policy_ksmtuned.c - ksmtuned's thresholds, driving balloons instead of KSM: a baseline.
 *
 * ksmtuned (Red Hat, part of qemu's packaging; /etc/ksmtuned.conf) watches the host once a minute and sets how
 * hard KSM scans. With its defaults: the threshold is KSM_THRES_COEF = 20 % of the host's memory, at least
 * KSM_THRES_CONST = 2048 (the script compares it to kilobytes, so 2 MiB); when free memory is above the threshold
 * and the guests' memory plus the threshold below the total, KSM stops; otherwise the pages scanned at a time
 * go up by KSM_NPAGES_BOOST = 300 while free memory is below the threshold and by KSM_NPAGES_DECAY = -50 while
 * it is not, within [64, 1250].
 *
 * It does not balloon at all. What is re-implemented here is its *control loop*, so that a threshold-driven loop of a
 * minute stands in the comparison: the pages to scan are taken as vigour, and full vigour takes a tenth of each
 * VM's memory an interval while free memory is below the threshold. What is above the threshold goes back in
 * proportion to size, as merged pages come back when guests write. Guests are all treated alike and none is asked
 * anything, as in the original. The tenth is ours, and so is the way back: ksmtuned has no figure for
 * either, for what KSM frees depends on what guests hold. It says nothing about KSM.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "policy_impl.h"

#define INTERVAL_NS   UINT64_C(60000000000) /* KSM_MONITOR_INTERVAL */
#define THRES_COEF    0.20
#define THRES_CONST   (2048.0 * 1024)
#define NPAGES_BOOST  300
#define NPAGES_DECAY  50
#define NPAGES_MIN    64
#define NPAGES_MAX    1250
#define VIGOROUS_PART 0.10

struct ksmtuned {
	struct gn_policy policy;
	int npages;
	uint64_t ticked_ns;
	bool has_ticked;
};

static void tick(struct ksmtuned *k, const struct gn_policy_host *host,
		 const struct gn_policy_vm *vms, size_t count, struct gn_policy_decision *decisions)
{
	double total = (double)host->budget_bytes, thres = fmax(THRES_COEF * total, THRES_CONST);
	double committed = 0, ballooned = 0, free_bytes, part = 0;

	for (size_t i = 0; i < count; i++) {
		committed += (double)vms[i].actual_bytes;
		ballooned += fmax((double)vms[i].max_bytes - (double)vms[i].actual_bytes, 0);
	}
	free_bytes = fmax(total - committed, 0);
	if (free_bytes < thres) {
		k->npages = k->npages + NPAGES_BOOST < NPAGES_MAX ? k->npages + NPAGES_BOOST
								  : NPAGES_MAX;
		part = -VIGOROUS_PART * k->npages / NPAGES_MAX;
	} else {
		if (committed + thres >= total)
			k->npages = k->npages - NPAGES_DECAY > NPAGES_MIN ? k->npages - NPAGES_DECAY
									  : NPAGES_MIN;
		part = ballooned > 0 ? fmin((free_bytes - thres) / ballooned, 1) : 0;
	}
	for (size_t i = 0; i < count; i++) {
		double cur = (double)vms[i].actual_bytes;
		double size = part < 0 ? cur * (1 + part)
				       : cur + part * fmax((double)vms[i].max_bytes - cur, 0);

		decisions[i].wish_bytes = decisions[i].wished_now_bytes =
			(uint64_t)fmax(size, (double)vms[i].min_bytes);
		decisions[i].reason = part < 0	 ? GN_POLICY_HOST_PRESSURE
				      : part > 0 ? GN_POLICY_SHARE
						 : GN_POLICY_STEADY;
	}
}

static int ksmtuned_round(struct gn_policy *policy, uint64_t now_ns,
			  const struct gn_policy_host *host, const struct gn_policy_vm *vms,
			  size_t count, struct gn_policy_decision *decisions)
{
	struct ksmtuned *k = (struct ksmtuned *)policy;

	gn_policy_keep(vms, count, decisions);
	if (!k->has_ticked || now_ns - k->ticked_ns >= INTERVAL_NS) {
		tick(k, host, vms, count, decisions);
		k->ticked_ns = now_ns;
		k->has_ticked = true;
	}
	return 0;
}

static int ksmtuned_create(const struct gn_policy_config *config, struct gn_policy **out)
{
	struct ksmtuned *k = calloc(1, sizeof(*k));

	(void)config;
	if (!k)
		return -ENOMEM;
	gn_policy_init(&k->policy, &gn_policy_ksmtuned, sizeof(struct gn_policy_entry));
	*out = &k->policy;
	return 0;
}

static void ksmtuned_destroy(struct gn_policy *policy)
{
	gn_policy_fini(policy);
	free(policy);
}

const struct gn_policy_ops gn_policy_ksmtuned = {
	.name = "ksmtuned",
	.summary = "baseline: ksmtuned's thresholds once a minute, driving balloons",
	.create = ksmtuned_create,
	.destroy = ksmtuned_destroy,
	.round = ksmtuned_round,
};
