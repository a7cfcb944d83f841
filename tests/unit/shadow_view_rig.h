/* SPDX-License-Identifier: MIT */
/*
 * shadow_view_rig.h - a deprivileged guest on shadow_rig.h, under either shadow scheme.
 */
#ifndef GN_TESTS_SHADOW_VIEW_RIG_H
#define GN_TESTS_SHADOW_VIEW_RIG_H

#include "unit/shadow_check.h"

#define USER	  ((uint64_t)0x40000000)
#define PAGE(n)	  ((uint64_t)(n) << 12)
#define FREE_GFN  2048
#define KERNEL_RO (X86_PTE_P | X86_PTE_A)

static const char *const schemes[] = { "shadow", "shadow-vtlb" };
#define SCHEMES 2

static inline struct gn_vm_config views_config(unsigned scheme)
{
	return (struct gn_vm_config){ .scheme = schemes[scheme], .deprivileged = true };
}

static inline void views_start(struct rig *rig, unsigned scheme)
{
	const struct gn_vm_config config = views_config(scheme);

	rig_start(rig, &config);
}

static inline void privilege(struct rig *rig, bool user, bool ac)
{
	cr_assert_eq(gn_vcpu_set_privilege(rig->vcpu, user, ac), 0);
}

static inline void cr4(struct rig *rig, uint64_t bits)
{
	bool gp;

	cr_assert(!gn_vcpu_write_cr4(rig->vcpu, X86_CR4_PAE | X86_CR4_PGE | bits, &gp) && !gp);
}

static inline struct rig_result kernel(struct rig *rig, unsigned kind, uint64_t va, bool ac)
{
	const struct gn_access a = { .va = gva(va), .kind = (uint8_t)kind, .size = 8, .ac = ac };

	return rig_run(rig, rig->vcpu, &a, 7);
}

static inline struct gn_fix fault(struct rig *rig, const struct gn_access *a)
{
	const struct gn_fault f = { .access = *a };
	struct gn_fix fix;

	cr_assert_eq(gn_vcpu_fault(rig->vcpu, &f, &fix), 0);
	return fix;
}

#endif
