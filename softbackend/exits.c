/* SPDX-License-Identifier: MIT */
/*
 * exits.c - what a fault becomes: an exit to the engine, an exception for the guest, or the end.
 *
 * Which faults exit is the scheme's to say (hw.intercepts). A #PF that is not intercepted goes to the guest
 * without anyone knowing; a nested violation always exits, except under native, where it stands for
 * memory a real machine would simply have, and costs nothing.
 *
 * The price of an exit has two parts: the round trip, and what the VMM did, by what came of it. A #PF
 * exit that ends in an emulated store is counted as a page-table write.
 */
#include "cpu.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include <gnomon/x86.h>

void gn_soft_fail(struct gn_soft_cpu *cpu, int error, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(cpu->reason, sizeof(cpu->reason), format, ap);
	va_end(ap);
	cpu->error = error;
	if (cpu->running && !cpu->probe)
		longjmp(cpu->out, 1);
}

void gn_soft_charge_exit(struct gn_soft_cpu *cpu, enum gn_exit_reason reason, uint32_t vmm_cycles)
{
	uint64_t cycles = (uint64_t)cpu->cost.exit + vmm_cycles;

	cpu->counters->exits++;
	cpu->counters->exits_by[reason]++;
	cpu->counters->exit_cycles += cycles;
	cpu->counters->cycles += cycles;
	cpu->stats.exit_cycles_by[reason] += cycles;
}

static const char *vector_name(unsigned vector)
{
	return vector == X86_VEC_PF ? "#PF" : vector == X86_VEC_GP ? "#GP" : "#UD";
}

enum gn_soft_verdict gn_soft_deliver(struct gn_soft_cpu *cpu, unsigned vector, uint32_t error_code,
				     gva_t cr2)
{
	const struct gn_soft_exception e = {
		.vector = vector, .error_code = error_code, .cr2 = cr2, .user = cpu->user
	};
	bool user = cpu->user, ac = cpu->ac, again;

	if (cpu->probe) {
		*cpu->probe = (struct gn_soft_outcome){
			.faulted = true, .vector = vector, .error_code = error_code, .cr2 = cr2
		};
		return GN_SOFT_END;
	}
	if (cpu->op_hook && vector == X86_VEC_PF)
		cpu->op_hook(cpu->op_ctx,
			     &(const struct gn_soft_op){ GN_OP_FAULT, cr2.v, error_code });
	cpu->counters->guest_faults += vector == X86_VEC_PF;
	cpu->stats.guest_fault_cycles += cpu->cost.guest_fault;
	gn_soft_charge(cpu, cpu->cost.guest_fault);
	if (!cpu->handler || cpu->depth == GN_SOFT_MAX_DEPTH) {
		gn_soft_fail(cpu, -ECANCELED, "%s at %#llx (error code %#x, CPL %d) %s",
			     vector_name(vector), (unsigned long long)cr2.v, error_code,
			     user ? 3 : 0,
			     cpu->handler ? "inside too many fault handlers" : "and no handler");
		return GN_SOFT_END;
	}
	/* Each exception of a deprivileged guest is an exit, and its return another. A #PF was counted. */
	if (vector != X86_VEC_PF)
		gn_soft_charge_privilege(cpu);
	if (!gn_soft_set_privilege(cpu, false, false))
		return GN_SOFT_END;
	cpu->depth++;
	again = cpu->handler(cpu, &e, cpu->handler_ctx);
	cpu->depth--;
	gn_soft_charge_privilege(cpu);
	if (!gn_soft_set_privilege(cpu, user, ac))
		return GN_SOFT_END;
	if (again)
		return GN_SOFT_RESTART;
	gn_soft_fail(cpu, -ECANCELED, "the guest gave up on %s at %#llx (error code %#x, CPL %d)",
		     vector_name(vector), (unsigned long long)cr2.v, error_code, user ? 3 : 0);
	return GN_SOFT_END;
}

/* What the VMM did, and under which reason it is counted. */
static void charge_fault(struct gn_soft_cpu *cpu, const struct gn_soft_fault *fault,
			 const struct gn_fix *fix)
{
	const struct gn_soft_costs *cost = &cpu->cost;

	if (fault->kind == GN_SOFT_SOFTWARE)
		gn_soft_charge_exit(cpu, GN_EXIT_SOFTWARE, cost->software_walk);
	else if (cpu->is_native)
		return;
	else if (fix->kind == GN_FIX_MMIO)
		gn_soft_charge_exit(cpu, GN_EXIT_IO, cost->vmm_other);
	else if (fault->kind == GN_SOFT_NESTED)
		gn_soft_charge_exit(cpu, GN_EXIT_NESTED, cost->vmm_nested_fault);
	else if (fix->kind == GN_FIX_EMULATE)
		gn_soft_charge_exit(cpu, GN_EXIT_PT_WRITE, cost->vmm_emulate);
	else if (fix->kind == GN_FIX_INJECT || fix->kind == GN_FIX_INJECT_GP)
		gn_soft_charge_exit(cpu, GN_EXIT_PAGE_FAULT, cost->vmm_inject);
	else
		gn_soft_charge_exit(cpu, GN_EXIT_PAGE_FAULT, cost->vmm_shadow_fault);
}

