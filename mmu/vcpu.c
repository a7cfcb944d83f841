/* SPDX-License-Identifier: MIT */
/*
 * vcpu.c - what the guest did: register writes, invalidations, faults, stores.
 *
 * Each report has the same shape. Validate as the architecture does (the answer to a bad value is #GP, and
 * nothing has changed); set the registers; derive the paging mode; let the scheme follow; pass on the flush that
 * the operation means to the guest, first to the scheme (which may hold stale entries on purpose), then to
 * the hardware. When the scheme cannot follow (-ENOMEM), the registers go back to what they were: the
 * guest's instruction did not happen.
 *
 * Source of the #GP rules: Intel SDM vol. 3A 2.5 (control registers), 4.1 (paging modes), 4.10.1 (PCID);
 * vol. 2 (MOV to CR, WRMSR, INVPCID).
 *
 * Not modelled: 32-bit and PAE paging. A guest that turns paging on without long mode is answered with
 * #GP and a line in the log, rather than run wrongly.
 */
#include <errno.h>
#include <string.h>

#include <gnomon/x86.h>

#include "vm.h"

/* ---- Accessors ------------------------------------------------------------------------------------ */

const struct gn_regs *gn_vcpu_regs(const struct gn_vcpu *vcpu)
{
	return &vcpu->regs;
}

const struct gn_hw *gn_vcpu_hw(const struct gn_vcpu *vcpu)
{
	return &vcpu->hw;
}

struct gn_counters *gn_vcpu_counters(struct gn_vcpu *vcpu)
{
	return &vcpu->counters;
}

void *gn_vcpu_backend(const struct gn_vcpu *vcpu)
{
	return vcpu->backend_data;
}

void gn_vcpu_set_backend(struct gn_vcpu *vcpu, void *backend)
{
	vcpu->backend_data = backend;
}

struct gn_vm *gn_vcpu_vm(const struct gn_vcpu *vcpu)
{
	return vcpu->vm;
}

uint16_t gn_vcpu_guest_pcid(const struct gn_vcpu *vcpu)
{
	return vcpu->regs.cr4 & X86_CR4_PCIDE ? vcpu->regs.cr3 & X86_CR3_PCID_MASK : 0;
}

void gn_vcpu_flush(struct gn_vcpu *vcpu, const struct gn_flush *flush)
{
	const struct gn_backend_ops *backend = vcpu->vm->config.backend;

	if (backend && backend->flush)
		backend->flush(vcpu, flush);
}

/* The guest's own invalidation: the scheme's stale entries first, then the hardware's. */
static void guest_flush(struct gn_vcpu *vcpu, const struct gn_flush *flush)
{
	if (vcpu->vm->ops->flush_guest)
		vcpu->vm->ops->flush_guest(vcpu, flush);
	gn_vcpu_flush(vcpu, flush);
}

/* ---- Registers ------------------------------------------------------------------------------------- */

/* Run a scheme's operation; if frames only wait for their grace period, have them and run it again. */
static int run_op(struct gn_vcpu *vcpu, int (*op)(struct gn_vcpu *vcpu))
{
	const uint64_t drains = gn_retire_drains(vcpu->vm);
	int err = op(vcpu);

	if (err == -ENOMEM && gn_retire_drain_since(vcpu->vm, drains))
		err = op(vcpu);
	return err;
}

static int set_regs(struct gn_vcpu *vcpu, const struct gn_regs *regs,
		    int (*op)(struct gn_vcpu *vcpu))
{
	const struct gn_regs old_regs = vcpu->regs;
	const struct gn_paging old_paging = vcpu->paging;
	int err;

	vcpu->regs = *regs;
	gn_paging_derive(regs, vcpu->vm->config.guest_phys_bits, &vcpu->paging);
	err = run_op(vcpu, op);
	if (err) {
		vcpu->regs = old_regs;
		vcpu->paging = old_paging;
	}
	return err;
}

/* CR0, CR4 or EFER became @regs. Only bits that steer paging concern the scheme; a change of them
 * drops every cached translation, as the SDM's list in 4.10.4.1 does for most of them. */
