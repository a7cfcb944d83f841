/* SPDX-License-Identifier: MIT */
/*
 * trap.c - an exception brought the guest out: what did it mean?
 *
 * All of the guest runs at CPL 3, so an exception of the hardware is one of these:
 *
 *   #PF   our tables lack something (the engine says what: fill, emulate a store, or it is the guest's own)
 *   #GP, #UD, and #NP or #SS of a selector
 *         the kernel executed what needs CPL 0, or anyone used a selector of the guest's: emulate.c has a look, and what
 *         it doesn't know is the guest's own exception, error code and all
 *   #BP, #OF
 *         INT3, and INT 3 and 4 where a host lets them through: software interrupts of the guest
 *   #AC   the hardware checks alignment at CPL 3 under AC; a kernel under SMAP has AC set and must not be checked. Then AC
 *         is hidden from the hardware until it changes
 *   the rest
 *         the guest's own
 *
 * SYSCALL is no exception, but on some hosts it leaves the CPL at 3 and jumps to LSTAR, which is in the monitor: a
 * fetch fault at that address. Anyone can jump there, so it counts only if a SYSCALL stands before RCX. (Who jumps there with
 * such an RCX has made that system call.) R11 is set from the flags at the fault, whoever set it before.
 *
 * A store's size is known only to its instruction. The engine wants it to tell a page table's entry from data, so a
 * write fault reads the instruction first.
 */
#include "depriv.h"

#include <string.h>

#include <gnomon/x86.h>

#define X86_CR0_AM ((uint64_t)1 << 18)
#define DR6_BS	   ((uint64_t)1 << 14)
#define INT3_BYTE  0xcc

static enum gn_kvm_next conclude(struct gn_kvm_cpu *cpu, enum gn_kvm_done done,
				 const struct gn_event *event)
{
	switch (done) {
	case GN_DONE:
		return GN_KVM_AGAIN;
	case GN_RAISES:
		return gn_kvm_reflect(cpu, event);
	default:
		return GN_KVM_DONE;
	}
}

/* An instruction that was emulated under TF ends in its trap. */
static enum gn_kvm_next conclude_insn(struct gn_kvm_cpu *cpu, enum gn_kvm_done done,
				      struct gn_event *event, bool single_step)
{
	if (done == GN_DONE && single_step) {
		cpu->depriv->inert.dr[6] |= DR6_BS;
		*event = gn_event_fault(GN_VEC_DB, 0);
		done = GN_RAISES;
	}
	return conclude(cpu, done, event);
}

enum gn_kvm_done gn_kvm_stop_at_insn(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				     const char *why)
{
	char text[192];

	gn_insn_text(insn, cpu->depriv->v.rip, text, sizeof(text));
	gn_kvm_end(cpu, GN_KVM_STOP_GUEST, "%s: %s at %#llx, CPL %d", why, text,
		   (unsigned long long)cpu->depriv->v.rip, cpu->depriv->user ? 3 : 0);
	return GN_ENDS;
}

/* ---- Page faults ------------------------------------------------------------------------------------------------ */

/* Of what the instruction at RIP stores, the part in the page of @va. */
static uint8_t bytes_in_page(const struct gn_kvm_state *v, const struct gn_insn *insn, uint64_t va)
{
	uint64_t bytes = gn_insn_store_bytes(insn);
	const uint64_t room = GN_PAGE_SIZE - (va & (GN_PAGE_SIZE - 1));

	for (unsigned i = 0; i < GN_INSN_OPERANDS; i++)
		if (gn_insn_is_memory(insn, i)) {
			const uint64_t into = va - gn_insn_address(v, insn, i);

			if (into < bytes) /* the second page of two */
				bytes -= into;
			break;
		}
	return (uint8_t)(bytes < room ? bytes : room);
}

/* Carry out the instruction at RIP. */
static enum gn_kvm_next execute(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				const char *what)
{
	const bool single_step = cpu->depriv->v.rflags & X86_FLAG_TF;
	struct gn_event event;
	struct gn_kvm_reach reach = { cpu, &event };
	int end = gn_insn_execute(&cpu->depriv->v, insn, &gn_kvm_reach_memory, &reach);

	if (end == GN_INSN_UNKNOWN)
		end = gn_kvm_stop_at_insn(cpu, insn, what);
	return conclude_insn(cpu, (enum gn_kvm_done)end, &event, single_step);
}

static enum gn_kvm_next fetch_and_execute(struct gn_kvm_cpu *cpu, const char *what)
{
	const struct gn_insn *insn;
	struct gn_event event;
	enum gn_kvm_done done = gn_kvm_fetch(cpu, &insn, &event);

