/* SPDX-License-Identifier: MIT */
/*
 * depriv.c - the mode that runs all of the guest at CPL 3, on tables of a scheme: trap and emulate.
 *
 * KVM's guest-physical space is the engine's host-physical one, the frame pool, so what the scheme writes into its tables
 * means to KVM what it says. The guest has no memory there of its own: it reaches what its root maps.
 *
 * An entry writes all registers from the virtual state (struct gn_kvm_depriv_cpu), general and segment registers alike,
 * through the shared page, straight at CPL 3: that costs no more than the ioctl does, where a return through the
 * monitor costs 4 us on a host that emulates CPL 0. An exit reads them back. The fast path of an exit is: frame, decode,
 * the engine, registers; no system call but KVM_RUN.
 *
 * What is in force in the hardware, whatever the guest wrote:
 *
 *   CR0  PG PE WP ET NE, the guest's MP EM TS AM     CR3  gn_hw.root, of the guest's privilege
 *   CR4  PAE, LA57 with 5-level roots, UMIP where it exists (SGDT and its kin trap), PGE as a switch that flushes;
 *        of the guest's those that act at CPL 3 (TSD DE PCE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE)
 *   EFER LMA LME NXE, the guest's SCE                RFLAGS  IF always, IOPL 0; the guest's own are virtual
 *
 * Flushing: KVM drops every translation of a vCPU when a write of its registers changes CR3 or CR4. Another root is
 * another CR3; the same root is flushed by PGE, which nothing else depends on, since no leaf here is global.
 *
 * A kick may find the vCPU anywhere. At CPL 3: the registers are the guest's, unless KVM had an exception of the guest on its way;
 * that is finished here (a trap) or forgotten (a fault: the instruction will fault again). At an entry of the monitor: the exception has
 * arrived but for its HLT. In a program of downgrade.c: it runs on at the next KVM_RUN. So the guest's state is complete
 * whenever the vCPU is outside, and every return from KVM_RUN is a boundary.
 */
#include "depriv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/x86.h>

#define X86_CR0_MP ((uint64_t)1 << 1)
#define X86_CR0_EM ((uint64_t)1 << 2)
#define X86_CR0_TS ((uint64_t)1 << 3)
#define X86_CR0_ET ((uint64_t)1 << 4)
#define X86_CR0_NE ((uint64_t)1 << 5)
#define X86_CR0_AM ((uint64_t)1 << 18)
#define CR0_FIXED  (X86_CR0_PG | X86_CR0_PE | X86_CR0_WP | X86_CR0_ET | X86_CR0_NE)
#define CR0_GUEST  (X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_AM)

#define X86_CR4_TSD	   ((uint64_t)1 << 2)
#define X86_CR4_DE	   ((uint64_t)1 << 3)
#define X86_CR4_PCE	   ((uint64_t)1 << 8)
#define X86_CR4_OSFXSR	   ((uint64_t)1 << 9)
#define X86_CR4_OSXMMEXCPT ((uint64_t)1 << 10)
#define X86_CR4_UMIP	   ((uint64_t)1 << 11)
#define X86_CR4_FSGSBASE   ((uint64_t)1 << 16)
#define X86_CR4_OSXSAVE	   ((uint64_t)1 << 18)
#define CR4_GUEST                                                                                  \
	(X86_CR4_TSD | X86_CR4_DE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT |            \
	 X86_CR4_FSGSBASE | X86_CR4_OSXSAVE)

#define EFER_FIXED (X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE)

/* Flags that code at CPL 3 reads and changes by itself. AC has rules of its own. */
#define FLAGS_SHARED                                                                               \
	(X86_FLAG_CF | X86_FLAG_PF | X86_FLAG_AF | X86_FLAG_ZF | X86_FLAG_SF | X86_FLAG_TF |       \
	 X86_FLAG_DF | X86_FLAG_OF | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_ID)

#define SYNCED (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS)

enum gn_monitor_set gn_depriv_set(const struct gn_kvm_cpu *cpu)
{
	return gn_vcpu_hw(cpu->vcpu)->fmt->levels == 5 ? GN_MONITOR_LEVELS_5 : GN_MONITOR_LEVELS_4;
}