static int change_mode(struct gn_vcpu *vcpu, const struct gn_regs *regs)
{
	const uint64_t cr0_bits = X86_CR0_PG | X86_CR0_WP;
	const uint64_t cr4_bits = X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_SMEP |
				  X86_CR4_SMAP | X86_CR4_LA57 | X86_CR4_PKE;
	const struct gn_flush everything = { .scope = GN_FLUSH_ALL };
	const struct gn_scheme_ops *ops = vcpu->vm->ops;
	const struct gn_regs *old = &vcpu->regs;
	int err;

	if (!((old->cr0 ^ regs->cr0) & cr0_bits) && !((old->cr4 ^ regs->cr4) & cr4_bits) &&
	    !((old->efer ^ regs->efer) & (X86_EFER_NXE | X86_EFER_LMA))) {
		vcpu->regs = *regs;
		return 0;
	}
	err = set_regs(vcpu, regs, ops->mode_change ? ops->mode_change : ops->load_root);
	if (!err)
		guest_flush(vcpu, &everything);
	gn_retire_poll(vcpu->vm);
	return err;
}

/* Why @value may not be written to CR0, or NULL. */
static const char *cr0_fault(const struct gn_regs *regs, uint64_t value)
{
	if (value >> 32)
		return "reserved bits";
	if ((value & X86_CR0_PG) && !(value & X86_CR0_PE))
		return "PG without PE";
	if ((value & X86_CR0_NW) && !(value & X86_CR0_CD))
		return "NW without CD";
	if (!(value & X86_CR0_PG))
		return regs->cr4 & X86_CR4_PCIDE ? "PG cleared with PCIDE set" : NULL;
	if (!(regs->efer & X86_EFER_LME))
		return "32-bit paging, which is not modelled";
	if (!(regs->cr4 & X86_CR4_PAE))
		return "long mode without PAE";
	return NULL;
}

static const char *cr4_fault(const struct gn_regs *regs, uint64_t value)
{
	const uint64_t changed = value ^ regs->cr4;
	const bool long_mode = regs->efer & X86_EFER_LMA;

	if (value & ~X86_CR4_KNOWN)
		return "reserved bits";
	if (long_mode && !(value & X86_CR4_PAE))
		return "PAE cleared in long mode";
	if (long_mode && (changed & X86_CR4_LA57))
		return "LA57 changed in long mode";
	if ((changed & value & X86_CR4_PCIDE) && (!long_mode || (regs->cr3 & X86_CR3_PCID_MASK)))
		return "PCIDE set outside long mode or with a PCID in CR3";
	return NULL;
}

static const char *efer_fault(const struct gn_regs *regs, uint64_t value)
{
	if (value & ~X86_EFER_KNOWN)
		return "reserved bits";
	if ((regs->cr0 & X86_CR0_PG) && ((value ^ regs->efer) & X86_EFER_LME))
		return "LME changed while paging is on";
	return NULL;
}

static const char *cr3_fault(const struct gn_vcpu *vcpu, uint64_t value)
{
	const uint64_t reserved = ~(((uint64_t)1 << vcpu->vm->config.guest_phys_bits) - 1);

	/* Bit 63 is an operand of MOV CR3 when there are PCIDs. */
	if (vcpu->regs.cr4 & X86_CR4_PCIDE)
		value &= ~X86_CR3_NOFLUSH;
	return value & reserved ? "bits beyond the physical address width" : NULL;
}

/* Sets *gp; says why in the log. */
static bool is_refused(const char *reg, uint64_t value, const char *why, bool *gp)
{
	*gp = why != NULL;
	if (why)
		gn_log(GN_LOG_DEBUG, "#GP: %s = %#llx: %s", reg, (unsigned long long)value, why);
	return *gp;
}

int gn_vcpu_write_cr0(struct gn_vcpu *vcpu, uint64_t value, bool *gp)
{
	struct gn_regs regs = vcpu->regs;

	if (is_refused("CR0", value, cr0_fault(&regs, value), gp))
		return 0;
	regs.cr0 = value;
	regs.efer &= ~X86_EFER_LMA;
	if ((value & X86_CR0_PG) && (regs.efer & X86_EFER_LME))
		regs.efer |= X86_EFER_LMA;
	return change_mode(vcpu, &regs);
}

int gn_vcpu_write_cr4(struct gn_vcpu *vcpu, uint64_t value, bool *gp)
{
	struct gn_regs regs = vcpu->regs;
	const char *why = cr4_fault(&regs, value);

	if (!why && vcpu->vm->config.deprivileged && (value & X86_CR4_PKE))
		why = "protection keys, which a deprivileged guest does not have";
	if (is_refused("CR4", value, why, gp))
		return 0;
	regs.cr4 = value;
	return change_mode(vcpu, &regs);
}

