/* SPDX-License-Identifier: MIT */
/*
 * privileged.c - registers, invalidations, mode changes, hypercalls.
 *
 * The engine is told of all of them, since its state must follow; an exit is paid for those the
 * scheme intercepts. A value the architecture refuses, or CPL 3, raises #GP(0) in the guest; its handler may
 * ask for the operation to be run again.
 */
#include "cpu.h"

#include <errno.h>

#include <gnomon/x86.h>

bool gn_soft_set_privilege(struct gn_soft_cpu *cpu, bool user, bool ac)
{
	int err = 0;

	if (GN_UNLIKELY(cpu->soft->deprivileged)) {
		gn_soft_call(cpu);
		err = gn_vcpu_set_privilege(cpu->vcpu, user, ac);
		gn_soft_return(cpu);
	}
	if (err) {
		gn_soft_fail(cpu, err, "the host could not change the guest's privilege: error %d",
			     -err);
		return false;
	}
	cpu->user = user;
	cpu->ac = ac;
	gn_soft_set_mode(cpu);
	return true;
}

void gn_soft_charge_privilege(struct gn_soft_cpu *cpu)
{
	if (cpu->is_deprivileged)
		gn_soft_charge_exit(cpu, GN_EXIT_HYPERCALL, cpu->cost.vmm_other);
}

enum operation { OP_CR0, OP_CR3, OP_CR4, OP_EFER, OP_INVLPG, OP_INVPCID };

struct request {
	enum operation op;
	uint64_t value; /* of the register; of INVPCID: the type */
	uint64_t pcid;
	gva_t va;
};

static void report(struct gn_soft_cpu *cpu, const struct request *r)
{
	struct gn_soft_op op = { GN_OP_CR, 0, r->value };

	if (!cpu->op_hook)
		return;
	if (r->op == OP_CR4)
		op.a = 4;
	else if (r->op == OP_EFER)
		op.a = GN_OP_CR_EFER;
	if (r->op == OP_CR3)
		op = (struct gn_soft_op){ GN_OP_CR3, r->value, 0 };
	else if (r->op == OP_INVLPG)
		op = (struct gn_soft_op){ GN_OP_INVLPG, r->va.v, 0 };
	else if (r->op == OP_INVPCID)
		op = (struct gn_soft_op){ GN_OP_INVPCID, r->value << 16 | r->pcid, r->va.v };
	cpu->op_hook(cpu->op_ctx, &op);
}

static void charge(struct gn_soft_cpu *cpu, enum operation op)
{
	uint32_t intercepts = cpu->vcpu->hw.intercepts;

	switch (op) {
	case OP_CR3:
		gn_soft_charge_base(cpu, cpu->cost.cr3);
		if (intercepts & GN_ICPT_CR3)
			gn_soft_charge_exit(cpu, GN_EXIT_CR3, cpu->cost.vmm_cr3);
		break;
	case OP_CR0:
	case OP_CR4:
	case OP_EFER:
		gn_soft_charge_base(cpu, cpu->cost.cr);
		if (intercepts & GN_ICPT_CR)
			gn_soft_charge_exit(cpu, GN_EXIT_CR_ACCESS, cpu->cost.vmm_cr);
		break;
	case OP_INVLPG: /* its own cost is that of the flush it asks for */
		if (intercepts & GN_ICPT_INVLPG)
			gn_soft_charge_exit(cpu, GN_EXIT_INVLPG, cpu->cost.vmm_invalidate);
		break;
	case OP_INVPCID:
		if (intercepts & GN_ICPT_INVPCID)
			gn_soft_charge_exit(cpu, GN_EXIT_INVPCID, cpu->cost.vmm_invalidate);
		break;
	}
}

static int tell_engine(struct gn_vcpu *vcpu, const struct request *r, bool *gp)
{
	switch (r->op) {
	case OP_CR0:
		return gn_vcpu_write_cr0(vcpu, r->value, gp);
	case OP_CR3:
		return gn_vcpu_write_cr3(vcpu, r->value, gp);
	case OP_CR4:
		return gn_vcpu_write_cr4(vcpu, r->value, gp);
	case OP_EFER:
		return gn_vcpu_write_efer(vcpu, r->value, gp);
	case OP_INVLPG:
		gn_vcpu_invlpg(vcpu, r->va);
		return 0;
	case OP_INVPCID:
		gn_vcpu_invpcid(vcpu, (unsigned)r->value, r->pcid, r->va, gp);
		return 0;
	}
	return 0;
}