uint64_t gn_depriv_cr4_missing(const struct gn_kvm *kvm)
{
	return CR4_GUEST & ~kvm->depriv->cr4_supported;
}

/* ---- Posts: any thread, see downgrade.c -------------------------------------------------------------------- */

/* A vCPU on its way to the guest turns back and drains; one that is in it goes on, until gn_kvm_quiesce() or an exit. */
static void nudge(struct gn_kvm_cpu *cpu)
{
	atomic_store(&cpu->has_request, true);
}

void gn_kvm_depriv_flush(struct gn_kvm_cpu *cpu, const struct gn_flush *flush)
{
	(void)flush; /* one width */
	gn_downgrades_post_flush(&cpu->depriv->downgrades);
	nudge(cpu);
}

void gn_kvm_depriv_entry_changed(struct gn_kvm *kvm, hpa_t slot)
{
	for (unsigned i = 0; kvm->depriv->needs_touch && i < kvm->cpu_count; i++) {
		gn_downgrades_post_entry(&kvm->cpus[i].depriv->downgrades, slot);
		nudge(&kvm->cpus[i]);
	}
}

void gn_kvm_depriv_table_retired(struct gn_kvm *kvm, pfn_t table)
{
	for (unsigned i = 0; kvm->depriv->needs_touch && i < kvm->cpu_count; i++) {
		gn_downgrades_post_table(&kvm->cpus[i].depriv->downgrades, table);
		nudge(&kvm->cpus[i]);
	}
}

/* ---- Entry ----------------------------------------------------------------------------------------------------- */

static enum gn_kvm_next follow_privilege(struct gn_kvm_cpu *cpu)
{
	const struct gn_kvm_depriv_cpu *d = cpu->depriv;
	int err = gn_vcpu_set_privilege(cpu->vcpu, d->user, d->v.rflags & X86_FLAG_AC);

	return err ? gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "no tables for the guest's privilege: %s",
				strerror(-err))
		   : GN_KVM_AGAIN;
}

static uint64_t hardware_flags(struct gn_kvm_depriv_cpu *d)
{
	uint64_t flags = (d->v.rflags & FLAGS_SHARED) | X86_FLAG_ONE | X86_FLAG_IF;

	if (!(d->v.rflags & X86_FLAG_AC))
		d->hides_ac = false;
	else if (!d->hides_ac)
		flags |= X86_FLAG_AC;
	return flags;
}

/* What CR3, CR4 and the bases are now; segments of CPL 3 are in d->hw always. */
static void make_sregs(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	const struct gn_regs *regs = gn_vcpu_regs(cpu->vcpu);
	const struct gn_hw *hw = gn_vcpu_hw(cpu->vcpu);
	const enum gn_monitor_set set = gn_depriv_set(cpu);
	const uint64_t supported = cpu->kvm->depriv->cr4_supported;

	if (d->set != set) {
		gn_monitor_sregs(&cpu->kvm->depriv->monitor, set, cpu->index, &d->hw);
		d->set = set;
	}
	d->hw.cr0 = CR0_FIXED | (regs->cr0 & CR0_GUEST);
	d->hw.cr2 = d->v.cr2;
	d->hw.cr3 = hw->root.v;
	d->hw.cr4 = X86_CR4_PAE | (regs->cr4 & CR4_GUEST) | (supported & X86_CR4_UMIP) |
		    (set == GN_MONITOR_LEVELS_5 ? X86_CR4_LA57 : 0) | (d->kvm_cr4 & X86_CR4_PGE);
	d->hw.efer = EFER_FIXED | (regs->efer & X86_EFER_SCE);
	d->hw.fs.base = d->v.fs.base;
	d->hw.gs.base = d->v.gs.base;
}

