/* SPDX-License-Identifier: MIT */
/*
 * depriv.c - guests whose kernel runs at CPL 3, on /dev/kvm: privileged instructions, exceptions, interrupts, ends. Everything
 * under both table schemes; the audit is clean after each case. Their memory is depriv_memory.c.
 *
 *     depriv [NAME]     one case only
 */
#include "kvm/depriv_case.h"

/* ---- Privileged instructions ------------------------------------------------------------------------------- */

GUEST(g_control,
      "mov %cr0, %rax\n or $8, %rax\n mov %rax, %cr0\n mov %cr0, %rbx\n clts\n mov %cr0, %rcx\n"
      "mov %cr4, %rdx\n mov %cr3, %rsi\n mov %rsi, %cr3\n mov $0x1234, %eax\n mov %rax, %cr2\n"
      "mov %cr2, %rdi\n mov $7, %eax\n mov %rax, %cr8\n mov %cr8, %r8\n mov $0x400, %eax\n"
      "mov %rax, %dr7\n mov %dr7, %r9\n mov $0x5678, %eax\n mov %rax, %dr0\n mov %dr0, %r10\n "
      "hlt\n");
static void control_registers(struct rig *r)
{
	rig_code(r, RIG_CODE, g_control);
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(r->state.gpr[RBX], 0x8001003b);
	CHECK_EQ(r->state.gpr[RCX], 0x80010033);
	CHECK_EQ(r->state.gpr[RDX], 0x620);
	CHECK_EQ(r->state.gpr[RSI], RIG_PML4);
	CHECK_EQ(r->state.gpr[RDI], 0x1234);
	CHECK_EQ(r->state.gpr[R8], 7);
	CHECK_EQ(r->state.gpr[R9], 0x400);
	CHECK_EQ(r->state.gpr[R10], 0x5678);
	CHECK_EQ(r->state.rip, K(RIG_CODE) + (uint64_t)(g_control_end - g_control));
}

GUEST(g_bad_cr0, "mov %cr0, %rax\n btr $31, %rax\n mov %rax, %cr0\n hlt\n");
GUEST(g_bad_cr3, "mov $1, %eax\n shl $60, %rax\n mov %rax, %cr3\n hlt\n");
GUEST(g_bad_cr4, "mov %cr4, %rax\n bts $30, %rax\n mov %rax, %cr4\n hlt\n");
GUEST(g_pke, "mov %cr4, %rax\n bts $22, %rax\n mov %rax, %cr4\n hlt\n");
GUEST(g_bad_cr8, "mov $16, %eax\n mov %rax, %cr8\n hlt\n");
static void bad_control_values(struct rig *r)
{
	static const struct {
		const uint8_t *code, *end;
		unsigned before; /* bytes before the MOV to CR */
	} bad[] = { { g_bad_cr0, g_bad_cr0_end, 8 },
		    { g_bad_cr3, g_bad_cr3_end, 9 },
		    { g_bad_cr4, g_bad_cr4_end, 8 },
		    { g_pke, g_pke_end, 8 },
		    { g_bad_cr8, g_bad_cr8_end, 5 } };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct record record;

		rig_reset(r);
		rig_put(r, RIG_CODE, bad[i].code, (size_t)(bad[i].end - bad[i].code));
		record = check_exception(r, 13, 0);
		CHECK_EQ(record.rip, K(RIG_CODE) + bad[i].before);
		CHECK_EQ(record.cs, SEL_CS0);
	}
}

GUEST(g_msrs,
      "mov $0xc0000082, %ecx\n mov $0x11, %eax\n mov $0, %edx\n wrmsr\n rdmsr\n mov %rax, %rbx\n"
      "mov $0xc0000080, %ecx\n rdmsr\n mov %rax, %rsi\n"
      "mov $0xc0000100, %ecx\n mov $0x1000, %eax\n xor %edx, %edx\n wrmsr\n"
      "mov $0xc0000101, %ecx\n mov $0x2000, %eax\n wrmsr\n mov $0xc0000102, %ecx\n mov $0x3000, "
      "%eax\n wrmsr\n"
      "swapgs\n mov $0xc0000101, %ecx\n rdmsr\n mov %rax, %rdi\n mov $0x10, %ecx\n rdmsr\n"
      "mov %eax, %r8d\n or %edx, %r8d\n mov $0x277, %ecx\n rdmsr\n mov %rax, %r9\n hlt\n");