/* LMA is the processor's to set: what is written to it is ignored. */
int gn_vcpu_write_efer(struct gn_vcpu *vcpu, uint64_t value, bool *gp)
{
	struct gn_regs regs = vcpu->regs;

	if (is_refused("EFER", value, efer_fault(&regs, value), gp))
		return 0;
	regs.efer = (value & ~X86_EFER_LMA) | (regs.efer & X86_EFER_LMA);
	return change_mode(vcpu, &regs);
}

int gn_vcpu_write_cr3(struct gn_vcpu *vcpu, uint64_t value, bool *gp)
{
	struct gn_regs regs = vcpu->regs;
	bool keeps = (regs.cr4 & X86_CR4_PCIDE) && (value & X86_CR3_NOFLUSH);
	struct gn_flush flush = { .scope = GN_FLUSH_PCID };
	int err;

	if (is_refused("CR3", value, cr3_fault(vcpu, value), gp))
		return 0;
	regs.cr3 = value & ~X86_CR3_NOFLUSH;
	err = set_regs(vcpu, &regs, vcpu->vm->ops->load_root);
	if (!err && !keeps) {
		flush.pcid = gn_vcpu_guest_pcid(vcpu);
		guest_flush(vcpu, &flush);
	}
	gn_retire_poll(vcpu->vm);
	return err;
}

/* No translation is dropped: keys are looked up at each access. */
void gn_vcpu_write_pkru(struct gn_vcpu *vcpu, uint32_t value)
{
	vcpu->regs.pkru = value;
	gn_paging_derive(&vcpu->regs, vcpu->vm->config.guest_phys_bits, &vcpu->paging);
}

/* Why no guest can have @regs, or NULL. */
static const char *regs_fault(const struct gn_vcpu *vcpu, const struct gn_regs *regs)
{
	const bool is_long = (regs->cr0 & X86_CR0_PG) && (regs->efer & X86_EFER_LME);
	const uint64_t reserved = ~(((uint64_t)1 << vcpu->vm->config.guest_phys_bits) - 1);
	struct gn_regs off =
		*regs; /* with paging off, so that only bits of its own are held against each */
	const char *why;

	off.cr0 &= ~X86_CR0_PG;
	why = cr0_fault(regs, regs->cr0);
	if (!why)
		why = efer_fault(&off, regs->efer);
	if (!why && (regs->cr4 & ~X86_CR4_KNOWN))
		why = "reserved bits in CR4";
	if (!why && (regs->cr4 & X86_CR4_PCIDE) && !is_long)
		why = "PCIDE outside long mode";
	if (!why && (regs->cr3 & reserved))
		why = "bits of CR3 beyond the physical address width";
	if (!why && !(regs->efer & X86_EFER_LMA) != !is_long)
		why = "LMA is not LME and PG";
	/* Where the hardware walks its own tables a deprivileged VM's guest may have set them by itself. */
	if (!why && (regs->cr4 & X86_CR4_PKE) && vcpu->vm->config.deprivileged &&
	    vcpu->hw.kind == GN_HW_TABLES)
		why = "protection keys, which a deprivileged guest does not have";
	return why;
}

int gn_vcpu_set_regs(struct gn_vcpu *vcpu, const struct gn_regs *regs)
{
	const struct gn_scheme_ops *ops = vcpu->vm->ops;
	const struct gn_flush everything = { .scope = GN_FLUSH_ALL };
	const char *why = regs_fault(vcpu, regs);
	int err;

	if (why) {
		gn_log(GN_LOG_ERROR, "registers no guest can have: %s", why);
		return -EINVAL;
	}
	err = set_regs(vcpu, regs, ops->mode_change ? ops->mode_change : ops->load_root);
	if (!err)
		guest_flush(vcpu, &everything);
	gn_retire_poll(vcpu->vm);
	return err;
}

static enum gn_view view_of(bool user, bool ac)
{
	if (user)
		return GN_VIEW_USER;
	return ac ? GN_VIEW_KERNEL_AC : GN_VIEW_KERNEL;
}

/* AC makes a difference under SMAP only; without it one kernel root serves both. It is remembered all the same, for
 * the guest may turn SMAP on meanwhile. */
