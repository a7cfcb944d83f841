/* SPDX-License-Identifier: MIT */
/*
 * emulate.c - privileged instructions of a guest that believes to be at CPL 0.
 *
 * At CPL 3 each of these is a #GP (some a #UD), and the instruction is read and done here on the virtual state. Which
 * privilege it needs is the guest's: its user code gets its #GP(0) from here, its kernel the result.
 *
 * What the engine has a word for (control registers, EFER, invalidations) goes to the engine, which says #GP where the
 * architecture does. Registers that only the hardware gives a meaning follow at the next entry (depriv.c).
 *
 * Absent: protection keys (CR4.PKE is a #GP: a leaf of a view has no key), hardware breakpoints (debug registers
 * remember what was written), performance counters, I/O permission bitmaps (ports are for CPL <= IOPL), far jumps and
 * calls, compatibility mode. Instructions that the architecture does not make privileged can't be caught: POPF and PUSHF know
 * nothing of the guest's IF and IOPL, and CPUID is the host's.
 */
#include "depriv.h"

#include <string.h>

#include <gnomon/x86.h>

#define X86_CR0_ET   ((uint64_t)1 << 4)
#define X86_CR0_TS   ((uint64_t)1 << 3)
#define X86_CR4_UMIP ((uint64_t)1 << 11)
#define MSW_MASK     0xf

typedef enum gn_kvm_done handler(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				 struct gn_event *event);

static enum gn_kvm_done raise_gp(struct gn_event *event)
{
	*event = gn_event_fault(GN_VEC_GP, 0);
	return GN_RAISES;
}

static enum gn_kvm_done raise_ud(struct gn_event *event)
{
	*event = gn_event_fault(GN_VEC_UD, 0);
	return GN_RAISES;
}

static enum gn_kvm_done complete(struct gn_kvm_cpu *cpu, const struct gn_insn *insn)
{
	cpu->depriv->v.rip += insn->length;
	cpu->depriv->v.rflags &= ~X86_FLAG_RF;
	return GN_DONE;
}

/* Not for the guest's user code. */
static enum gn_kvm_done forbid(struct gn_kvm_cpu *cpu, struct gn_event *event)
{
	gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
	return raise_gp(event);
}

/* The engine's answer to a register write. */
static enum gn_kvm_done answered(struct gn_kvm_cpu *cpu, const struct gn_insn *insn, int err,
				 bool gp, struct gn_event *event)
{
	if (err) {
		gn_kvm_end(cpu, GN_KVM_STOP_ERROR,
			   "the host could not follow a control register: %s", strerror(-err));
		return GN_ENDS;
	}
	return gp ? raise_gp(event) : complete(cpu, insn);
}

/* ---- Control and debug registers --------------------------------------------------------------------------- */

/* In 64-bit code PG stays (SDM vol. 2, MOV to control register). */
static enum gn_kvm_done write_cr0(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				  uint64_t value, struct gn_event *event)
{
	bool gp = !(value & X86_CR0_PG);
	int err = 0;

	gn_kvm_count_exit(cpu, GN_EXIT_CR_ACCESS);
	if (!gp)
		err = gn_vcpu_write_cr0(cpu->vcpu, value | X86_CR0_ET, &gp);
	return answered(cpu, insn, err, gp, event);
}

static enum gn_kvm_done write_cr4(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				  uint64_t value, struct gn_event *event)
{
	const uint64_t refused = X86_CR4_PKE | gn_depriv_cr4_missing(cpu->kvm);
	bool gp = value & refused;
	int err = 0;

	gn_kvm_count_exit(cpu, GN_EXIT_CR_ACCESS);
	if (!gp)
		err = gn_vcpu_write_cr4(cpu->vcpu, value, &gp);
	return answered(cpu, insn, err, gp, event);
}

static enum gn_kvm_done write_control(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				      ZydisRegister reg, uint64_t value, struct gn_event *event)
{
	bool gp = false;
	int err = 0;