GUEST(g_bad_msr, "mov $0x12345, %ecx\n rdmsr\n hlt\n");
GUEST(g_noncanonical_msr, "mov $0xc0000101, %ecx\n mov $0x80000000, %edx\n wrmsr\n hlt\n");
static void msrs(struct rig *r)
{
	rig_code(r, RIG_CODE, g_msrs);
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(r->state.gpr[RBX], 0x11);
	CHECK_EQ(r->state.gpr[RSI], 0xd01);
	CHECK_EQ(r->state.gpr[RDI], 0x3000);
	CHECK_EQ(r->state.fs.base, 0x1000);
	CHECK_EQ(r->state.gs.base, 0x3000);
	CHECK_EQ(r->state.kernel_gs_base, 0x2000);
	CHECK(r->state.gpr[R8] != 0, "the TSC is 0");
	CHECK_EQ(r->state.gpr[R9], 0x00070406);
	rig_reset(r);
	rig_code(r, RIG_CODE, g_bad_msr);
	CHECK_EQ(check_exception(r, 13, 0).rip, K(RIG_CODE) + 5);
	rig_reset(r);
	rig_code(r, RIG_CODE, g_noncanonical_msr);
	check_exception(r, 13, 0);
}

/* EFER steers paging: its write is counted as that of a control register, another MSR's is not. */
GUEST(g_efer, "mov $0xc0000080, %ecx\n rdmsr\n wrmsr\n mov $0x277, %ecx\n rdmsr\n wrmsr\n hlt\n");
static void efer_exits(struct rig *r)
{
	struct gn_kvm_stats before, after;

	gn_kvm_stats(r->kvm, &before);
	rig_code(r, RIG_CODE, g_efer);
	check_stop(r, GN_KVM_STOP_HALT);
	gn_kvm_stats(r->kvm, &after);
	CHECK_EQ(after.exits_by[GN_EXIT_CR_ACCESS] - before.exits_by[GN_EXIT_CR_ACCESS], 1);
	CHECK_EQ(after.exits_by[GN_EXIT_TRAP] - before.exits_by[GN_EXIT_TRAP], 3);
}

GUEST(g_gs, "mov %gs:8, %rax\n mov %fs:16, %rbx\n movq $77, %gs:24\n hlt\n");
static void segment_bases(struct rig *r)
{
	rig_code(r, RIG_CODE, g_gs);
	rig_put8(r, RIG_DATA + 8, 0x1111);
	rig_put8(r, RIG_DATA + 0x110, 0x2222);
	r->state.gs.base = K(RIG_DATA);
	r->state.fs.base = K(RIG_DATA + 0x100);
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(r->state.gpr[RAX], 0x1111);
	CHECK_EQ(r->state.gpr[RBX], 0x2222);
	CHECK_EQ(rig_get8(r, RIG_DATA + 24), 77);
}

GUEST(g_tables,
      "lgdt (%rsi)\n lidt 16(%rsi)\n mov $0x28, %eax\n ltr %ax\n xor %eax, %eax\n lldt %ax\n"
      "sgdt 32(%rsi)\n sidt 48(%rsi)\n str %ebx\n sldt %ecx\n smsw %edx\n hlt\n");
static void descriptor_tables(struct rig *r)
{
	rig_code(r, RIG_CODE, g_tables);
	rig_put(r, RIG_DATA, &(const uint16_t){ 0x37 }, 2);
	rig_put8(r, RIG_DATA + 2, K(RIG_GDT));
	rig_put(r, RIG_DATA + 16, &(const uint16_t){ 0x7ff }, 2);
	rig_put8(r, RIG_DATA + 18, K(RIG_IDT));
	r->state.gpr[RSI] = K(RIG_DATA);
	r->state.gdtr = r->state.idtr = (struct gn_kvm_table){ 0, 0 };
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(r->state.gdtr.base, K(RIG_GDT));
	CHECK_EQ(r->state.gdtr.limit, 0x37);
	CHECK_EQ(r->state.idtr.limit, 0x7ff);
	CHECK_EQ(r->state.tr.selector, 0x28);
	CHECK_EQ(r->state.tr.base, K(RIG_TSS));
	CHECK_EQ(rig_get8(r, RIG_GDT + 0x28) >> 40 & 0xf, 11);
	/* What follows traps only where KVM offers UMIP; then the guest sees its own. */
	if (r->state.gpr[RBX] == 0x28) {
		CHECK_EQ(rig_get8(r, RIG_DATA + 34), K(RIG_GDT));
		CHECK_EQ(rig_get8(r, RIG_DATA + 50), K(RIG_IDT));
		CHECK_EQ(r->state.gpr[RDX], 0x80010033);
	} else {
		printf("%s: no UMIP here: SGDT and its kin see the monitor's\n", current_case);
	}
}

