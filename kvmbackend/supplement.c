/* SPDX-License-Identifier: MIT */
/*
 * supplement.c - instructions of a guest kernel that KVM's emulator lacks.
 *
 * On a host that runs CPL 0 code in KVM's emulator, some instructions a kernel needs are unknown to it, and KVM gives up
 * with the bytes in hand. They are decoded here; the few that steer translation or system calls are carried out:
 *
 *     STAC, CLAC     RFLAGS.AC, if the guest has SMAP, else #UD
 *     INVPCID        everything is flushed, which is more than any of its types asks; if the guest has it, else #UD
 *     INT n, INT3    delivered through the guest's IDT as KVM delivers an interrupt (at CPL 0 no gate is forbidden)
 *     UD0 UD1 UD2, and bytes that are no instruction: #UD
 *
 * Any other stops the guest, and the error names it. On hosts that run CPL 0 natively nobody comes here but for
 * an instruction that touched what is no memory.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include <gnomon/x86.h>

#include "nested.h"

#define INSTRUCTION_MAX 15
#define RFLAGS_AC	((uint64_t)1 << 18)
#define RFLAGS_RF	((uint64_t)1 << 16)

struct failure {
	struct gn_kvm_cpu *cpu;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	uint8_t bytes[INSTRUCTION_MAX];
	size_t count;
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	bool is_decoded;
};

/* ---- What was it? ------------------------------------------------------------------------------------------- */

/* KVM's exit has the bytes it fetched; an older one has none, then they are read as the guest would. */
static void fetch(struct failure *f)
{
	const struct kvm_run *run = f->cpu->run;
	const bool has_bytes = run->emulation_failure.ndata >= 3 &&
			       (run->emulation_failure.flags &
				KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
	struct gn_kvm_state state;

	if (has_bytes) {
		f->count = run->emulation_failure.insn_size;
		if (f->count > INSTRUCTION_MAX)
			f->count = INSTRUCTION_MAX;
		memcpy(f->bytes, run->emulation_failure.insn_bytes, f->count);
	}
	if (f->count || gn_kvm_nested_get_state(f->cpu, &state))
		return;
	while (f->count < INSTRUCTION_MAX &&
	       gn_kvm_nested_fetch(f->cpu, f->sregs.cs.dpl == 3, f->regs.rip + f->count,
				   &f->bytes[f->count]))
		f->count++;
}

static void decode(struct failure *f)
{
	const bool is_64 = f->sregs.cs.l, is_32 = f->sregs.cs.db;
	ZydisDecoder decoder;

	ZydisDecoderInit(&decoder,
			 is_64	 ? ZYDIS_MACHINE_MODE_LONG_64
			 : is_32 ? ZYDIS_MACHINE_MODE_LEGACY_32
				 : ZYDIS_MACHINE_MODE_LEGACY_16,
			 is_64	 ? ZYDIS_STACK_WIDTH_64
			 : is_32 ? ZYDIS_STACK_WIDTH_32
				 : ZYDIS_STACK_WIDTH_16);
	f->is_decoded = f->count && ZYAN_SUCCESS(ZydisDecoderDecodeFull(
					    &decoder, f->bytes, f->count, &f->insn, f->operands));
}

/* "rip 0x1000, bytes 0f 01 cb: stac" */
static void describe(const struct failure *f, char *out, size_t bytes)
{
	char hex[3 * INSTRUCTION_MAX + 1] = "", text[96] = "not an instruction";
	size_t count = f->is_decoded ? f->insn.length : f->count;
	ZydisFormatter formatter;

	for (size_t i = 0; i < count; i++)
		snprintf(hex + 3 * i, 4, " %02x", f->bytes[i]);
	if (f->is_decoded &&
	    ZYAN_SUCCESS(ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL)))
		ZydisFormatterFormatInstruction(&formatter, &f->insn, f->operands,
						f->insn.operand_count_visible, text, sizeof(text),
						f->regs.rip, NULL);
	snprintf(out, bytes, "rip %#llx, CPL %u, bytes%s: %s", (unsigned long long)f->regs.rip,
		 f->sregs.ss.dpl, count ? hex : " unknown", count ? text : "could not be read");
}

/* ---- Carrying out ----------------------------------------------------------------------------------------------- */

