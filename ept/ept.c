/* SPDX-License-Identifier: MIT */
/*
 * ept.c - the schemes `ept` and `npt`: the hardware walks two dimensions.
 *
 * The guest owns its page tables and CR3 and never exits for them; the hardware translates every
 * guest-physical address, those of the guest's tables included, through ours. So there is nothing to intercept
 * and nothing to do on CR3, INVLPG or a mode change but to keep the tag of the translations right. All that
 * can go wrong is a nested violation: the p2m is asked, and what it says is installed.
 *
 * Accessed and dirty bits are on at the nested level; then reads of guest tables count as nested
 * writes (Intel SDM 3C 29.3.2 "EPT A/D"; AMD APM 2 15.25.5 asks for W and U on them always). So hardware cannot
 * walk a guest table in read-only memory, though the architecture lets it as long as no bit must be set.
 * Such an access is translated by software, one exit each.
 */
#include "builder.h"

#include "mmu/software_access.h"

#include <sched.h>

static int tables_init(struct gn_vm *vm, const struct gn_fmt *fmt)
{
	struct gn_ept *ept;
	int err = gn_ept_new(vm, fmt, &ept);

	if (!err)
		vm->scheme_data = ept;
	return err;
}

static int ept_vm_init(struct gn_vm *vm)
{
	return tables_init(vm, vm->config.nested_levels == 5 ? &gn_fmt_ept_5 : &gn_fmt_ept_4);
}

static int npt_vm_init(struct gn_vm *vm)
{
	return tables_init(vm, vm->config.nested_levels == 5 ? &gn_fmt_npt_5 : &gn_fmt_npt_4);
}

static void vm_fini(struct gn_vm *vm)
{
	gn_ept_destroy(vm, (struct gn_ept *)vm->scheme_data);
	vm->scheme_data = NULL;
}

static int load_root(struct gn_vcpu *vcpu)
{
	vcpu->hw.pcid = gn_vcpu_guest_pcid(vcpu);
	return 0;
}

static int vcpu_init(struct gn_vcpu *vcpu)
{
	const struct gn_ept *ept = (const struct gn_ept *)vcpu->vm->scheme_data;

	vcpu->hw = (struct gn_hw){ .kind = GN_HW_NESTED,
				   .fmt = ept->fmt,
				   .root = pfn_to_hpa(ept->root),
				   .nested_ad = true };
	return load_root(vcpu);
}

static gn_rights_t rights_needed(const struct gn_fault *fault)
{
	if (fault->on_table || fault->access.kind == GN_WRITE)
		return GN_R | GN_W;
	return fault->access.kind == GN_FETCH ? GN_R | GN_X : GN_R;
}

/* Install what @word says. False: not done, start again with a new word. */
static int install(struct gn_vcpu *vcpu, const struct gn_fault *fault, gn_rights_t need,
		   p2m_word_t word, uint64_t sequence, struct gn_ept_spare *spare, bool *done)
{
	struct gn_vm *vm = vcpu->vm;
	struct gn_ept *ept = (struct gn_ept *)vm->scheme_data;
	struct gn_ept_slot *slot = &ept->slots[vcpu->index];
	enum gn_ept_step step;

	*done = false;
	if (!gn_ept_enter(vm, slot, sequence))
		return 0;
	step = gn_ept_map(vm, ept, gpa_to_gfn(fault->gpa), word, need, spare);
	gn_ept_leave(slot);
	*done = step == GN_EPT_DONE;
	if (step == GN_EPT_NEED_TABLE)
		return gn_ept_spare_fill(vm, spare);
	if (step == GN_EPT_BUSY)
		sched_yield();
	return 0;
}

static int fault(struct gn_vcpu *vcpu, const struct gn_fault *what, struct gn_fix *fix)
{
	struct gn_vm *vm = vcpu->vm;
	gn_rights_t need = rights_needed(what);
	struct gn_ept_spare spare = { .full = false };
	bool done = false;
	int err = 0;

	if (!what->nested) { /* not intercepted: the guest's own affair */
		fix->kind = GN_FIX_INJECT;
		fix->error_code = what->error_code;
		return 0;
	}
	while (!done && !err) {
		uint64_t sequence = gn_p2m_begin_read(&vm->p2m);
		p2m_word_t word;

		err = gn_p2m_resolve(vm, gpa_to_gfn(what->gpa), need & GN_W, &word, fix);
		fix->gpa = what->gpa;
		if (err || fix->kind != GN_FIX_RETRY)
			break;
		if (GN_UNLIKELY(need & ~gn_p2m_word_rights(word))) {
			fix->kind = GN_FIX_DENIED;
			fix->why = "the p2m does not grant this access";
			break;
		}
		err = install(vcpu, what, need, word, sequence, &spare, &done);
	}
	if (GN_UNLIKELY(spare.full))
		gn_ept_spare_drop(vm, &spare);
	vcpu->counters.nested_faults += done;
	if (GN_UNLIKELY(!err && fix->kind == GN_FIX_DENIED && what->on_table))
		return gn_software_access(vcpu, &what->access, fix, &vcpu->counters.nested_faults);
	return err;
}

const struct gn_scheme_ops gn_scheme_ept = {
	.name = "ept",
	.summary = "nested paging, Intel EPT format: the hardware walks guest tables and ours",
	.keeps_tables = true,
	.vm_init = ept_vm_init,
	.vm_fini = vm_fini,
	.vcpu_init = vcpu_init,
	.load_root = load_root,
	.fault = fault,
	.range = gn_ept_range,
	.moved = gn_ept_moved,
	.dirty_started = gn_ept_split_all,
	.harvest_accessed = gn_ept_harvest_accessed,
	.audit = gn_ept_audit,
};

const struct gn_scheme_ops gn_scheme_npt = {
	.name = "npt",
	.summary = "nested paging, AMD NPT format: the hardware walks guest tables and ours",
	.keeps_tables = true,
	.vm_init = npt_vm_init,
	.vm_fini = vm_fini,
	.vcpu_init = vcpu_init,
	.load_root = load_root,
	.fault = fault,
	.range = gn_ept_range,
	.moved = gn_ept_moved,
	.dirty_started = gn_ept_split_all,
	.harvest_accessed = gn_ept_harvest_accessed,
	.audit = gn_ept_audit,
};