int gn_vcpu_set_privilege(struct gn_vcpu *vcpu, bool user, bool ac)
{
	enum gn_view old = vcpu->view, view = view_of(user, ac);
	bool same_root = !vcpu->paging.smap && old != GN_VIEW_USER && view != GN_VIEW_USER;
	int err = 0;

	if (!vcpu->vm->config.deprivileged || view == old)
		return 0;
	vcpu->view = view;
	if (!same_root) {
		err = run_op(vcpu, vcpu->vm->ops->load_root);
		if (err)
			vcpu->view = old;
		gn_retire_poll(vcpu->vm);
	}
	return err;
}

bool gn_vcpu_translate(struct gn_vcpu *vcpu, const struct gn_access *access, gpa_t *at,
		       uint32_t *error_code)
{
	struct gn_guest_walk walk;

	gn_rcu_read_lock();
	gn_guest_walk(vcpu->vm, &vcpu->paging, vcpu->regs.cr3, access, GN_GW_BRIEF, &walk);
	gn_rcu_read_unlock();
	*error_code = walk.end == GN_GW_PF ? walk.error_code : 0;
	if (walk.end == GN_GW_OK)
		*at = walk.t.gpa;
	return walk.end == GN_GW_OK;
}

/* ---- Invalidations ------------------------------------------------------------------------------------- */

void gn_vcpu_invlpg(struct gn_vcpu *vcpu, gva_t va)
{
	const struct gn_flush flush = { .scope = GN_FLUSH_VA,
					.pcid = gn_vcpu_guest_pcid(vcpu),
					.va = va };

	if (!gn_paging_is_canonical(&vcpu->paging, va))
		return;
	if (vcpu->vm->ops->invlpg)
		vcpu->vm->ops->invlpg(vcpu, va);
	gn_vcpu_flush(vcpu, &flush);
	gn_retire_poll(vcpu->vm);
}

void gn_vcpu_invpcid(struct gn_vcpu *vcpu, unsigned type, uint64_t pcid, gva_t va, bool *gp)
{
	struct gn_flush flush = { .pcid = (uint16_t)pcid, .va = va };
	const bool names_one = type == X86_INVPCID_ADDR || type == X86_INVPCID_SINGLE;

	*gp = type > X86_INVPCID_ALL || (pcid & ~X86_CR3_PCID_MASK) ||
	      (names_one && pcid && !(vcpu->regs.cr4 & X86_CR4_PCIDE)) ||
	      (type == X86_INVPCID_ADDR && !gn_paging_is_canonical(&vcpu->paging, va));
	if (*gp)
		return;
	switch (type) {
	case X86_INVPCID_ADDR:
		flush.scope = GN_FLUSH_VA;
		break;
	case X86_INVPCID_SINGLE:
		flush.scope = GN_FLUSH_PCID;
		break;
	case X86_INVPCID_ALL_GLOBAL:
		flush.scope = GN_FLUSH_ALL;
		break;
	default:
		flush.scope = GN_FLUSH_NONGLOBAL;
		break;
	}
	guest_flush(vcpu, &flush);
	gn_retire_poll(vcpu->vm);
}

/* ---- Faults ----------------------------------------------------------------------------------------------- */

/* What a scheme without an operation of its own needs: frames for nested faults; #PFs are the guest's. */
static int fault_default(struct gn_vcpu *vcpu, const struct gn_fault *fault, struct gn_fix *fix)
{
	p2m_word_t word;

	if (fault->nested)
		return gn_p2m_resolve(vcpu->vm, gpa_to_gfn(fault->gpa),
				      fault->access.kind == GN_WRITE, &word, fix);
	fix->kind = GN_FIX_INJECT;
	fix->error_code = fault->error_code;
	return 0;
}

int gn_vcpu_fault(struct gn_vcpu *vcpu, const struct gn_fault *fault, struct gn_fix *fix)
{
	int (*op)(struct gn_vcpu *, const struct gn_fault *, struct gn_fix *) =
		vcpu->vm->ops->fault ? vcpu->vm->ops->fault : fault_default;
	const uint64_t drains = gn_retire_drains(vcpu->vm);
	int err;

	memset(fix, 0, sizeof(*fix));
	err = op(vcpu, fault, fix);
	if (err == -ENOMEM && gn_retire_drain_since(vcpu->vm, drains)) {
		memset(fix, 0, sizeof(*fix));
		err = op(vcpu, fault, fix);
	}
	gn_retire_poll(vcpu->vm);
	return err;
}

