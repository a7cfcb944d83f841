/* SPDX-License-Identifier: MIT */
/*
 * nested_running.c - what is done to a guest while it runs, in nested mode on /dev/kvm: pauses and stops, interrupts, moves of
 * its memory, its tables and its code, exchanges of the scheme.
 *
 * What a guest is waited for is its progress (nested_guest.h); it checks its own memory, and tells.
 */
#include "kvm/nested_guest.h"
#include "kvmbackend/depriv.h"

RIG_CODE(read_cr3_port, "mov %rbx, %cr3\n 1: jmp 1b")
RIG_CODE(halt_on, "xor %r15d, %r15d\n sti\n hlt\n cli\n mov %r15d, %eax\n mov $0xf4, %dx\n"
		  "out %eax, %dx")
/* Spin with interrupts on until r15 reaches rcx. */
RIG_CODE(spin_on, "xor %r15d, %r15d\n sti\n 1: cmp %rcx, %r15\n jb 1b\n cli\n mov %r15d, %eax\n"
		  "mov $0xf4, %dx\n out %eax, %dx")

/* INT3 by INT3 until the word at rbx is not 0. Its handler adds one to r14; one too few or too many ends with a #GP, else it is a #UD. */
RIG_CODE(trap_often, "xor %r14d, %r14d\n xor %r12d, %r12d\n"
		     "1: inc %r12\n int3\n cmp %r14, %r12\n jne 2f\n"
		     "cmpq $0, (%rbx)\n je 1b\n ud2\n 2: hlt")

/* Single-stepped: each instruction of the loop is a #DB, whose handler adds one to r14. */
RIG_CODE(step_often, "xor %r14d, %r14d\n xor %r12d, %r12d\n pushf\n orq $0x100, (%rsp)\n popf\n"
		     "1: inc %r12\n cmpq $0, (%rbx)\n je 1b\n"
		     "lea 1(%r12, %r12, 2), %rax\n cmp %r14, %rax\n jne 2f\n ud2\n 2: hlt")

/* Behind an INT3 whose handler has returned a guest may stay for ever. */
RIG_CODE(trap_and_stay, "int3\n 1: jmp 1b")

static const uint8_t on_trap[] = { 0x49, 0xff, 0xc6, 0x48, 0xcf }; /* inc r14; iretq */

static int note_regs(void *ctx)
{
	struct gn_kvm *kvm = (struct gn_kvm *)ctx;
	struct gn_audit_report report;

	return gn_vcpu_regs(gn_vm_vcpu(gn_kvm_vm(kvm), 0))->cr3 == 0x4000
		       ? gn_audit(gn_kvm_vm(kvm), &report)
		       : -EAGAIN;
}

static int audit(void *ctx)
{
	struct gn_audit_report report;

	return gn_audit(gn_kvm_vm(ctx), &report);
}

static void kicks_and_pauses(void)
{
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	struct gn_kvm_state state;
	struct runner r[2];
	uint64_t was;
	int err = -EAGAIN;

	if (!kvm)
		return;
	/* The engine hears of a CR3 the guest loaded by itself when the guest is paused. */
	rig_word(kvm, 0x4000, RIG_PDPT | 7);
	rig_program(kvm, 0, 0, read_cr3_port, read_cr3_port_end, 0x4000, 0, 0);
	rig_program(kvm, 1, 3, count_up, count_up_end, RIG_DATA, 0, 0);
	start(&r[0], kvm, 0);
	start(&r[1], kvm, 1);
	for (unsigned i = 0; i < PATIENCE && err == -EAGAIN; i++) {
		err = gn_kvm_pause(kvm, note_regs, kvm);
		pause_ms(10);
	}
	for (unsigned i = 0; i < 50; i++) {
		err = gn_kvm_pause(kvm, note_regs, kvm);
		RIG_CHECK(!err, "pause %u: %d", i, err);
	}
	was = rig_read(kvm, RIG_DATA);
	for (unsigned i = 0; i < PATIENCE && rig_read(kvm, RIG_DATA) == was; i++)
		pause_ms(10);
	RIG_CHECK(rig_read(kvm, RIG_DATA) > was, "it does not go on after pauses");
	RIG_CHECK(gn_kvm_get_state(kvm, 1, &state) == -EBUSY, "state of a running vCPU");
	gn_kvm_stop(kvm);
	RIG_CHECK(finish(&r[0]).stop == GN_KVM_STOP_ASKED, "stop %d: %s", r[0].result.stop,
		  gn_kvm_error(kvm, 0));
	RIG_CHECK(finish(&r[1]).stop == GN_KVM_STOP_ASKED, "stop %d: %s", r[1].result.stop,
		  gn_kvm_error(kvm, 1));
	RIG_CHECK(!gn_kvm_get_state(kvm, 1, &state) && state.rip >= RIG_CODE_PA + 0x1000 &&
			  state.rip < RIG_CODE_PA + 0x1010,
		  "rip %#llx", (unsigned long long)state.rip);
	/* Again from there. */
	start(&r[1], kvm, 1);
	pause_ms(10);
	gn_kvm_stop(kvm);
	RIG_CHECK(finish(&r[1]).stop == GN_KVM_STOP_ASKED, "stop %d", r[1].result.stop);
	gn_kvm_destroy(kvm);
}

