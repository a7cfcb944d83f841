/* SPDX-License-Identifier: MIT */
/*
 * policy.c - the face of the policies: names, configurations, what is refused, admission, determinism.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <math.h>

#include "support/policy_world.h"

Test(policy, names)
{
	static const char *const names[] = { "esx", "static", "mom", "ksmtuned" };
	unsigned count = 0;

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct gn_policy_ops *ops = gn_policy_find(names[i]);

		cr_assert_not_null(ops, "%s", names[i]);
		cr_assert_str_eq(ops->name, names[i]);
		cr_assert(strlen(ops->summary) > 10);
	}
	while (gn_policy_at(count))
		count++;
	cr_assert_eq(count, 4);
	cr_assert_null(gn_policy_find("fair"));
	cr_assert_str_eq(gn_policy_reason_text(GN_POLICY_ASKED), "asked");
	cr_assert_str_eq(gn_policy_reason_text((enum gn_policy_reason)99), "unknown");
}

Test(policy, figures_out_of_range_are_refused)
{
	struct gn_policy_config good, bad;
	struct gn_policy *policy;

	gn_policy_config_init(&good);
	for (unsigned i = 0; i < 8; i++) {
		bad = good;
		switch (i) {
		case 0:
			bad.tau = 1;
			break;
		case 1:
			bad.tau = -0.1;
			break;
		case 2:
			bad.tau = NAN;
			break;
		case 3:
			bad.reserve_fraction = 0.9;
			break;
		case 4:
			bad.dead_band_fraction = -1;
			break;
		case 5:
			bad.calm_shrink_per_s = 0;
			break;
		case 6:
			bad.refaults_per_s = 0;
			break;
		default:
			bad.calm_shrink_per_s = INFINITY;
			break;
		}
		cr_assert_eq(gn_policy_create(gn_policy_find("esx"), &bad, &policy), -EINVAL, "%u",
			     i);
	}
	cr_assert_eq(gn_policy_create(gn_policy_find("esx"), &good, &policy), 0);
	gn_policy_destroy(policy);
	gn_policy_destroy(NULL);
}

static int round_with(unsigned flaw)
{
	struct policy_world w;
	struct gn_policy_vm *vm;
	int err;

	cr_assert_eq(policy_world_init(&w, "esx", NULL, 2048 * MIB), 0);
	policy_world_add(&w, 1024 * MIB, 500 * MIB, 100 * MIB);
	vm = policy_world_add(&w, 1024 * MIB, 500 * MIB, 100 * MIB);
	cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
	switch (flaw) {
	case 0:
		vm->min_bytes = 0;
		break;
	case 1:
		vm->min_bytes = vm->max_bytes + 1;
		break;
	case 2:
		vm->max_bytes = vm->mem_bytes + 1;
		break;
	case 3:
		vm->actual_bytes = vm->mem_bytes + 1;
		break;
	case 4:
		vm->target_bytes = vm->mem_bytes + 1;
		break;
	case 5:
		vm->shares = 0;
		break;
	case 6:
		vm->refaults_per_s = NAN;
		break;
	case 7:
		vm->id = w.vms[0].id;
		break;
	case 8:
		w.host.psi_some = NAN;
		break;
	case 9:
		w.now_ns -= 2 * SECOND_NS;
		break;
	case 10:
		vm->mem_bytes = UINT64_MAX / 2;
		break;
	default:
		break;
	}
	memset(w.decisions, 0x5a, sizeof(w.decisions));
	err = policy_world_round(&w, flaw == 9 ? 0 : SECOND_NS);
	policy_world_fini(&w);
	return err;
}

Test(policy, nonsense_is_refused)
{
	for (unsigned flaw = 0; flaw < 11; flaw++)
		cr_assert_eq(round_with(flaw), -EINVAL, "flaw %u", flaw);
	cr_assert_eq(round_with(99), 0);
}

Test(policy, no_vms_and_no_budget)
{
	for (unsigned i = 0; gn_policy_at(i); i++) {
		struct policy_world w;

		cr_assert_eq(policy_world_init(&w, gn_policy_at(i)->name, NULL, 0), 0);
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		policy_world_add(&w, 1024 * MIB, 500 * MIB, 100 * MIB);
		cr_assert_eq(policy_world_round(&w, SECOND_NS), 0);
		cr_assert_leq(w.decisions[0].target_bytes, 500 * MIB);
		cr_assert_geq(w.decisions[0].target_bytes, 64 * MIB);
		policy_world_fini(&w);
	}
}

Test(policy, admission_keeps_reservations)
{
	struct policy_world w;
	struct gn_policy_vm newcomer;

	cr_assert_eq(policy_world_init(&w, "esx", NULL, 1000 * MIB), 0);
	policy_world_add(&w, 1024 * MIB, 500 * MIB, 0)->min_bytes = 400 * MIB;
	policy_world_add(&w, 1024 * MIB, 500 * MIB, 0)->min_bytes = 400 * MIB;
	newcomer = w.vms[0];
	newcomer.id = 1;
	newcomer.min_bytes = 200 * MIB;
	cr_assert_eq(gn_policy_admit(&w.host, w.vms, 2, &newcomer), 0);
	newcomer.min_bytes++;
	cr_assert_eq(gn_policy_admit(&w.host, w.vms, 2, &newcomer), -ENOSPC);
	w.host.budget_bytes = 700 * MIB; /* cut since */
	cr_assert_eq(gn_policy_admit(&w.host, w.vms, 2, &newcomer), -ENOSPC);
	newcomer.shares = 0;
	cr_assert_eq(gn_policy_admit(&w.host, w.vms, 2, &newcomer), -EINVAL);
	policy_world_fini(&w);
}

/* The order in which VMs are named does not matter, and the same calls give the same answers. */
Test(policy, order_does_not_matter)
{
	for (unsigned p = 0; gn_policy_at(p); p++) {
		struct policy_world a, b;

		cr_assert_eq(policy_world_init(&a, gn_policy_at(p)->name, NULL, 1500 * MIB), 0);
		cr_assert_eq(policy_world_init(&b, gn_policy_at(p)->name, NULL, 1500 * MIB), 0);
		for (unsigned i = 0; i < 3; i++)
			policy_world_add(&a, 1024 * MIB, 500 * MIB, (50 + 100 * i) * MIB)
				->guest_free_bytes = 100 * MIB;
		for (unsigned i = 0; i < 3; i++)
			b.vms[b.count++] = a.vms[2 - i];
		for (int round = 0; round < 200; round++) {
			if (round == 50)
				a.vms[0].asks_bytes = b.vms[2].asks_bytes = 256 * MIB;
			if (round == 60)
				a.vms[0].asks_bytes = b.vms[2].asks_bytes = 0;
			cr_assert_eq(policy_world_round(&a, SECOND_NS), 0);
			cr_assert_eq(policy_world_round(&b, SECOND_NS), 0);
			for (unsigned i = 0; i < 3; i++) {
				uint64_t x = a.decisions[i].target_bytes,
					 y = b.decisions[2 - i].target_bytes;

				cr_assert((x > y ? x - y : y - x) <= 4096,
					  "%s round %d vm %u: %lu %lu", gn_policy_at(p)->name,
					  round, i, x, y);
			}
			policy_world_obey(&a);
			policy_world_obey(&b);
		}
		policy_world_fini(&a);
		policy_world_fini(&b);
	}
}
