/* SPDX-License-Identifier: MIT */
/*
 * cost.c - the price of a trap through this room, and the bare price under it.
 *
 * The bare VM is the least that can do the same: one slot, tables that map the guest's page of code and a window of data
 * for CPL 3 and itself for CPL 0, an IDT of HLTs, registers written and read through the shared page. It stands
 * beside ours in one process, and the two are sampled in turn, so that a noisy machine is noisy for both.
 *
 * Both guests run `cli; dec; jnz` or `mov [rsi], rcx; add rsi, 4096; dec; jnz`, and end with HLT.
 */
#include "cost.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <gnomon/x86.h>

#include "monitor.h"

#define TRAPS	    1000
#define FAULTS	    1000
#define BARE_BYTES  ((uint64_t)16 << 20)
#define GUEST_BYTES ((uint64_t)16 << 20)
#define TABLE	    (X86_PTE_P | X86_PTE_W | X86_PTE_U)
#define LEAF	    (TABLE | X86_PTE_A | X86_PTE_D)
#define CODE_VA	    ((uint64_t)0x200000) /* virtual, in both; one page */
#define DATA_VA                                                                                    \
	((uint64_t)0x40000000) /* virtual, in both: FAULTS pages, then tables' worth of nothing */

/* Physical, in both: the guest's tables and its code. */
enum {
	PML4 = 0x1000,
	PDPT = 0x2000,
	PD_CODE = 0x3000,
	PT_CODE = 0x4000,
	PD_DATA = 0x5000,
	PT_DATA = 0x6000, /* two */
	CODE = 0x8000,
	DATA = 0x400000, /* and on */
	/* The bare VM's own. */
	PDPT_0 = 0x9000, /* CPL 0: all of it at MONITOR_VA */
	PD_0 = 0xa000,
	HLTS = 0xb000,
	IDT = 0xc000,
	GDT = 0xd000,
	TSS = 0xe000,
	STACK = 0x10000, /* its end */
};
#define MONITOR_VA (~(uint64_t)0 << 47 | (uint64_t)480 << 39)
_Static_assert(FAULTS <= 1024, "two level-1 tables map the data");

static const uint8_t trap_code[] = { 0xfa,		 /* 1: cli */
				     0xff, 0xc9,	 /* dec ecx */
				     0x75, 0xfb, 0xf4 }; /* jnz 1b; hlt */
static const uint8_t fault_code[] = { 0x48, 0x89, 0x0e,	 /* 1: mov [rsi], rcx */
				      0x48, 0x81, 0xc6, 0x00, 0x10, 0x00, 0x00, /* add rsi, 4096 */
				      0xff, 0xc9, 0x75, 0xf2, 0xf4 }; /* dec; jnz 1b; hlt */

struct bare {
	int fd, vm_fd, cpu_fd;
	uint8_t *memory;
	struct kvm_run *run;
	size_t run_bytes;
	struct kvm_sregs sregs;
};

static const struct bare no_bare = { .fd = -1, .vm_fd = -1, .cpu_fd = -1 };

struct gn_kvm_cost {
	enum gn_kvm_cost_kind kind;
	struct bare bare;
	struct gn_kvm *kvm;
};

static bool is_fault(const struct gn_kvm_cost *cost)
{
	return cost->kind == GN_KVM_COST_SHADOW_FAULT;
}

static unsigned rounds_of(const struct gn_kvm_cost *cost)
{
	return is_fault(cost) ? FAULTS : TRAPS;
}

/* ---- The guest's memory ------------------------------------------------------------------------------------- */

typedef void put_fn(struct gn_kvm_cost *cost, uint64_t at, const void *bytes, size_t count);

static void put_bare(struct gn_kvm_cost *cost, uint64_t at, const void *bytes, size_t count)
{
	memcpy(cost->bare.memory + at, bytes, count);
}

static void put_ours(struct gn_kvm_cost *cost, uint64_t at, const void *bytes, size_t count)
{
	gn_vm_write(gn_kvm_vm(cost->kvm), gpa(at), bytes, count);
}

static void put_entry(struct gn_kvm_cost *cost, put_fn *put, uint64_t table, uint64_t index,
		      uint64_t entry)
{
	put(cost, table + index * sizeof(entry), &entry, sizeof(entry));
}

