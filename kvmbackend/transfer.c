/* SPDX-License-Identifier: MIT */
/*
 * transfer.c - far transfers of control, and loads of segment registers: what a guest does with its own descriptors.
 *
 * The hardware runs on the monitor's GDT. The guest's selectors exist in the virtual state alone, checked against the
 * guest's tables as the processor would (SDM vol. 2, IRET, RET, MOV to Sreg, LTR, SYSCALL, SYSRET; vol. 3A 5.8). Only the
 * bases of FS and GS reach the hardware.
 *
 * CPL is 0 or 3. Code segments are 64-bit ones; a guest that uses ring 1 or 2 or compatibility mode is stopped
 * with that as the reason, rather than run wrongly.
 */
#include "depriv.h"

#include <string.h>

#include <gnomon/x86.h>

#define RPL(selector) ((selector)&3u)
#define INDEX_AND_TI  0xfffcu
#define TI	      4u

/* A descriptor's first word. */
#define DESC_TYPE(d)	 ((unsigned)((d) >> 40 & 0xf))
#define DESC_IS_CODE(d)	 (((d) >> 43 & 3) == 3) /* S and bit 3 of the type */
#define DESC_IS_DATA(d)	 (((d) >> 43 & 3) == 2)
#define DESC_CONFORMS(d) ((d) >> 42 & 1)
#define DESC_WRITABLE(d) ((d) >> 41 & 1)
#define DESC_S(d)	 ((d) >> 44 & 1)
#define DESC_DPL(d)	 ((unsigned)((d) >> 45 & 3))
#define DESC_P(d)	 ((d) >> 47 & 1)
#define DESC_L(d)	 ((d) >> 53 & 1)
#define DESC_BUSY	 ((uint64_t)1 << 41)

enum { SYS_LDT = 2, SYS_TSS_AVAILABLE = 9 };

/* What SYSCALL, SYSRET and IRET load without a look at any table. */
#define FLAT_CODE 0xa09b
#define FLAT_DATA 0xc093
#define DPL_3	  0x60

/* Flags that IRET and SYSRET may change. */
#define RESTORABLE                                                                                 \
	(X86_FLAG_CF | X86_FLAG_PF | X86_FLAG_AF | X86_FLAG_ZF | X86_FLAG_SF | X86_FLAG_TF |       \
	 X86_FLAG_DF | X86_FLAG_OF | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_AC | X86_FLAG_ID)

static enum gn_kvm_done raises(struct gn_event *event, uint8_t vector, uint32_t error)
{
	*event = gn_event_fault(vector, error);
	return GN_RAISES;
}

static bool is_null(uint16_t selector)
{
	return !(selector & INDEX_AND_TI);
}

static bool is_canonical(const struct gn_kvm_cpu *cpu, uint64_t va)
{
	return gn_paging_is_canonical(&cpu->vcpu->paging, gva(va));
}

static struct gn_kvm_segment segment_of(uint16_t selector, uint64_t desc)
{
	const uint32_t limit = (uint32_t)((desc & 0xffff) | (desc >> 32 & 0xf0000));
	const bool in_pages = desc >> 55 & 1;

	return (struct gn_kvm_segment){
		.base = (desc >> 16 & 0xffffff) | (desc >> 32 & 0xff000000),
		.limit = in_pages ? limit << 12 | 0xfff : limit,
		.selector = selector,
		.attributes = (uint16_t)(desc >> 40 & 0xf0ff),
	};
}

enum gn_kvm_done gn_kvm_descriptor(struct gn_kvm_cpu *cpu, uint16_t selector, uint64_t out[2],
				   bool *found, struct gn_event *event)
{
	const struct gn_kvm_state *v = &cpu->depriv->v;
	const bool in_ldt = selector & TI;
	const uint64_t base = in_ldt ? v->ldtr.base : v->gdtr.base;
	const uint64_t limit = in_ldt ? v->ldtr.limit : v->gdtr.limit;
	const uint64_t offset = selector & ~7u;

	out[0] = out[1] = 0;
	*found = !is_null(selector) && offset + 7 <= limit &&
		 (!in_ldt || !is_null(v->ldtr.selector));
	if (!*found)
		return GN_DONE;
	/* The upper half counts for system segments only, and need not be there for others. */
	return gn_kvm_read(cpu, GN_AS_SYSTEM, base + offset, out, offset + 15 <= limit ? 16 : 8,
			   event);
}

