/* SPDX-License-Identifier: MIT */
/*
 * scheme.h - what a translation scheme is: a table of whole operations.
 *
 * To add a scheme, fill one of these; docs/adding-a-scheme.md does it from an empty file. All operations
 * but vm_init, vm_fini, vcpu_init and load_root may be NULL.
 *
 * Calling context: vCPU operations are called by the vCPU's thread, outside RCU read sections and with
 * no lock held; they take the scheme's own lock. range() is called by a p2m writer with the p2m lock held and
 * the sequence odd: it must not wait for a fault that waits for the sequence.
 */
#ifndef GN_MMU_SCHEME_H
#define GN_MMU_SCHEME_H

#include "guest_walk.h"

struct gn_scheme_ops {
	const char *name;
	const char *summary; /* one line, for `gnomon list schemes` */
	bool keeps_tables;

	int (*vm_init)(struct gn_vm *vm);  /* sets vm->scheme_data; -ENOMEM */
	void (*vm_fini)(struct gn_vm *vm); /* every table retired, every byte freed */
	int (*vcpu_init)(
		struct gn_vcpu *vcpu); /* sets vcpu->scheme_data and vcpu->hw from its registers */
	void (*vcpu_fini)(struct gn_vcpu *vcpu);

	/* vcpu->regs and vcpu->paging are new already. Set vcpu->hw. -ENOMEM. */
	int (*load_root)(struct gn_vcpu *vcpu);	  /* CR3 was written */
	int (*mode_change)(struct gn_vcpu *vcpu); /* CR0, CR4 or EFER; NULL: load_root does */
	/* The guest's own invalidations, before the engine passes them to the hardware. */
	void (*invlpg)(struct gn_vcpu *vcpu, gva_t va);
	void (*flush_guest)(
		struct gn_vcpu *vcpu,
		const struct gn_flush *what); /* INVPCID, CR3 without NOFLUSH, CR4.PGE */

	int (*fault)(struct gn_vcpu *vcpu, const struct gn_fault *fault, struct gn_fix *fix);
	/* Guest memory [at, at+bytes), within one page, was changed by gn_vcpu_store or from outside; any
	 * thread, vcpu NULL from outside. Called after the store. */
	void (*memory_written)(struct gn_vm *vm, struct gn_vcpu *vcpu, gpa_t at, unsigned bytes);

	/* Forget what maps the runs, or take W from it. One run or more, sorted and disjoint; some may be empty. Who asks posts a flush of
	 * everything afterwards; one before is the scheme's affair, if it gives up tables. */
	void (*range)(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count,
		      enum gn_range_change change);
	/* The runs' gfns have frames with the same contents as before, may be others, and no page of theirs is writable, as
	 * range() left them (GN_RANGE_WRPROTECT): what maps them goes on with the frames that their words name now, or is forgotten; so that
	 * reads need not wait for a change that means nothing to them, nor fault after it. No fault installs meanwhile. A guest table among them is
	 * unshadowed. NULL: range() is told to forget them before. Returns whether a flush is owed, which the caller posts. */
	bool (*moved)(struct gn_vm *vm, const struct gn_gfn_run *runs, size_t count);
	/* The dirty log is on and everything is write-protected: split large leaves now rather than at
	 * each first write, if you like. vm->lock held, the p2m lock not; other threads fault meanwhile. */
	void (*dirty_started)(struct gn_vm *vm);
	/* Test and clear accessed bits into the bitmap (bit 0 = start). */
	void (*harvest_accessed)(struct gn_vm *vm, gfn_t start, gfn_t end, uint8_t *bitmap);
	/* The scheme's own proof; see audit.h for what it must report. */
	void (*audit)(struct gn_vm *vm, struct gn_audit_report *report);
};

#endif