/* KVM may have queued a #UD of its own; what happens is ours to say. */
static int set_event(struct failure *f, bool is_exception, uint8_t vector)
{
	struct kvm_vcpu_events events;
	int err = gn_kvm_ioctl(f->cpu->fd, KVM_GET_VCPU_EVENTS, &events);

	if (err)
		return err;
	memset(&events.exception, 0, sizeof(events.exception));
	memset(&events.interrupt, 0, sizeof(events.interrupt));
	events.flags = 0;
	if (is_exception) {
		events.exception.injected = 1;
		events.exception.nr = vector;
	} else if (vector) {
		events.interrupt.injected = 1;
		events.interrupt.nr = vector;
	}
	f->cpu->run->ready_for_interrupt_injection = 0; /* nothing else may be queued now */
	f->cpu->nested->taken_bytes = 0;
	f->cpu->nested->trap = GN_TRAP_UNKNOWN;
	return gn_kvm_ioctl(f->cpu->fd, KVM_SET_VCPU_EVENTS, &events);
}

/* Past the instruction. */
static int advance(struct failure *f)
{
	f->regs.rip += f->insn.length;
	f->regs.rflags &= ~RFLAGS_RF;
	return gn_kvm_ioctl(f->cpu->fd, KVM_SET_REGS, &f->regs);
}

static int undefined(struct failure *f)
{
	return set_event(f, true, X86_VEC_UD);
}

static int set_ac(struct failure *f, bool on)
{
	if (!f->cpu->kvm->host.smap)
		return undefined(f);
	f->regs.rflags = on ? f->regs.rflags | RFLAGS_AC : f->regs.rflags & ~RFLAGS_AC;
	return advance(f);
}

/* KVM drops all it cached of a vCPU whose CR4 changes. */
static int flush_all(struct failure *f)
{
	struct kvm_sregs other = f->sregs;
	int err;

	other.cr4 ^= X86_CR4_PGE;
	err = gn_kvm_ioctl(f->cpu->fd, KVM_SET_SREGS, &other);
	return err ? err : gn_kvm_ioctl(f->cpu->fd, KVM_SET_SREGS, &f->sregs);
}

static int invpcid(struct failure *f)
{
	int err;

	if (!f->cpu->kvm->host.invpcid)
		return undefined(f);
	err = flush_all(f);
	return err ? err : advance(f);
}

static int software_interrupt(struct failure *f, uint8_t vector)
{
	int err = advance(f);

	if (!err)
		err = set_event(f, false, vector);
	f->cpu->nested->taken_bytes = f->insn.length;
	return err;
}

/* True: it was ours; *err is what came of it. */
static bool carry_out(struct failure *f, int *err)
{
	if (!f->is_decoded) {
		/* Few bytes may mean that the rest could not be read. */
		if (f->count < INSTRUCTION_MAX)
			return false;
		*err = undefined(f);
		return true;
	}
	switch (f->insn.mnemonic) {
	case ZYDIS_MNEMONIC_STAC:
	case ZYDIS_MNEMONIC_CLAC:
		*err = set_event(f, false, 0);
		if (!*err)
			*err = set_ac(f, f->insn.mnemonic == ZYDIS_MNEMONIC_STAC);
		return true;
	case ZYDIS_MNEMONIC_INVPCID:
		*err = set_event(f, false, 0);
		if (!*err)
			*err = invpcid(f);
		return true;
	case ZYDIS_MNEMONIC_INT:
		*err = software_interrupt(f, (uint8_t)f->operands[0].imm.value.u);
		return true;
	case ZYDIS_MNEMONIC_INT3:
		*err = software_interrupt(f, 3);
		return true;
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
		*err = undefined(f);
		return true;
	default:
		return false;
	}
}

enum gn_kvm_next gn_kvm_supplement(struct gn_kvm_cpu *cpu)
{
	struct failure f = { .cpu = cpu };
	int err = gn_kvm_ioctl(cpu->fd, KVM_GET_REGS, &f.regs);
	char what[256];

	if (!err)
		err = gn_kvm_ioctl(cpu->fd, KVM_GET_SREGS, &f.sregs);
	if (err)
		return gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "KVM_GET_REGS: %s", strerror(-err));
	fetch(&f);
	decode(&f);
	/* At CPL 3 KVM emulates only what touches memory that is none. */
	if (f.sregs.ss.dpl == 0 && carry_out(&f, &err)) {
		cpu->stats.emulation_failures++;
		describe(&f, what, sizeof(what));
		if (!err)
			return GN_KVM_AGAIN;
		return gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "emulating at %s: %s", what,
				  strerror(-err));
	}
	describe(&f, what, sizeof(what));
	return gn_kvm_end(cpu, GN_KVM_STOP_GUEST,
			  "KVM cannot emulate the guest's instruction at %s", what);
}