	switch (reg) {
	case ZYDIS_REGISTER_CR0:
		return write_cr0(cpu, insn, value, event);
	case ZYDIS_REGISTER_CR4:
		return write_cr4(cpu, insn, value, event);
	case ZYDIS_REGISTER_CR3:
		gn_kvm_count_exit(cpu, GN_EXIT_CR3);
		err = gn_vcpu_write_cr3(cpu->vcpu, value, &gp);
		break;
	case ZYDIS_REGISTER_CR2:
		gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
		cpu->depriv->v.cr2 = value;
		break;
	case ZYDIS_REGISTER_CR8:
		gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
		gp = value > 0xf;
		if (!gp)
			cpu->depriv->v.cr8 = value;
		break;
	default:
		return raise_ud(event);
	}
	return answered(cpu, insn, err, gp, event);
}

static enum gn_kvm_done read_control(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				     ZydisRegister reg, struct gn_event *event)
{
	const struct gn_regs *regs = gn_vcpu_regs(cpu->vcpu);
	struct gn_kvm_state *v = &cpu->depriv->v;
	uint64_t value;

	gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
	switch (reg) {
	case ZYDIS_REGISTER_CR0:
		value = regs->cr0;
		break;
	case ZYDIS_REGISTER_CR2:
		value = v->cr2;
		break;
	case ZYDIS_REGISTER_CR3:
		value = regs->cr3;
		break;
	case ZYDIS_REGISTER_CR4:
		value = regs->cr4;
		break;
	case ZYDIS_REGISTER_CR8:
		value = v->cr8;
		break;
	default:
		return raise_ud(event);
	}
	gn_insn_set_register(v, insn->operands[0].reg.value, value);
	return complete(cpu, insn);
}

/* DR4 and DR5 are other names of DR6 and DR7. */
static uint64_t *debug_register(struct gn_kvm_cpu *cpu, ZydisRegister reg)
{
	const unsigned index = (unsigned)(reg - ZYDIS_REGISTER_DR0);

	return index > 7 ? NULL
			 : &cpu->depriv->inert.dr[index == 4 || index == 5 ? index + 2 : index];
}

static enum gn_kvm_done move_debug(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				   bool is_write, struct gn_event *event)
{
	struct gn_kvm_state *v = &cpu->depriv->v;
	uint64_t *dr = debug_register(cpu, insn->operands[is_write ? 0 : 1].reg.value);

	gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
	if (!dr)
		return raise_ud(event);
	if (is_write)
		*dr = gn_insn_value(v, insn, 1);
	else
		gn_insn_set_register(v, insn->operands[0].reg.value, *dr);
	return complete(cpu, insn);
}

static ZydisRegisterClass class_of(const struct gn_insn *insn, unsigned index)
{
	if (index >= insn->z.operand_count_visible ||
	    insn->operands[index].type != ZYDIS_OPERAND_TYPE_REGISTER)
		return ZYDIS_REGCLASS_INVALID;
	return ZydisRegisterGetClass(insn->operands[index].reg.value);
}

static enum gn_kvm_done move(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			     struct gn_event *event)
{
	const ZydisRegisterClass to = class_of(insn, 0), from = class_of(insn, 1);

	if (to == ZYDIS_REGCLASS_SEGMENT)
		return gn_kvm_load_segment(cpu, insn, event);
	if (to != ZYDIS_REGCLASS_CONTROL && from != ZYDIS_REGCLASS_CONTROL &&
	    to != ZYDIS_REGCLASS_DEBUG && from != ZYDIS_REGCLASS_DEBUG)
		return GN_UNKNOWN;
	if (cpu->depriv->user)
		return forbid(cpu, event);
	if (to == ZYDIS_REGCLASS_CONTROL)
		return write_control(cpu, insn, insn->operands[0].reg.value,
				     gn_insn_value(&cpu->depriv->v, insn, 1), event);
	if (from == ZYDIS_REGCLASS_CONTROL)
		return read_control(cpu, insn, insn->operands[1].reg.value, event);
	return move_debug(cpu, insn, to == ZYDIS_REGCLASS_DEBUG, event);
}

static enum gn_kvm_done clts(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			     struct gn_event *event)
{
	return write_cr0(cpu, insn, gn_vcpu_regs(cpu->vcpu)->cr0 & ~X86_CR0_TS, event);
}