	if (done == GN_DONE)
		return execute(cpu, insn, what);
	if (done == GN_UNKNOWN)
		done = gn_kvm_stop_at_insn(cpu, insn, what);
	return conclude(cpu, done, &event);
}

static enum gn_kvm_next stop_at_access(struct gn_kvm_cpu *cpu, const struct gn_access *access,
				       const struct gn_fix *fix, const char *why)
{
	return gn_kvm_end(
		cpu, GN_KVM_STOP_GUEST, "%s (address %#llx, guest-physical %#llx, RIP %#llx)",
		why ? why : "the engine stopped the guest", (unsigned long long)access->va.v,
		(unsigned long long)fix->gpa.v, (unsigned long long)cpu->depriv->v.rip);
}

static enum gn_exit_reason reason_of(const struct gn_fix *fix)
{
	switch (fix->kind) {
	case GN_FIX_EMULATE:
		return GN_EXIT_PT_WRITE;
	case GN_FIX_MMIO:
		return GN_EXIT_IO;
	default:
		return GN_EXIT_PAGE_FAULT;
	}
}

static enum gn_kvm_next follow(struct gn_kvm_cpu *cpu, const struct gn_access *access,
			       const struct gn_fix *fix, const struct gn_insn *insn)
{
	struct gn_event event;

	gn_kvm_count_exit(cpu, reason_of(fix));
	switch (fix->kind) {
	case GN_FIX_RETRY:
		return GN_KVM_AGAIN;
	case GN_FIX_INJECT:
		event = gn_event_fault(GN_VEC_PF, fix->error_code);
		event.cr2 = access->va.v;
		return gn_kvm_reflect(cpu, &event);
	case GN_FIX_INJECT_GP:
		event = gn_event_fault(GN_VEC_GP, 0);
		return gn_kvm_reflect(cpu, &event);
	case GN_FIX_STOP:
		return stop_at_access(cpu, access, fix, fix->why);
	default: /* EMULATE, ACCESS, MMIO, DENIED */
		break;
	}
	if (access->kind == GN_FETCH)
		return stop_at_access(cpu, access, fix,
				      fix->kind == GN_FIX_ACCESS
					      ? "code that the tables can't allow to be executed"
					      : "a fetch from what is no memory");
	if (insn)
		return execute(cpu, insn, "an instruction on such memory that is not covered");
	return fetch_and_execute(cpu, "an instruction on such memory that is not covered");
}

/* A jump into the monitor where SYSCALL would have come from. */
static bool is_syscall(struct gn_kvm_cpu *cpu, uint64_t cr2, uint32_t error)
{
	const struct gn_kvm_state *v = &cpu->depriv->v;
	struct gn_event ignored;
	uint8_t code[2];

	return (error & X86_PF_I) && cr2 == v->rip &&
	       cr2 == gn_monitor_entry_va(gn_depriv_set(cpu), GN_MONITOR_SYSCALL) &&
	       gn_kvm_read(cpu, GN_AS_GUEST, v->gpr[GN_RCX] - 2, code, sizeof(code), &ignored) ==
		       GN_DONE &&
	       code[0] == 0x0f && code[1] == 0x05;
}

static enum gn_kvm_next page_fault(struct gn_kvm_cpu *cpu, uint32_t error, uint64_t cr2)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	struct gn_fault fault = {
		.access = { .va = gva(cr2),
			    .kind = error & X86_PF_I   ? GN_FETCH
				    : error & X86_PF_W ? GN_WRITE
						       : GN_READ,
			    .size = 8,
			    .user = d->user,
			    .ac = d->v.rflags & X86_FLAG_AC },
		.error_code = (error & ~X86_PF_U) | (d->user ? X86_PF_U : 0),
	};
	struct gn_fix fix = { .kind = GN_FIX_STOP };
	const struct gn_insn *known = NULL;
	const struct gn_insn *insn;
	struct gn_event ignored;
	int err;

	if (is_syscall(cpu, cr2, error)) {
		d->v.rflags &= ~X86_FLAG_RF; /* the fault's */
		d->v.gpr[GN_R11] = d->v.rflags;
		return gn_kvm_trap_syscall(cpu);
	}
	if (fault.access.kind == GN_WRITE && gn_kvm_fetch(cpu, &insn, &ignored) == GN_DONE) {
		fault.access.size = bytes_in_page(&d->v, insn, cr2);
		known = insn;
	}
	err = gn_vcpu_fault(cpu->vcpu, &fault, &fix);
	if (err)
		return gn_kvm_end(cpu, GN_KVM_STOP_ERROR,
				  "the host could not resolve a fault at %#llx: %s",
				  (unsigned long long)cr2, strerror(-err));
	return follow(cpu, &fault.access, &fix, known);
}

