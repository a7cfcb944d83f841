/* SPDX-License-Identifier: MIT */
/*
 * software_access.c - the composition GVA -> GPA -> HPA in its plainest form.
 *
 * The walk runs in an RCU read section; a frame that is missing is resolved outside of it, and then the
 * walk starts from the beginning, for the guest may have changed its tables meanwhile. A write marks the dirty
 * log here, the walk marks the tables it sets A or D in; so nothing needs write-protecting for the log's sake.
 *
 * A backend is told of an access and not of a walk, so it can't answer for a table as it would for the datum (a
 * device's register, a store that ROM drops). A table that is no memory therefore stops the guest.
 */
#include "software_access.h"

struct missing {
	gpa_t at;
	bool is_table, for_write;
};

/* The second half. True: *fix is the answer. False: the page needs resolving. */
static bool compose(struct gn_vm *vm, gpa_t at, gn_rights_t need, struct gn_fix *fix)
{
	p2m_word_t word = need & GN_W ? gn_p2m_get_to_store(vm, gpa_to_gfn(at))
				      : gn_p2m_get(&vm->p2m, gpa_to_gfn(at));

	if (!gn_p2m_word_grants(word, need))
		return false;
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

/* One walk. True: *fix is the answer. False: *missing must be resolved first. */
static bool translate(struct gn_vcpu *vcpu, const struct gn_access *access, struct gn_fix *fix,
		      struct missing *missing)
{
	struct gn_guest_walk walk;

	gn_guest_walk(vcpu->vm, &vcpu->paging, vcpu->regs.cr3, access, GN_GW_SET_AD | GN_GW_BRIEF,
		      &walk);
	switch (walk.end) {
	case GN_GW_GP:
		fix->kind = GN_FIX_INJECT_GP;
		return true;
	case GN_GW_PF:
		fix->kind = GN_FIX_INJECT;
		fix->error_code = walk.error_code;
		return true;
	case GN_GW_NO_TABLE: /* not memory, or not writable where A or D must be set */
		*missing = (struct missing){ walk.gpa, .is_table = true, .for_write = true };
		return false;
	case GN_GW_OK:
		break;
	}
	*missing = (struct missing){ walk.t.gpa, .for_write = access->kind == GN_WRITE };
	return compose(vcpu->vm, walk.t.gpa, rights_needed(access), fix);
}

static void stop_at_table(struct gn_fix *fix)
{
	if (fix->kind == GN_FIX_MMIO)
		fix->why = "a page table lies outside of memory";
	fix->kind = GN_FIX_STOP;
}

int gn_software_access(struct gn_vcpu *vcpu, const struct gn_access *access, struct gn_fix *fix,
		       uint64_t *filled)
{
	for (;;) {
		struct missing missing;
		p2m_word_t word;
		bool answered;
		int err;

		fix->sequence = gn_p2m_begin_read(&vcpu->vm->p2m);
		gn_rcu_read_lock();
		answered = translate(vcpu, access, fix, &missing);
		gn_rcu_read_unlock();
		if (answered)
			return 0;
		err = gn_p2m_resolve(vcpu->vm, gpa_to_gfn(missing.at), missing.for_write, &word,
				     fix);
		if (err)
			return err;
		fix->gpa = missing.at;
		if (fix->kind != GN_FIX_RETRY) {
			if (missing.is_table)
				stop_at_table(fix);
			return 0;
		}
		++*filled;
	}
}

bool gn_fix_is_current(const struct gn_vm *vm, const struct gn_fix *fix)
{
	return !gn_p2m_retry(&vm->p2m, fix->sequence);
}
