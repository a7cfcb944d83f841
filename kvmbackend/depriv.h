/* SPDX-License-Identifier: MIT */
/*
 * depriv.h - what the files of the deprivileged mode share: a vCPU's virtual state, and the steps of an exit.
 *
 *   depriv.c        the mode: entry, exit, state          trap.c          an exception arrived: what it means
 *   emulate.c       privileged instructions               transfer.c      far transfers, segments, system calls
 *   msr.c           model-specific registers              reflect.c       events through the guest's own IDT
 *   store.c         instructions on memory                insn.c, alu.c   decoding, operands; arithmetic
 *   guest_memory.c  guest-virtual memory on the guest's behalf
 *
 * While the vCPU is outside KVM_RUN, struct gn_kvm_depriv_cpu has all of the guest's registers, as the guest
 * knows them: control registers are the engine's (gn_vcpu_regs()), the rest is .v. What KVM has is made from it at each
 * entry and never read back but at an exit.
 */
#ifndef GN_KVM_DEPRIV_H
#define GN_KVM_DEPRIV_H

#include <gnomon/x86.h>

#include "downgrade.h"
#include "insn.h"

#define X86_FLAG_CF   ((uint64_t)1 << 0)
#define X86_FLAG_ONE  ((uint64_t)1 << 1)
#define X86_FLAG_PF   ((uint64_t)1 << 2)
#define X86_FLAG_AF   ((uint64_t)1 << 4)
#define X86_FLAG_ZF   ((uint64_t)1 << 6)
#define X86_FLAG_SF   ((uint64_t)1 << 7)
#define X86_FLAG_TF   ((uint64_t)1 << 8)
#define X86_FLAG_DF   ((uint64_t)1 << 10)
#define X86_FLAG_OF   ((uint64_t)1 << 11)
#define X86_FLAG_IOPL ((uint64_t)3 << 12)
#define X86_FLAG_NT   ((uint64_t)1 << 14)
#define X86_FLAG_RF   ((uint64_t)1 << 16)
#define X86_FLAG_VM   ((uint64_t)1 << 17)
#define X86_FLAG_AC   ((uint64_t)1 << 18)
#define X86_FLAG_ID   ((uint64_t)1 << 21)

enum gn_vector {
	GN_VEC_DE = 0,
	GN_VEC_DB = X86_VEC_DB,
	GN_VEC_NMI = 2,
	GN_VEC_BP = X86_VEC_BP,
	GN_VEC_OF = X86_VEC_OF,
	GN_VEC_UD = X86_VEC_UD,
	GN_VEC_DF = 8,
	GN_VEC_TS = 10,
	GN_VEC_NP = 11,
	GN_VEC_SS = 12,
	GN_VEC_GP = X86_VEC_GP,
	GN_VEC_PF = X86_VEC_PF,
	GN_VEC_AC = 17,
	GN_VEC_MC = 18,
};

/* What is to be delivered to the guest. */
struct gn_event {
	uint8_t vector;
	bool has_error;
	bool is_soft; /* INT n, INT3, INTO: the gate's DPL is checked, RIP is the next instruction's */
	bool is_external;   /* no instruction's doing */
	uint8_t insn_bytes; /* with is_soft: RIP goes back by these if the delivery fails */
	uint32_t error;
	uint64_t cr2; /* #PF */
};
static inline struct gn_event gn_event_fault(uint8_t vector, uint32_t error)
{
	return (struct gn_event){ .vector = vector,
				  .has_error = gn_vector_has_error(vector),
				  .error = error };
}

enum gn_inside { GN_INSIDE_NOTHING, GN_INSIDE_PROGRAM, GN_INSIDE_GUEST };

/* Registers a guest may write and read back that nothing here acts upon. */
struct gn_kvm_inert {
	uint64_t dr[8];
	uint64_t cstar, sysenter[3], pat, tsc_aux, apic_base, misc_enable, mtrr_default;
};

struct gn_kvm_depriv {
	struct gn_monitor monitor;
	bool needs_touch;	/* (c) hardware that keeps copies of tables, see downgrade.c */
	uint64_t cr4_supported; /* bits of CR4 that KVM lets this CPU have; 0: not asked yet */
};

#define GN_DECODED 32

/* (v) all of it but .downgrades */
struct gn_kvm_depriv_cpu {
	struct gn_kvm_state v; /* but .regs */
	struct gn_kvm_inert inert;
	bool user;	   /* the guest's CPL is 3, else 0 */
	bool hides_ac;	   /* the hardware's AC is off while the guest's is on, see trap.c */
	uint64_t sti_from; /* an STI that turned interrupts on */
	uint64_t sti_to;   /* the instruction behind it; 0: there is none such */
	enum gn_inside inside;
	uint64_t program_end; /* RIP when the program is done */
	bool owes_flush;
	bool forgets_event;	   /* KVM's number of the last exception is to be cleared */
	enum gn_monitor_set set;   /* which .hw points to */
	struct kvm_sregs hw;	   /* as they are written at the next entry to the guest */
	uint64_t kvm_cr3, kvm_cr4; /* as KVM has them */
	struct gn_downgrades downgrades;
	struct gn_insn decoded[GN_DECODED]; /* by RIP: a kernel traps at few places */
};

/* How a step of an exit ended. */
enum gn_kvm_done {
	GN_DONE,
	GN_RAISES,  /* the guest gets *event */
	GN_UNKNOWN, /* not one of ours */
	GN_ENDS,    /* gn_kvm_end() was called */
};