/* ---- Returns ------------------------------------------------------------------------------------------------ */

/* Is @selector a code segment a return may go to? */
static enum gn_kvm_done check_code(struct gn_kvm_cpu *cpu, uint16_t selector, uint64_t *desc,
				   struct gn_event *event)
{
	const unsigned cpl = cpu->depriv->user ? 3 : 0;
	const uint32_t error = selector & INDEX_AND_TI;
	uint64_t words[2];
	enum gn_kvm_done done;
	bool found;

	if (is_null(selector))
		return raises(event, GN_VEC_GP, 0);
	done = gn_kvm_descriptor(cpu, selector, words, &found, event);
	if (done != GN_DONE)
		return done;
	*desc = words[0];
	if (!found || !DESC_IS_CODE(*desc) || RPL(selector) < cpl ||
	    (DESC_CONFORMS(*desc) ? DESC_DPL(*desc) > RPL(selector)
				  : DESC_DPL(*desc) != RPL(selector)))
		return raises(event, GN_VEC_GP, error);
	if (!DESC_P(*desc))
		return raises(event, GN_VEC_NP, error);
	if (!DESC_L(*desc) || (RPL(selector) != 0 && RPL(selector) != 3)) {
		gn_kvm_end(cpu, GN_KVM_STOP_GUEST, "a return to %s (selector %#x) at %#llx",
			   DESC_L(*desc) ? "ring 1 or 2" : "32-bit code", selector,
			   (unsigned long long)cpu->depriv->v.rip);
		return GN_ENDS;
	}
	return GN_DONE;
}

static enum gn_kvm_done check_stack(struct gn_kvm_cpu *cpu, uint16_t selector, unsigned new_cpl,
				    struct gn_kvm_segment *ss, struct gn_event *event)
{
	const uint32_t error = selector & INDEX_AND_TI;
	uint64_t words[2];
	enum gn_kvm_done done;
	bool found;

	*ss = (struct gn_kvm_segment){ .selector = selector };
	if (is_null(selector))
		return new_cpl == 3 ? raises(event, GN_VEC_GP, 0) : GN_DONE;
	done = gn_kvm_descriptor(cpu, selector, words, &found, event);
	if (done != GN_DONE)
		return done;
	if (!found || RPL(selector) != new_cpl || !DESC_IS_DATA(words[0]) ||
	    !DESC_WRITABLE(words[0]) || DESC_DPL(words[0]) != new_cpl)
		return raises(event, GN_VEC_GP, error);
	if (!DESC_P(words[0]))
		return raises(event, GN_VEC_SS, error);
	*ss = segment_of(selector, words[0]);
	return GN_DONE;
}

/* Data segments of the inner ring don't go along to the outer. */
static void drop_inner(struct gn_kvm_segment *segment)
{
	const unsigned dpl = segment->attributes >> 5 & 3;
	const bool conforms = (segment->attributes & 0x1c) == 0x1c;

	if (segment->attributes && !conforms && dpl < 3) {
		segment->selector = 0;
		segment->attributes = 0;
	}
}

static void go(struct gn_kvm_cpu *cpu, const struct gn_kvm_segment *cs,
	       const struct gn_kvm_segment *ss, uint64_t rip, uint64_t rsp)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	const bool outward = RPL(cs->selector) == 3 && !d->user;

	d->v.cs = *cs;
	d->v.ss = *ss;
	d->v.rip = rip;
	d->v.gpr[GN_RSP] = rsp;
	if (!outward)
		return;
	d->user = true;
	drop_inner(&d->v.ds);
	drop_inner(&d->v.es);
	drop_inner(&d->v.fs);
	drop_inner(&d->v.gs);
}