static enum gn_kvm_next load_guest(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	struct kvm_sync_regs *sync = &cpu->run->s.regs;

	make_sregs(cpu);
	if (d->owes_flush && d->hw.cr3 == d->kvm_cr3)
		d->hw.cr4 ^= X86_CR4_PGE;
	sync->sregs = d->hw;
	gn_kvm_regs_to(&d->v, &sync->regs);
	sync->regs.rflags = hardware_flags(d);
	cpu->run->kvm_dirty_regs = SYNCED;
	if (d->forgets_event) {
		memset(&sync->events, 0, sizeof(sync->events));
		cpu->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
		d->forgets_event = false;
	}
	d->inside = GN_INSIDE_GUEST;
	return GN_KVM_AGAIN;
}

static enum gn_kvm_next load_program(struct gn_kvm_cpu *cpu, const struct gn_downgrade_work *work)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	struct kvm_sync_regs *sync = &cpu->run->s.regs;

	make_sregs(cpu);
	sync->sregs = d->hw;
	gn_monitor_segments_cpl0(&sync->sregs);
	sync->regs = (struct kvm_regs){
		.rip = gn_monitor_program_va(d->set, cpu->index),
		.rbx = work->base,
		.rsp = gn_monitor_va(d->set, cpu->kvm->depriv->monitor.cpus[cpu->index].stack) +
		       GN_PAGE_SIZE,
		.rflags = X86_FLAG_ONE,
	};
	cpu->run->kvm_dirty_regs = SYNCED;
	d->program_end = sync->regs.rip + work->program_bytes;
	d->inside = GN_INSIDE_PROGRAM;
	cpu->stats.stub_operations += work->operations;
	return GN_KVM_AGAIN;
}

/* What can post to this vCPU from its own thread comes before the drain, which is the last look. */
static enum gn_kvm_next before_run(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	const struct gn_monitor *monitor = &cpu->kvm->depriv->monitor;
	struct gn_downgrade_work work;
	enum gn_kvm_next next;

	if (d->inside == GN_INSIDE_PROGRAM)
		return GN_KVM_AGAIN;
	if (d->v.rip != d->sti_to || d->user)
		d->sti_to = 0; /* it was somewhere else since */
	next = gn_kvm_reflect_interrupt(cpu);
	if (next == GN_KVM_AGAIN)
		next = follow_privilege(cpu);
	if (next != GN_KVM_AGAIN)
		return next;
	if ((unsigned)gn_depriv_set(cpu) >= monitor->sets)
		return gn_kvm_end(cpu, GN_KVM_STOP_GUEST,
				  "the guest uses 5-level paging, which KVM here does not offer");
	gn_downgrades_drain(&d->downgrades, gn_monitor_va(gn_depriv_set(cpu), hpa(0)),
			    monitor->cpus[cpu->index].program_code, &work);
	d->owes_flush |= work.flush;
	return work.operations ? load_program(cpu, &work) : load_guest(cpu);
}

/* ---- Exit --------------------------------------------------------------------------------------------------------- */

static void absorb_flags(struct gn_kvm_depriv_cpu *d, uint64_t hardware)
{
	uint64_t shared = FLAGS_SHARED;

	/* While AC is hidden, the hardware's 0 says nothing. */
	if (!d->hides_ac || (hardware & X86_FLAG_AC))
		shared |= X86_FLAG_AC;
	d->v.rflags = (d->v.rflags & ~shared) | (hardware & shared) | X86_FLAG_ONE;
}

/* General registers and bases; RIP, RSP and flags are the caller's where a frame has them. */
static void absorb(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	const struct kvm_sync_regs *sync = &cpu->run->s.regs;
	const uint64_t flags = d->v.rflags;

	gn_kvm_regs_from(&sync->regs, &d->v);
	d->v.rflags = flags;
	d->v.fs.base = sync->sregs.fs.base;
	d->v.gs.base = sync->sregs.gs.base;
	d->inside = GN_INSIDE_NOTHING;
}

static void note_entered(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;

	d->kvm_cr3 = cpu->run->s.regs.sregs.cr3;
	d->kvm_cr4 = cpu->run->s.regs.sregs.cr4;
	if (d->inside != GN_INSIDE_GUEST || !d->owes_flush)
		return;
	d->owes_flush = false;
	gn_vcpu_counters(cpu->vcpu)->flushes++;
}

static enum gn_kvm_next host_failed(struct gn_kvm_cpu *cpu, const char *what)
{
	const struct kvm_sync_regs *sync = &cpu->run->s.regs;