/* ---- depriv.c */
static inline struct gn_kvm_state *gn_depriv_state(struct gn_kvm_cpu *cpu)
{
	return &cpu->depriv->v;
}
/* The instruction before turned interrupts on: none is taken before the next one is over. */
static inline bool gn_depriv_is_behind_sti(const struct gn_kvm_depriv_cpu *d)
{
	return d->sti_to && d->v.rip == d->sti_to && (d->v.rflags & X86_FLAG_IF);
}
enum gn_monitor_set gn_depriv_set(const struct gn_kvm_cpu *cpu);
/* Bits of CR4 that act on code at CPL 3 and that this CPU has not. */
uint64_t gn_depriv_cr4_missing(const struct gn_kvm *kvm);

/* ---- trap.c. An exception or SYSCALL brought the vCPU out; .v is the guest's state at it. */
enum gn_kvm_next gn_kvm_trap(struct gn_kvm_cpu *cpu, unsigned vector, uint32_t error, uint64_t cr2);
enum gn_kvm_next gn_kvm_trap_syscall(struct gn_kvm_cpu *cpu);
/* KVM's emulator gave up on the instruction at RIP. */
enum gn_kvm_next gn_kvm_trap_unemulated(struct gn_kvm_cpu *cpu);

/* ---- reflect.c. Deliver, with whatever that raises; GN_KVM_DONE on a triple fault. */
enum gn_kvm_next gn_kvm_reflect(struct gn_kvm_cpu *cpu, const struct gn_event *event);
/* Is there an external interrupt the guest can take now? Then it gets it. */
enum gn_kvm_next gn_kvm_reflect_interrupt(struct gn_kvm_cpu *cpu);

/* ---- emulate.c. The instruction's privilege rules are its own; *event is what it raises. */
enum gn_kvm_done gn_kvm_emulate(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				struct gn_event *event);

/* ---- msr.c. False: #GP(0). */
#define GN_MSR_TSC  0x10
#define GN_MSR_EFER 0xc0000080u
bool gn_kvm_msr_read(struct gn_kvm_cpu *cpu, uint32_t index, uint64_t *value);
enum gn_kvm_done gn_kvm_msr_write(struct gn_kvm_cpu *cpu, uint32_t index, uint64_t value,
				  struct gn_event *event);

/* ---- transfer.c */
enum gn_kvm_done gn_kvm_iret(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			     struct gn_event *event);
enum gn_kvm_done gn_kvm_far_return(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				   struct gn_event *event);
enum gn_kvm_done gn_kvm_sysret(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			       struct gn_event *event);
enum gn_kvm_done gn_kvm_load_segment(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				     struct gn_event *event);
enum gn_kvm_done gn_kvm_load_system_segment(struct gn_kvm_cpu *cpu, uint16_t selector, bool is_tr,
					    struct gn_event *event);
/* SYSCALL executed at .v.rip - 2; RCX and R11 are set already. */
enum gn_kvm_done gn_kvm_syscall(struct gn_kvm_cpu *cpu, struct gn_event *event);
/* A descriptor of the guest's GDT or LDT. *found: within the table's limit and no null selector. */
enum gn_kvm_done gn_kvm_descriptor(struct gn_kvm_cpu *cpu, uint16_t selector, uint64_t out[2],
				   bool *found, struct gn_event *event);

/* ---- guest_memory.c. Guest-virtual memory as an instruction of the guest would reach it: its rights, its faults,
 * A and D, tracked tables, the dirty log. Not memory: reads ones, drops stores. */
enum gn_as {
	GN_AS_GUEST,
	GN_AS_SYSTEM /* implicit supervisor access: descriptors, event delivery */
};
enum gn_kvm_done gn_kvm_read(struct gn_kvm_cpu *cpu, enum gn_as as, uint64_t va, void *buf,
			     unsigned bytes, struct gn_event *event);
enum gn_kvm_done gn_kvm_write(struct gn_kvm_cpu *cpu, enum gn_as as, uint64_t va, const void *buf,
			      unsigned bytes, struct gn_event *event);
/* As a store that did not trap: for event delivery, which is no store of an instruction. */
enum gn_kvm_done gn_kvm_push(struct gn_kvm_cpu *cpu, uint64_t va, const void *buf, unsigned bytes,
			     struct gn_event *event);
/* Atomic within an aligned 1, 2, 4 or 8. *done: @expected was there. */
enum gn_kvm_done gn_kvm_exchange(struct gn_kvm_cpu *cpu, uint64_t va, uint64_t expected,
				 uint64_t desired, unsigned bytes, bool *done,
				 struct gn_event *event);
/* The instruction at RIP, good until the next fetch. GN_UNKNOWN: its bytes are none (they are in it). */
enum gn_kvm_done gn_kvm_fetch(struct gn_kvm_cpu *cpu, const struct gn_insn **insn,
			      struct gn_event *event);
/* store.c's interface on this memory, exceptions into *event. */
struct gn_kvm_reach {
	struct gn_kvm_cpu *cpu;
	struct gn_event *event;
};
extern const struct gn_insn_memory gn_kvm_reach_memory;

/* End the run: what could not be done, with the instruction's bytes and text. */
enum gn_kvm_done gn_kvm_stop_at_insn(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				     const char *why);

#endif
