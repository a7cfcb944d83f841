/* SPDX-License-Identifier: MIT */
/*
 * depriv_memory.c - the memory of guests whose kernel runs at CPL 3, on /dev/kvm: page faults and rights, isolation of the
 * monitor, tables that the guest changes, and addresses that are no RAM. Everything under both table schemes; the audit is
 * clean after each case.
 *
 *     depriv_memory [NAME]     one case only
 */
#include "kvm/depriv_case.h"

/* ---- Page faults and isolation ---------------------------------------------------------------------------------- */

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

int main(int argc, char **argv)
{
	static const struct depriv_case cases[] = {
		DEPRIV_CASE(page_faults),
		DEPRIV_CASE(smap_is_lifted_by_ac),
		DEPRIV_CASE(kernel_is_not_alignment_checked),
		DEPRIV_CASE(jump_into_the_monitor),
		DEPRIV_CASE(monitor_is_out_of_reach),
		DEPRIV_CASE(monitor_slot_is_reserved),
		DEPRIV_CASE(guest_demand_paging),
		DEPRIV_CASE(level_1_changes),
		DEPRIV_CASE(level_2_changes),
		DEPRIV_CASE(store_forms),
		DEPRIV_CASE(stack_on_a_table),
		DEPRIV_CASE(address_spaces),
		DEPRIV_CASE(no_memory_reads_as_ones),
		DEPRIV_CASE(devices_answer),
		DEPRIV_CASE(rom_drops_stores),
		DEPRIV_CASE(ballooned_pages_stop),
		DEPRIV_CASE(not_covered_is_told),
	};

	return depriv_run(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