/* Raise #GP(0). True: the handler wants the operation to be run again. */
static bool raise_gp(struct gn_soft_cpu *cpu, unsigned tries)
{
	if (tries == GN_SOFT_MAX_RETRIES) {
		gn_soft_fail(cpu, -ECANCELED,
			     "a privileged operation raised #GP in each of %d tries",
			     GN_SOFT_MAX_RETRIES);
		return false;
	}
	return gn_soft_deliver(cpu, X86_VEC_GP, 0, gva(0)) == GN_SOFT_RESTART;
}

static void run_privileged(struct gn_soft_cpu *cpu, const struct request *r)
{
	unsigned tries = 0;
	bool gp;

	do {
		int err;

		gp = cpu->user;
		if (gp)
			continue;
		report(cpu, r);
		charge(cpu, r->op);
		gn_soft_call(cpu);
		err = tell_engine(cpu->vcpu, r, &gp);
		gn_soft_return(cpu);
		if (err) {
			gn_soft_fail(
				cpu, err,
				"the host could not carry out a privileged operation: error %d",
				-err);
			return;
		}
	} while (gp && raise_gp(cpu, tries++));
}

void gn_soft_write_cr0(struct gn_soft_cpu *cpu, uint64_t value)
{
	run_privileged(cpu, &(const struct request){ .op = OP_CR0, .value = value });
}

void gn_soft_write_cr3(struct gn_soft_cpu *cpu, uint64_t value)
{
	run_privileged(cpu, &(const struct request){ .op = OP_CR3, .value = value });
}

void gn_soft_write_cr4(struct gn_soft_cpu *cpu, uint64_t value)
{
	run_privileged(cpu, &(const struct request){ .op = OP_CR4, .value = value });
}

void gn_soft_write_efer(struct gn_soft_cpu *cpu, uint64_t value)
{
	run_privileged(cpu, &(const struct request){ .op = OP_EFER, .value = value });
}

void gn_soft_invlpg(struct gn_soft_cpu *cpu, gva_t va)
{
	run_privileged(cpu, &(const struct request){ .op = OP_INVLPG, .va = va });
}

void gn_soft_invpcid(struct gn_soft_cpu *cpu, unsigned type, uint64_t pcid, gva_t va)
{
	run_privileged(cpu, &(const struct request){
				    .op = OP_INVPCID, .value = type, .pcid = pcid, .va = va });
}

void gn_soft_write_pkru(struct gn_soft_cpu *cpu, uint32_t value)
{
	gn_soft_compute(cpu, 1);
	gn_soft_call(cpu);
	gn_vcpu_write_pkru(cpu->vcpu, value);
	gn_soft_return(cpu);
}

/* True: at CPL 0, after as many #GP as it took. */
static bool become_privileged(struct gn_soft_cpu *cpu)
{
	for (unsigned tries = 0; cpu->user; tries++)
		if (!raise_gp(cpu, tries))
			return false;
	return true;
}

void gn_soft_set_ac(struct gn_soft_cpu *cpu, bool ac)
{
	if (!become_privileged(cpu))
		return;
	gn_soft_compute(cpu, 1);
	gn_soft_charge_privilege(cpu);
	gn_soft_set_privilege(cpu, false, ac);
}

uint64_t gn_soft_hypercall(struct gn_soft_cpu *cpu, uint64_t nr, uint64_t arg)
{
	if (!become_privileged(cpu))
		return ~(uint64_t)0;
	gn_soft_compute(cpu, 1);
	if (!cpu->is_native)
		gn_soft_charge_exit(cpu, GN_EXIT_HYPERCALL, cpu->cost.vmm_other);
	return cpu->soft->hypercall ? cpu->soft->hypercall(cpu->soft->hypercall_ctx, nr, arg)
				    : (uint64_t)-ENOSYS;
}

void gn_soft_enter_kernel(struct gn_soft_cpu *cpu)
{
	gn_soft_charge_base(cpu, cpu->cost.syscall);
	gn_soft_charge_privilege(cpu);
	gn_soft_set_privilege(cpu, false, false);
}

void gn_soft_enter_user(struct gn_soft_cpu *cpu)
{
	if (!become_privileged(cpu))
		return;
	gn_soft_charge_base(cpu, cpu->cost.syscall);
	gn_soft_charge_privilege(cpu);
	gn_soft_set_privilege(cpu, true, false);
}

bool gn_soft_is_user(const struct gn_soft_cpu *cpu)
{
	return cpu->user;
}
