/* SPDX-License-Identifier: MIT */
/*
 * reflect.c - exceptions and interrupts that the guest gets: delivered through its own IDT, onto its own stack.
 *
 * What the processor does (SDM vol. 3A 6.12, 6.14): find the gate, check it, find the code segment, choose the stack, push,
 * mask flags, go. All reads of descriptors and the pushes are implicit supervisor accesses: SMAP holds for them whatever AC
 * says, and they can fault.
 *
 * A fault on the way is an exception of its own. What becomes of two is the architecture's table 6-5: they are served
 * one after the other, or both together are a double fault, or, on the way to the double fault's handler, the processor
 * shuts down and the run ends with GN_KVM_STOP_SHUTDOWN. Nothing of the guest's registers changes before all
 * pushes have been made, so each further delivery starts from the state of the first.
 */
#include "depriv.h"

#include <string.h>

#define GATE_BYTES     16
#define GATE_INTERRUPT 0xe
#define GATE_TRAP      0xf
#define ERROR_IDT      2u
#define ERROR_EXTERNAL 1u
#define TSS_RSP0       4
#define TSS_IST1       0x24
#define INDEX_AND_TI   0xfffcu

/* SDM vol. 3A, table 6-4. */
enum severity { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum severity severity_of(const struct gn_event *event)
{
	if (event->is_external || event->is_soft)
		return BENIGN;
	switch (event->vector) {
	case GN_VEC_DE:
	case GN_VEC_TS:
	case GN_VEC_NP:
	case GN_VEC_SS:
	case GN_VEC_GP:
		return CONTRIBUTORY;
	case GN_VEC_PF:
		return PAGE_FAULT;
	case GN_VEC_DF:
		return DOUBLE_FAULT;
	default:
		return BENIGN;
	}
}

static enum gn_kvm_done raises(struct gn_event *next, uint8_t vector, uint32_t error)
{
	*next = gn_event_fault(vector, error);
	return GN_RAISES;
}

static uint32_t external_bit(const struct gn_event *event)
{
	return event->is_soft ? 0 : ERROR_EXTERNAL;
}

static bool is_canonical(const struct gn_kvm_cpu *cpu, uint64_t va)
{
	return gn_paging_is_canonical(&cpu->vcpu->paging, gva(va));
}

/* ---- Where to ------------------------------------------------------------------------------------------------- */

struct gate {
	uint64_t target;
	uint16_t selector;
	uint8_t ist, type;
};

static enum gn_kvm_done read_gate(struct gn_kvm_cpu *cpu, const struct gn_event *event,
				  struct gate *gate, struct gn_event *next)
{
	const struct gn_kvm_table *idt = &cpu->depriv->v.idtr;
	const uint32_t offset = event->vector * GATE_BYTES;
	const uint32_t error = event->vector * 8u | ERROR_IDT | external_bit(event);
	const unsigned cpl = cpu->depriv->user ? 3 : 0;
	uint64_t words[2];
	enum gn_kvm_done done;