/* A 16-bit source, wherever it is. */
static enum gn_kvm_done source_word(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				    uint16_t *word, struct gn_event *event)
{
	if (gn_insn_is_memory(insn, 0))
		return gn_kvm_read(cpu, GN_AS_GUEST, gn_insn_address(&cpu->depriv->v, insn, 0),
				   word, sizeof(*word), event);
	*word = (uint16_t)gn_insn_value(&cpu->depriv->v, insn, 0);
	return GN_DONE;
}

/* PE can't be cleared by it. */
static enum gn_kvm_done lmsw(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			     struct gn_event *event)
{
	const uint64_t cr0 = gn_vcpu_regs(cpu->vcpu)->cr0;
	uint16_t word;
	enum gn_kvm_done done = source_word(cpu, insn, &word, event);

	if (done != GN_DONE)
		return done;
	return write_cr0(cpu, insn,
			 (cr0 & ~(uint64_t)MSW_MASK) | (word & MSW_MASK) | (cr0 & X86_CR0_PE),
			 event);
}

/* ---- What UMIP lets us answer ----------------------------------------------------------------------------------- */

static enum gn_kvm_done store_table(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				    struct gn_event *event)
{
	const struct gn_kvm_state *v = &cpu->depriv->v;
	const struct gn_kvm_table *table =
		insn->z.mnemonic == ZYDIS_MNEMONIC_SGDT ? &v->gdtr : &v->idtr;
	uint8_t image[10];
	enum gn_kvm_done done;

	memcpy(image, &table->limit, sizeof(table->limit));
	memcpy(image + 2, &table->base, sizeof(table->base));
	done = gn_kvm_write(cpu, GN_AS_GUEST, gn_insn_address(v, insn, 0), image, sizeof(image),
			    event);
	return done == GN_DONE ? complete(cpu, insn) : done;
}

static enum gn_kvm_done store_word(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				   struct gn_event *event)
{
	struct gn_kvm_state *v = &cpu->depriv->v;
	uint64_t value = insn->z.mnemonic == ZYDIS_MNEMONIC_SMSW  ? gn_vcpu_regs(cpu->vcpu)->cr0
			 : insn->z.mnemonic == ZYDIS_MNEMONIC_STR ? v->tr.selector
								  : v->ldtr.selector;
	enum gn_kvm_done done = GN_DONE;

	if (gn_insn_is_memory(insn, 0))
		done = gn_kvm_write(cpu, GN_AS_GUEST, gn_insn_address(v, insn, 0), &value,
				    sizeof(uint16_t), event);
	else
		gn_insn_set_register(v, insn->operands[0].reg.value, value);
	return done == GN_DONE ? complete(cpu, insn) : done;
}

static enum gn_kvm_done store_system(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				     struct gn_event *event)
{
	const bool is_table =
		insn->z.mnemonic == ZYDIS_MNEMONIC_SGDT || insn->z.mnemonic == ZYDIS_MNEMONIC_SIDT;

	gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
	if (cpu->depriv->user && (gn_vcpu_regs(cpu->vcpu)->cr4 & X86_CR4_UMIP))
		return raise_gp(event);
	return is_table ? store_table(cpu, insn, event) : store_word(cpu, insn, event);
}

/* ---- Tables ------------------------------------------------------------------------------------------------------- */

static enum gn_kvm_done load_table(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				   struct gn_event *event)
{
	struct gn_kvm_state *v = &cpu->depriv->v;
	struct gn_kvm_table table;
	uint8_t image[10];
	enum gn_kvm_done done = gn_kvm_read(cpu, GN_AS_GUEST, gn_insn_address(v, insn, 0), image,
					    sizeof(image), event);

	if (done != GN_DONE)
		return done;
	memcpy(&table.limit, image, sizeof(table.limit));
	memcpy(&table.base, image + 2, sizeof(table.base));
	if (!gn_paging_is_canonical(&cpu->vcpu->paging, gva(table.base)))
		return raise_gp(event);
	if (insn->z.mnemonic == ZYDIS_MNEMONIC_LGDT)
		v->gdtr = table;
	else
		v->idtr = table;
	return complete(cpu, insn);
}

