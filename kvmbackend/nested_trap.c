/* SPDX-License-Identifier: MIT */
/*
 * nested_trap.c - traps of the guest that KVM has not delivered when it leaves it, and interrupts held off behind an STI.
 *
 * A kick may find a vCPU between an instruction and the exception that it raised. A fault is forgotten: its instruction runs
 * again and raises it again. A trap comes of an instruction that is over (#DB; INT3 and INTO, where KVM delivers them with RIP
 * behind them) and would be lost, for the picture of the guest's state has no place for it. So the vCPU is at no boundary
 * then, and the guest runs on for a moment, in which KVM delivers.
 *
 * Is there one? A vCPU that could take an interrupt has nothing on its way. KVM tells of a #DB. Of INT3 and INTO it tells only
 * that one was the last exception, delivered or not. One that is not leaves the vCPU at CPL 3 behind the instruction. Where it
 * stands there because its handler has returned, to run on does no harm, but takes time: a program that does little else
 * with interrupts off, as none of an operating system's is, makes a pause wait for some tens of ms.
 *
 * STI and MOV to SS hold interrupts off for one instruction, which the picture cannot tell either: an idle loop's STI, HLT would
 * sleep through an interrupt that came between the two.
 */
#include <time.h>

#include <gnomon/x86.h>

#include "nested.h"

#define INT3  0xcc
#define INT_N 0xcd
#define INTO  0xce

/* Twice as long each time that it was too little: a busy host lets the guest wait. */
#define FIRST_MOMENT_NS ((uint64_t)250 * 1000)
#define LAST_MOMENT_NS	((uint64_t)4 * 1000 * 1000)

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
	if (events.interrupt.shadow)
		return true;
	vector = events.exception.nr;
	if (vector == X86_VEC_DB)
		return events.exception.injected || events.exception.pending;
	return cpu->kvm->host.soft_traps_move_rip &&
	       (vector == X86_VEC_BP || vector == X86_VEC_OF) && is_behind(cpu, vector);
}

void gn_kvm_nested_look_for_trap(struct gn_kvm_cpu *cpu, int err)
{
	struct gn_kvm_nested_cpu *n = cpu->nested;
	const bool is_asked = atomic_load(&cpu->has_request) || cpu->kvm->config.max_exits;
	/* It sleeps now, and would not run on. */
	const bool has_halted = !err && cpu->run->exit_reason == KVM_EXIT_HLT;

	if (n->has_alarm)
		timer_delete(n->alarm);
	n->has_alarm = false;
	if (n->needs_completion || has_halted)
		n->trap = GN_TRAP_NONE;
	else if (!is_asked)
		n->trap = GN_TRAP_UNKNOWN;
	else
		n->trap = is_owed(cpu) ? GN_TRAP_OWED : GN_TRAP_NONE;
	if (n->trap != GN_TRAP_OWED)
		n->moment_ns = 0;
}

int gn_kvm_nested_run_on(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_nested_cpu *n = cpu->nested;
	int err;

	if (n->has_alarm)
		return 0;
	n->moment_ns = n->moment_ns ? n->moment_ns * 2 : FIRST_MOMENT_NS;
	if (n->moment_ns > LAST_MOMENT_NS)
		n->moment_ns = LAST_MOMENT_NS;
	err = gn_kvm_alarm(n->moment_ns, &n->alarm);
	n->has_alarm = !err;
	return err;
}