/* Of the data in the bare VM, the level-1 entries come with the faults. */
static void put_guest(struct gn_kvm_cost *cost, put_fn *put, bool maps_data)
{
	const bool fault = is_fault(cost);

	put(cost, CODE, fault ? fault_code : trap_code,
	    fault ? sizeof(fault_code) : sizeof(trap_code));
	put_entry(cost, put, PML4, 0, PDPT | TABLE);
	put_entry(cost, put, PDPT, 0, PD_CODE | TABLE);
	put_entry(cost, put, PD_CODE, CODE_VA >> 21, PT_CODE | TABLE);
	put_entry(cost, put, PT_CODE, 0, CODE | LEAF);
	put_entry(cost, put, PDPT, DATA_VA >> 30, PD_DATA | TABLE);
	put_entry(cost, put, PD_DATA, 0, PT_DATA | TABLE);
	put_entry(cost, put, PD_DATA, 1, (PT_DATA + GN_PAGE_SIZE) | TABLE);
	for (uint64_t i = 0; i < FAULTS; i++)
		put_entry(cost, put, PT_DATA, i, maps_data ? (DATA + i * GN_PAGE_SIZE) | LEAF : 0);
}

static void start(struct gn_kvm_state *state, unsigned rounds)
{
	state->rip = CODE_VA;
	state->gpr[1] = rounds;
	state->gpr[6] = DATA_VA;
	state->rflags = 2;
}

/* ---- Bare ------------------------------------------------------------------------------------------------------ */

static void bare_monitor(struct bare *b)
{
	uint64_t *table = (uint64_t *)(void *)(b->memory + PML4);
	uint64_t *idt = (uint64_t *)(void *)(b->memory + IDT);
	uint64_t *gdt = (uint64_t *)(void *)(b->memory + GDT);
	const uint64_t stack = MONITOR_VA + STACK;

	table[480] = PDPT_0 | X86_PTE_P | X86_PTE_W;
	table = (uint64_t *)(void *)(b->memory + PDPT_0);
	table[0] = PD_0 | X86_PTE_P | X86_PTE_W;
	table = (uint64_t *)(void *)(b->memory + PD_0);
	for (uint64_t i = 0; i << 21 < BARE_BYTES; i++)
		table[i] = i << 21 | X86_PTE_P | X86_PTE_W | X86_PTE_PS;
	memset(b->memory + HLTS, 0xf4, 256);
	for (uint64_t v = 0; v < 256; v++) {
		const uint64_t entry = MONITOR_VA + HLTS + v;

		idt[2 * v] = (entry & 0xffff) | (uint64_t)GN_MONITOR_CS0 << 16 |
			     (uint64_t)0x8e << 40 | (entry & 0xffff0000) << 32;
		idt[2 * v + 1] = entry >> 32;
	}
	gdt[GN_MONITOR_CS0 >> 3] = 0x00af9b000000ffff;
	gdt[GN_MONITOR_SS0 >> 3] = 0x00cf93000000ffff;
	gdt[GN_MONITOR_SS3 >> 3] = 0x00cff3000000ffff;
	gdt[GN_MONITOR_CS3 >> 3] = 0x00affb000000ffff;
	memcpy(b->memory + TSS + 4, &stack, sizeof(stack));
}

static void bare_sregs(struct bare *b)
{
	struct kvm_segment code = { .limit = 0xffffffff,
				    .selector = GN_MONITOR_CS3,
				    .type = 11,
				    .present = 1,
				    .dpl = 3,
				    .s = 1,
				    .l = 1,
				    .g = 1 };
	struct kvm_segment data = code;

	data.selector = GN_MONITOR_SS3;
	data.type = 3;
	data.l = 0;
	data.db = 1;
	b->sregs.cs = code;
	b->sregs.ss = b->sregs.ds = b->sregs.es = b->sregs.fs = b->sregs.gs = data;
	b->sregs.tr = (struct kvm_segment){ .base = MONITOR_VA + TSS,
					    .limit = 0x67,
					    .selector = GN_MONITOR_TR,
					    .type = 11,
					    .present = 1 };
	b->sregs.gdt.base = MONITOR_VA + GDT;
	b->sregs.idt.base = MONITOR_VA + IDT;
	b->sregs.gdt.limit = b->sregs.idt.limit = GN_PAGE_SIZE - 1;
	b->sregs.cr0 = 0x80010033;
	b->sregs.cr3 = PML4;
	b->sregs.cr4 = X86_CR4_PAE;
	b->sregs.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
}

