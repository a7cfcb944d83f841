/* SPDX-License-Identifier: MIT */
/*
 * interp.c - the scheme `interp`: software walks both tables at each access.
 *
 * The composition GVA -> GPA -> HPA in its plainest form, and the seed of the others: shadow paging
 * remembers what is computed here, nested paging has hardware compute it. Every access is an exit; that
 * is the point, and the price.
 *
 * Nothing is remembered, so nothing can be stale: no tables, no invalidation, no flush. Every
 * write passes here (and the walk marks the tables it sets A or D in), so the dirty log needs no
 * write-protected entry anywhere.
 *
 * The work is gn_software_access(); what is left for a scheme is to say that everything exits.
 */
#include "mmu/software_access.h"

static int vm_init(struct gn_vm *vm)
{
	vm->scheme_data = NULL;
	return 0;
}

static void vm_fini(struct gn_vm *vm)
{
	vm->scheme_data = NULL;
}

static int load_root(struct gn_vcpu *vcpu)
{
	vcpu->hw.pcid = gn_vcpu_guest_pcid(vcpu);
	return 0;
}

static int vcpu_init(struct gn_vcpu *vcpu)
{
	vcpu->hw = (struct gn_hw){ .kind = GN_HW_SOFTWARE };
	return load_root(vcpu);
}

static int fault(struct gn_vcpu *vcpu, const struct gn_fault *what, struct gn_fix *fix)
{
	return gn_software_access(vcpu, &what->access, fix, &vcpu->counters.nested_faults);
}

const struct gn_scheme_ops gn_scheme_interp = {
	.name = "interp",
	.summary = "interpretation: software walks both tables at every access",
	.keeps_tables = false,
	.vm_init = vm_init,
	.vm_fini = vm_fini,
	.vcpu_init = vcpu_init,
	.load_root = load_root,
	.fault = fault,
};