static void interrupts(void)
{
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	struct runner r;

	if (!kvm)
		return;
	RIG_CHECK(gn_kvm_interrupt(kvm, 0, 14) == -EINVAL, "an exception as an interrupt");
	/* HLT sleeps until one comes, and not less. */
	rig_program(kvm, 0, 0, halt_on, halt_on_end, 0, 0, 0);
	start(&r, kvm, 0);
	pause_ms(30);
	RIG_CHECK(!gn_kvm_interrupt(kvm, 0, RIG_VECTOR), "interrupt");
	RIG_EXPECT_EXIT(kvm, finish(&r), 1);
	/* One that came before is taken at once. */
	rig_program(kvm, 0, 0, halt_on, halt_on_end, 0, 0, 0);
	RIG_CHECK(!gn_kvm_interrupt(kvm, 0, RIG_VECTOR), "interrupt");
	start(&r, kvm, 0);
	pause_ms(30);
	RIG_CHECK(!gn_kvm_interrupt(kvm, 0, RIG_VECTOR), "interrupt"); /* if taken before HLT */
	finish(&r);
	RIG_CHECK(r.result.stop == GN_KVM_STOP_EXIT, "stop %d", r.result.stop);
	/* Into a guest that spins: each is one step for R15. */
	rig_program(kvm, 0, 0, spin_on, spin_on_end, 0, 20, 0);
	start(&r, kvm, 0);
	for (unsigned i = 0; i < 20; i++) {
		pause_ms(3);
		RIG_CHECK(!gn_kvm_interrupt(kvm, 0, RIG_VECTOR), "interrupt");
	}
	/* Two that come before the guest ran are one, so it gets more until it has had enough. */
	for (unsigned i = 0; i < PATIENCE && !atomic_load(&r.is_done); i++) {
		pause_ms(10);
		gn_kvm_interrupt(kvm, 0, RIG_VECTOR);
	}
	if (!atomic_load(&r.is_done))
		gn_kvm_stop(kvm);
	finish(&r);
	RIG_CHECK(r.result.stop == GN_KVM_STOP_EXIT && r.result.status >= 20, "stop %d, %u",
		  r.result.stop, r.result.status);
	gn_kvm_destroy(kvm);
}

/* A guest that does not end is stopped. */
static struct rig_result finish_soon(struct runner *r)
{
	for (unsigned i = 0; i < 500 && !atomic_load(&r->is_done); i++)
		pause_ms(10);
	if (!atomic_load(&r->is_done))
		gn_kvm_stop(r->kvm);
	return finish(r);
}

static bool has_halted(struct gn_kvm *kvm)
{
	struct gn_kvm_stats stats;

	gn_kvm_stats(kvm, &stats);
	return stats.exits_by[GN_EXIT_HLT];
}

/* A vCPU that sleeps in a HLT stands at a boundary: schemes are exchanged under it, and it wakes up under another, by the
 * interrupt. */
static void halted_through_switches(const char *first)
{
	static const char *const schemes[] = { "shadow", "npt", "shadow-vtlb", "ept" };
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm;
	struct runner r;
	int err;

	config.vm.scheme = first;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	rig_program(kvm, 0, 0, halt_on, halt_on_end, 0, 0, 0);
	start(&r, kvm, 0);
	for (unsigned i = 0; i < PATIENCE && !has_halted(kvm); i++)
		pause_ms(10);
	pause_ms(10);
	for (unsigned i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		err = gn_kvm_pause(kvm, audit, kvm);
		RIG_CHECK(!err, "pause: %d", err);
		err = gn_kvm_switch_scheme(kvm, schemes[i]);
		RIG_CHECK(!err, "switch: %d", err);
		pause_ms(10);
	}
	RIG_CHECK(!gn_kvm_interrupt(kvm, 0, RIG_VECTOR), "interrupt");
	RIG_EXPECT_EXIT(kvm, finish_soon(&r), 1);
	gn_kvm_destroy(kvm);
}