static enum gn_kvm_done load_selector(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				      struct gn_event *event)
{
	uint16_t selector;
	enum gn_kvm_done done = source_word(cpu, insn, &selector, event);

	if (done == GN_DONE)
		done = gn_kvm_load_system_segment(cpu, selector,
						  insn->z.mnemonic == ZYDIS_MNEMONIC_LTR, event);
	return done == GN_DONE ? complete(cpu, insn) : done;
}

/* ---- Invalidations -------------------------------------------------------------------------------------------------- */

static enum gn_kvm_done invlpg(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			       struct gn_event *event)
{
	(void)event;
	gn_kvm_count_exit(cpu, GN_EXIT_INVLPG);
	gn_vcpu_invlpg(cpu->vcpu, gva(gn_insn_address(&cpu->depriv->v, insn, 0)));
	return complete(cpu, insn);
}

static enum gn_kvm_done invpcid(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				struct gn_event *event)
{
	struct gn_kvm_state *v = &cpu->depriv->v;
	const uint64_t type = gn_insn_value(v, insn, 0);
	uint64_t descriptor[2];
	enum gn_kvm_done done;
	bool gp;

	gn_kvm_count_exit(cpu, GN_EXIT_INVPCID);
	done = gn_kvm_read(cpu, GN_AS_GUEST, gn_insn_address(v, insn, 1), descriptor,
			   sizeof(descriptor), event);
	if (done != GN_DONE)
		return done;
	if (type > X86_INVPCID_ALL)
		return raise_gp(event);
	gn_vcpu_invpcid(cpu->vcpu, (unsigned)type, descriptor[0], gva(descriptor[1]), &gp);
	return gp ? raise_gp(event) : complete(cpu, insn);
}

static enum gn_kvm_done nothing(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				struct gn_event *event)
{
	(void)event;
	return complete(cpu, insn);
}

/* ---- Registers by number ----------------------------------------------------------------------------------------------- */

static uint64_t edx_eax(const struct gn_kvm_state *v)
{
	return (v->gpr[GN_RDX] << 32) | (uint32_t)v->gpr[GN_RAX];
}

static void set_edx_eax(struct gn_kvm_state *v, uint64_t value)
{
	v->gpr[GN_RAX] = (uint32_t)value;
	v->gpr[GN_RDX] = value >> 32;
}

static enum gn_kvm_done rdmsr(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			      struct gn_event *event)
{
	struct gn_kvm_state *v = &cpu->depriv->v;
	uint64_t value;

	if (!gn_kvm_msr_read(cpu, (uint32_t)v->gpr[GN_RCX], &value))
		return raise_gp(event);
	set_edx_eax(v, value);
	return complete(cpu, insn);
}

static enum gn_kvm_done wrmsr(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			      struct gn_event *event)
{
	struct gn_kvm_state *v = &cpu->depriv->v;
	const uint32_t index = (uint32_t)v->gpr[GN_RCX];
	enum gn_kvm_done done;

	gn_kvm_count_exit(cpu, index == GN_MSR_EFER ? GN_EXIT_CR_ACCESS : GN_EXIT_TRAP);
	done = gn_kvm_msr_write(cpu, index, edx_eax(v), event);
	return done == GN_DONE ? complete(cpu, insn) : done;
}

/* Only trapped under CR4.TSD, which is not for the kernel. */
static enum gn_kvm_done rdtsc(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			      struct gn_event *event)
{
	struct gn_kvm_state *v = &cpu->depriv->v;
	uint64_t value;

	if (cpu->depriv->user || !gn_kvm_msr_read(cpu, GN_MSR_TSC, &value))
		return raise_gp(event);
	set_edx_eax(v, value);
	if (insn->z.mnemonic == ZYDIS_MNEMONIC_RDTSCP)
		v->gpr[GN_RCX] = (uint32_t)cpu->depriv->inert.tsc_aux;
	return complete(cpu, insn);
}

static enum gn_kvm_done xsetbv(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			       struct gn_event *event)
{
	const struct gn_kvm_state *v = &cpu->depriv->v;
	struct kvm_xcrs xcrs = { .nr_xcrs = 1 };