GUEST(g_flags, "sti\n cli\n stac\n clac\n wbinvd\n invd\n invlpg (%rsi)\n mov $2, %eax\n invpcid "
	       "(%rsi), %rax\n hlt\n");
static void odds_and_ends(struct rig *r)
{
	rig_code(r, RIG_CODE, g_flags);
	rig_put8(r, RIG_DATA, 0);
	rig_put8(r, RIG_DATA + 8, 0);
	r->state.gpr[RSI] = K(RIG_DATA);
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(r->state.rflags & 0x40200, 0);
	CHECK_EQ(r->state.rip, K(RIG_CODE) + (uint64_t)(g_flags_end - g_flags));
}

/* Every one is a #GP or #UD at CPL 3, at the instruction itself. */
GUEST(u_cli, "cli");
GUEST(u_hlt, "hlt");
GUEST(u_cr0, "mov %cr0, %rax");
GUEST(u_cr3, "mov %rax, %cr3");
GUEST(u_dr, "mov %dr7, %rax");
GUEST(u_clts, "clts");
GUEST(u_invlpg, "invlpg (%rax)");
GUEST(u_rdmsr, "rdmsr");
GUEST(u_wrmsr, "wrmsr");
GUEST(u_lgdt, "lgdt (%rsi)");
GUEST(u_lidt, "lidt (%rsi)");
GUEST(u_ltr, "ltr %ax");
GUEST(u_lldt, "lldt %ax");
GUEST(u_swapgs, "swapgs");
GUEST(u_sysretq, "sysretq");
GUEST(u_wbinvd, "wbinvd");
GUEST(u_in, "in $0x10, %al");
GUEST(u_out, "out %eax, $0xf4");
GUEST(u_xsetbv, "xsetbv");
GUEST(u_lmsw, "lmsw %ax");
static void user_is_unprivileged(struct rig *r)
{
	static const struct {
		const char *name;
		const uint8_t *code, *end;
	} cases[] = {
#define INSN(name) { #name, name, name##_end }
		INSN(u_cli),	INSN(u_hlt),	INSN(u_cr0),   INSN(u_cr3),    INSN(u_dr),
		INSN(u_clts),	INSN(u_invlpg), INSN(u_rdmsr), INSN(u_wrmsr),  INSN(u_lgdt),
		INSN(u_lidt),	INSN(u_ltr),	INSN(u_lldt),  INSN(u_swapgs), INSN(u_sysretq),
		INSN(u_wbinvd), INSN(u_in),	INSN(u_out),   INSN(u_xsetbv), INSN(u_lmsw),
#undef INSN
	};

	uint64_t traps = 0;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct gn_kvm_stats before, after;
		struct record record;

		rig_reset(r);
		rig_put(r, RIG_UCODE, cases[i].code, (size_t)(cases[i].end - cases[i].code));
		rig_state_user(r, RIG_UCODE);
		gn_kvm_stats(r->kvm, &before);
		record = check_exception(r, 13, 0);
		gn_kvm_stats(r->kvm, &after);
		if (i == 0) /* and what the handler does, the same each time */
			traps = after.exits_by[GN_EXIT_TRAP] - before.exits_by[GN_EXIT_TRAP];
		CHECK(after.exits_by[GN_EXIT_TRAP] - before.exits_by[GN_EXIT_TRAP] == traps,
		      "%s: an exit that was not counted", cases[i].name);
		CHECK(record.rip == U(RIG_UCODE) && record.cs == SEL_CS3 && record.ss == SEL_SS3 &&
			      record.rsp == U(RIG_USTACK),
		      "%s: RIP %#llx, CS %#llx", cases[i].name, (unsigned long long)record.rip,
		      (unsigned long long)record.cs);
	}
}

/* ---- Exceptions ------------------------------------------------------------------------------------------------ */