	return gn_kvm_end(cpu, GN_KVM_STOP_ERROR,
			  "%s (exit %u, RIP %#llx, CPL %u, %s; CR2 %#llx, CR3 %#llx)", what,
			  cpu->run->exit_reason, sync->regs.rip, sync->sregs.cs.dpl,
			  cpu->depriv->inside == GN_INSIDE_PROGRAM ? "in a program of the monitor"
								   : "in the guest",
			  sync->sregs.cr2, sync->sregs.cr3);
}

/* The vCPU stands at byte @entry of the entry page. */
static enum gn_kvm_next arrived(struct gn_kvm_cpu *cpu, uint64_t entry)
{
	const struct kvm_sync_regs *sync = &cpu->run->s.regs;
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	struct gn_monitor_frame frame;
	enum gn_kvm_next next;
	uint32_t error;

	if (entry > GN_MONITOR_SYSCALL)
		return host_failed(cpu, "CPL 0 halted outside the monitor");
	absorb(cpu);
	if (entry == GN_MONITOR_SYSCALL) {
		d->v.rip = d->v.gpr[GN_RCX];
		absorb_flags(d, d->v.gpr[GN_R11]);
		d->v.gpr[GN_R11] = d->v.rflags;
		return gn_kvm_trap_syscall(cpu);
	}
	gn_monitor_frame(&cpu->kvm->depriv->monitor, cpu->index, (unsigned)entry, &frame, &error);
	d->v.rip = frame.rip;
	d->v.gpr[GN_RSP] = frame.rsp;
	absorb_flags(d, frame.rflags);
	d->forgets_event = entry == GN_VEC_BP || entry == GN_VEC_OF;
	next = follow_privilege(cpu); /* POPF may have changed AC */
	return next == GN_KVM_AGAIN ? gn_kvm_trap(cpu, (unsigned)entry, error, sync->sregs.cr2)
				    : next;
}

static enum gn_kvm_next halted(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	const uint64_t rip = cpu->run->s.regs.regs.rip;

	if (d->inside == GN_INSIDE_GUEST)
		return arrived(cpu, rip - 1 - gn_monitor_entry_va(d->set, 0));
	if (rip != d->program_end)
		return host_failed(cpu, "the monitor's program was not run to its end");
	d->inside = GN_INSIDE_NOTHING;
	return GN_KVM_AGAIN;
}

/* KVM's own copy of an exception it was about to deliver. Traps have happened and would be lost; faults come again. */
static enum gn_kvm_next take_pending_event(struct gn_kvm_cpu *cpu)
{
	struct kvm_vcpu_events events;
	unsigned vector;
	bool is_soft, is_known;
	int err = gn_kvm_ioctl(cpu->fd, KVM_GET_VCPU_EVENTS, &events);

	if (err < 0)
		goto failed;
	vector = events.exception.nr;
	/* KVM does not report those of INT3 and INTO, but their number; load_guest() clears it when one was taken. */
	is_soft = vector == GN_VEC_BP || vector == GN_VEC_OF;
	is_known = events.exception.injected || events.exception.pending;
	if (!is_soft && !is_known)
		return GN_KVM_AGAIN;
	memset(&events, 0, sizeof(events));
	err = gn_kvm_ioctl(cpu->fd, KVM_SET_VCPU_EVENTS, &events);
	if (err < 0)
		goto failed;
	/* Where CPL 3 runs on the processor and KVM delivers, RIP has moved on already; elsewhere it has not. */
	if (vector == GN_VEC_DB || (is_soft && cpu->kvm->host.soft_traps_move_rip))
		return gn_kvm_trap(cpu, vector, 0, 0);
	return GN_KVM_AGAIN;
failed:
	gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "-");
	gn_kvm_sys_fail(cpu->error, sizeof(cpu->error), "KVM_GET/SET_VCPU_EVENTS", -err);
	return GN_KVM_DONE;
}

static enum gn_kvm_next kicked(struct gn_kvm_cpu *cpu)
{
	const struct kvm_sync_regs *sync = &cpu->run->s.regs;
	struct gn_kvm_depriv_cpu *d = cpu->depriv;