/* @width bytes a word, from the guest's stack. */
static enum gn_kvm_done pop_words(struct gn_kvm_cpu *cpu, unsigned width, unsigned count,
				  uint64_t *words, struct gn_event *event)
{
	const uint64_t rsp = cpu->depriv->v.gpr[GN_RSP];

	memset(words, 0, count * sizeof(*words));
	if (width == sizeof(*words))
		return gn_kvm_read(cpu, GN_AS_GUEST, rsp, words, count * width, event);
	for (unsigned i = 0; i < count; i++) {
		enum gn_kvm_done done =
			gn_kvm_read(cpu, GN_AS_GUEST, rsp + i * width, &words[i], width, event);

		if (done != GN_DONE)
			return done;
	}
	return GN_DONE;
}

/* IOPL is the kernel's, IF that of who may do I/O. */
static uint64_t restored_flags(const struct gn_kvm_cpu *cpu, uint64_t image)
{
	const uint64_t old = cpu->depriv->v.rflags;
	uint64_t may = RESTORABLE;

	if (!cpu->depriv->user)
		may |= X86_FLAG_IOPL;
	if (!cpu->depriv->user || (old & X86_FLAG_IOPL) == X86_FLAG_IOPL)
		may |= X86_FLAG_IF;
	return (old & ~may) | (image & may) | X86_FLAG_ONE;
}

enum gn_kvm_done gn_kvm_iret(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			     struct gn_event *event)
{
	struct gn_kvm_state *v = &cpu->depriv->v;
	const unsigned width = insn->z.operand_width / 8;
	struct gn_kvm_segment cs, ss;
	uint64_t words[5], desc, flags;
	enum gn_kvm_done done;

	if (v->rflags & X86_FLAG_NT)
		return raises(event, GN_VEC_GP, 0);
	done = pop_words(cpu, width, 5, words, event);
	if (done == GN_DONE)
		done = check_code(cpu, (uint16_t)words[1], &desc, event);
	if (done == GN_DONE)
		done = check_stack(cpu, (uint16_t)words[4], RPL(words[1]), &ss, event);
	if (done != GN_DONE)
		return done;
	if (!is_canonical(cpu, words[0]))
		return raises(event, GN_VEC_GP, 0);
	cs = segment_of((uint16_t)words[1], desc);
	flags = restored_flags(cpu, words[2]);
	go(cpu, &cs, &ss, words[0], words[3]);
	v->rflags = flags;
	return GN_DONE;
}

/* RIP, CS; and RSP, SS beyond the parameters when it goes outward. */
enum gn_kvm_done gn_kvm_far_return(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				   struct gn_event *event)
{
	struct gn_kvm_state *v = &cpu->depriv->v;
	const unsigned width = insn->z.operand_width / 8;
	const uint64_t dropped =
		insn->z.operand_count_visible ? insn->operands[0].imm.value.u & 0xffff : 0;
	struct gn_kvm_segment cs, ss = v->ss;
	uint64_t words[2], outer[2], desc, rsp = v->gpr[GN_RSP] + 2 * width + dropped;
	enum gn_kvm_done done = pop_words(cpu, width, 2, words, event);

	if (done == GN_DONE)
		done = check_code(cpu, (uint16_t)words[1], &desc, event);
	if (done != GN_DONE)
		return done;
	if (!is_canonical(cpu, words[0]))
		return raises(event, GN_VEC_GP, 0);
	if (RPL(words[1]) == 3 && !cpu->depriv->user) {
		memset(outer, 0, sizeof(outer));
		done = gn_kvm_read(cpu, GN_AS_GUEST, rsp, &outer[0], width, event);
		if (done == GN_DONE)
			done = gn_kvm_read(cpu, GN_AS_GUEST, rsp + width, &outer[1], width, event);
		if (done == GN_DONE)
			done = check_stack(cpu, (uint16_t)outer[1], 3, &ss, event);
		if (done != GN_DONE)
			return done;
		rsp = outer[0] + dropped;
	}
	cs = segment_of((uint16_t)words[1], desc);
	go(cpu, &cs, &ss, words[0], rsp);
	return GN_DONE;
}