static enum gn_soft_verdict stop(struct gn_soft_cpu *cpu, const struct gn_access *access, gpa_t at,
				 const char *why)
{
	gn_soft_fail(cpu, -ECANCELED, "%s (address %#llx, guest-physical %#llx)",
		     why ? why : "the engine stopped the guest", (unsigned long long)access->va.v,
		     (unsigned long long)at.v);
	return GN_SOFT_END;
}

/* The p2m forbids it. A store to ROM is dropped, as a memory controller would; a ballooned page the guest
 * gave away and must not touch. */
static enum gn_soft_verdict denied(struct gn_soft_cpu *cpu, const struct gn_access *access,
				   const struct gn_fix *fix, struct gn_soft_target *target)
{
	p2m_word_t word = gn_p2m_get(&cpu->vm->p2m, gpa_to_gfn(fix->gpa));

	if (access->kind != GN_WRITE || gn_p2m_word_state(word) != GN_P2M_READONLY)
		return stop(cpu, access, fix->gpa, fix->why);
	target->kind = GN_TARGET_DROP;
	target->gpa = fix->gpa;
	return GN_SOFT_TARGET;
}

static enum gn_soft_verdict follow(struct gn_soft_cpu *cpu, const struct gn_access *access,
				   const struct gn_soft_fault *fault, const struct gn_fix *fix,
				   struct gn_soft_target *target)
{
	switch (fix->kind) {
	case GN_FIX_RETRY:
		return GN_SOFT_AGAIN;
	case GN_FIX_INJECT:
		return gn_soft_deliver(cpu, X86_VEC_PF, fix->error_code, access->va);
	case GN_FIX_INJECT_GP:
		return gn_soft_deliver(cpu, X86_VEC_GP, 0, access->va);
	case GN_FIX_EMULATE:
		*target = (struct gn_soft_target){ .kind = GN_TARGET_EMULATE, .gpa = fix->gpa };
		return GN_SOFT_TARGET;
	case GN_FIX_ACCESS:
		*target = (struct gn_soft_target){ GN_TARGET_MEMORY, fix->hpa.v, fix->gpa,
						   fix->sequence };
		return GN_SOFT_TARGET;
	case GN_FIX_MMIO:
		if (fault->on_table && fix->gpa.v == fault->gpa.v)
			return stop(cpu, access, fix->gpa, "a page table lies outside of memory");
		*target = (struct gn_soft_target){ .kind = GN_TARGET_MMIO, .gpa = fix->gpa };
		return GN_SOFT_TARGET;
	case GN_FIX_DENIED:
		if (fault->on_table && fix->gpa.v == fault->gpa.v)
			return stop(cpu, access, fix->gpa, fix->why);
		return denied(cpu, access, fix, target);
	case GN_FIX_STOP:
		break;
	}
	return stop(cpu, access, fix->gpa, fix->why);
}

enum gn_soft_verdict gn_soft_answer(struct gn_soft_cpu *cpu, const struct gn_access *access,
				    const struct gn_soft_fault *fault,
				    struct gn_soft_target *target)
{
	struct gn_fault report = { .access = *access,
				   .error_code = fault->error_code,
				   .nested = fault->kind == GN_SOFT_NESTED,
				   .gpa = fault->gpa,
				   .on_table = fault->on_table };
	struct gn_fix fix = { .kind = GN_FIX_STOP };
	int err;

	if (fault->kind == GN_SOFT_GP)
		return gn_soft_deliver(cpu, X86_VEC_GP, 0, access->va);
	if (fault->kind == GN_SOFT_PF && !(cpu->vcpu->hw.intercepts & GN_ICPT_PF))
		return gn_soft_deliver(cpu, X86_VEC_PF, fault->error_code, access->va);
	gn_soft_call(cpu);
	err = gn_vcpu_fault(cpu->vcpu, &report, &fix);
	gn_soft_return(cpu);
	if (err) {
		gn_soft_fail(cpu, err, "the host could not resolve a fault at %#llx: error %d",
			     (unsigned long long)access->va.v, -err);
		return GN_SOFT_END;
	}
	charge_fault(cpu, fault, &fix);
	return follow(cpu, access, fault, &fix, target);
}