	if (d->inside == GN_INSIDE_PROGRAM || (cpu->run->kvm_dirty_regs & SYNCED))
		return GN_KVM_AGAIN; /* in its midst, or not even begun */
	if (sync->sregs.cs.dpl == 0)
		return arrived(cpu, sync->regs.rip - gn_monitor_entry_va(d->set, 0));
	absorb(cpu);
	absorb_flags(d, sync->regs.rflags);
	return take_pending_event(cpu);
}

static enum gn_kvm_next unemulated(struct gn_kvm_cpu *cpu)
{
	const struct kvm_sync_regs *sync = &cpu->run->s.regs;

	if (cpu->run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION || !sync->sregs.cs.dpl)
		return host_failed(cpu, "KVM reports an internal error");
	absorb(cpu);
	absorb_flags(cpu->depriv, sync->regs.rflags);
	return gn_kvm_trap_unemulated(cpu);
}

static enum gn_kvm_next after_run(struct gn_kvm_cpu *cpu, int err)
{
	if (!(cpu->run->kvm_dirty_regs & SYNCED))
		note_entered(cpu);
	if (err == -EINTR || err == -EAGAIN)
		return kicked(cpu);
	if (err) {
		gn_kvm_end(cpu, GN_KVM_STOP_ERROR, "-");
		gn_kvm_sys_fail(cpu->error, sizeof(cpu->error), "KVM_RUN", -err);
		return GN_KVM_DONE;
	}
	switch (cpu->run->exit_reason) {
	case KVM_EXIT_HLT:
		return halted(cpu);
	case KVM_EXIT_INTERNAL_ERROR:
		return unemulated(cpu);
	case KVM_EXIT_MMIO:
		return host_failed(cpu, "a translation leads out of the frame pool");
	case KVM_EXIT_SHUTDOWN:
		return host_failed(cpu, "the monitor could not take an exception");
	case KVM_EXIT_FAIL_ENTRY:
		return host_failed(cpu, "the processor refused the guest's state");
	default:
		return host_failed(cpu, "an exit that this mode does not know");
	}
}

/* ---- State ----------------------------------------------------------------------------------------------------------- */

static const char *state_fault(const struct gn_kvm *kvm, const struct gn_kvm_state *state)
{
	const unsigned cpl = state->cs.selector & 3;

	if (!(state->regs.cr0 & X86_CR0_PG) || !(state->regs.efer & X86_EFER_LMA))
		return "a guest whose kernel runs at CPL 3 must be in long mode";
	if (!(state->cs.attributes & 0x2000))
		return "a guest whose kernel runs at CPL 3 must be in 64-bit code";
	if (cpl != 0 && cpl != 3)
		return "rings 1 and 2 are not there for a guest whose kernel runs at CPL 3";
	if ((state->regs.cr4 & X86_CR4_LA57) && !kvm->host.la57)
		return "KVM here does not offer 5-level paging";
	if (state->regs.cr4 & (X86_CR4_PKE | gn_depriv_cr4_missing(kvm)))
		return "CR4 has bits that this CPU, or a guest whose kernel runs at CPL 3, does "
		       "not have";
	return NULL;
}

/* KVM has CR4.LA57 when the tables have five levels: else it takes no address that is canonical with those only. */
static int set_levels(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	int err;

	if (gn_depriv_set(cpu) != GN_MONITOR_LEVELS_5 || (d->kvm_cr4 & X86_CR4_LA57))
		return 0;
	make_sregs(cpu);
	err = gn_kvm_ioctl(cpu->fd, KVM_SET_SREGS, &d->hw);
	if (err)
		return err;
	d->kvm_cr3 = d->hw.cr3;
	d->kvm_cr4 = d->hw.cr4;
	return 0;
}

/* What SYSCALL does in the hardware: into the monitor, with the flags that matter off. */
static int set_syscall(struct gn_kvm_cpu *cpu)
{
	const struct gn_kvm_state monitor = {
		.star = (uint64_t)GN_MONITOR_CS0 << 32,
		.lstar = gn_monitor_entry_va(gn_depriv_set(cpu), GN_MONITOR_SYSCALL),
		.sfmask = X86_FLAG_TF | X86_FLAG_IF | X86_FLAG_DF | X86_FLAG_NT | X86_FLAG_AC,
	};

	return gn_kvm_msrs_set(cpu, &monitor);
}