/* ---- System calls -------------------------------------------------------------------------------------------- */

static struct gn_kvm_segment flat(unsigned selector, bool is_code, bool user)
{
	return (struct gn_kvm_segment){ .limit = 0xffffffff,
					.selector = (uint16_t)selector,
					.attributes = (uint16_t)((is_code ? FLAT_CODE : FLAT_DATA) |
								 (user ? DPL_3 : 0)) };
}

enum gn_kvm_done gn_kvm_syscall(struct gn_kvm_cpu *cpu, struct gn_event *event)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	const unsigned cs = (unsigned)(d->v.star >> 32) & INDEX_AND_TI;

	if (!(gn_vcpu_regs(cpu->vcpu)->efer & X86_EFER_SCE)) {
		d->v.rip = d->v.gpr[GN_RCX] - 2;
		return raises(event, GN_VEC_UD, 0);
	}
	d->v.rip = d->v.lstar;
	d->v.rflags &= ~(d->v.sfmask | X86_FLAG_RF);
	d->v.rflags |= X86_FLAG_ONE;
	d->v.cs = flat(cs, true, false);
	d->v.ss = flat(cs + 8, false, false);
	d->user = false;
	return GN_DONE;
}

enum gn_kvm_done gn_kvm_sysret(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			       struct gn_event *event)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	const unsigned base = (unsigned)(d->v.star >> 48);

	if (!(gn_vcpu_regs(cpu->vcpu)->efer & X86_EFER_SCE))
		return raises(event, GN_VEC_UD, 0);
	if (!(insn->z.attributes & ZYDIS_ATTRIB_HAS_REX) || insn->z.operand_width != 64)
		return gn_kvm_stop_at_insn(cpu, insn, "a return to 32-bit code");
	if (!is_canonical(cpu, d->v.gpr[GN_RCX]))
		return raises(event, GN_VEC_GP, 0);
	d->v.rip = d->v.gpr[GN_RCX];
	d->v.rflags =
		(d->v.gpr[GN_R11] & (RESTORABLE | X86_FLAG_IF | X86_FLAG_IOPL) & ~X86_FLAG_RF) |
		X86_FLAG_ONE;
	d->v.cs = flat((base + 16) | 3, true, true);
	d->v.ss = flat((base + 8) | 3, false, true);
	d->user = true;
	return GN_DONE;
}

/* ---- Segment registers ------------------------------------------------------------------------------------------ */

static struct gn_kvm_segment *segment_register(struct gn_kvm_state *v, ZydisRegister reg)
{
	switch (reg) {
	case ZYDIS_REGISTER_ES:
		return &v->es;
	case ZYDIS_REGISTER_SS:
		return &v->ss;
	case ZYDIS_REGISTER_DS:
		return &v->ds;
	case ZYDIS_REGISTER_FS:
		return &v->fs;
	case ZYDIS_REGISTER_GS:
		return &v->gs;
	default:
		return NULL; /* CS */
	}
}

static enum gn_kvm_done check_data(struct gn_kvm_cpu *cpu, uint16_t selector,
				   struct gn_kvm_segment *out, struct gn_event *event)
{
	const unsigned cpl = cpu->depriv->user ? 3 : 0;
	const uint32_t error = selector & INDEX_AND_TI;
	uint64_t words[2], desc;
	enum gn_kvm_done done;
	bool found, is_readable, is_open;

