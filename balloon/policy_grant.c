/* SPDX-License-Identifier: MIT */
/*
 * policy_grant.c - from wishes to targets: nothing is promised that is not there.
 *
 * A VM is charged for the larger of what it has and what it was last told. What nobody is charged for is the
 * pool. A wish at or below the VM's charge costs nothing and becomes its target. A wish above it takes the
 * difference out of the pool; where the pool is too small, each of a class gets the same part of what it
 * lacks, and the next class what is left. Who asks comes before who refaults: an allocation that fails kills, a page
 * read again costs time. A promise taken back (a target lowered before the VM had grown to it) does not return to the
 * pool in the same round, for the VM may be growing into it right now.
 */
#include "policy_impl.h"

enum grant_class { CLASS_RESERVATION, CLASS_ASKED, CLASS_REFAULTS, CLASS_OTHER, CLASSES };

uint64_t gn_policy_charge(const struct gn_policy_vm *vm)
{
	if (vm->target_bytes == GN_POLICY_UNKNOWN || vm->target_bytes < vm->actual_bytes)
		return vm->actual_bytes;
	return vm->target_bytes;
}

void gn_policy_keep(const struct gn_policy_vm *vms, size_t count,
		    struct gn_policy_decision *decisions)
{
	for (size_t i = 0; i < count; i++) {
		decisions[i].wish_bytes = decisions[i].wished_now_bytes = gn_policy_base(&vms[i]);
		decisions[i].reason = GN_POLICY_STEADY;
	}
}

uint64_t gn_policy_pool(const struct gn_policy_host *host, const struct gn_policy_vm *vms,
			size_t count)
{
	uint64_t pool = host->budget_bytes;

	for (size_t i = 0; i < count; i++) {
		uint64_t charge = gn_policy_charge(&vms[i]);

		pool = pool > charge ? pool - charge : 0;
	}
	return pool;
}

static bool is_over_budget(const struct gn_policy_host *host, const struct gn_policy_vm *vms,
			   size_t count)
{
	uint64_t left = host->budget_bytes;

	for (size_t i = 0; i < count; i++) {
		uint64_t charge = gn_policy_charge(&vms[i]);

		if (charge > left)
			return true;
		left -= charge;
	}
	return false;
}

/* Up to here a target takes nothing out of the pool; over budget, a VM that is shrinking is not told to stop. */
static uint64_t unpaid_limit(const struct gn_policy_vm *vm, bool is_over)
{
	uint64_t charge = gn_policy_charge(vm);

	if (!is_over || vm->target_bytes >= charge)
		return charge;
	return vm->target_bytes > vm->min_bytes ? vm->target_bytes
	       : vm->min_bytes < charge		? vm->min_bytes
						: charge;
}

static enum grant_class class_of(const struct gn_policy_decision *decision)
{
	return decision->reason == GN_POLICY_ASKED	? CLASS_ASKED
	       : decision->reason == GN_POLICY_REFAULTS ? CLASS_REFAULTS
							: CLASS_OTHER;
}

/* What this VM lacks in this class, given what earlier classes have given it. */
static uint64_t lack_of(const struct gn_policy_vm *vm, const struct gn_policy_decision *decision,
			uint64_t wish, enum grant_class class)
{
	uint64_t have = decision->target_bytes, want;

	if (class == CLASS_RESERVATION)
		want = wish < vm->min_bytes ? wish : vm->min_bytes;
	else
		want = class_of(decision) == class ? wish : 0;
	return want > have ? want - have : 0;
}

/* The wish within limits, whole pages. */
static uint64_t bounded(const struct gn_policy_vm *vm, uint64_t wish)
{
	uint64_t bytes = wish < vm->max_bytes ? wish : vm->max_bytes;

	bytes -= bytes % GN_POLICY_PAGE_BYTES;
	return bytes > vm->min_bytes ? bytes : vm->min_bytes;
}

void gn_policy_grant(const struct gn_policy_host *host, const struct gn_policy_vm *vms,
		     size_t count, struct gn_policy_decision *decisions)
{
	uint64_t pool = gn_policy_pool(host, vms, count);
	bool is_over = is_over_budget(host, vms, count);

	for (int class = 0; class < CLASSES; class ++) {
		uint64_t lacks = 0, given = 0;

		for (size_t i = 0; i < count; i++) {
			uint64_t wish = bounded(&vms[i], decisions[i].wished_now_bytes);
			uint64_t free_of_charge = unpaid_limit(&vms[i], is_over);

			if (!class)
				decisions[i].target_bytes =
					wish < free_of_charge ? wish : free_of_charge;
			lacks += lack_of(&vms[i], &decisions[i], wish, class);
		}
		if (!lacks)
			continue;
		for (size_t i = 0; i < count; i++) {
			uint64_t wish = bounded(&vms[i], decisions[i].wished_now_bytes);
			uint64_t lack = lack_of(&vms[i], &decisions[i], wish, class), gets = lack;

			if (lacks > pool) {
				gets = (uint64_t)((double)pool * ((double)lack / (double)lacks));
				gets -= gets % GN_POLICY_PAGE_BYTES;
			}
			gets = gets < pool - given ? gets : pool - given;
			decisions[i].target_bytes += gets;
			given += gets;
		}
		pool -= given;
	}
	for (size_t i = 0; i < count; i++)
		if (decisions[i].target_bytes < bounded(&vms[i], decisions[i].wished_now_bytes))
			decisions[i].reason = GN_POLICY_WAITING;
}