static int set_state(struct gn_kvm_cpu *cpu, const struct gn_kvm_state *state)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	const char *why = state_fault(cpu->kvm, state);
	const bool user = (state->cs.selector & 3) == 3;
	int err;

	if (why) {
		snprintf(cpu->error, sizeof(cpu->error), "%s", why);
		return -EINVAL;
	}
	err = gn_vcpu_set_regs(cpu->vcpu, &state->regs);
	if (!err)
		err = gn_vcpu_set_privilege(cpu->vcpu, user, state->rflags & X86_FLAG_AC);
	if (!err)
		err = set_levels(cpu);
	if (!err)
		err = set_syscall(cpu);
	if (err)
		return err;
	d->v = *state;
	d->v.rflags |= X86_FLAG_ONE;
	d->user = user;
	d->hides_ac = false;
	d->sti_from = d->sti_to = 0;
	return 0;
}

/* Behind an STI interrupts are held off for one instruction, for which the picture has no place: so the STI is yet to come. */
static int get_state(struct gn_kvm_cpu *cpu, struct gn_kvm_state *state)
{
	const struct gn_kvm_depriv_cpu *d = cpu->depriv;

	*state = d->v;
	if (gn_depriv_is_behind_sti(d)) {
		state->rip = d->sti_from;
		state->rflags &= ~X86_FLAG_IF;
	}
	state->regs = *gn_vcpu_regs(cpu->vcpu);
	return 0;
}

/* See the head of this file. */
static bool is_at_boundary(const struct gn_kvm_cpu *cpu)
{
	(void)cpu;
	return true;
}

/* ---- The mode ----------------------------------------------------------------------------------------------------------- */

/* Which bits of CR4 KVM lets this vCPU have: by trying each. */
static uint64_t probe_cr4(struct gn_kvm_cpu *cpu)
{
	const uint64_t asked = CR4_GUEST | X86_CR4_UMIP;
	uint64_t supported = 0;
	struct kvm_sregs sregs = cpu->depriv->hw;

	for (uint64_t bit = 1; bit <= asked; bit <<= 1) {
		if (!(asked & bit))
			continue;
		sregs.cr4 = cpu->depriv->hw.cr4 | bit;
		if (!gn_kvm_ioctl(cpu->fd, KVM_SET_SREGS, &sregs))
			supported |= bit;
	}
	return supported;
}

static int enter_cpu(struct gn_kvm_cpu *cpu)
{
	struct gn_kvm_depriv_cpu *d = cpu->depriv;
	const struct kvm_vcpu_events none = { .flags = KVM_VCPUEVENT_VALID_SHADOW };
	int err;

	gn_downgrades_clear(&d->downgrades);
	d->inside = GN_INSIDE_NOTHING;
	d->owes_flush = true;
	d->set = GN_MONITOR_SETS; /* none yet */
	err = gn_kvm_ioctl(cpu->fd, KVM_GET_SREGS, &d->hw);
	if (!err)
		err = gn_kvm_ioctl(cpu->fd, KVM_SET_VCPU_EVENTS, (void *)(uintptr_t)&none);
	if (err < 0)
		return err;
	memset(d->hw.interrupt_bitmap, 0, sizeof(d->hw.interrupt_bitmap));
	d->hw.cr8 = 0;
	d->kvm_cr3 = d->hw.cr3;
	d->kvm_cr4 = d->hw.cr4;
	if (!cpu->kvm->depriv->cr4_supported)
		cpu->kvm->depriv->cr4_supported = probe_cr4(cpu);
	cpu->run->kvm_valid_regs = SYNCED;
	return 0;
}