	xcrs.xcrs[0].xcr = (uint32_t)v->gpr[GN_RCX];
	xcrs.xcrs[0].value = edx_eax(v);
	if (xcrs.xcrs[0].xcr || gn_kvm_ioctl(cpu->fd, KVM_SET_XCRS, &xcrs) < 0)
		return raise_gp(event);
	return complete(cpu, insn);
}

static enum gn_kvm_done swapgs(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			       struct gn_event *event)
{
	struct gn_kvm_state *v = &cpu->depriv->v;
	const uint64_t base = v->gs.base;

	(void)event;
	v->gs.base = v->kernel_gs_base;
	v->kernel_gs_base = base;
	return complete(cpu, insn);
}

static enum gn_kvm_done refuse(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			       struct gn_event *event)
{
	(void)cpu;
	return insn->z.mnemonic == ZYDIS_MNEMONIC_RDPMC ? raise_gp(event) : raise_ud(event);
}

/* ---- Flags ----------------------------------------------------------------------------------------------------------------- */

static bool may_io(const struct gn_kvm_cpu *cpu)
{
	return !cpu->depriv->user || (cpu->depriv->v.rflags & X86_FLAG_IOPL) == X86_FLAG_IOPL;
}

static enum gn_kvm_done cli_sti(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				struct gn_event *event)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;

	if (!may_io(cpu))
		return raise_gp(event);
	if (insn->z.mnemonic == ZYDIS_MNEMONIC_CLI) {
		d->v.rflags &= ~X86_FLAG_IF;
	} else if (!(d->v.rflags & X86_FLAG_IF)) {
		d->v.rflags |= X86_FLAG_IF;
		d->sti_from = d->v.rip;
		d->sti_to = d->v.rip + insn->z.length;
	}
	return complete(cpu, insn);
}

static enum gn_kvm_done clac_stac(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				  struct gn_event *event)
{
	struct gn_kvm_state *v = &cpu->depriv->v;

	if (cpu->depriv->user)
		return raise_ud(event);
	if (insn->z.mnemonic == ZYDIS_MNEMONIC_CLAC)
		v->rflags &= ~X86_FLAG_AC;
	else
		v->rflags |= X86_FLAG_AC;
	return complete(cpu, insn);
}

static enum gn_kvm_done hlt(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			    struct gn_event *event)
{
	(void)event;
	gn_kvm_count_exit(cpu, GN_EXIT_HLT);
	complete(cpu, insn);
	if (!(cpu->depriv->v.rflags & X86_FLAG_IF)) {
		gn_kvm_end(cpu, GN_KVM_STOP_HALT, "HLT with interrupts off at %#llx",
			   (unsigned long long)(cpu->depriv->v.rip - insn->length));
		return GN_ENDS;
	}
	cpu->is_halted = true;
	return GN_DONE;
}

/* ---- Ports -------------------------------------------------------------------------------------------------------------------- */

static enum gn_kvm_done port(struct gn_kvm_cpu *cpu, uint16_t number, unsigned bytes, bool is_out,
			     uint32_t *value)
{
	return gn_kvm_port(cpu, number, bytes, is_out, value) == GN_KVM_AGAIN ? GN_DONE : GN_ENDS;
}

/* RIP moves first: the port may end the run, and the guest goes on after it. */
static enum gn_kvm_done in_out(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			       struct gn_event *event)
{
	const bool is_out = insn->z.mnemonic == ZYDIS_MNEMONIC_OUT;
	const unsigned number = is_out ? 0 : 1, data = is_out ? 1 : 0;
	const unsigned bytes = gn_insn_operand_bytes(insn, data);
	struct gn_kvm_state *v = &cpu->depriv->v;
	const uint16_t where = insn->operands[number].type == ZYDIS_OPERAND_TYPE_IMMEDIATE
				       ? (uint8_t)insn->operands[number].imm.value.u
				       : (uint16_t)v->gpr[GN_RDX];
	uint32_t value = (uint32_t)gn_insn_value(v, insn, data);
	enum gn_kvm_done done;