/* Between STI and HLT no interrupt is taken, also if the scheme is exchanged there: else the HLT sleeps through it. */
static void no_interrupt_behind_sti(void)
{
	struct gn_kvm_config config = plain();
	struct rig_result result = { .stop = GN_KVM_STOP_ASKED };
	struct runner r;
	struct gn_kvm *kvm;
	int err;

	config.vm.scheme = "shadow";
	config.max_exits = 1;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	rig_program(kvm, 0, 0, halt_on, halt_on_end, 0, 0, 0);
	/* Exit by exit, until STI was emulated. */
	while (result.stop == GN_KVM_STOP_ASKED &&
	       !(gn_depriv_state(&kvm->cpus[0])->rflags & X86_FLAG_IF))
		result = rig_run(kvm, 0);
	RIG_CHECK(result.stop == GN_KVM_STOP_ASKED, "stop %d: %s", result.stop,
		  gn_kvm_error(kvm, 0));
	kvm->config.max_exits = 0;
	RIG_CHECK(!gn_kvm_interrupt(kvm, 0, RIG_VECTOR), "interrupt");
	err = gn_kvm_switch_scheme(kvm, "ept");
	RIG_CHECK(!err, "switch: %d", err);
	start(&r, kvm, 0);
	RIG_EXPECT_EXIT(kvm, finish_soon(&r), 1);
	gn_kvm_destroy(kvm);
}

/* Where it cannot be told at once whether a trap is on its way, nobody waits for long. */
static void stays_behind_a_trap(void)
{
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	struct runner r;
	int err;

	if (!kvm)
		return;
	rig_write(kvm, RIG_STUBS + 32 * X86_VEC_BP, on_trap, sizeof(on_trap));
	rig_program(kvm, 0, 3, trap_and_stay, trap_and_stay_end, 0, 0, 0);
	start(&r, kvm, 0);
	for (unsigned i = 0; i < 20; i++) {
		pause_ms(5);
		err = i % 2 ? gn_kvm_pause(kvm, audit, kvm)
			    : gn_kvm_switch_scheme(kvm, i % 4 ? "ept" : "npt");
		RIG_CHECK(!err, "round %u: %d", i, err);
	}
	gn_kvm_stop(kvm);
	RIG_CHECK(finish(&r).stop == GN_KVM_STOP_ASKED, "stop %d: %s", r.result.stop,
		  gn_kvm_error(kvm, 0));
	gn_kvm_destroy(kvm);
}

/* Both patrols have been over all of their pages. */
static bool have_come_round(struct gn_kvm *kvm, const uint64_t start_at[2])
{
	return rig_read(kvm, start_at[0] + 8) > 1 && rig_read(kvm, start_at[1] + 8) > 1;
}

