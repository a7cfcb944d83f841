/* SPDX-License-Identifier: MIT */
/*
 * msr.c - model-specific registers of a guest whose kernel runs at CPL 3.
 *
 * EFER is the engine's; segment bases and the registers of SYSCALL are virtual state; what nothing here acts upon is
 * remembered. Everything else is a #GP(0), as on a processor that lacks it: guests probe for registers so.
 */
#include "depriv.h"

#include <string.h>

enum {
	MSR_TSC = GN_MSR_TSC,
	MSR_APIC_BASE = 0x1b,
	MSR_MTRR_CAP = 0xfe,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_EIP = 0x176,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_PAT = 0x277,
	MSR_MTRR_DEFAULT = 0x2ff,
};
#define MSR_STAR	   0xc0000081u
#define MSR_LSTAR	   0xc0000082u
#define MSR_CSTAR	   0xc0000083u
#define MSR_SFMASK	   0xc0000084u
#define MSR_FS_BASE	   0xc0000100u
#define MSR_GS_BASE	   0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX	   0xc0000103u

/* Plain words: where each is kept. */
static uint64_t *word_of(struct gn_kvm_cpu *cpu, uint32_t index)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;

	switch (index) {
	case MSR_STAR:
		return &d->v.star;
	case MSR_LSTAR:
		return &d->v.lstar;
	case MSR_CSTAR:
		return &d->inert.cstar;
	case MSR_SFMASK:
		return &d->v.sfmask;
	case MSR_FS_BASE:
		return &d->v.fs.base;
	case MSR_GS_BASE:
		return &d->v.gs.base;
	case MSR_KERNEL_GS_BASE:
		return &d->v.kernel_gs_base;
	case MSR_TSC_AUX:
		return &d->inert.tsc_aux;
	case MSR_PAT:
		return &d->inert.pat;
	case MSR_APIC_BASE:
		return &d->inert.apic_base;
	case MSR_MISC_ENABLE:
		return &d->inert.misc_enable;
	case MSR_MTRR_DEFAULT:
		return &d->inert.mtrr_default;
	default:
		if (index >= MSR_SYSENTER_CS && index <= MSR_SYSENTER_EIP)
			return &d->inert.sysenter[index - MSR_SYSENTER_CS];
		return NULL;
	}
}

static bool holds_address(uint32_t index)
{
	switch (index) {
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_FS_BASE:
	case MSR_GS_BASE:
	case MSR_KERNEL_GS_BASE:
		return true;
	default:
		return false;
	}
}

/* Registers that KVM has. */
static bool hardware_msr(struct gn_kvm_cpu *cpu, uint32_t index, uint64_t *value, bool is_write)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry = { .index = index, .data = *value } };
	int done = gn_kvm_ioctl(cpu->fd, is_write ? KVM_SET_MSRS : KVM_GET_MSRS, &msrs);

	*value = msrs.entry.data;
	return done == 1;
}

bool gn_kvm_msr_read(struct gn_kvm_cpu *cpu, uint32_t index, uint64_t *value)
{
	const uint64_t *word = word_of(cpu, index);

	*value = 0;
	if (word)
		*value = *word;
	else if (index == GN_MSR_EFER)
		*value = gn_vcpu_regs(cpu->vcpu)->efer;
	else if (index == MSR_TSC)
		return hardware_msr(cpu, index, value, false);
	else if (index != MSR_MTRR_CAP)
		return false;
	return true;
}

enum gn_kvm_done gn_kvm_msr_write(struct gn_kvm_cpu *cpu, uint32_t index, uint64_t value,
				  struct gn_event *event)
{
	uint64_t *word = word_of(cpu, index);
	bool gp = false;
	int err = 0;

	if (index == GN_MSR_EFER)
		err = gn_vcpu_write_efer(cpu->vcpu, value, &gp);
	else if (index == MSR_TSC)
		gp = !hardware_msr(cpu, index, &value, true);
	else if (!word || index == MSR_APIC_BASE ||
		 (holds_address(index) && !gn_paging_is_canonical(&cpu->vcpu->paging, gva(value))))
		gp = true;
	else
		*word = value;
	if (!gp && index == MSR_TSC_AUX) /* RDTSCP at CPL 3 reads the hardware's */
		gp = !hardware_msr(cpu, index, &value, true);
	if (err) {
		gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "the host could not follow EFER: %s",
			   strerror(-err));
		return GN_ENDS;
	}
	if (!gp)
		return GN_DONE;
	*event = gn_event_fault(GN_VEC_GP, 0);
	return GN_RAISES;
}