	if (!may_io(cpu))
		return forbid(cpu, event);
	complete(cpu, insn);
	done = port(cpu, where, bytes, is_out, &value);
	if (done == GN_DONE && !is_out)
		gn_insn_set_register(v, insn->operands[data].reg.value, value);
	return done;
}

static unsigned string_bytes(ZydisMnemonic mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_INSB:
	case ZYDIS_MNEMONIC_OUTSB:
		return 1;
	case ZYDIS_MNEMONIC_INSW:
	case ZYDIS_MNEMONIC_OUTSW:
		return 2;
	default:
		return 4;
	}
}

/* One iteration. */
static enum gn_kvm_done in_out_string(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				      struct gn_event *event)
{
	const ZydisMnemonic mnemonic = insn->z.mnemonic;
	const bool is_out = mnemonic == ZYDIS_MNEMONIC_OUTSB || mnemonic == ZYDIS_MNEMONIC_OUTSW ||
			    mnemonic == ZYDIS_MNEMONIC_OUTSD;
	const bool repeats = insn->z.attributes & ZYDIS_ATTRIB_HAS_REP;
	const unsigned bytes = string_bytes(mnemonic);
	struct gn_kvm_state *v = &cpu->depriv->v;
	uint64_t *index = &v->gpr[is_out ? GN_RSI : GN_RDI];
	enum gn_kvm_done done = GN_DONE;
	uint32_t value = 0;

	if (!may_io(cpu))
		return forbid(cpu, event);
	if (repeats && !v->gpr[GN_RCX])
		return complete(cpu, insn);
	if (is_out)
		done = gn_kvm_read(cpu, GN_AS_GUEST, *index, &value, bytes, event);
	if (done == GN_DONE)
		done = port(cpu, (uint16_t)v->gpr[GN_RDX], bytes, is_out, &value);
	if (done == GN_DONE && !is_out)
		done = gn_kvm_write(cpu, GN_AS_GUEST, *index, &value, bytes, event);
	if (done != GN_DONE)
		return done;
	*index += v->rflags & X86_FLAG_DF ? ~(uint64_t)bytes + 1 : bytes;
	if (repeats && --v->gpr[GN_RCX])
		return GN_DONE;
	return complete(cpu, insn);
}

/* ---- INT n ------------------------------------------------------------------------------------------------------------------------ */

static enum gn_kvm_done int_n(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			      struct gn_event *event)
{
	*event = (struct gn_event){ .vector = (uint8_t)insn->operands[0].imm.value.u,
				    .is_soft = true,
				    .insn_bytes = insn->length };
	complete(cpu, insn);
	return GN_RAISES;
}

static enum gn_kvm_done ret(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			    struct gn_event *event)
{
	return insn->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR
		       ? gn_kvm_far_return(cpu, insn, event)
		       : GN_UNKNOWN;
}

static enum gn_kvm_done pop(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
			    struct gn_event *event)
{
	return class_of(insn, 0) == ZYDIS_REGCLASS_SEGMENT ? gn_kvm_load_segment(cpu, insn, event)
							   : GN_UNKNOWN;
}

/* ---- Which ------------------------------------------------------------------------------------------------------------------------- */

enum flags { ANY = 0, KERNEL = 1, COUNTED = 2 /* by the handler */ };