	if (offset + GATE_BYTES - 1 > idt->limit)
		return raises(next, GN_VEC_GP, error);
	done = gn_kvm_read(cpu, GN_AS_SYSTEM, idt->base + offset, words, sizeof(words), next);
	if (done != GN_DONE)
		return done;
	*gate = (struct gate){ .target = (words[0] & 0xffff) | (words[0] >> 32 & 0xffff0000) |
					 words[1] << 32,
			       .selector = (uint16_t)(words[0] >> 16),
			       .ist = words[0] >> 32 & 7,
			       .type = words[0] >> 40 & 0x1f };
	if (gate->type != GATE_INTERRUPT && gate->type != GATE_TRAP)
		return raises(next, GN_VEC_GP, error);
	if (event->is_soft && (words[0] >> 45 & 3) < cpl)
		return raises(next, GN_VEC_GP, error);
	if (!(words[0] >> 47 & 1))
		return raises(next, GN_VEC_NP, error);
	return GN_DONE;
}

/* The handler's code segment. *inward: it runs at CPL 0 and was CPL 3. */
static enum gn_kvm_done read_segment(struct gn_kvm_cpu *cpu, const struct gn_event *event,
				     const struct gate *gate, struct gn_kvm_segment *cs,
				     bool *inward, struct gn_event *next)
{
	const uint32_t error = (gate->selector & INDEX_AND_TI) | external_bit(event);
	const unsigned cpl = cpu->depriv->user ? 3 : 0;
	unsigned dpl, new_cpl;
	uint64_t words[2];
	enum gn_kvm_done done;
	bool found, is_code, conforms;

	if (!(gate->selector & INDEX_AND_TI))
		return raises(next, GN_VEC_GP, external_bit(event));
	done = gn_kvm_descriptor(cpu, gate->selector, words, &found, next);
	if (done != GN_DONE)
		return done;
	dpl = words[0] >> 45 & 3;
	is_code = (words[0] >> 43 & 3) == 3;
	conforms = words[0] >> 42 & 1;
	/* 64-bit code: L and not D. */
	if (!found || !is_code || dpl > cpl || (words[0] >> 53 & 3) != 1)
		return raises(next, GN_VEC_GP, error);
	if (!(words[0] >> 47 & 1))
		return raises(next, GN_VEC_NP, error);
	new_cpl = conforms ? cpl : dpl;
	if (new_cpl != 0 && new_cpl != 3) {
		gn_kvm_end(cpu, GN_KVM_STOP_GUEST, "vector %u has its handler in ring %u",
			   event->vector, new_cpl);
		return GN_ENDS;
	}
	*inward = new_cpl < cpl;
	*cs = (struct gn_kvm_segment){ .limit = 0xffffffff,
				       .selector = (uint16_t)((gate->selector & INDEX_AND_TI) |
							      new_cpl),
				       .attributes = (uint16_t)(words[0] >> 40 & 0xf0ff) };
	return GN_DONE;
}

/* ---- Whose stack ------------------------------------------------------------------------------------------------ */

static enum gn_kvm_done choose_stack(struct gn_kvm_cpu *cpu, const struct gn_event *event,
				     const struct gate *gate, bool inward, uint64_t *rsp,
				     struct gn_event *next)
{
	const struct gn_kvm_state *v = &cpu->depriv->v;
	const uint32_t offset = gate->ist ? TSS_IST1 + 8u * (gate->ist - 1) : TSS_RSP0;
	enum gn_kvm_done done = GN_DONE;

	*rsp = v->gpr[GN_RSP];
	if (gate->ist || inward) {
		if (offset + sizeof(*rsp) - 1 > v->tr.limit)
			return raises(next, GN_VEC_TS,
				      (v->tr.selector & INDEX_AND_TI) | external_bit(event));
		done = gn_kvm_read(cpu, GN_AS_SYSTEM, v->tr.base + offset, rsp, sizeof(*rsp), next);
	}
	if (done != GN_DONE)
		return done;
	*rsp &= ~(uint64_t)15;
	return is_canonical(cpu, *rsp - 1) ? GN_DONE : raises(next, GN_VEC_SS, external_bit(event));
}

/* A fault pushes RF set, so that its instruction is run again without a debug exception for it. */
static uint64_t pushed_flags(const struct gn_kvm_state *v, const struct gn_event *event)
{
	const bool is_fault = !event->is_soft && !event->is_external && event->vector != GN_VEC_DB;

	return (v->rflags & ~X86_FLAG_RF) | (is_fault ? X86_FLAG_RF : 0);
}

static enum gn_kvm_done push_frame(struct gn_kvm_cpu *cpu, const struct gn_event *event,
				   uint64_t *rsp, struct gn_event *next)
{
	const struct gn_kvm_state *v = &cpu->depriv->v;
	const uint64_t frame[] = { event->error,	   v->rip,	   v->cs.selector,
				   pushed_flags(v, event), v->gpr[GN_RSP], v->ss.selector };
	const unsigned skipped = event->has_error ? 0 : 1;
	const unsigned bytes = (unsigned)(sizeof(frame) - skipped * sizeof(frame[0]));

	*rsp -= bytes;
	return gn_kvm_push(cpu, *rsp, frame + skipped, bytes, next);
}

/* ---- Delivery ------------------------------------------------------------------------------------------------------ */

static enum gn_kvm_done deliver(struct gn_kvm_cpu *cpu, const struct gn_event *event,
				struct gn_event *next)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	struct gn_kvm_segment cs;
	struct gate gate = { 0 };
	uint64_t rsp;
	bool inward = false;
	enum gn_kvm_done done;