	*out = (struct gn_kvm_segment){ .selector = selector };
	if (is_null(selector))
		return GN_DONE;
	done = gn_kvm_descriptor(cpu, selector, words, &found, event);
	if (done != GN_DONE)
		return done;
	desc = words[0];
	is_readable =
		DESC_IS_DATA(desc) || (DESC_IS_CODE(desc) && DESC_WRITABLE(desc)); /* R of code */
	is_open = DESC_IS_CODE(desc) && DESC_CONFORMS(desc);
	if (!found || !is_readable ||
	    (!is_open && (DESC_DPL(desc) < cpl || DESC_DPL(desc) < RPL(selector))))
		return raises(event, GN_VEC_GP, error);
	if (!DESC_P(desc))
		return raises(event, GN_VEC_NP, error);
	*out = segment_of(selector, desc);
	return GN_DONE;
}

/* MOV and POP to a segment register. */
enum gn_kvm_done gn_kvm_load_segment(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				     struct gn_event *event)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	const ZydisRegister reg = insn->operands[0].reg.value;
	const bool is_pop = insn->z.mnemonic == ZYDIS_MNEMONIC_POP;
	struct gn_kvm_segment *to = segment_register(&d->v, reg), loaded;
	enum gn_kvm_done done = GN_DONE;
	uint16_t selector;

	gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
	if (!to)
		return raises(event, GN_VEC_UD, 0);
	if (is_pop)
		done = gn_kvm_read(cpu, GN_AS_GUEST, d->v.gpr[GN_RSP], &selector, sizeof(selector),
				   event);
	else if (gn_insn_is_memory(insn, 1))
		done = gn_kvm_read(cpu, GN_AS_GUEST, gn_insn_address(&d->v, insn, 1), &selector,
				   sizeof(selector), event);
	else
		selector = (uint16_t)gn_insn_value(&d->v, insn, 1);
	if (done == GN_DONE)
		done = to == &d->v.ss ? check_stack(cpu, selector, d->user ? 3 : 0, &loaded, event)
				      : check_data(cpu, selector, &loaded, event);
	if (done != GN_DONE)
		return done;
	*to = loaded;
	if (is_pop)
		d->v.gpr[GN_RSP] += insn->z.operand_width == 16 ? 2 : 8;
	d->v.rip += insn->length;
	return GN_DONE;
}

/* LTR marks its descriptor busy. */
enum gn_kvm_done gn_kvm_load_system_segment(struct gn_kvm_cpu *cpu, uint16_t selector, bool is_tr,
					    struct gn_event *event)
{
	struct gn_kvm_state *v = &cpu->depriv->v;
	const uint32_t error = selector & INDEX_AND_TI;
	const unsigned type = is_tr ? SYS_TSS_AVAILABLE : SYS_LDT;
	struct gn_kvm_segment loaded;
	uint64_t words[2];
	enum gn_kvm_done done;
	bool found;

	if (is_null(selector) && !is_tr) {
		v->ldtr = (struct gn_kvm_segment){ .selector = selector };
		return GN_DONE;
	}
	if (is_null(selector) || (selector & TI))
		return raises(event, GN_VEC_GP, error);
	done = gn_kvm_descriptor(cpu, selector, words, &found, event);
	if (done != GN_DONE)
		return done;
	if (!found || DESC_S(words[0]) || DESC_TYPE(words[0]) != type)
		return raises(event, GN_VEC_GP, error);
	if (!DESC_P(words[0]))
		return raises(event, GN_VEC_NP, error);
	loaded = segment_of(selector, is_tr ? words[0] | DESC_BUSY : words[0]);
	loaded.base |= words[1] << 32;
	if (!is_canonical(cpu, loaded.base))
		return raises(event, GN_VEC_GP, error);
	if (is_tr) {
		words[0] |= DESC_BUSY;
		done = gn_kvm_write(cpu, GN_AS_SYSTEM, v->gdtr.base + (selector & ~7u), words,
				    sizeof(words[0]), event);
		if (done != GN_DONE)
			return done;
		v->tr = loaded;
	} else {
		v->ldtr = loaded;
	}
	return GN_DONE;
}