GUEST(g_ud2, "ud2");
GUEST(g_div, "xor %ecx, %ecx\n xor %edx, %edx\n div %ecx\n");
GUEST(g_int3, "nop\n int3\n nop\n");
GUEST(g_int80, "int $0x80\n nop\n");
GUEST(g_int4, "int $4\n nop\n");
GUEST(g_int20, "int $0x20\n nop\n");
GUEST(g_noncanonical, "mov $1, %eax\n shl $63, %rax\n mov (%rax), %rbx\n");
GUEST(g_noncanonical_stack, "mov $1, %eax\n shl $63, %rax\n mov %rax, %rsp\n mov (%rsp), %rbx\n");
static void exceptions_of(struct rig *r, bool user)
{
	const struct {
		const uint8_t *code, *end;
		unsigned vector;
		uint64_t error, rip;
		bool is_fault;
	} cases[] = {
		{ g_ud2, g_ud2_end, 6, 0, 0, true },
		{ g_div, g_div_end, 0, 0, 4, true },
		{ g_int3, g_int3_end, 3, 0, 2, false },
		{ g_int80, g_int80_end, 0x80, 0, 2, false },
		{ g_int4, g_int4_end, 4, 0, 2, false },
		{ g_int20, g_int20_end, user ? 13 : 0x20, user ? 0x20 * 8 + 2 : 0, user ? 0 : 2,
		  user },
		{ g_noncanonical, g_noncanonical_end, 13, 0, 9, true },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const uint64_t base = user ? U(RIG_UCODE) : K(RIG_CODE);
		struct record record;

		rig_reset(r);
		rig_put(r, user ? RIG_UCODE : RIG_CODE, cases[i].code,
			(size_t)(cases[i].end - cases[i].code));
		if (user)
			rig_state_user(r, RIG_UCODE);
		record = check_exception(r, cases[i].vector, cases[i].error);
		CHECK_EQ(record.rip, base + cases[i].rip);
		CHECK_EQ(record.cs, user ? SEL_CS3 : SEL_CS0);
		CHECK_EQ(record.ss, user ? SEL_SS3 : SEL_SS0);
		CHECK_EQ(record.rsp, user ? U(RIG_USTACK) : K(RIG_STACK));
		CHECK_EQ(record.rflags >> 16 & 1, cases[i].is_fault);
	}
}
static void exceptions(struct rig *r)
{
	exceptions_of(r, false);
	exceptions_of(r, true);
}

static void stack_fault(struct rig *r)
{
	if (host.stack_fault_is_gp) {
		skip("this CPU raises #GP where #SS is due (gnomon host)");
		return;
	}
	rig_code(r, RIG_CODE, g_noncanonical_stack);
	rig_gate(r, 12, K(RIG_STUBS) + 12 * 16, 0xe, 0, 1);
	check_exception(r, 12, 0);
}

GUEST(g_syscall, "syscall\n nop\n");
GUEST(g_entry, "mov %rcx, %rbx\n mov %r11, %rdx\n mov $0x10, %eax\n sysretq\n");
GUEST(g_roundtrip, "mov $3, %r12d\n 1: syscall\n dec %r12d\n jnz 1b\n ud2\n");
static void system_calls(struct rig *r)
{
	const uint64_t flags = 0x202 | 0x8d5; /* arithmetic flags all set */
	struct record record;

	rig_code(r, RIG_UCODE, g_syscall);
	rig_put(r, RIG_CODE, "\xf4", 1);
	rig_state_user(r, RIG_UCODE);
	r->state.rflags = flags;
	r->state.lstar = K(RIG_CODE);
	r->state.star = 0x0010000800000000ull;
	r->state.sfmask = 0x201;
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(r->state.gpr[RCX], U(RIG_UCODE) + 2);
	CHECK_EQ(r->state.gpr[R11], flags);
	CHECK_EQ(r->state.rflags, flags & ~0x201ull);
	CHECK_EQ(r->state.cs.selector, SEL_CS0);
	CHECK_EQ(r->state.ss.selector, SEL_SS0);
	CHECK_EQ(r->state.gpr[RSP], U(RIG_USTACK));

	rig_reset(r);
	rig_code(r, RIG_UCODE, g_roundtrip);
	rig_code(r, RIG_CODE, g_entry);
	rig_state_user(r, RIG_UCODE);
	r->state.lstar = K(RIG_CODE);
	r->state.star = 0x0010000800000000ull;
	record = check_exception(r, 6, 0);
	CHECK_EQ(record.cs, SEL_CS3);
	CHECK_EQ(record.ss, SEL_SS3);
	CHECK_EQ(r->state.gpr[R12], 0);
}