static int bare_cpu(struct bare *b, char *why, size_t why_bytes)
{
	int bytes = gn_kvm_ioctl_value(b->fd, KVM_GET_VCPU_MMAP_SIZE, 0), err;
	void *run;

	if (bytes < 0)
		return gn_kvm_sys_fail(why, why_bytes, "KVM_GET_VCPU_MMAP_SIZE", -bytes);
	b->run_bytes = (size_t)bytes;
	b->cpu_fd = gn_kvm_ioctl_value(b->vm_fd, KVM_CREATE_VCPU, 0);
	if (b->cpu_fd < 0)
		return gn_kvm_sys_fail(why, why_bytes, "KVM_CREATE_VCPU", -b->cpu_fd);
	run = mmap(NULL, b->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->cpu_fd, 0);
	if (run == MAP_FAILED)
		return gn_kvm_sys_fail(why, why_bytes, "mmap of a vCPU's page", errno);
	b->run = (struct kvm_run *)run;
	err = gn_kvm_ioctl(b->cpu_fd, KVM_GET_SREGS, &b->sregs);
	if (err < 0)
		return gn_kvm_sys_fail(why, why_bytes, "KVM_GET_SREGS", -err);
	bare_sregs(b);
	b->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	return 0;
}

static int bare_new(struct bare *b, char *why, size_t why_bytes)
{
	struct kvm_userspace_memory_region region = { .memory_size = BARE_BYTES };
	void *memory;
	int err = gn_kvm_sys_open(GN_KVM_DEVICE, &b->fd, why, why_bytes);

	if (err)
		return err;
	b->vm_fd = gn_kvm_ioctl_value(b->fd, KVM_CREATE_VM, 0);
	if (b->vm_fd < 0)
		return gn_kvm_sys_fail(why, why_bytes, "KVM_CREATE_VM", -b->vm_fd);
	memory = mmap(NULL, BARE_BYTES, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		return gn_kvm_sys_fail(why, why_bytes, "mmap of memory", errno);
	b->memory = (uint8_t *)memory;
	region.userspace_addr = (uintptr_t)memory;
	err = gn_kvm_ioctl(b->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
	if (err < 0)
		return gn_kvm_sys_fail(why, why_bytes, "KVM_SET_USER_MEMORY_REGION", -err);
	bare_monitor(b);
	return bare_cpu(b, why, why_bytes);
}

static void bare_destroy(struct bare *b)
{
	if (b->run)
		munmap(b->run, b->run_bytes);
	if (b->cpu_fd >= 0)
		close(b->cpu_fd);
	if (b->vm_fd >= 0)
		close(b->vm_fd);
	if (b->memory)
		munmap(b->memory, BARE_BYTES);
	if (b->fd >= 0)
		close(b->fd);
	*b = no_bare;
}

/* What came out: with an empty handler's answer to it the guest goes on. */
static bool bare_answer(struct gn_kvm_cost *cost, struct kvm_regs *regs)
{
	struct bare *b = &cost->bare;
	const uint64_t vector = regs->rip - 1 - (MONITOR_VA + HLTS);
	uint64_t frame[5];

	memcpy(frame, b->memory + STACK - sizeof(frame), sizeof(frame));
	regs->rip = frame[0];
	regs->rflags = frame[2];
	regs->rsp = frame[3];
	if (vector == X86_VEC_PF) {
		const uint64_t page = (b->run->s.regs.sregs.cr2 - DATA_VA) / GN_PAGE_SIZE;

		put_entry(cost, put_bare, PT_DATA, page, (DATA + page * GN_PAGE_SIZE) | LEAF);
		return true;
	}
	if (b->memory[CODE + (regs->rip - CODE_VA)] == 0xf4)
		return false;
	regs->rip++;
	return true;
}

static int bare_run(struct gn_kvm_cost *cost)
{
	struct kvm_sync_regs *sync = &cost->bare.run->s.regs;
	struct gn_kvm_state state = { 0 };

	start(&state, rounds_of(cost));
	gn_kvm_regs_to(&state, &sync->regs);
	do {
		sync->sregs = cost->bare.sregs;
		cost->bare.run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
		if (ioctl(cost->bare.cpu_fd, KVM_RUN, 0) < 0)
			return -errno;
		if (cost->bare.run->exit_reason != KVM_EXIT_HLT)
			return -EIO;
	} while (bare_answer(cost, &sync->regs));
	return 0;
}

/* ---- Ours ----------------------------------------------------------------------------------------------------------- */

static int ours_new(struct gn_kvm_cost *cost, char *why, size_t why_bytes)
{
	const struct gn_kvm_config config = {
		.vm = { .scheme = "shadow", .mem_bytes = GUEST_BYTES, .vcpus = 1 }
	};
	int err = gn_kvm_create(&config, &cost->kvm, why, why_bytes);

	if (!err)
		err = gn_p2m_populate(gn_kvm_vm(cost->kvm), gfn(0), GUEST_BYTES / GN_PAGE_SIZE);
	return err;
}

static int ours_run(struct gn_kvm_cost *cost)
{
	struct gn_kvm_state state = {
		.regs = { .cr0 = 0x80010033,
			  .cr3 = PML4,
			  .cr4 = X86_CR4_PAE,
			  .efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE },
		.cs = { .limit = 0xffffffff, .selector = 8, .attributes = 0xa09b },
		.ss = { .limit = 0xffffffff, .selector = 16, .attributes = 0xc093 },
	};
	int err;

	start(&state, rounds_of(cost));
	err = gn_kvm_set_state(cost->kvm, 0, &state);
	if (err)
		return err;
	return gn_kvm_run(cost->kvm, 0, NULL) == GN_KVM_STOP_HALT ? 0 : -EIO;
}

/* ---- Both ------------------------------------------------------------------------------------------------------------- */

int gn_kvm_cost_new(enum gn_kvm_cost_kind kind, struct gn_kvm_cost **out, char *why,
		    size_t why_bytes)
{
	struct gn_kvm_cost *cost = (struct gn_kvm_cost *)calloc(1, sizeof(*cost));
	int err;

	if (!cost)
		return gn_kvm_sys_fail(why, why_bytes, "a measurement", ENOMEM);
	cost->kind = kind;
	cost->bare = no_bare;
	err = bare_new(&cost->bare, why, why_bytes);
	if (!err)
		err = ours_new(cost, why, why_bytes);
	if (err) {
		gn_kvm_cost_destroy(cost);
		return err;
	}
	*out = cost;
	return 0;
}

void gn_kvm_cost_destroy(struct gn_kvm_cost *cost)
{
	if (!cost)
		return;
	gn_kvm_destroy(cost->kvm);
	bare_destroy(&cost->bare);
	free(cost);
}

/* Every fault is a first one again. Entries that were present can't be taken from a bare VM (that is what downgrade.c is
 * for), so it gets a new one; in ours, frames move, and no translation that leads to the old ones is left. */
static int prepare(struct gn_kvm_cost *cost, char *why, size_t why_bytes)
{
	int err = 0;

	if (is_fault(cost)) {
		bare_destroy(&cost->bare);
		err = bare_new(&cost->bare, why, why_bytes);
	}
	if (err)
		return err;
	put_guest(cost, put_bare, false);
	put_guest(cost, put_ours, true);
	if (!is_fault(cost))
		return 0;
	return gn_p2m_move(gn_kvm_vm(cost->kvm), gfn(DATA / GN_PAGE_SIZE), FAULTS);
}

/* CPU time: others may use the machine meanwhile. */
static double cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int timed(struct gn_kvm_cost *cost, int (*run)(struct gn_kvm_cost *cost), double *ns)
{
	const double before = cpu_ns();
	int err = run(cost);

	*ns = (cpu_ns() - before) / rounds_of(cost);
	return err;
}

int gn_kvm_cost_sample(struct gn_kvm_cost *cost, double *ours_ns, double *bare_ns)
{
	char why[256];
	int err = prepare(cost, why, sizeof(why));

	if (!err)
		err = timed(cost, bare_run, bare_ns);
	if (!err)
		err = timed(cost, ours_run, ours_ns);
	return err;
}
