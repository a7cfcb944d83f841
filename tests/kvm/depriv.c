/* SPDX-License-Identifier: MIT */
/*
 * depriv.c - guests whose kernel runs at CPL 3, on /dev/kvm: privileged instructions, exceptions, isolation, tables that
 * the guest changes, interrupts. Everything under both table schemes; the audit is clean after each case.
 *
 *     depriv [NAME]     one case only
 */
#include "support/kvm_rig.h"

static unsigned passed, failed, skipped;
static const char *current_scheme, *current_case;
static bool is_failed, is_skipped;
static struct gn_kvm_host host;

static void skip(const char *why)
{
	printf("SKIPPED: %s/%s: %s\n", current_scheme, current_case, why);
	is_skipped = true;
}

#define CHECK(condition, ...)                                                                      \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			is_failed = true;                                                          \
			printf("%s/%s: %s:%d: %s: ", current_scheme, current_case, __FILE__,       \
			       __LINE__, #condition);                                              \
			printf(__VA_ARGS__);                                                       \
			printf("\n");                                                              \
		}                                                                                  \
	} while (0)
#define CHECK_EQ(a, b)                                                                             \
	do {                                                                                       \
		const unsigned long long a_ = (unsigned long long)(a),                             \
					 b_ = (unsigned long long)(b);                             \
		CHECK(a_ == b_, "%s is %#llx, not %#llx", #a, a_, b_);                             \
	} while (0)

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

static void check_stop(struct rig *r, enum gn_kvm_stop want)
{
	enum gn_kvm_stop got = rig_run(r);

	CHECK(got == want, "stopped with %d, not %d: %s", got, want, gn_kvm_error(r->kvm, 0));
}

static struct record last_record(struct rig *r)
{
	struct record_page page;

	rig_get_record(r, &page);
	CHECK(page.count > 0 && page.count < 60, "%llu records", (unsigned long long)page.count);
	return page.count && page.count < 60 ? page.at[page.count - 1] : (struct record){ 0 };
}

/* The run ended in vector @vector's handler. */
static struct record check_exception(struct rig *r, unsigned vector, uint64_t error)
{
	struct record record;

	check_stop(r, GN_KVM_STOP_EXIT);
	CHECK_EQ(r->status, 0x100 + vector);
	record = last_record(r);
	CHECK_EQ(record.vector, vector);
	CHECK_EQ(record.error, error);
	return record;
}

/* Handlers go on @skip bytes behind the fault. */
static void set_resume(struct rig *r, uint64_t skip)
{
	rig_put8(r, RIG_RECORD + 8, skip);
	rig_put8(r, RIG_RECORD + 16, 1);
}

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

/* Whoever jumps to where SYSCALL arrives has made no system call. */
GUEST(g_jump, "jmp *%rax\n");
static void jump_into_the_monitor(struct rig *r)
{
	struct record record;

	rig_code(r, RIG_UCODE, g_jump);
	rig_state_user(r, RIG_UCODE);
	r->state.lstar = K(RIG_CODE);
	r->state.gpr[RAX] = 0xfffff00000000000ull + (511ull << 30) + 256;
	r->state.gpr[RCX] = U(RIG_UCODE) + 8;
	record = check_exception(r, 14, 0x14);
	CHECK_EQ(record.cr2, r->state.gpr[RAX] == 0 ? 0 : record.rip);
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

/* ---- Page faults and isolation ---------------------------------------------------------------------------------- */

GUEST(g_load, "mov (%rsi), %rbx\n hlt\n");
GUEST(g_store, "mov %rbx, (%rsi)\n hlt\n");
GUEST(g_call, "call *%rsi\n hlt\n");
static void page_faults(struct rig *r)
{
	const uint64_t rw = X86_PTE_P | X86_PTE_W, u = X86_PTE_U;
	const struct {
		bool user;
		int kind; /* 0 load, 1 store, 2 fetch */
		uint64_t entry, cr4, cr0_off;
		uint64_t error; /* ~0: allowed */
	} cases[] = {
		{ false, 0, 0, 0, 0, 0 },
		{ false, 1, 0, 0, 0, 2 },
		{ true, 0, 0, 0, 0, 4 },
		{ true, 1, 0, 0, 0, 6 },
		{ true, 2, 0, 0, 0, 0x14 },
		{ false, 2, 0, 0, 0, 0x10 },
		{ true, 0, rw, 0, 0, 5 },
		{ true, 1, rw, 0, 0, 7 },
		{ true, 2, rw, 0, 0, 0x15 },
		{ true, 0, rw | u, 0, 0, ~0ull },
		{ true, 1, X86_PTE_P | u, 0, 0, 7 },
		{ true, 1, rw | u, 0, 0, ~0ull },
		{ false, 1, X86_PTE_P, 0, 0, 3 },
		{ false, 1, X86_PTE_P | u, 0, 0, 3 },
		{ false, 1, X86_PTE_P, 0, X86_CR0_WP, ~0ull },
		{ false, 1, X86_PTE_P | u, 0, X86_CR0_WP, ~0ull },
		{ false, 0, rw | u, 0, 0, ~0ull },
		{ false, 0, rw | u, X86_CR4_SMAP, 0, 1 },
		{ false, 1, rw | u, X86_CR4_SMAP, 0, 3 },
		{ false, 2, rw | u, X86_CR4_SMEP, 0, 0x11 },
		{ false, 0, rw | u, X86_CR4_SMEP, 0, ~0ull },
		{ true, 0, rw | u, X86_CR4_SMAP, 0, ~0ull },
		{ false, 2, rw | X86_PTE_NX, 0, 0, 0x11 },
		{ true, 2, rw | u | X86_PTE_NX, 0, 0, 0x15 },
		{ false, 0, rw | (uint64_t)1 << 51, 0, 0, 9 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const uint64_t pa = 0x240000; /* its level-1 entry is under test */
		const uint64_t va = U(pa);
		const bool is_allowed = cases[i].error == ~0ull;
		struct record record = { 0 };

		rig_reset(r);
		rig_put8(r, RIG_PT_U + 8 * ((pa - 0x200000) >> 12),
			 cases[i].entry ? pa | cases[i].entry : 0);
		rig_put(r, pa, "\xf4", 1);
		rig_put(r, cases[i].user ? RIG_UCODE : RIG_CODE,
			cases[i].kind == 0   ? g_load
			: cases[i].kind == 1 ? g_store
					     : g_call,
			4);
		if (cases[i].user)
			rig_state_user(r, RIG_UCODE);
		r->state.regs.cr4 |= cases[i].cr4;
		r->state.regs.cr0 &= ~cases[i].cr0_off;
		r->state.gpr[RSI] = va;
		if (is_allowed && !cases[i].user) {
			check_stop(r, GN_KVM_STOP_HALT);
			continue;
		}
		record = is_allowed ? check_exception(r, 13, 0) /* HLT at CPL 3 */
				    : check_exception(r, 14, cases[i].error);
		CHECK(is_allowed || record.cr2 == va, "case %zu: CR2 %#llx", i,
		      (unsigned long long)record.cr2);
		CHECK(!is_failed, "case %zu", i);
	}
}

GUEST(g_stac, "stac\n mov (%rsi), %rbx\n clac\n mov (%rsi), %rcx\n hlt\n");
static void smap_is_lifted_by_ac(struct rig *r)
{
	rig_code(r, RIG_CODE, g_stac);
	rig_put8(r, RIG_UDATA, 0x99);
	r->state.regs.cr4 |= X86_CR4_SMAP;
	r->state.gpr[RSI] = U(RIG_UDATA);
	CHECK_EQ(check_exception(r, 14, 1).cr2, U(RIG_UDATA));
	CHECK_EQ(r->state.gpr[RBX], 0x99);
}

/* A misaligned access with AC set is no alignment check for a kernel. */
GUEST(g_misaligned, "stac\n mov 1(%rsi), %rbx\n mov 3(%rsi), %rcx\n clac\n hlt\n");
static void kernel_is_not_alignment_checked(struct rig *r)
{
	rig_code(r, RIG_CODE, g_misaligned);
	rig_put8(r, RIG_UDATA, 0x1122334455667788);
	r->state.regs.cr4 |= X86_CR4_SMAP;
	r->state.regs.cr0 |= 1 << 18;
	r->state.gpr[RSI] = U(RIG_UDATA);
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(r->state.gpr[RBX], 0x11223344556677);
}

/* Neither the kernel nor its user can see, write or run the monitor. */
static void monitor_is_out_of_reach(struct rig *r)
{
	static const uint64_t at[] = { 0xfffff00000000000ull, 0xfffff00000022000ull,
				       0xfffff07fffffffffull - 7,
				       0xfffff00000000000ull + (511ull << 30) };

	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++)
		for (int user = 0; user < 2; user++)
			for (int kind = 0; kind < 3; kind++) {
				const uint64_t error = (user ? 4 : 0) + (kind == 1   ? 2
									 : kind == 2 ? 0x10
										     : 0);

				rig_reset(r);
				rig_put(r, user ? RIG_UCODE : RIG_CODE,
					kind == 0   ? g_load
					: kind == 1 ? g_store
						    : g_call,
					4);
				if (user)
					rig_state_user(r, RIG_UCODE);
				r->state.gpr[RSI] = at[i];
				CHECK_EQ(check_exception(r, 14, error).cr2, at[i]);
			}
}

/* A guest that maps something there is told why it can't. */
static void monitor_slot_is_reserved(struct rig *r)
{
	rig_put8(r, RIG_PML4 + 480 * 8, RIG_PDPT_K | X86_PTE_P | X86_PTE_W);
	rig_code(r, RIG_CODE, g_load);
	r->state.gpr[RSI] = 0xfffff00000000000ull + (510ull << 30);
	check_stop(r, GN_KVM_STOP_GUEST);
	CHECK(strstr(gn_kvm_error(r->kvm, 0), "monitor"), "%s", gn_kvm_error(r->kvm, 0));
}

/* Demand paging by the guest's own handler: 200 pages. */
GUEST(g_touch,
      "mov $200, %ecx\n 1: mov %rcx, (%rsi)\n add $4096, %rsi\n dec %ecx\n jnz 1b\n hlt\n");
GUEST(g_filler,
      "push %rax\n push %rbx\n push %rcx\n mov %cr2, %rax\n shr $12, %rax\n and $511, %eax\n"
      "mov %rax, %rbx\n shl $12, %rbx\n add $0x400003, %rbx\n"
      "mov $0xffffffff80017000, %rcx\n mov %rbx, (%rcx,%rax,8)\n incq 8(%rsp)\n"
      "pop %rcx\n pop %rbx\n pop %rax\n add $8, %rsp\n iretq\n");
static void guest_demand_paging(struct rig *r)
{
	const uint64_t table = 0x17000;

	rig_put(r, table, (const uint8_t[4096]){ 0 }, 4096);
	rig_put8(r, RIG_PD_K + 8, table | X86_PTE_P | X86_PTE_W);
	rig_code(r, RIG_CODE, g_touch);
	rig_code(r, RIG_CODE + 0x1000, g_filler);
	rig_gate(r, 14, K(RIG_CODE) + 0x1000, 0xe, 0, 0);
	r->state.gpr[RSI] = K(0x200000);
	check_stop(r, GN_KVM_STOP_HALT);
	for (uint64_t i = 0; i < 200; i++)
		CHECK_EQ(rig_get8(r, 0x400000 + i * 4096), 200 - i);
}

/* ---- Tables that change ---------------------------------------------------------------------------------------- */

/* RSI: VA, RDI: its entry. Read; entry = RBX; INVLPG; read again into RDX. */
GUEST(g_remap, "mov (%rsi), %rcx\n mov %rbx, (%rdi)\n invlpg (%rsi)\n mov (%rsi), %rdx\n hlt\n");
GUEST(g_remap_cr3, "mov (%rsi), %rcx\n mov %rbx, (%rdi)\n mov %cr3, %rax\n mov %rax, %cr3\n mov "
		   "(%rsi), %rdx\n hlt\n");
GUEST(g_protect, "mov %rcx, (%rsi)\n mov %rbx, (%rdi)\n invlpg (%rsi)\n mov %rcx, (%rsi)\n hlt\n");
static void level_1_changes(struct rig *r)
{
	const uint64_t pa = 0x250000, entry = RIG_PT_U + 8 * ((pa - 0x200000) >> 12);
	const uint64_t flags = X86_PTE_P | X86_PTE_W | X86_PTE_U;

	for (int i = 0; i < 20; i++) {
		rig_reset(r);
		rig_put(r, RIG_CODE, i & 1 ? g_remap : g_remap_cr3,
			(size_t)(i & 1 ? g_remap_end - g_remap : g_remap_cr3_end - g_remap_cr3));
		rig_put8(r, pa, 0x1000u + (unsigned)i);
		rig_put8(r, pa + 0x1000, 0x2000u + (unsigned)i);
		r->state.gpr[RSI] = U(pa);
		r->state.gpr[RDI] = K(entry);
		r->state.gpr[RBX] = (pa + 0x1000) | flags;
		check_stop(r, GN_KVM_STOP_HALT);
		CHECK_EQ(r->state.gpr[RCX], 0x1000 + i);
		CHECK_EQ(r->state.gpr[RDX], 0x2000 + i);
		/* Gone. */
		rig_reset(r);
		rig_code(r, RIG_CODE, g_remap);
		r->state.gpr[RSI] = U(pa);
		r->state.gpr[RDI] = K(entry);
		r->state.gpr[RBX] = 0;
		CHECK_EQ(check_exception(r, 14, 0).cr2, U(pa));
		/* Read-only. */
		rig_reset(r);
		rig_code(r, RIG_CODE, g_protect);
		r->state.gpr[RSI] = U(pa);
		r->state.gpr[RDI] = K(entry);
		r->state.gpr[RBX] = pa | (flags & ~X86_PTE_W);
		CHECK_EQ(check_exception(r, 14, 3).cr2, U(pa));
	}
}

/* The same through a level-2 entry, which is emulated. */
static void level_2_changes(struct rig *r)
{
	const uint64_t pa = 0x260000, other = 0x18000, flags = X86_PTE_P | X86_PTE_W | X86_PTE_U;

	for (int i = 0; i < 5; i++) {
		rig_reset(r);
		rig_code(r, RIG_CODE, g_remap);
		for (uint64_t j = 0; j < 512; j++)
			rig_put8(r, other + 8 * j, (0x300000 + (j << 12)) | flags);
		rig_put8(r, pa, 0x11);
		rig_put8(r, pa + 0x100000, 0x22);
		r->state.gpr[RSI] = U(pa);
		r->state.gpr[RDI] = K(RIG_PD_U);
		r->state.gpr[RBX] = other | flags;
		check_stop(r, GN_KVM_STOP_HALT);
		CHECK_EQ(r->state.gpr[RCX], 0x11);
		CHECK_EQ(r->state.gpr[RDX], 0x22);
		rig_reset(r);
		rig_code(r, RIG_CODE, g_remap);
		r->state.gpr[RSI] = U(pa);
		r->state.gpr[RDI] = K(RIG_PDPT_U + 8);
		r->state.gpr[RBX] = 0;
		check_exception(r, 14, 0);
	}
}

/* All the ways to change an upper-level entry that the emulator knows. The table is RIG_PD_U, its entry 1 unused. */
GUEST(g_forms,
      "mov (%rsi), %rax\n" /* shadow the table */
      "movq $0, (%rdi)\n movb $0x11, (%rdi)\n movw $0x2211, (%rdi)\n movl $0x44332211, (%rdi)\n"
      "mov $7, %eax\n movnti %rax, (%rdi)\n"
      "xchg %rax, (%rdi)\n mov $8, %ebx\n lock cmpxchg %rbx, (%rdi)\n lock xadd %rbx, (%rdi)\n"
      "orq $0x100, (%rdi)\n andq $~8, (%rdi)\n xorq $2, (%rdi)\n addq $4, (%rdi)\n subq $4, "
      "(%rdi)\n"
      "incq (%rdi)\n decq (%rdi)\n notq (%rdi)\n negq (%rdi)\n lock btsq $5, (%rdi)\n lock btrq "
      "$5, (%rdi)\n"
      "lock btcq $5, (%rdi)\n mov (%rdi), %r8\n"
      "mov $3, %ecx\n xor %eax, %eax\n cld\n rep stosq\n mov %rdi, %r9\n hlt\n");
static void store_forms(struct rig *r)
{
	rig_code(r, RIG_CODE, g_forms);
	r->state.gpr[RSI] = U(RIG_UDATA);
	r->state.gpr[RDI] = K(RIG_PD_U + 8);
	check_stop(r, GN_KVM_STOP_HALT);
	/* 7; xchg with 7: rax 7; cmpxchg rax=7 to 8; xadd: 16, rbx 8; |0x100, &~8: 0x110; ^2: 0x112; not, neg: 0x113;
	 * bts: 0x133, btr: 0x113, btc: 0x133 */
	CHECK_EQ(r->state.gpr[R8], 0x133);
	CHECK_EQ(r->state.gpr[R9], K(RIG_PD_U + 32));
	CHECK_EQ(rig_get8(r, RIG_PD_U + 8), 0);
}

/* Stacks, and pages of the user, that were tables. */
GUEST(g_stack_on_table,
      "mov (%rsi), %rax\n mov %rdi, %rsp\n push %rax\n call 1f\n 1: pop %rbx\n pop %rcx\n hlt\n");
static void stack_on_a_table(struct rig *r)
{
	rig_code(r, RIG_CODE, g_stack_on_table);
	rig_put8(r, RIG_UDATA, 0x77);
	r->state.gpr[RSI] = U(RIG_UDATA);
	r->state.gpr[RDI] = K(RIG_PD_U + 0x800);
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(r->state.gpr[RCX], 0x77);
	/* Event delivery too. */
	rig_reset(r);
	rig_code(r, RIG_UCODE, g_load);
	rig_put8(r, RIG_TSS + 4, K(RIG_PDPT_U + 0x800));
	rig_state_user(r, RIG_UCODE);
	r->state.gpr[RSI] = U(RIG_UDATA);
	check_exception(r, 13, 0);
}

/* Two address spaces. */
GUEST(g_switches, "mov $100, %ecx\n 1: mov %rdi, %cr3\n add (%rsi), %rax\n mov %rbx, %cr3\n add "
		  "(%rsi), %rdx\n dec %ecx\n jnz 1b\n hlt\n");
static void address_spaces(struct rig *r)
{
	const uint64_t flags = X86_PTE_P | X86_PTE_W | X86_PTE_U;
	const uint64_t root = 0x18000, pdpt = 0x19000, pd = 0x1a000, pt = 0x1b000;

	rig_put8(r, root + 511 * 8, RIG_PDPT_K | flags);
	rig_put8(r, root, pdpt | flags);
	rig_put8(r, pdpt + 8, pd | flags);
	rig_put8(r, pd, pt | flags);
	rig_put8(r, pt + 8 * ((RIG_UDATA - 0x200000) >> 12), 0x300000 | flags);
	rig_put8(r, RIG_UDATA, 1);
	rig_put8(r, 0x300000, 1000);
	rig_code(r, RIG_CODE, g_switches);
	r->state.gpr[RSI] = U(RIG_UDATA);
	r->state.gpr[RBX] = RIG_PML4;
	r->state.gpr[RDI] = root;
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(r->state.gpr[RAX], 100000);
	CHECK_EQ(r->state.gpr[RDX], 100);
}

/* ---- MMIO, ROM ------------------------------------------------------------------------------------------------------ */

GUEST(g_mmio, "mov (%rsi), %rax\n movzbl 1(%rsi), %ebx\n movl $5, (%rsi)\n cmpl $-1, (%rsi)\n sete "
	      "%cl\n hlt\n");
static void no_memory_reads_as_ones(struct rig *r)
{
	rig_put8(r, RIG_PT_U + 8 * 0x60, 0x80000000u | X86_PTE_P | X86_PTE_W | X86_PTE_U);
	rig_code(r, RIG_CODE, g_mmio);
	r->state.gpr[RSI] = U(0x260000);
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(r->state.gpr[RAX], ~0ull);
	CHECK_EQ(r->state.gpr[RBX], 0xff);
	CHECK_EQ(r->state.gpr[RCX] & 0xff, 1);
}

static struct {
	uint64_t at, value;
	unsigned bytes;
} device_written;

static bool device(void *ctx, unsigned vcpu, uint64_t at, unsigned bytes, bool is_write,
		   uint64_t *value)
{
	(void)ctx;
	(void)vcpu;
	if (at < 0x80000000u || at >= 0x80001000u)
		return false;
	if (is_write) {
		device_written.at = at;
		device_written.bytes = bytes;
		device_written.value = *value;
	} else {
		*value = bytes == 4 ? UINT32_MAX : 0x1122334455667788 >> 8 * (at & 7);
	}
	return true;
}

static void devices_answer(struct rig *r)
{
	gn_kvm_set_mmio(r->kvm, device, NULL);
	rig_put8(r, RIG_PT_U + 8 * 0x60, 0x80000000u | X86_PTE_P | X86_PTE_W | X86_PTE_U);
	rig_code(r, RIG_CODE, g_mmio);
	r->state.gpr[RSI] = U(0x260000) + 8;
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(r->state.gpr[RAX], 0x1122334455667788);
	CHECK_EQ(r->state.gpr[RBX], 0x77);
	CHECK_EQ(r->state.gpr[RCX] & 0xff, 1);
	CHECK_EQ(device_written.at, 0x80000008);
	CHECK_EQ(device_written.bytes, 4);
	CHECK_EQ(device_written.value, 5);
	gn_kvm_set_mmio(r->kvm, NULL, NULL);
}

static void rom_drops_stores(struct rig *r)
{
	rig_code(r, RIG_CODE, g_store);
	rig_put8(r, 0x270000, 5);
	CHECK_EQ(gn_p2m_protect(r->vm, gfn(0x270), 1, true), 0);
	r->state.gpr[RSI] = U(0x270000);
	r->state.gpr[RBX] = 6;
	check_stop(r, GN_KVM_STOP_HALT);
	CHECK_EQ(rig_get8(r, 0x270000), 5);
	CHECK_EQ(gn_p2m_protect(r->vm, gfn(0x270), 1, false), 0);
}

static void ballooned_pages_stop(struct rig *r)
{
	CHECK_EQ(gn_p2m_balloon(r->vm, gfn(0x280), 1), 0);
	rig_code(r, RIG_CODE, g_load);
	r->state.gpr[RSI] = U(0x280000);
	check_stop(r, GN_KVM_STOP_GUEST);
	CHECK_EQ(gn_p2m_unballoon(r->vm, gfn(0x280), 1), 0);
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

GUEST(g_shift, "mov (%rsi), %rax\n shlq $1, (%rdi)\n hlt\n");
static void not_covered_is_told(struct rig *r)
{
	rig_code(r, RIG_CODE, g_shift);
	r->state.gpr[RSI] = U(RIG_UDATA);
	r->state.gpr[RDI] = U(0x290000);
	rig_put8(r, RIG_PT_U + 8 * 0x90, 0x80000000u | X86_PTE_P | X86_PTE_W | X86_PTE_U);
	check_stop(r, GN_KVM_STOP_GUEST);
	CHECK(strstr(gn_kvm_error(r->kvm, 0), "shl"), "%s", gn_kvm_error(r->kvm, 0));
}

/* ---- All -------------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	void (*run)(struct rig *r);
} cases[] = {
#define CASE(name)                                                                                 \
	{                                                                                          \
#name, name                                                                        \
	}
	CASE(control_registers),
	CASE(bad_control_values),
	CASE(msrs),
	CASE(efer_exits),
	CASE(segment_bases),
	CASE(descriptor_tables),
	CASE(odds_and_ends),
	CASE(user_is_unprivileged),
	CASE(exceptions),
	CASE(stack_fault),
	CASE(system_calls),
	CASE(jump_into_the_monitor),
	CASE(iret_to_user),
	CASE(far_returns),
	CASE(segment_loads),
	CASE(page_faults),
	CASE(smap_is_lifted_by_ac),
	CASE(kernel_is_not_alignment_checked),
	CASE(monitor_is_out_of_reach),
	CASE(monitor_slot_is_reserved),
	CASE(guest_demand_paging),
	CASE(level_1_changes),
	CASE(level_2_changes),
	CASE(store_forms),
	CASE(stack_on_a_table),
	CASE(address_spaces),
	CASE(no_memory_reads_as_ones),
	CASE(devices_answer),
	CASE(rom_drops_stores),
	CASE(ballooned_pages_stop),
	CASE(triple_fault),
	CASE(double_fault),
	CASE(gates),
	CASE(interrupts),
	CASE(interrupt_of_a_computation),
	CASE(stops_when_asked),
	CASE(not_covered_is_told),
};

int main(int argc, char **argv)
{
	static const char *const schemes[] = { "shadow", "shadow-vtlb" };

	gn_kvm_probe(&host, true);
	if (!host.usable) {
		printf("SKIPPED, all of it: %s\n", host.why);
		printf("0 passed, 0 failed, %zu skipped\n", 2 * sizeof(cases) / sizeof(cases[0]));
		return 0;
	}
	gn_schemes_register_all();
	for (size_t s = 0; s < 2; s++)
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			struct rig r;

			if (argc > 1 && strcmp(argv[1], cases[i].name))
				continue;
			current_scheme = schemes[s];
			current_case = cases[i].name;
			is_failed = is_skipped = false;
			if (!rig_new(&r, schemes[s], 1, NULL)) {
				failed++;
				continue;
			}
			cases[i].run(&r);
			CHECK(rig_audit(&r), "the audit is not clean");
			rig_destroy(&r);
			if (is_failed)
				failed++;
			else if (is_skipped)
				skipped++;
			else
				passed++;
		}
	printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
	return failed != 0;
}