/* ---- The others --------------------------------------------------------------------------------------------------- */

/* Emulate, or else it is the guest's own exception. */
static enum gn_kvm_next instruction_fault(struct gn_kvm_cpu *cpu, unsigned vector, uint32_t error)
{
	const bool single_step = cpu->depriv->v.rflags & X86_FLAG_TF;
	const struct gn_insn *insn;
	struct gn_event event;
	enum gn_kvm_done done = gn_kvm_fetch(cpu, &insn, &event);

	if (done == GN_DONE)
		done = gn_kvm_emulate(cpu, insn, &event);
	if (done != GN_UNKNOWN)
		return conclude_insn(cpu, done, &event, single_step);
	gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
	/* The error code names a selector: it was looked up in our tables and not in the guest's. */
	if (error && !cpu->depriv->user)
		return conclude(
			cpu, gn_kvm_stop_at_insn(cpu, insn, "a far transfer that is not covered"),
			&event);
	event = gn_event_fault((uint8_t)vector, error);
	return gn_kvm_reflect(cpu, &event);
}

/* RIP is behind INT3 (1 byte) or INT n (2). */
static enum gn_kvm_next software_interrupt(struct gn_kvm_cpu *cpu, unsigned vector)
{
	struct gn_event event = { .vector = (uint8_t)vector, .is_soft = true, .insn_bytes = 2 };
	struct gn_event ignored;
	uint8_t last = 0;

	gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
	if (vector == GN_VEC_BP &&
	    gn_kvm_read(cpu, GN_AS_GUEST, cpu->depriv->v.rip - 1, &last, 1, &ignored) == GN_DONE &&
	    last == INT3_BYTE)
		event.insn_bytes = 1;
	return gn_kvm_reflect(cpu, &event);
}

static enum gn_kvm_next alignment_check(struct gn_kvm_cpu *cpu)
{
	const struct gn_event event = gn_event_fault(GN_VEC_AC, 0);

	gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
	if (cpu->depriv->user && (gn_vcpu_regs(cpu->vcpu)->cr0 & X86_CR0_AM))
		return gn_kvm_reflect(cpu, &event);
	cpu->depriv->hides_ac = true;
	return GN_KVM_AGAIN;
}

static enum gn_kvm_next own_exception(struct gn_kvm_cpu *cpu, unsigned vector, uint32_t error)
{
	const struct gn_event event = gn_event_fault((uint8_t)vector, error);

	gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
	if (vector == GN_VEC_DB && (cpu->depriv->v.rflags & X86_FLAG_TF))
		cpu->depriv->inert.dr[6] |= DR6_BS;
	return gn_kvm_reflect(cpu, &event);
}

enum gn_kvm_next gn_kvm_trap(struct gn_kvm_cpu *cpu, unsigned vector, uint32_t error, uint64_t cr2)
{
	switch (vector) {
	case GN_VEC_PF:
		return page_fault(cpu, error, cr2);
	case GN_VEC_GP:
	case GN_VEC_UD:
	case GN_VEC_NP:
	case GN_VEC_SS:
		return instruction_fault(cpu, vector, error);
	case GN_VEC_BP:
	case GN_VEC_OF:
		return software_interrupt(cpu, vector);
	case GN_VEC_AC:
		return alignment_check(cpu);
	case GN_VEC_NMI:
	case GN_VEC_DF:
	case GN_VEC_MC:
		return gn_kvm_end(cpu, GN_KVM_STOP_ERROR,
				  "the host delivered vector %u, which nothing here can cause",
				  vector);
	default:
		return own_exception(cpu, vector, error);
	}
}

enum gn_kvm_next gn_kvm_trap_syscall(struct gn_kvm_cpu *cpu)
{
	struct gn_event event;

	gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
	return conclude(cpu, gn_kvm_syscall(cpu, &event), &event);
}

enum gn_kvm_next gn_kvm_trap_unemulated(struct gn_kvm_cpu *cpu)
{
	gn_kvm_count_exit(cpu, GN_EXIT_PAGE_FAULT);
	cpu->stats.emulation_failures++;
	return fetch_and_execute(cpu, "an instruction that neither KVM nor this room emulates");
}