static const struct {
	ZydisMnemonic mnemonic;
	handler *handler;
	unsigned flags;
} privileged[] = {
	{ ZYDIS_MNEMONIC_MOV, move, COUNTED },
	{ ZYDIS_MNEMONIC_OUT, in_out, COUNTED },
	{ ZYDIS_MNEMONIC_IN, in_out, COUNTED },
	{ ZYDIS_MNEMONIC_INVLPG, invlpg, KERNEL | COUNTED },
	{ ZYDIS_MNEMONIC_IRETQ, gn_kvm_iret, ANY },
	{ ZYDIS_MNEMONIC_IRETD, gn_kvm_iret, ANY },
	{ ZYDIS_MNEMONIC_SYSRET, gn_kvm_sysret, KERNEL },
	{ ZYDIS_MNEMONIC_CLI, cli_sti, ANY },
	{ ZYDIS_MNEMONIC_STI, cli_sti, ANY },
	{ ZYDIS_MNEMONIC_HLT, hlt, KERNEL | COUNTED },
	{ ZYDIS_MNEMONIC_INVPCID, invpcid, KERNEL | COUNTED },
	{ ZYDIS_MNEMONIC_RDMSR, rdmsr, KERNEL },
	{ ZYDIS_MNEMONIC_WRMSR, wrmsr, KERNEL | COUNTED },
	{ ZYDIS_MNEMONIC_SWAPGS, swapgs, KERNEL },
	{ ZYDIS_MNEMONIC_INT, int_n, ANY },
	{ ZYDIS_MNEMONIC_STAC, clac_stac, ANY },
	{ ZYDIS_MNEMONIC_CLAC, clac_stac, ANY },
	{ ZYDIS_MNEMONIC_CLTS, clts, KERNEL | COUNTED },
	{ ZYDIS_MNEMONIC_LMSW, lmsw, KERNEL | COUNTED },
	{ ZYDIS_MNEMONIC_LGDT, load_table, KERNEL },
	{ ZYDIS_MNEMONIC_LIDT, load_table, KERNEL },
	{ ZYDIS_MNEMONIC_LLDT, load_selector, KERNEL },
	{ ZYDIS_MNEMONIC_LTR, load_selector, KERNEL },
	{ ZYDIS_MNEMONIC_SGDT, store_system, COUNTED },
	{ ZYDIS_MNEMONIC_SIDT, store_system, COUNTED },
	{ ZYDIS_MNEMONIC_SLDT, store_system, COUNTED },
	{ ZYDIS_MNEMONIC_STR, store_system, COUNTED },
	{ ZYDIS_MNEMONIC_SMSW, store_system, COUNTED },
	{ ZYDIS_MNEMONIC_RET, ret, COUNTED },
	{ ZYDIS_MNEMONIC_POP, pop, COUNTED },
	{ ZYDIS_MNEMONIC_WBINVD, nothing, KERNEL },
	{ ZYDIS_MNEMONIC_INVD, nothing, KERNEL },
	{ ZYDIS_MNEMONIC_MONITOR, nothing, KERNEL },
	{ ZYDIS_MNEMONIC_MWAIT, nothing, KERNEL }, /* woken at once, as it may be */
	{ ZYDIS_MNEMONIC_XSETBV, xsetbv, KERNEL },
	{ ZYDIS_MNEMONIC_RDTSC, rdtsc, ANY },
	{ ZYDIS_MNEMONIC_RDTSCP, rdtsc, ANY },
	{ ZYDIS_MNEMONIC_RDPMC, refuse, ANY },
	{ ZYDIS_MNEMONIC_VMCALL, refuse, ANY },
	{ ZYDIS_MNEMONIC_VMMCALL, refuse, ANY },
	{ ZYDIS_MNEMONIC_SYSEXIT, refuse, ANY },
	{ ZYDIS_MNEMONIC_INSB, in_out_string, COUNTED },
	{ ZYDIS_MNEMONIC_INSW, in_out_string, COUNTED },
	{ ZYDIS_MNEMONIC_INSD, in_out_string, COUNTED },
	{ ZYDIS_MNEMONIC_OUTSB, in_out_string, COUNTED },
	{ ZYDIS_MNEMONIC_OUTSW, in_out_string, COUNTED },
	{ ZYDIS_MNEMONIC_OUTSD, in_out_string, COUNTED },
};

enum gn_kvm_done gn_kvm_emulate(struct gn_kvm_cpu *cpu, const struct gn_insn *insn,
				struct gn_event *event)
{
	enum gn_kvm_done done;

	for (size_t i = 0; i < sizeof(privileged) / sizeof(privileged[0]); i++) {
		if (privileged[i].mnemonic != insn->z.mnemonic)
			continue;
		if ((privileged[i].flags & KERNEL) && cpu->depriv->user)
			return forbid(cpu, event);
		if (!(privileged[i].flags & COUNTED))
			gn_kvm_count_exit(cpu, GN_EXIT_TRAP);
		done = privileged[i].handler(cpu, insn, event);
		cpu->stats.emulated += done == GN_DONE;
		return done;
	}
	return GN_UNKNOWN;
}
