/* SPDX-License-Identifier: MIT */
/*
 * interp.c - the scheme `interp`: software walks both tables at each access.
 *
 * The composition GVA -> GPA -> HPA in its plainest form, and the seed of the others: shadow paging
 * remembers what is computed here, nested paging has hardware compute it. Every access is an exit; that
 * is the point, and the price.
 *
 * Nothing is remembered, so nothing can be stale: no tables, no invalidation, no flush. Because every
 * write passes here (and the walk marks the tables it sets A or D in), the dirty log is exact without a
 * write-protected entry anywhere.
 *
 * The walk runs in an RCU read section; a frame that is missing is resolved outside of it, and then the
 * walk starts from the beginning, for the guest may have changed its tables meanwhile.
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
	vcpu->hw = (struct gn_hw){ .kind = GN_HW_SOFTWARE };
	return load_root(vcpu);
}

/* The second half: GPA to HPA. True: *fix is the answer. False: the page needs resolving. */
static bool compose(struct gn_vm *vm, gpa_t at, gn_rights_t need, struct gn_fix *fix)
{
	p2m_word_t word = gn_p2m_get(&vm->p2m, gpa_to_gfn(at));

	if (!gn_p2m_word_has_frame(word) || (need & ~gn_p2m_word_rights(word)))
		return false;
	if ((need & GN_W) && gn_dirty_is_logged(vm))
		gn_dirty_mark(vm, gpa_to_gfn(at));
	fix->kind = GN_FIX_ACCESS;
	fix->gpa = at;
	fix->hpa = hpa(pfn_to_hpa(gn_p2m_word_pfn(word)).v | (at.v & (GN_PAGE_SIZE - 1)));
	return true;
}

static gn_rights_t rights_needed(const struct gn_access *access)
{
	static const gn_rights_t need[] = {
		[GN_READ] = GN_R, [GN_WRITE] = GN_R | GN_W, [GN_FETCH] = GN_R | GN_X
	};

	return need[access->kind];
}

/* One walk. True: *fix is the answer. False: *missing must be resolved (for a write if *write). */
static bool translate(struct gn_vcpu *vcpu, const struct gn_access *access, struct gn_fix *fix,
		      gpa_t *missing, bool *on_table, bool *write)
{
	struct gn_vm *vm = vcpu->vm;
	struct gn_guest_walk walk;

	gn_guest_walk(vm, &vcpu->paging, vcpu->regs.cr3, access, GN_GW_SET_AD, &walk);
	switch (walk.end) {
	case GN_GW_GP:
		fix->kind = GN_FIX_INJECT_GP;
		return true;
	case GN_GW_PF:
		fix->kind = GN_FIX_INJECT;
		fix->error_code = walk.error_code;
		return true;
	case GN_GW_NO_TABLE: /* not memory, or not writable where A or D must be set */
		*missing = walk.gpa;
		*on_table = true;
		*write = true;
		return false;
	case GN_GW_OK:
		break;
	}
	*missing = walk.t.gpa;
	*on_table = false;
	*write = access->kind == GN_WRITE;
	return compose(vm, walk.t.gpa, rights_needed(access), fix);
}

/* The backend was told of an access and not of a walk: it can't answer for a table as it would for the
 * datum (a device's register, a store dropped). */
static void stop_at_table(struct gn_fix *fix)
{
	if (fix->kind == GN_FIX_MMIO)
		fix->why = "a page table lies outside of memory";
	fix->kind = GN_FIX_STOP;
}

static int fault(struct gn_vcpu *vcpu, const struct gn_fault *what, struct gn_fix *fix)
{
	for (;;) {
		gpa_t missing;
		p2m_word_t word;
		bool on_table, write, answered;
		int err;

		rcu_read_lock();
		answered = translate(vcpu, &what->access, fix, &missing, &on_table, &write);
		rcu_read_unlock();
		if (answered)
			return 0;
		err = gn_p2m_resolve(vcpu->vm, gpa_to_gfn(missing), write, &word, fix);
		if (err)
			return err;
		fix->gpa = missing;
		if (fix->kind != GN_FIX_RETRY) {
			if (on_table)
				stop_at_table(fix);
			return 0;
		}
		if (what->access.kind == GN_FETCH && !(gn_p2m_word_rights(word) & GN_X)) {
			fix->kind = GN_FIX_DENIED;
			fix->why = "the p2m does not grant this access";
			return 0;
		}
		vcpu->counters.nested_faults++;
	}
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