/* ---- Stores ------------------------------------------------------------------------------------------------- */

/* As the guest's own store would be: a walker never sees half of an entry. */
static void store(void *to, const void *from, unsigned bytes)
{
	uint64_t v = 0;

	if (bytes > 8 || (bytes & (bytes - 1)) || (uintptr_t)to % bytes) {
		memcpy(to, from, bytes);
		return;
	}
	memcpy(&v, from, bytes);
	switch (bytes) {
	case 1:
		__atomic_store_n((uint8_t *)to, (uint8_t)v, __ATOMIC_RELEASE);
		break;
	case 2:
		__atomic_store_n((uint16_t *)to, (uint16_t)v, __ATOMIC_RELEASE);
		break;
	case 4:
		__atomic_store_n((uint32_t *)to, (uint32_t)v, __ATOMIC_RELEASE);
		break;
	default:
		__atomic_store_n((uint64_t *)to, v, __ATOMIC_RELEASE);
		break;
	}
}

/* Of an aligned 1, 2, 4 or 8. */
static bool exchange(void *at, uint64_t expected, uint64_t desired, unsigned bytes)
{
	uint8_t e8 = (uint8_t)expected;
	uint16_t e16 = (uint16_t)expected;
	uint32_t e32 = (uint32_t)expected;

	switch (bytes) {
	case 1:
		return __atomic_compare_exchange_n((uint8_t *)at, &e8, (uint8_t)desired, false,
						   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	case 2:
		return __atomic_compare_exchange_n((uint16_t *)at, &e16, (uint16_t)desired, false,
						   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	case 4:
		return __atomic_compare_exchange_n((uint32_t *)at, &e32, (uint32_t)desired, false,
						   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	default:
		return __atomic_compare_exchange_n((uint64_t *)at, &expected, desired, false,
						   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	}
}

/* What is to be done to guest memory: a store, or an exchange. */
struct change {
	const void *buf; /* NULL: exchange */
	uint64_t expected, desired;
	unsigned bytes;
	bool done;
};

/* False: the word changed since it was resolved. */
static bool change_now(struct gn_vm *vm, gpa_t at, struct change *change)
{
	p2m_word_t w;
	bool grants;

	gn_rcu_read_lock();
	w = gn_p2m_get_to_store(vm, gpa_to_gfn(at));
	grants = gn_p2m_word_grants(w, GN_W);
	if (grants) {
		void *to = gn_p2m_pointer_of(vm, w, at);

		change->done = true;
		if (change->buf)
			store(to, change->buf, change->bytes);
		else
			change->done =
				exchange(to, change->expected, change->desired, change->bytes);
	}
	gn_rcu_read_unlock();
	return grants;
}

static int change_memory(struct gn_vcpu *vcpu, gpa_t at, struct change *change)
{
	struct gn_vm *vm = vcpu->vm;

	do {
		struct gn_fix fix = { 0 };
		p2m_word_t w;
		int err = gn_p2m_resolve(vm, gpa_to_gfn(at), true, &w, &fix);

		if (err)
			return err;
		if (fix.kind != GN_FIX_RETRY)
			return -EFAULT;
	} while (!change_now(vm, at, change));
	if (!change->done)
		return 0;
	if (vm->ops->memory_written) {
		vcpu->counters.pt_writes_trapped++;
		vm->ops->memory_written(vm, vcpu, at, change->bytes);
	}
	gn_retire_poll(vm);
	return 0;
}

int gn_vcpu_store(struct gn_vcpu *vcpu, gpa_t at, const void *buf, unsigned bytes)
{
	struct change change = { .buf = buf, .bytes = bytes };

	if (!bytes || (at.v & (GN_PAGE_SIZE - 1)) + bytes > GN_PAGE_SIZE)
		return -EFAULT;
	return change_memory(vcpu, at, &change);
}

int gn_vcpu_exchange(struct gn_vcpu *vcpu, gpa_t at, uint64_t expected, uint64_t desired,
		     unsigned bytes, bool *done)
{
	struct change change = { .expected = expected, .desired = desired, .bytes = bytes };
	int err;

	if (!bytes || bytes > 8 || (bytes & (bytes - 1)) || at.v % bytes)
		return -EFAULT;
	err = change_memory(vcpu, at, &change);
	*done = !err && change.done;
	return err;
}
