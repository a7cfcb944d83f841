/* SPDX-License-Identifier: MIT */
/*
 * trial.c - what this machine's KVM is: by trying, on a guest of a few pages.
 *
 * Hosts differ in ways no capability tells: whether CPL 0 code runs or is emulated, whether a change of a page table
 * from outside is noticed, how SYSCALL and INT n behave at CPL 3. Each peculiarity is one small question to a guest; each
 * cost is the median of some rounds. The rest of the room asks struct gn_kvm_host and never the host's name.
 *
 * The guest: 4 MiB at guest-physical 0, mapped twice. At its own address for CPL 3 (page by page in the first 2 MiB),
 * and at SYSTEM for CPL 0 (one supervisor page). Exceptions go to stubs at SYSTEM that halt, so the vector can be told from RIP
 * and the frame read from the stack.
 *
 * A question that goes wrong on some host leaves its answer false, or 0. A timer calls a guest that hangs back.
 */
#include "trial.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <gnomon/x86.h>

#include "machine.h"

#define MEM_BYTES ((size_t)4 << 20)
#define SYSTEM	  ((uint64_t)0xffff800000000000) /* PML4 entry 256 */

/* Guest-physical layout. */
enum {
	PML4 = 0x1000,
	LOW_PDPT = 0x2000,
	LOW_PD = 0x3000,
	LOW_PT = 0x4000,
	HIGH_PDPT = 0x5000,
	HIGH_PD = 0x6000,
	GDT = 0x7000,
	TSS = 0x8000,
	IDT = 0x9000,
	STUBS = 0xa000, /* 16 bytes a vector, 256 of them */
	STACK0 = 0xd000,
	CODE = 0x10000,
	TARGET = 0x11000,
	PAGE_A = 0x12000,
	PAGE_B = 0x13000,
	STACK3 = 0x15000,
};
#define UNBACKED_VA ((uint64_t)0x100000) /* its page leads past the memory */
#define ROUNDS	    101

struct trial {
	int kvm_fd, vm_fd, fd;
	uint8_t *mem;
	struct kvm_run *run;
	size_t run_bytes;
	struct kvm_sregs user, system; /* at CPL 3 and at CPL 0 */
	timer_t timer;
	bool has_timer;
};

static uint64_t *word(struct trial *t, uint64_t at)
{
	return (uint64_t *)(void *)(t->mem + at);
}

/* ---- The guest ---------------------------------------------------------------------------------------------- */

static void make_tables(struct trial *t)
{
	const uint64_t user = X86_PTE_P | X86_PTE_W | X86_PTE_U, system = X86_PTE_P | X86_PTE_W;

	*word(t, PML4) = LOW_PDPT | user;
	*word(t, LOW_PDPT) = LOW_PD | user;
	*word(t, LOW_PD) = LOW_PT | user;
	for (uint64_t i = 0; i < 256; i++)
		*word(t, LOW_PT + i * 8) = i << 12 | user;
	*word(t, LOW_PT + (UNBACKED_VA >> 12) * 8) = ((uint64_t)1 << 30) | user;
	*word(t, PML4 + 256 * 8) = HIGH_PDPT | system;
	*word(t, HIGH_PDPT) = HIGH_PD | system;
	*word(t, HIGH_PD) = X86_PTE_PS | system;
	/* PS in a PML4 entry is reserved on every CPU. */
	*word(t, PML4 + 8) = LOW_PDPT | X86_PTE_PS | user;
}

static void make_descriptors(struct trial *t)
{
	const uint64_t gdt[] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff,
				 0x00affb000000ffff };
	const uint64_t stack = SYSTEM + STACK0;

	memcpy(t->mem + GDT, gdt, sizeof(gdt));
	memcpy(t->mem + TSS + 4, &stack, sizeof(stack));
	for (unsigned v = 0; v < 256; v++) {
		uint64_t handler = SYSTEM + STUBS + 16 * v;

		t->mem[STUBS + 16 * v] = 0xf4; /* hlt */
		*word(t, IDT + 16 * v) = (handler & 0xffff) | 0x08ull << 16 | 0xee00ull << 32 |
					 (handler >> 16 & 0xffff) << 48;
		*word(t, IDT + 16 * v + 8) = handler >> 32;
	}
}