GUEST(g_user_go, "mov $0x1b, %eax\n push %rax\n push %rbx\n push $0x202\n mov $0x23, %eax\n push "
		 "%rax\n push %rsi\n iretq\n");
static void iret_to_user(struct rig *r)
{
	struct record record;

	rig_code(r, RIG_CODE, g_user_go);
	rig_code(r, RIG_UCODE, g_ud2);
	r->state.gpr[RBX] = U(RIG_USTACK) - 0x100;
	r->state.gpr[RSI] = U(RIG_UCODE);
	record = check_exception(r, 6, 0);
	CHECK_EQ(record.rip, U(RIG_UCODE));
	CHECK_EQ(record.cs, SEL_CS3);
	CHECK_EQ(record.rsp, U(RIG_USTACK) - 0x100);
	CHECK_EQ(record.rflags & 0x200, 0x200);
	CHECK_EQ(record.ss, SEL_SS3);
}

GUEST(g_iret_bad, "push $0x10\n push $0x1000\n push $2\n push $0x50\n push $0\n iretq\n");
GUEST(g_lretq, "push %rax\n push %rbx\n lretq\n ud2\n nop\n hlt\n");
static void far_returns(struct rig *r)
{
	rig_code(r, RIG_CODE, g_iret_bad);
	check_exception(r, 13, 0x50);
	rig_reset(r);
	rig_code(r, RIG_CODE, g_lretq);
	r->state.gpr[RAX] = SEL_CS0;
	r->state.gpr[RBX] = K(RIG_CODE) + 7;
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(r->state.gpr[RSP], K(RIG_STACK));
}

GUEST(g_segments, "mov $0x1b, %eax\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %fs\n mov %eax, "
		  "%gs\n mov %fs:(%rsi), %rbx\n ud2\n");
GUEST(g_segment_bad, "mov $0x13, %eax\n mov %eax, %ds\n");
static void segment_loads(struct rig *r)
{
	rig_code(r, RIG_UCODE, g_segments);
	rig_put8(r, RIG_UDATA, 0x4242);
	rig_state_user(r, RIG_UCODE);
	r->state.gpr[RSI] = U(RIG_UDATA);
	check_exception(r, 6, 0);
	CHECK_EQ(r->state.gpr[RBX], 0x4242);
	CHECK_EQ(r->state.ds.selector, SEL_SS3);
	rig_reset(r);
	rig_code(r, RIG_UCODE, g_segment_bad);
	rig_state_user(r, RIG_UCODE);
	check_exception(r, 13, 0x10);
}

/* ---- Ends, interrupts ------------------------------------------------------------------------------------------------- */

static void triple_fault(struct rig *r)
{
	rig_code(r, RIG_CODE, g_ud2);
	r->state.idtr.limit = 0;
	check_stop(r, GN_KVM_STOP_SHUTDOWN);
	/* A stack that is not there: #PF, #DF on the same stack, shutdown. */
	rig_reset(r);
	rig_code(r, RIG_CODE, g_ud2);
	r->state.gpr[RSP] = K(RIG_FREE);
	check_stop(r, GN_KVM_STOP_SHUTDOWN);
}

/* #UD on a bad stack is served as the #PF of its delivery; #PF on a bad stack is a double fault. */
static void double_fault(struct rig *r)
{
	rig_code(r, RIG_CODE, g_load);
	rig_gate(r, 8, K(RIG_STUBS) + 8 * 16, 0xe, 0, 1);
	r->state.gpr[RSP] = K(RIG_FREE);
	r->state.gpr[RSI] = K(RIG_FREE) + 0x5000;
	check_exception(r, 8, 0);
	rig_reset(r);
	rig_code(r, RIG_CODE, g_ud2);
	rig_gate(r, 14, K(RIG_STUBS) + 14 * 16, 0xe, 0, 1);
	r->state.gpr[RSP] = K(RIG_FREE);
	CHECK_EQ(check_exception(r, 14, 2).cr2, K(RIG_FREE) - 40);
}