/* Two vCPUs patrol pages while these are moved, shared out and switched between schemes. */
static void moves_while_running(unsigned backing_level)
{
	const uint64_t start_at[2] = { 16 * MIB, 32 * MIB }, pages = 64, flag = RIG_DATA;
	struct gn_kvm_config config = plain();
	struct gn_audit_report report;
	struct runner r[2];
	struct gn_kvm *kvm;
	struct gn_vm *vm;
	int err;

	config.vm.backing_level = backing_level;
	config.vm.pool_bytes = 256 * MIB;
	kvm = rig_new(&config);
	if (!kvm)
		return;
	vm = gn_kvm_vm(kvm);
	for (unsigned i = 0; i < 2; i++) {
		for (uint64_t p = 0; p < pages; p++)
			rig_word(kvm, start_at[i] + p * PAGE, start_at[i] + p * PAGE);
		rig_program(kvm, i, 3, patrol, patrol_end, start_at[i], pages, flag);
		start(&r[i], kvm, i);
	}
	/* And until both have come round: on a slow host the moves may be faster. */
	for (unsigned i = 0; i < 300 || (i < 30000 && !have_come_round(kvm, start_at)); i++) {
		gfn_t page = gfn((start_at[i & 1] >> 12) + i * 7 % pages);

		err = gn_p2m_move(vm, page, 1 + i % 5);
		RIG_CHECK(!err, "move: %d", err);
		if (!(i % 50)) {
			err = gn_p2m_move(vm, gfn(start_at[i & 1] >> 12), 512);
			RIG_CHECK(!err, "move of 2 MiB: %d", err);
		}
		/* Memory next to it comes and goes, also as slots. */
		err = i & 2 ? gn_p2m_set_mmio(vm, gfn(1000 + i % 300), 1)
			    : gn_p2m_discard(vm, gfn(900), 200);
		RIG_CHECK(!err, "change: %d", err);
		if (!(i % 60)) {
			err = gn_kvm_switch_scheme(kvm, i % 120 ? "ept" : "npt");
			RIG_CHECK(!err, "switch: %d", err);
		}
		/* The tables and the code move, too. */
		if (!(i % 40)) {
			err = gn_p2m_move(vm, gfn(1), 32);
			RIG_CHECK(!err, "move of tables: %d", err);
		}
	}
	rig_word(kvm, flag, 1);
	for (unsigned i = 0; i < 2; i++) {
		finish(&r[i]);
		RIG_CHECK(r[i].result.stop == GN_KVM_STOP_EXIT && r[i].result.status == 0,
			  "vCPU %u: stop %d, status %#x: %s", i, r[i].result.stop,
			  r[i].result.status, gn_kvm_error(kvm, i));
	}
	RIG_CHECK(have_come_round(kvm, start_at), "they did not patrol");
	RIG_CHECK(!gn_audit(vm, &report), "%s", report.first);
	gn_kvm_destroy(kvm);
}

/* A trap is over once it was raised: wherever a switch or a pause finds the guest, it is delivered, and once. */
static void traps_are_kept(const uint8_t *code, const uint8_t *end, unsigned cpl,
			   bool interrupts_on)
{
	/* With interrupts off a pause may take long, see nested_trap.c. */
	const unsigned rounds = interrupts_on ? 600 : 100;
	static const char *const schemes[] = { "shadow", "ept", "npt" };
	struct gn_kvm_config config = plain();
	struct gn_kvm *kvm = rig_new(&config);
	struct gn_audit_report report;
	struct gn_kvm_state state;
	struct runner r;
	int err;

	if (!kvm)
		return;
	rig_write(kvm, RIG_STUBS + 32 * X86_VEC_DB, on_trap, sizeof(on_trap));
	rig_write(kvm, RIG_STUBS + 32 * X86_VEC_BP, on_trap, sizeof(on_trap));
	rig_program(kvm, 0, cpl, code, end, RIG_DATA, 0, 0);
	err = gn_kvm_get_state(kvm, 0, &state);
	state.rflags |= interrupts_on ? 0x200 : 0;
	if (!err)
		err = gn_kvm_set_state(kvm, 0, &state);
	RIG_CHECK(!err, "state: %d", err);
	start(&r, kvm, 0);
	for (unsigned i = 0; i < rounds && !atomic_load(&r.is_done); i++) {
		pause_ms(1 + i % 4);
		err = i % 2 ? gn_kvm_pause(kvm, audit, kvm)
			    : gn_kvm_switch_scheme(kvm, schemes[i / 2 % 3]);
		RIG_CHECK(!err, "round %u: %d", i, err);
	}
	rig_word(kvm, RIG_DATA, 1);
	RIG_EXPECT_EXIT(kvm, finish_soon(&r), RIG_EXCEPTION + X86_VEC_UD);
	RIG_CHECK(!gn_audit(gn_kvm_vm(kvm), &report), "%s", report.first);
	gn_kvm_destroy(kvm);
}

int main(void)
{
	if (!nested_start())
		return rig_end();
	PART(kicks_and_pauses());
	PART(interrupts());
	PART(halted_through_switches("ept"));
	PART(halted_through_switches("shadow"));
	PART(no_interrupt_behind_sti());
	PART(traps_are_kept(trap_often, trap_often_end, 3, false));
	PART(traps_are_kept(trap_often, trap_often_end, 3, true));
	PART(traps_are_kept(step_often, step_often_end, 3, false));
	PART(traps_are_kept(step_often, step_often_end, 3, true));
	PART(traps_are_kept(trap_often, trap_often_end, 0, false));
	PART(traps_are_kept(trap_often, trap_often_end, 0, true));
	PART(stays_behind_a_trap());
	PART(moves_while_running(1));
	PART(moves_while_running(2));
	return rig_end();
}