static int enter(struct gn_kvm *kvm)
{
	/* What there is of the window comes and goes behind the slot: only entries of ours lead there, to what is there. */
	const struct gn_kvm_slot slots[] = {
		{ .bytes = kvm->pool.bytes, .host = kvm->pool.base },
		{ .gpa = kvm->pool.bytes,
		  .bytes = kvm->pool.window_bytes,
		  .host = (uint8_t *)kvm->pool.base + kvm->pool.bytes,
		  .is_readonly = true },
	};
	int err;

	if (!kvm->host.sync_regs) {
		snprintf(
			kvm->why, sizeof(kvm->why),
			"this KVM lacks KVM_CAP_SYNC_REGS (Linux 4.17), which shadow schemes need");
		return -EOPNOTSUPP;
	}
	err = gn_kvm_slots_set(kvm, slots, kvm->pool.window_bytes ? 2 : 1, kvm->why,
			       sizeof(kvm->why));
	for (unsigned i = 0; i < kvm->cpu_count && !err; i++) {
		err = enter_cpu(&kvm->cpus[i]);
		if (err)
			gn_kvm_sys_fail(kvm->why, sizeof(kvm->why), "KVM_GET_SREGS or events",
					-err);
	}
	return err;
}

static void leave(struct gn_kvm *kvm)
{
	char ignored[256];

	gn_kvm_slots_set(kvm, NULL, 0, ignored, sizeof(ignored));
	for (unsigned i = 0; i < kvm->cpu_count; i++) {
		kvm->cpus[i].run->kvm_valid_regs = 0;
		kvm->cpus[i].run->kvm_dirty_regs = 0;
		kvm->cpus[i].depriv->inside = GN_INSIDE_NOTHING;
	}
}

const struct gn_kvm_mode gn_kvm_mode_depriv = {
	.name = "deprivileged",
	.enter = enter,
	.leave = leave,
	.set_state = set_state,
	.get_state = get_state,
	.before_run = before_run,
	.after_run = after_run,
	.is_at_boundary = is_at_boundary,
};

/* ---- Life --------------------------------------------------------------------------------------------------------------- */

static void init_inert(struct gn_kvm_inert *inert)
{
	*inert = (struct gn_kvm_inert){
		.dr = { [6] = 0xffff0ff0, [7] = 0x400 },
		.pat = 0x0007040600070406, /* as after reset, SDM vol. 3A 11.12.4 */
		.apic_base = 0xfee00900,   /* enabled, the boot processor's */
		.mtrr_default = 0xc00 | 6, /* on, write-back */
	};
}

int gn_kvm_depriv_new(struct gn_kvm *kvm, char *why, size_t why_bytes)
{
	int err = 0;

	kvm->depriv = (struct gn_kvm_depriv *)calloc(1, sizeof(*kvm->depriv));
	if (!kvm->depriv)
		return gn_kvm_sys_fail(why, why_bytes, "the monitor", ENOMEM);
	kvm->depriv->needs_touch = kvm->host.paging != GN_KVM_PAGING_HARDWARE;
	for (unsigned i = 0; i < kvm->cpu_count && !err; i++) {
		struct gn_kvm_depriv_cpu *d = (struct gn_kvm_depriv_cpu *)calloc(1, sizeof(*d));

		kvm->cpus[i].depriv = d;
		err = d ? gn_downgrades_init(&d->downgrades, kvm->pool.bytes / GN_PAGE_SIZE)
			: -ENOMEM;
		if (!err)
			init_inert(&d->inert);
	}
	if (!err)
		err = gn_monitor_init(&kvm->depriv->monitor, kvm->vm, kvm->host.la57);
	return err ? gn_kvm_sys_fail(why, why_bytes, "the monitor", -err) : 0;
}

void gn_kvm_depriv_destroy(struct gn_kvm *kvm)
{
	if (!kvm->depriv)
		return;
	for (unsigned i = 0; i < kvm->cpu_count; i++) {
		if (kvm->cpus[i].depriv)
			gn_downgrades_fini(&kvm->cpus[i].depriv->downgrades);
		free(kvm->cpus[i].depriv);
		kvm->cpus[i].depriv = NULL;
	}
	if (kvm->depriv->monitor.vm)
		gn_monitor_fini(&kvm->depriv->monitor);
	free(kvm->depriv);
	kvm->depriv = NULL;
}