GUEST(g_absent_gate, "int $0x81\n");
static void gates(struct rig *r)
{
	rig_code(r, RIG_CODE, g_absent_gate);
	rig_put8(r, RIG_IDT + 16 * 0x81, 0);
	CHECK_EQ(check_exception(r, 13, 0x81 * 8 + 2).rip, K(RIG_CODE));
	rig_reset(r);
	rig_code(r, RIG_CODE, g_absent_gate);
	rig_put8(r, RIG_IDT + 16 * 0x81, rig_get8(r, RIG_IDT + 16 * 0x81) & ~((uint64_t)1 << 47));
	check_exception(r, 11, 0x81 * 8 + 2);
}

GUEST(g_wait, "sti\n hlt\n mov $1, %ebx\n cli\n hlt\n");
static void *raise_later(void *ctx)
{
	struct rig *r = (struct rig *)ctx;

	usleep(20000);
	gn_kvm_interrupt(r->kvm, 0, 0x30);
	return NULL;
}
static void interrupts(struct rig *r)
{
	struct record record;
	pthread_t thread;

	set_resume(r, 0);
	rig_code(r, RIG_CODE, g_wait);
	pthread_create(&thread, NULL, raise_later, r);
	check_stop(r, GN_KVM_STOP_HALT);
	pthread_join(thread, NULL);
	CHECK_EQ(r->state.gpr[RBX], 1);
	record = last_record(r);
	CHECK_EQ(record.vector, 0x30);
	CHECK_EQ(record.rip, K(RIG_CODE) + 2);
	CHECK_EQ(record.rflags & 0x10200, 0x200);
	/* Masked: it waits for STI. */
	rig_reset(r);
	set_resume(r, 0);
	gn_kvm_interrupt(r->kvm, 0, 0x31);
	rig_code(r, RIG_CODE, g_wait);
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(last_record(r).vector, 0x31);
}

/* A computing guest is interrupted. */
GUEST(g_compute,
      "sti\n mov $0xffffffff8000f000, %rsi\n 1: inc %rbx\n cmpq $0, (%rsi)\n je 1b\n cli\n hlt\n");
static void interrupt_of_a_computation(struct rig *r)
{
	pthread_t thread;

	for (int user = 0; user < 1; user++) {
		rig_reset(r);
		set_resume(r, 0);
		rig_code(r, RIG_CODE, g_compute);
		pthread_create(&thread, NULL, raise_later, r);
		check_stop(r, GN_KVM_STOP_HALT);
		pthread_join(thread, NULL);
		CHECK_EQ(last_record(r).vector, 0x30);
		CHECK(r->state.gpr[RBX] > 1000, "%llu turns",
		      (unsigned long long)r->state.gpr[RBX]);
	}
}

static void *stop_later(void *ctx)
{
	usleep(20000);
	gn_kvm_stop(((struct rig *)ctx)->kvm);
	return NULL;
}
GUEST(g_forever, "1: inc %rbx\n jmp 1b\n");
static void stops_when_asked(struct rig *r)
{
	pthread_t thread;

	rig_code(r, RIG_CODE, g_forever);
	pthread_create(&thread, NULL, stop_later, r);
	check_stop(r, GN_KVM_STOP_ASKED);
	pthread_join(thread, NULL);
	CHECK(r->state.gpr[RBX] > 1000, "%llu turns", (unsigned long long)r->state.gpr[RBX]);
}

/* ---- All -------------------------------------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
	static const struct depriv_case cases[] = {
		DEPRIV_CASE(control_registers),
		DEPRIV_CASE(bad_control_values),
		DEPRIV_CASE(msrs),
		DEPRIV_CASE(efer_exits),
		DEPRIV_CASE(segment_bases),
		DEPRIV_CASE(descriptor_tables),
		DEPRIV_CASE(odds_and_ends),
		DEPRIV_CASE(user_is_unprivileged),
		DEPRIV_CASE(exceptions),
		DEPRIV_CASE(stack_fault),
		DEPRIV_CASE(system_calls),
		DEPRIV_CASE(iret_to_user),
		DEPRIV_CASE(far_returns),
		DEPRIV_CASE(segment_loads),
		DEPRIV_CASE(triple_fault),
		DEPRIV_CASE(double_fault),
		DEPRIV_CASE(gates),
		DEPRIV_CASE(interrupts),
		DEPRIV_CASE(interrupt_of_a_computation),
		DEPRIV_CASE(stops_when_asked),
	};

	return depriv_run(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