static int make_registers(struct trial *t)
{
	struct kvm_segment code = { .limit = UINT32_MAX,
				    .selector = 0x08,
				    .type = 11,
				    .present = 1,
				    .s = 1,
				    .l = 1,
				    .g = 1 };
	struct kvm_segment data = { .limit = UINT32_MAX,
				    .selector = 0x10,
				    .type = 3,
				    .present = 1,
				    .db = 1,
				    .s = 1,
				    .g = 1 };
	struct kvm_sregs *s = &t->system;
	int err = gn_kvm_ioctl(t->fd, KVM_GET_SREGS, s);

	if (err)
		return err;
	s->cr0 = X86_CR0_PG | X86_CR0_WP | X86_CR0_PE | 0x30; /* NE ET */
	s->cr3 = PML4;
	s->cr4 = X86_CR4_PAE;
	s->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE | X86_EFER_SCE;
	s->gdt.base = SYSTEM + GDT;
	s->gdt.limit = 5 * 8 - 1;
	s->idt.base = SYSTEM + IDT;
	s->idt.limit = 4095;
	s->tr = (struct kvm_segment){
		.base = SYSTEM + TSS, .limit = 0x67, .selector = 0x28, .type = 11, .present = 1
	};
	s->cs = code;
	s->ss = s->ds = s->es = s->fs = s->gs = data;
	t->user = *s;
	code.selector = 0x23;
	data.selector = 0x1b;
	code.dpl = data.dpl = 3;
	t->user.cs = code;
	t->user.ss = t->user.ds = t->user.es = t->user.fs = t->user.gs = data;
	return 0;
}

static int set_cpuid(struct trial *t)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} *block = calloc(1, sizeof(*block));
	int err;

	if (!block)
		return -ENOMEM;
	block->head.nent = 256;
	err = gn_kvm_ioctl(t->kvm_fd, KVM_GET_SUPPORTED_CPUID, block);
	if (!err)
		err = gn_kvm_ioctl(t->fd, KVM_SET_CPUID2, block);
	free(block);
	return err;
}

static int make_vcpu(struct trial *t)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEM_BYTES,
						      .userspace_addr = (uintptr_t)t->mem };
	int bytes = gn_kvm_ioctl_value(t->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0), err;
	void *run;

	if (bytes < 0)
		return bytes;
	t->vm_fd = gn_kvm_ioctl_value(t->kvm_fd, KVM_CREATE_VM, 0);
	if (t->vm_fd < 0)
		return t->vm_fd;
	err = gn_kvm_ioctl(t->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
	if (err)
		return err;
	t->fd = gn_kvm_ioctl_value(t->vm_fd, KVM_CREATE_VCPU, 0);
	if (t->fd < 0)
		return t->fd;
	t->run_bytes = (size_t)bytes;
	run = mmap(NULL, t->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, t->fd, 0);
	if (run == MAP_FAILED)
		return -errno;
	t->run = (struct kvm_run *)run;
	return set_cpuid(t);
}

static int trial_init(struct trial *t)
{
	char why[8];
	void *mem;
	int err;

	*t = (struct trial){ .kvm_fd = -1, .vm_fd = -1, .fd = -1 };
	mem = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return -errno;
	t->mem = (uint8_t *)mem;
	err = gn_kvm_sys_open(GN_KVM_DEVICE, &t->kvm_fd, why, sizeof(why));
	if (!err)
		err = make_vcpu(t);
	if (err)
		return err;
	make_tables(t);
	make_descriptors(t);
	/* Once a second KVM_RUN is left, whatever the guest does. */
	t->has_timer = !gn_kvm_alarm(1000000000, &t->timer);
	return make_registers(t);
}

static void trial_fini(struct trial *t)
{
	if (t->has_timer)
		timer_delete(t->timer);
	if (t->run)
		munmap(t->run, t->run_bytes);
	if (t->fd >= 0)
		close(t->fd);
	if (t->vm_fd >= 0)
		close(t->vm_fd);
	if (t->kvm_fd >= 0)
		close(t->kvm_fd);
	if (t->mem)
		munmap(t->mem, MEM_BYTES);
}

/* ---- One run ------------------------------------------------------------------------------------------------- */

