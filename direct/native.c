/* SPDX-License-Identifier: MIT */
/*
 * native.c - the scheme `native`: the hardware walks the guest's own tables. The baseline.
 *
 * It stands for the same program on a machine without a hypervisor: one dimension, no tables of ours, no
 * intercepts. The guest's physical addresses still have to become frames of the pool; the machine
 * does that through the p2m, outside of what it counts. There is nothing to cache, so nothing to
 * invalidate and nothing to audit.
 *
 * What the p2m withholds (no frame yet, a shared or read-only frame, a balloon) cannot be expressed in
 * tables here; the machine consults the p2m in its free translation and reports a nested fault. For an
 * access of the walker itself (fault.on_table) it reports one only if the walk could not go on
 * without: to read a table that has no frame, or to set A or D in one that may not be written. Filling
 * for a write is right for both.
 *
 * Deliberately absent: the dirty log and accessed harvest. No entry of ours exists to withhold W or
 * to carry A.
 */
#include "mmu/vm.h"

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
	vcpu->hw = (struct gn_hw){ .kind = GN_HW_GUEST };
	return load_root(vcpu);
}

static int fault(struct gn_vcpu *vcpu, const struct gn_fault *what, struct gn_fix *fix)
{
	bool write = what->on_table || what->access.kind == GN_WRITE;
	p2m_word_t word;
	int err;

	if (!what->nested) { /* not intercepted: the guest's own affair */
		fix->kind = GN_FIX_INJECT;
		fix->error_code = what->error_code;
		return 0;
	}
	err = gn_p2m_resolve(vcpu->vm, gpa_to_gfn(what->gpa), write, &word, fix);
	if (err)
		return err;
	fix->gpa = what->gpa;
	vcpu->counters.nested_faults += fix->kind == GN_FIX_RETRY;
	return 0;
}

const struct gn_scheme_ops gn_scheme_native = {
	.name = "native",
	.summary = "no hypervisor: the hardware walks the guest's own tables (baseline)",
	.keeps_tables = false,
	.vm_init = vm_init,
	.vm_fini = vm_fini,
	.vcpu_init = vcpu_init,
	.load_root = load_root,
	.fault = fault,
};
