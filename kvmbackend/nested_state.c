/* SPDX-License-Identifier: MIT */
/*
 * nested_state.c - the guest's registers in nested mode, where KVM has them.
 *
 * The engine's copy of what steers translation follows here and nowhere else: when state is taken, for a pause, a switch, an
 * audit, or a look at the guest's code.
 *
 * Events. KVM may hold an interrupt or a fault that it has not delivered. The picture has no place for them, and needs
 * none: an interrupt is pending again on our side, a fault is raised again by its instruction. A trap would not be; a vCPU that has
 * one on its way is at no boundary (nested_trap.c).
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include <gnomon/x86.h>

#include "nested.h"

/* KVM finishes this exit's instruction at the next entry. */
bool gn_kvm_nested_is_unfinished(const struct gn_kvm_cpu *cpu, int err)
{
	return !err &&
	       (cpu->run->exit_reason == KVM_EXIT_IO || cpu->run->exit_reason == KVM_EXIT_MMIO);
}

/* A vCPU that stopped after an access (the exit port) has it completed. A string instruction may make more. */
static int complete(struct gn_kvm_cpu *cpu)
{
	int err = 0;

	while (cpu->nested->needs_completion && !err) {
		__atomic_store_n(&cpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		err = ioctl(cpu->fd, KVM_RUN, 0) ? -errno : 0;
		/* Whoever kicked meanwhile left a request, too. */
		__atomic_store_n(&cpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		if (err == -EINTR) {
			cpu->nested->needs_completion = false;
			return 0;
		}
		cpu->nested->needs_completion = gn_kvm_nested_is_unfinished(cpu, err);
		if (cpu->nested->needs_completion)
			(void)gn_kvm_nested_exit(cpu);
	}
	return err;
}

/* An event KVM took out of our hands and has not delivered: an interrupt is pending again, a fault
 * will be raised again by its instruction. */
static int take_back_events(struct gn_kvm_cpu *cpu)
{
	struct kvm_vcpu_events events;
	int err = gn_kvm_ioctl(cpu->fd, KVM_GET_VCPU_EVENTS, &events);

	if (err ||
	    (!events.interrupt.injected && !events.exception.injected && !events.exception.pending))
		return err;
	/* A trap. It stays KVM's until the state is another; see nested_trap.c. */
	if (events.exception.nr == X86_VEC_DB &&
	    (events.exception.injected || events.exception.pending))
		return 0;
	if (events.interrupt.injected && !events.interrupt.soft)
		atomic_fetch_or(&cpu->interrupts[events.interrupt.nr / 64],
				(uint64_t)1 << (events.interrupt.nr % 64));
	memset(&events.interrupt, 0, sizeof(events.interrupt));
	memset(&events.exception, 0, sizeof(events.exception));
	events.flags = 0;
	return gn_kvm_ioctl(cpu->fd, KVM_SET_VCPU_EVENTS, &events);
}

/* PKRU lies in the XSAVE area, where KVM_GET_SUPPORTED_CPUID says. */
static uint32_t *pkru_in(const struct gn_kvm *kvm, struct kvm_xsave *xsave)
{
	uint32_t offset = kvm->host.pkru_offset;

	return offset && offset + 4 <= sizeof(*xsave) ? &xsave->region[offset / 4] : NULL;
}

static int pkru_get(struct gn_kvm_cpu *cpu, uint32_t *value)
{
	struct kvm_xsave xsave;
	uint32_t *pkru = pkru_in(cpu->kvm, &xsave);
	int err = 0;

	*value = 0;
	if (!cpu->kvm->host.pku || !pkru)
		return 0;
	err = gn_kvm_ioctl(cpu->fd, KVM_GET_XSAVE, &xsave);
	if (!err)
		*value = *pkru;
	return err;
}

static int pkru_set(struct gn_kvm_cpu *cpu, uint32_t value)
{
	const uint64_t component = (uint64_t)1
				   << 9; /* in XSTATE_BV, the first word of the header at 512 */
	struct kvm_xsave xsave;
	uint32_t *pkru = pkru_in(cpu->kvm, &xsave);
	uint64_t present;
	int err;

	if (!cpu->kvm->host.pku || !pkru)
		return value ? -EINVAL : 0;
	err = gn_kvm_ioctl(cpu->fd, KVM_GET_XSAVE, &xsave);
	if (err)
		return err;
	memcpy(&present, &xsave.region[512 / 4], sizeof(present));
	present |= component;
	memcpy(&xsave.region[512 / 4], &present, sizeof(present));
	*pkru = value;
	return gn_kvm_ioctl(cpu->fd, KVM_SET_XSAVE, &xsave);
}

static bool is_known(const struct gn_regs *a, const struct gn_regs *b)
{
	return a->cr0 == b->cr0 && a->cr3 == b->cr3 && a->cr4 == b->cr4 && a->efer == b->efer &&
	       a->pkru == b->pkru;
}

int gn_kvm_nested_get_state(struct gn_kvm_cpu *cpu, struct gn_kvm_state *state)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	int err = complete(cpu);

	memset(state, 0, sizeof(*state));
	if (!err)
		err = take_back_events(cpu);
	if (!err)
		err = gn_kvm_ioctl(cpu->fd, KVM_GET_REGS, &regs);
	if (!err)
		err = gn_kvm_ioctl(cpu->fd, KVM_GET_SREGS, &sregs);
	if (!err)
		err = gn_kvm_msrs_get(cpu, state);
	if (!err)
		err = pkru_get(cpu, &state->regs.pkru);
	if (err)
		return err;
	gn_kvm_regs_from(&regs, state);
	gn_kvm_sregs_from(&sregs, state);
	if (is_known(&state->regs, gn_vcpu_regs(cpu->vcpu)))
		return 0;
	return gn_vcpu_set_regs(cpu->vcpu, &state->regs);
}

bool gn_kvm_nested_fetch(struct gn_kvm_cpu *cpu, bool user, uint64_t va, uint8_t *byte)
{
	const struct gn_access access = {
		.va = gva(va), .kind = GN_FETCH, .size = 1, .user = user
	};
	uint32_t error_code;
	gpa_t at;

	return gn_vcpu_translate(cpu->vcpu, &access, &at, &error_code) &&
	       !gn_vm_read(cpu->kvm->vm, at, byte, 1);
}

int gn_kvm_nested_set_state(struct gn_kvm_cpu *cpu, const struct gn_kvm_state *state)
{
	struct kvm_vcpu_events none = { .flags = KVM_VCPUEVENT_VALID_SHADOW };
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	int err = gn_vcpu_set_regs(cpu->vcpu, &state->regs);

	if (!err)
		err = complete(cpu);
	if (!err)
		err = gn_kvm_ioctl(cpu->fd, KVM_SET_VCPU_EVENTS, &none);
	if (!err)
		err = gn_kvm_ioctl(cpu->fd, KVM_GET_SREGS, &sregs);
	if (err)
		return err;
	gn_kvm_sregs_to(state, &sregs);
	gn_kvm_regs_to(state, &regs);
	cpu->nested->trap = GN_TRAP_NONE;
	cpu->nested->taken_bytes = 0;
	/* What KVM said last was of another state; to ask for its window might let an instruction pass that must not. */
	cpu->run->ready_for_interrupt_injection = !!(state->rflags & X86_FLAG_IF);
	err = gn_kvm_ioctl(cpu->fd, KVM_SET_SREGS, &sregs);
	if (!err)
		err = gn_kvm_ioctl(cpu->fd, KVM_SET_REGS, &regs);
	if (!err)
		err = gn_kvm_msrs_set(cpu, state);
	return err ? err : pkru_set(cpu, state->regs.pkru);
}