/* Where the code is to run, its arguments, and what came of it. */
struct question {
	bool at_cpl0;
	const void *code;
	size_t bytes;
	uint64_t rbx, rcx;
	/* out */
	struct kvm_regs regs;
	int vector; /* of the stub that halted, -1: none did */
	uint64_t error_code;
};

static int place(struct trial *t, const struct question *q)
{
	struct kvm_regs regs = { .rip = q->at_cpl0 ? SYSTEM + CODE : CODE,
				 .rsp = q->at_cpl0 ? SYSTEM + STACK0 : STACK3,
				 .rflags = 2,
				 .rbx = q->rbx,
				 .rcx = q->rcx };
	int err;

	memcpy(t->mem + CODE, q->code, q->bytes);
	err = gn_kvm_ioctl(t->fd, KVM_SET_SREGS, q->at_cpl0 ? &t->system : &t->user);
	return err ? err : gn_kvm_ioctl(t->fd, KVM_SET_REGS, &regs);
}

/* False: it did not end in a HLT. */
static bool ask(struct trial *t, struct question *q)
{
	uint64_t stub;

	q->vector = -1;
	if (place(t, q) || ioctl(t->fd, KVM_RUN, 0) || t->run->exit_reason != KVM_EXIT_HLT ||
	    gn_kvm_ioctl(t->fd, KVM_GET_REGS, &q->regs))
		return false;
	stub = q->regs.rip - (SYSTEM + STUBS);
	if (stub < 16 * 256)
		q->vector = (int)(stub / 16);
	q->error_code = *word(t, q->regs.rsp - SYSTEM < MEM_BYTES ? q->regs.rsp - SYSTEM : 0);
	return true;
}

#define CODE_OF(...)                                                                               \
	.code = (const uint8_t[]){ __VA_ARGS__ }, .bytes = sizeof((const uint8_t[]){ __VA_ARGS__ })

/* ---- Peculiarities --------------------------------------------------------------------------------------------- */

static uint64_t time_loop(struct trial *t, uint64_t rounds)
{
	struct question q = { .at_cpl0 = true,
			      CODE_OF(0xff, 0xc9, 0x75, 0xfc, 0xf4), /* dec ecx; jnz; hlt */
			      .rcx = rounds };
	uint64_t best = 0;

	/* The fastest of some: a host that was busy elsewhere must not pass for an emulator. */
	for (unsigned i = 0; i < 8; i++) {
		uint64_t began = gn_kvm_now_ns(), ns;

		if (!ask(t, &q))
			return 0;
		ns = gn_kvm_now_ns() - began;
		if (!best || ns < best)
			best = ns;
	}
	return best;
}

/* An instruction of an emulator takes hundreds of ns, of a CPU (even of an emulated one) a few. */
static bool is_kernel_emulated(struct trial *t)
{
	const uint64_t rounds = 2000, instructions = 2 * rounds, limit_ns = 100;
	uint64_t few, many;

	few = time_loop(t, 1);
	many = time_loop(t, rounds);
	return few && many > few && (many - few) / instructions >= limit_ns;
}

/* Is a change of a present entry seen after INVLPG? */
static bool is_upgrades_only(struct trial *t)
{
	const uint64_t user = X86_PTE_P | X86_PTE_W | X86_PTE_U;
	struct question read = { CODE_OF(0x48, 0x8b, 0x03, 0xcc), .rbx = PAGE_A }; /* mov; int3 */
	struct question flush = { .at_cpl0 = true,
				  CODE_OF(0x0f, 0x01, 0x3b, 0xf4), /* invlpg (rbx); hlt */
				  .rbx = PAGE_A };
	bool stale;

	*word(t, PAGE_A) = 0xa;
	*word(t, PAGE_B) = 0xb;
	if (!ask(t, &read) || read.regs.rax != 0xa)
		return false;
	__atomic_store_n(word(t, LOW_PT + (PAGE_A >> 12) * 8), PAGE_B | user, __ATOMIC_SEQ_CST);
	stale = ask(t, &flush) && ask(t, &read) && read.regs.rax == 0xa;
	*word(t, LOW_PT + (PAGE_A >> 12) * 8) = PAGE_A | user;
	return stale;
}

