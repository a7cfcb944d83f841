/* SPDX-License-Identifier: MIT */
/*
 * nested_trap.c - traps of the guest that KVM has not delivered when it leaves it.
 *
 * A kick may find a vCPU between an instruction and the exception that it raised. A fault is forgotten: its instruction runs
 * again and raises it again. A trap comes of an instruction that is over (#DB; INT3 and INTO, where KVM delivers them with RIP
 * behind them) and would be lost, for the picture of the guest's state has no place for it. So the vCPU is at no boundary
 * then, and the guest runs on for a moment, in which KVM delivers.
 *
 * Is there one? A vCPU that could take an interrupt has nothing on its way. KVM tells of a #DB. Of INT3 and INTO it tells only that one was
 * the last exception, delivered or not. One that is not leaves the vCPU at CPL 3 behind the instruction; where the vCPU
 * stands there because its handler has returned, to run on does no harm.
 */
#include <time.h>

#include <gnomon/x86.h>

#include "nested.h"

#define INT3  0xcc
#define INT_N 0xcd
#define INTO  0xce

/* Time to enter the guest, on a slow host too; and again if that was too little. */
#define MOMENT_NS 1000000

/* A byte that cannot be read may be any. */
static bool may_be(struct gn_kvm_cpu *cpu, uint64_t va, uint8_t byte)
{
	uint8_t is;

	return !gn_kvm_nested_fetch(cpu, true, va, &is) || is == byte;
}

static bool is_behind(struct gn_kvm_cpu *cpu, uint8_t vector)
{
	struct gn_kvm_state state;
	uint64_t at;

	if (gn_kvm_nested_get_state(cpu, &state) || (state.ss.attributes >> 5 & 3) != 3)
		return false;
	at = state.cs.base + state.rip;
	return may_be(cpu, at - 1, vector == X86_VEC_OF ? INTO : INT3) ||
	       (may_be(cpu, at - 1, vector) && may_be(cpu, at - 2, INT_N));
}

static bool is_owed(struct gn_kvm_cpu *cpu)
{
	struct kvm_vcpu_events events;
	uint8_t vector;

	if (cpu->run->ready_for_interrupt_injection ||
	    gn_kvm_ioctl(cpu->fd, KVM_GET_VCPU_EVENTS, &events))
		return false;
	vector = events.exception.nr;
	if (vector == X86_VEC_DB)
		return events.exception.injected || events.exception.pending;
	return cpu->kvm->host.soft_traps_move_rip &&
	       (vector == X86_VEC_BP || vector == X86_VEC_OF) && is_behind(cpu, vector);
}

void gn_kvm_nested_look_for_trap(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_nested_cpu *n = cpu->nested;
	const bool is_asked = atomic_load(&cpu->has_request) || cpu->kvm->config.max_exits;

	if (n->has_alarm)
		timer_delete(n->alarm);
	n->has_alarm = false;
	if (n->needs_completion)
		n->trap = GN_TRAP_NONE; /* the instruction is not over */
	else if (!is_asked)
		n->trap = GN_TRAP_UNKNOWN;
	else
		n->trap = is_owed(cpu) ? GN_TRAP_OWED : GN_TRAP_NONE;
}

int gn_kvm_nested_run_on(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_nested_cpu *n = cpu->nested;
	int err = n->has_alarm ? 0 : gn_kvm_alarm(&n->alarm, MOMENT_NS);

	n->has_alarm = !err;
	return err;
}