	if (event->vector == GN_VEC_PF && !event->is_soft && !event->is_external)
		d->v.cr2 = event->cr2;
	done = read_gate(cpu, event, &gate, next);
	if (done == GN_DONE)
		done = read_segment(cpu, event, &gate, &cs, &inward, next);
	if (done == GN_DONE)
		done = choose_stack(cpu, event, &gate, inward, &rsp, next);
	if (done == GN_DONE && !is_canonical(cpu, gate.target))
		done = raises(next, GN_VEC_GP, external_bit(event));
	if (done == GN_DONE)
		done = push_frame(cpu, event, &rsp, next);
	if (done != GN_DONE)
		return done;
	d->v.rip = gate.target;
	d->v.gpr[GN_RSP] = rsp;
	d->v.cs = cs;
	if (inward)
		d->v.ss = (struct gn_kvm_segment){ 0 }; /* null, RPL the new CPL */
	d->v.rflags &= ~(X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_VM);
	if (gate.type == GATE_INTERRUPT)
		d->v.rflags &= ~X86_FLAG_IF;
	if (inward)
		d->user = false;
	return GN_DONE;
}

/* SDM vol. 3A, table 6-5: @second struck while @first was being delivered. */
static struct gn_event combine(const struct gn_event *first, const struct gn_event *second)
{
	const enum severity a = severity_of(first), b = severity_of(second);

	if ((a == CONTRIBUTORY && b == CONTRIBUTORY) ||
	    (a == PAGE_FAULT && (b == CONTRIBUTORY || b == PAGE_FAULT)))
		return gn_event_fault(GN_VEC_DF, 0);
	return *second;
}

static enum gn_kvm_next shut_down(struct gn_kvm_cpu *cpu, const struct gn_event *event)
{
	const struct gn_kvm_state *v = &cpu->depriv->v;

	return gn_kvm_end(cpu, GN_KVM_STOP_SHUTDOWN,
			  "triple fault: vector %u (error code %#x, CR2 %#llx) while delivering a "
			  "double fault; RIP %#llx, RSP %#llx, CPL %d, IDT %#llx",
			  event->vector, event->error, (unsigned long long)v->cr2,
			  (unsigned long long)v->rip, (unsigned long long)v->gpr[GN_RSP],
			  cpu->depriv->user ? 3 : 0, (unsigned long long)v->idtr.base);
}

enum gn_kvm_next gn_kvm_reflect(struct gn_kvm_cpu *cpu, const struct gn_event *event)
{
	struct gn_event now = *event, next;

	cpu->stats.reflected += !now.is_external;
	for (;;) {
		enum gn_kvm_done done = deliver(cpu, &now, &next);

		/* Counted when it is delivered: else the guest never heard of it. */
		if (done == GN_DONE && now.vector == GN_VEC_PF && now.has_error)
			gn_vcpu_counters(cpu->vcpu)->guest_faults++;
		if (done != GN_RAISES)
			return done == GN_DONE ? GN_KVM_AGAIN : GN_KVM_DONE;
		if (severity_of(&now) == DOUBLE_FAULT && severity_of(&next) != BENIGN)
			return shut_down(cpu, &next);
		if (now.is_soft) /* the instruction did not happen */
			cpu->depriv->v.rip -= now.insn_bytes;
		now = combine(&now, &next);
	}
}

/* STI holds interrupts off for one instruction. Code at CPL 3 can't be made to stop after one, so that is kept where
 * it matters, before a HLT (which traps), and else let go. */
static bool is_in_shadow(struct gn_kvm_cpu *cpu)
{
	const struct gn_kvm_depriv_cpu *d = cpu->depriv;
	const struct gn_insn *next;
	struct gn_event ignored;

	return gn_depriv_is_behind_sti(d) && gn_kvm_fetch(cpu, &next, &ignored) == GN_DONE &&
	       next->z.mnemonic == ZYDIS_MNEMONIC_HLT;
}

enum gn_kvm_next gn_kvm_reflect_interrupt(struct gn_kvm_cpu *cpu)
{
	const struct gn_kvm_state *v = &cpu->depriv->v;
	const int vector = gn_kvm_interrupt_pending(cpu);
	struct gn_event event;

	if (vector < 0 || !(v->rflags & X86_FLAG_IF) || (unsigned)vector >> 4 <= v->cr8 ||
	    is_in_shadow(cpu))
		return GN_KVM_AGAIN;
	gn_kvm_interrupt_take(cpu, (uint8_t)vector);
	event = (struct gn_event){ .vector = (uint8_t)vector, .is_external = true };
	return gn_kvm_reflect(cpu, &event);
}