/* LSTAR leads to a HLT on a user page: at CPL 0 it halts, at CPL 3 it is a #GP. */
static bool does_syscall_stay(struct trial *t)
{
	struct question q = { CODE_OF(0x0f, 0x05, 0xcc) }; /* syscall */
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[3];
	} msrs = { .head.nmsrs = 3,
		   .entries = { { .index = 0xc0000081, .data = 0x0013000800000000 },
				{ .index = 0xc0000082, .data = TARGET },
				{ .index = 0xc0000084, .data = 0 } } };

	t->mem[TARGET] = 0xf4;
	if (gn_kvm_ioctl(t->fd, KVM_SET_MSRS, &msrs) != 3)
		return false;
	return ask(t, &q) && q.vector == X86_VEC_GP;
}

static bool is_int_n_undefined(struct trial *t)
{
	struct question q = { CODE_OF(0xcd, 0x50, 0xcc) }; /* int $0x50 */

	return ask(t, &q) && q.vector == X86_VEC_UD;
}

static bool do_reserved_faults_lack_p(struct trial *t)
{
	struct question q = { CODE_OF(0x48, 0x8b, 0x03, 0xcc), .rbx = (uint64_t)1 << 39 };

	return ask(t, &q) && q.vector == X86_VEC_PF && (q.error_code & X86_PF_RSVD) &&
	       !(q.error_code & X86_PF_P);
}

static bool is_stack_fault_gp(struct trial *t)
{
	/* mov rsp, rbx; mov rax, [rsp]; int3 */
	struct question q = { CODE_OF(0x48, 0x89, 0xdc, 0x48, 0x8b, 0x04, 0x24, 0xcc),
			      .rbx = (uint64_t)1 << 63 };

	return ask(t, &q) && q.vector == X86_VEC_GP;
}

/* A breakpoint that the world switch brings along is one of the guest's. On QEMU's emulated CPU (7.2) VMRUN loads DR7 without
 * setting up what it asks for, and MOV to DR7 then takes down what was not set up: QEMU ends by a segmentation fault. So
 * it is asked without such a MOV. */
static bool are_breakpoints_lost(struct trial *t)
{
	struct question q = { .at_cpl0 = true, CODE_OF(0x90, 0x90, 0xf4) }; /* nop; nop; hlt */
	struct kvm_debugregs on = { .db = { SYSTEM + CODE + 1 }, .dr6 = 0xffff0ff0, .dr7 = 0x402 };
	struct kvm_debugregs off = { .dr6 = 0xffff0ff0, .dr7 = 0x400 };
	bool is_lost;

	if (gn_kvm_ioctl(t->fd, KVM_SET_DEBUGREGS, &on))
		return false;
	is_lost = ask(t, &q) && q.vector < 0;
	return gn_kvm_ioctl(t->fd, KVM_SET_DEBUGREGS, &off) == 0 && is_lost;
}

/* Afterwards such a CPU (QEMU's up to 7.2 at least) has no TSS, and the emulator aborts at the next stack it should find
 * there. */
static bool is_null_tss_loaded(struct trial *t)
{
	struct question q = { .at_cpl0 = true, CODE_OF(0x31, 0xc0, 0x0f, 0x00, 0xd8, 0xf4) };

	return ask(t, &q) && q.vector < 0; /* xor eax, eax; ltr ax; hlt */
}

/* ---- Costs -------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The median time of @op, 0 if it ever fails. */
static uint64_t median_ns(struct trial *t, bool (*op)(struct trial *t))
{
	uint64_t ns[ROUNDS];

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t began = gn_kvm_now_ns();

		if (!op(t))
			return 0;
		ns[i] = gn_kvm_now_ns() - began;
	}
	qsort(ns, ROUNDS, sizeof(ns[0]), by_value);
	return ns[ROUNDS / 2];
}

static bool one_ioctl(struct trial *t)
{
	struct kvm_regs regs;

	return !ioctl(t->fd, KVM_GET_REGS, &regs);
}

static bool one_immediate(struct trial *t)
{
	int result;

	t->run->immediate_exit = 1;
	result = ioctl(t->fd, KVM_RUN, 0);
	t->run->immediate_exit = 0;
	return result < 0 && errno == EINTR;
}

