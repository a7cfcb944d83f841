/* SPDX-License-Identifier: MIT */
/*
 * nested_trap.c - traps of the guest that KVM has not delivered when it leaves it, and interrupts held off behind an STI.
 *
 * A kick may find a vCPU between an instruction and the exception that it raised. A fault is forgotten: its instruction runs
 * again and raises it again. A trap comes of an instruction that is over (#DB; INT3 and INTO, where KVM delivers them with RIP
 * behind them) and would be lost, for the picture of the guest's state has no place for it. Nor has it one for STI and MOV to SS,
 * which hold interrupts off for one instruction: an idle loop's STI, HLT would sleep through an interrupt that came between the
 * two. In either case the vCPU is at no boundary. The guest runs on for a moment, in which KVM delivers, and is looked at again.
 *
 * Of INT3 and INTO KVM tells only that one was the last exception, delivered or not. If interrupts are on, a vCPU that cannot take
 * one has it on its way; then the instruction is taken back, and is yet to come. If they are off, a vCPU behind such an
 * instruction may have it on its way, or its handler has returned. It runs on, until it is found elsewhere; or has
 * not moved, which a loop of one instruction does not. Then KVM is asked whether it would queue another exception: it refuses while one
 * is pending. (One that it had taken up for delivery at that very moment would go unnoticed.) User code with interrupts off is
 * no operating system's.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include <gnomon/x86.h>

#include "nested.h"

#define INT3  0xcc
#define INT_N 0xcd
#define INTO  0xce

/* Twice as long each time that it was too little: a busy host lets the guest wait. And not for ever. */
#define FIRST_MOMENT_NS ((uint64_t)250 * 1000)
#define LAST_MOMENT_NS	((uint64_t)4 * 1000 * 1000)
#define MOMENTS_MAX	200
/* So often found at one place: by then it did run, and stays. */
#define STAYS_MAX 8

/* ---- INT3, INTO -------------------------------------------------------------------------------------------- */

/* A byte that cannot be read may be any. */
static bool may_be(struct gn_kvm_cpu *cpu, uint64_t va, uint8_t byte)
{
	uint8_t is;

	return !gn_kvm_nested_fetch(cpu, true, va, &is) || is == byte;
}

/* The length of the instruction of CPL 3 before RIP that raises @vector; 0: there is none. Those of CPL 0 are supplement.c's. */
static unsigned bytes_before(struct gn_kvm_cpu *cpu, uint8_t vector)
{
	struct gn_kvm_state state;
	uint64_t at;

	if (gn_kvm_nested_get_state(cpu, &state) || (state.ss.attributes >> 5 & 3) != 3)
		return 0;
	at = state.cs.base + state.rip;
	if (may_be(cpu, at - 1, vector == X86_VEC_OF ? INTO : INT3))
		return 1;
	return may_be(cpu, at - 1, vector) && may_be(cpu, at - 2, INT_N) ? 2 : 0;
}

/* KVM would queue another exception, and does not: it is asked to, and its queue is emptied by the caller. */
static bool ask_whether_pending(struct gn_kvm_cpu *cpu)
{
	struct kvm_guest_debug ask = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_DB };
	struct kvm_guest_debug none = { .control = 0 };
	bool is_busy = gn_kvm_ioctl(cpu->fd, KVM_SET_GUEST_DEBUG, &ask) == -EBUSY;

	(void)gn_kvm_ioctl(cpu->fd, KVM_SET_GUEST_DEBUG, &none);
	return is_busy;
}

/* Nothing is on its way now; the instruction of @bytes is yet to come, 0: none is. False: it cannot be done. */
static bool take_back(struct gn_kvm_cpu *cpu, struct kvm_regs *regs, struct kvm_vcpu_events *events,
		      unsigned bytes)
{
	memset(&events->exception, 0, sizeof(events->exception));
	events->flags = 0;
	regs->rip -= bytes;
	return !gn_kvm_ioctl(cpu->fd, KVM_SET_VCPU_EVENTS, events) &&
	       (!bytes || !gn_kvm_ioctl(cpu->fd, KVM_SET_REGS, regs));
}

/* The last exception was one of them, and no interrupt can be taken. True: the guest must run on. */
static bool settle_soft(struct gn_kvm_cpu *cpu, struct kvm_vcpu_events *events)
{
	struct gn_kvm_nested_cpu *n = cpu->nested;
	const unsigned bytes = bytes_before(cpu, events->exception.nr);
	struct kvm_regs regs;

	if (!bytes || events->interrupt.injected || gn_kvm_ioctl(cpu->fd, KVM_GET_REGS, &regs))
		return false;
	if (regs.rflags & X86_FLAG_IF)
		return !take_back(cpu, &regs, events, bytes);
	n->stays = n->moments && !memcmp(&regs, &n->seen, sizeof(regs)) ? n->stays + 1 : 0;
	n->seen = regs;
	if (n->stays < STAYS_MAX && n->moments < MOMENTS_MAX)
		return true;
	return !take_back(cpu, &regs, events, ask_whether_pending(cpu) ? bytes : 0);
}

/* INT n of CPL 0, which supplement.c has KVM deliver as an interrupt. True: the guest must run on. */
static bool settle_taken(struct gn_kvm_cpu *cpu, struct kvm_vcpu_events *events)
{
	const unsigned bytes = cpu->nested->taken_bytes;
	struct kvm_regs regs;

	cpu->nested->taken_bytes = 0;
	memset(&events->interrupt, 0, sizeof(events->interrupt));
	return gn_kvm_ioctl(cpu->fd, KVM_GET_REGS, &regs) || !take_back(cpu, &regs, events, bytes);
}

/* ---- All of them ------------------------------------------------------------------------------------------- */

/* Settle what can be; true: the guest must run on. */
static bool settle(struct gn_kvm_cpu *cpu)
{
	struct kvm_vcpu_events events;
	bool is_told;

	if (cpu->run->ready_for_interrupt_injection ||
	    gn_kvm_ioctl(cpu->fd, KVM_GET_VCPU_EVENTS, &events))
		return false;
	if (cpu->nested->taken_bytes && events.interrupt.injected)
		return settle_taken(cpu, &events);
	is_told = events.interrupt.shadow ||
		  (events.exception.nr == X86_VEC_DB &&
		   (events.exception.injected || events.exception.pending));
	if (is_told)
		return cpu->nested->moments < MOMENTS_MAX;
	return cpu->kvm->host.soft_traps_move_rip &&
	       (events.exception.nr == X86_VEC_BP || events.exception.nr == X86_VEC_OF) &&
	       settle_soft(cpu, &events);
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
		n->trap = settle(cpu) ? GN_TRAP_OWED : GN_TRAP_NONE;
	if (n->trap != GN_TRAP_OWED)
		n->moments = 0;
}

int gn_kvm_nested_run_on(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_nested_cpu *n = cpu->nested;
	uint64_t ns;
	int err;

	if (n->has_alarm)
		return 0;
	ns = n->moments < 8 ? FIRST_MOMENT_NS << n->moments : LAST_MOMENT_NS;
	n->moments++;
	err = gn_kvm_alarm(ns < LAST_MOMENT_NS ? ns : LAST_MOMENT_NS, &n->alarm);
	n->has_alarm = !err;
	return err;
}