/* The guest loops over the exit: each run is one. */
static bool one_run(struct trial *t, uint32_t reason)
{
	return !ioctl(t->fd, KVM_RUN, 0) && t->run->exit_reason == reason;
}

static bool one_hlt(struct trial *t)
{
	return one_run(t, KVM_EXIT_HLT);
}

static bool one_io(struct trial *t)
{
	return one_run(t, KVM_EXIT_IO);
}

static bool one_mmio(struct trial *t)
{
	return one_run(t, KVM_EXIT_MMIO);
}

/* CPL 3 -> exception -> stub's HLT -> here -> CPL 3 at the same instruction, registers by the shared page. */
static bool one_trap(struct trial *t)
{
	if (!one_run(t, KVM_EXIT_HLT))
		return false;
	t->run->s.regs.sregs.cs = t->user.cs;
	t->run->s.regs.sregs.ss = t->user.ss;
	t->run->s.regs.regs.rip = CODE;
	t->run->s.regs.regs.rsp = STACK3;
	t->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	return true;
}

static uint64_t cost(struct trial *t, const struct question *q, bool (*op)(struct trial *t))
{
	if (place(t, q))
		return 0;
	for (unsigned i = 0; i < 8; i++) /* tables, caches */
		if (!op(t))
			return 0;
	return median_ns(t, op);
}

/* Handled inside the kernel: by the difference of two guests. */
static uint64_t cpuid_cost(struct trial *t)
{
	const uint64_t rounds = 500;
	uint64_t ns[2];

	for (unsigned i = 0; i < 2; i++) {
		/* mov edi, ecx; 1: [cpuid | nop nop] at leaf 0; dec edi; jnz 1b; int3 */
		struct question q = { CODE_OF(0x89, 0xcf, 0x31, 0xc0, i ? 0x0f : 0x90,
					      i ? 0xa2 : 0x90, 0xff, 0xcf, 0x75, 0xf8, 0xcc),
				      .rcx = rounds };
		uint64_t began;

		if (!ask(t, &q))
			return 0;
		began = gn_kvm_now_ns();
		if (!ask(t, &q))
			return 0;
		ns[i] = gn_kvm_now_ns() - began;
	}
	return ns[1] > ns[0] ? (ns[1] - ns[0]) / rounds : 0;
}

static void measure(struct trial *t, struct gn_kvm_host *host)
{
	/* hlt; jmp. out %al, $0x80; jmp. mov %al, (rbx); jmp. ud2. */
	const struct question hlt = { .at_cpl0 = true, CODE_OF(0xf4, 0xeb, 0xfd) };
	const struct question io = { .at_cpl0 = true, CODE_OF(0xe6, 0x80, 0xeb, 0xfc) };
	const struct question mmio = { CODE_OF(0x88, 0x03, 0xeb, 0xfc), .rbx = UNBACKED_VA };
	const struct question trap = { CODE_OF(0x0f, 0x0b) };

	host->ns_ioctl = median_ns(t, one_ioctl);
	host->ns_run_immediate = median_ns(t, one_immediate);
	host->ns_hlt = cost(t, &hlt, one_hlt);
	host->ns_io = cost(t, &io, one_io);
	host->ns_mmio = cost(t, &mmio, one_mmio);
	(void)one_immediate(t); /* the last of these is completed */
	host->ns_cpuid = cpuid_cost(t);
	t->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	host->ns_trap = cost(t, &trap, one_trap);
	t->run->kvm_valid_regs = 0;
}

void gn_kvm_trial(struct gn_kvm_host *host)
{
	struct trial t;
	sigset_t old;

	gn_kvm_signal_begin(&old);
	if (!trial_init(&t)) {
		host->kernel_mode_emulated = is_kernel_emulated(&t);
		host->table_upgrades_only = is_upgrades_only(&t);
		host->syscall_stays_at_cpl3 = does_syscall_stay(&t);
		host->int_n_is_ud = is_int_n_undefined(&t);
		host->reserved_fault_without_p = do_reserved_faults_lack_p(&t);
		host->stack_fault_is_gp = is_stack_fault_gp(&t);
		host->null_tss_loads = is_null_tss_loaded(&t);
		host->breakpoints_lost = are_breakpoints_lost(&t);
		measure(&t, host);
	}
	trial_fini(&t);
	gn_kvm_signal_end(&old);
}
