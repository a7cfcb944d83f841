/* SPDX-License-Identifier: MIT */
/*
 * bare.c - the bare loop.
 *
 * The guest runs at CPL 3. An exception enters a page of HLT at CPL 0, as in monitor.c, and becomes an exit; the handler
 * looks at two words of the frame and goes back straight to CPL 3 by writing the registers through the shared page. No
 * engine, no decoding, no queue, no locks, no counters. So it makes the same world switches as this room, and its time is
 * theirs: what a scheme's exit takes more is what this project costs.
 *
 * Physical memory: tables and the monitor's few pages below 1 MiB, tables of the data from 1 MiB, the data from
 * DATA_PA. One slot. Slot 480 of the root maps it all for CPL 0 only, the code and the data are user pages.
 *
 * A host whose KVM shadows in software keeps its copy of an entry that is made absent from outside, so
 * gn_kvm_bare_forget() also stores inside the guest, misaligned, to each table of the data, which makes KVM drop its
 * copy of the whole table, and reloads CR3. Where hardware walks the tables the same program is merely a flush.
 */
#include "bare.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gnomon/x86.h>

#include "machine.h"

enum {
	ROOT_PA = 0x1000,
	LOW_PDPT_PA = 0x2000,
	CODE_PD_PA = 0x3000,
	CODE_PT_PA = 0x4000,
	DATA_PD_PA = 0x5000,
	HIGH_PDPT_PA = 0x6000,
	HIGH_PD_PA = 0x7000,
	CODE_PA = 0x10000,
	STACK_PA = 0x11000, /* the guest's; its return address leads to the HLT at its own start */
	ENTRIES_PA = 0x20000,
	IDT_PA = 0x21000,
	GDT_PA = 0x22000,
	TSS_PA = 0x23000,
	RSP0_PA = 0x25000, /* the end of that stack */
	PROGRAM_PA = 0x26000,
	DATA_PT_PA = 0x100000,
	DATA_PA = 0x200000,
	DATA_TABLES_MAX = 256, /* between the two; 512 MiB */
	CPUID_ENTRIES = 256,
};
#define CODE_VA	   ((uint64_t)CODE_PA)
#define STACK_VA   ((uint64_t)STACK_PA)
#define DATA_VA	   ((uint64_t)1 << 30)
#define MONITOR_VA (~(uint64_t)0 << 48 | (uint64_t)480 << 39)
#define TABLE_USER (X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A)
#define PAGE_USER  (TABLE_USER | X86_PTE_D)
#define VECTOR_GP  13
#define VECTOR_PF  14
#define HLT	   0xf4
#define SYNCED	   (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS)

struct gn_kvm_bare {
	int fd, vm_fd, cpu_fd;
	uint8_t *memory;
	uint64_t bytes, data_pages;
	struct kvm_run *run;
	size_t run_bytes;
	struct kvm_sregs user, kernel;
};

static uint64_t *word(struct gn_kvm_bare *bare, uint64_t pa)
{
	return (uint64_t *)(bare->memory + pa);
}

static uint64_t data_tables(const struct gn_kvm_bare *bare)
{
	return (bare->data_pages + GN_TABLE_ENTRIES - 1) / GN_TABLE_ENTRIES;
}

static void build_tables(struct gn_kvm_bare *bare)
{
	word(bare, ROOT_PA)[0] = LOW_PDPT_PA | TABLE_USER;
	word(bare, ROOT_PA)[480] = HIGH_PDPT_PA | X86_PTE_P | X86_PTE_W | X86_PTE_A;
	word(bare, LOW_PDPT_PA)[0] = CODE_PD_PA | TABLE_USER;
	word(bare, LOW_PDPT_PA)[1] = DATA_PD_PA | TABLE_USER;
	word(bare, CODE_PD_PA)[0] = CODE_PT_PA | TABLE_USER;
	word(bare, CODE_PT_PA)[CODE_PA >> 12] = CODE_PA | PAGE_USER;
	word(bare, CODE_PT_PA)[STACK_PA >> 12] = STACK_PA | PAGE_USER;
	for (uint64_t i = 0; i < data_tables(bare); i++)
		word(bare, DATA_PD_PA)[i] = (DATA_PT_PA + i * GN_PAGE_SIZE) | TABLE_USER;
	word(bare, HIGH_PDPT_PA)[0] = HIGH_PD_PA | X86_PTE_P | X86_PTE_W | X86_PTE_A;
	for (uint64_t i = 0; i < GN_TABLE_ENTRIES && i << 21 < bare->bytes; i++)
		word(bare, HIGH_PD_PA)[i] =
			i << 21 | X86_PTE_P | X86_PTE_W | X86_PTE_A | X86_PTE_D | X86_PTE_PS;
}

static void build_descriptors(struct gn_kvm_bare *bare)
{
	const uint64_t rsp0 = MONITOR_VA + RSP0_PA;
	uint64_t *gdt = word(bare, GDT_PA), *idt = word(bare, IDT_PA);

	/* Flat 64-bit code and data, accessed; DPL 0, then 3. */
	gdt[1] = 0x00af9b000000ffff;
	gdt[2] = 0x00cf93000000ffff;
	gdt[3] = 0x00cff3000000ffff;
	gdt[4] = 0x00affb000000ffff;
	for (uint64_t vector = 0; vector < 256; vector++) {
		uint64_t entry = MONITOR_VA + ENTRIES_PA + vector;

		idt[2 * vector] = (entry & 0xffff) | (uint64_t)8 << 16 | (uint64_t)0x8e << 40 |
				  (entry & 0xffff0000) << 32;
		idt[2 * vector + 1] = entry >> 32;
	}
	memset(bare->memory + ENTRIES_PA, HLT, 256);
	memcpy(bare->memory + TSS_PA + 4, &rsp0, sizeof(rsp0));
}

/* For CPL 0: RSI a table, ECX how many. */
static const uint8_t forget_program[] = {
	0x66, 0x8b, 0x46, 0x01,			  /* mov 1(%rsi),%ax */
	0x66, 0x89, 0x46, 0x01,			  /* mov %ax,1(%rsi) */
	0x48, 0x81, 0xc6, 0x00, 0x10, 0x00, 0x00, /* add $4096,%rsi */
	0xff, 0xc9,				  /* dec %ecx */
	0x75, 0xed,				  /* jnz, to the start */
	0x0f, 0x20, 0xd8,			  /* mov %cr3,%rax */
	0x0f, 0x22, 0xd8,			  /* mov %rax,%cr3 */
	HLT,
};

static struct kvm_segment flat(uint16_t selector, bool is_code)
{
	return (struct kvm_segment){ .limit = 0xffffffff,
				     .selector = selector,
				     .type = is_code ? 11 : 3,
				     .present = 1,
				     .dpl = selector & 3,
				     .db = !is_code,
				     .s = 1,
				     .l = is_code,
				     .g = 1 };
}

static int build_registers(struct gn_kvm_bare *bare)
{
	struct kvm_sregs *s = &bare->user;
	int err = gn_kvm_ioctl(bare->cpu_fd, KVM_GET_SREGS, s);

	if (err < 0)
		return err;
	s->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP | 0x30; /* ET, NE */
	s->cr3 = ROOT_PA;
	s->cr4 = X86_CR4_PAE;
	s->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
	s->gdt.base = MONITOR_VA + GDT_PA;
	s->gdt.limit = 5 * 8 - 1;
	s->idt.base = MONITOR_VA + IDT_PA;
	s->idt.limit = 4095;
	s->cs = flat(0x23, true);
	s->ss = s->ds = s->es = s->fs = s->gs = flat(0x1b, false);
	s->tr = (struct kvm_segment){ .base = MONITOR_VA + TSS_PA,
				      .limit = 0x67,
				      .selector = 0x28,
				      .type = 11,
				      .present = 1 };
	s->ldt = (struct kvm_segment){ .type = 2, .unusable = 1 };
	bare->kernel = *s;
	bare->kernel.cs = flat(0x08, true);
	bare->kernel.ss = flat(0x10, false);
	return 0;
}

static int set_cpuid(struct gn_kvm_bare *bare)
{
	size_t bytes = sizeof(struct kvm_cpuid2) + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2);
	struct kvm_cpuid2 *cpuid = (struct kvm_cpuid2 *)calloc(1, bytes);
	int err;

	if (!cpuid)
		return -ENOMEM;
	cpuid->nent = CPUID_ENTRIES;
	err = gn_kvm_ioctl(bare->fd, KVM_GET_SUPPORTED_CPUID, cpuid);
	if (err >= 0)
		err = gn_kvm_ioctl(bare->cpu_fd, KVM_SET_CPUID2, cpuid);
	free(cpuid);
	return err;
}

/* The call that failed, or NULL; *err: -errno. */
static const char *make_vm(struct gn_kvm_bare *bare, int *err)
{
	struct kvm_userspace_memory_region slot = { .memory_size = bare->bytes };
	void *run;

	*err = bare->vm_fd = gn_kvm_ioctl_value(bare->fd, KVM_CREATE_VM, 0);
	if (*err < 0)
		return "KVM_CREATE_VM";
	/* Shared, as the engine's pool is. */
	bare->memory = (uint8_t *)mmap(NULL, bare->bytes, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (bare->memory == MAP_FAILED) {
		*err = -errno;
		bare->memory = NULL;
		return "mmap of guest memory";
	}
	slot.userspace_addr = (uintptr_t)bare->memory;
	*err = gn_kvm_ioctl(bare->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot);
	if (*err < 0)
		return "KVM_SET_USER_MEMORY_REGION";
	*err = bare->cpu_fd = gn_kvm_ioctl_value(bare->vm_fd, KVM_CREATE_VCPU, 0);
	if (*err < 0)
		return "KVM_CREATE_VCPU";
	*err = gn_kvm_ioctl_value(bare->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (*err < 0)
		return "KVM_GET_VCPU_MMAP_SIZE";
	bare->run_bytes = (size_t)*err;
	run = mmap(NULL, bare->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, bare->cpu_fd, 0);
	if (run == MAP_FAILED) {
		*err = -errno;
		return "mmap of a vCPU";
	}
	bare->run = (struct kvm_run *)run;
	*err = set_cpuid(bare);
	return *err < 0 ? "KVM_SET_CPUID2" : NULL;
}

int gn_kvm_bare_new(const void *code, size_t code_bytes, uint64_t data_pages,
		    struct gn_kvm_bare **out, char *why, size_t why_bytes)
{
	struct gn_kvm_bare *bare;
	const char *failed;
	int err;

	if (code_bytes > GN_PAGE_SIZE || data_pages > (uint64_t)DATA_TABLES_MAX * GN_TABLE_ENTRIES)
		return gn_kvm_sys_fail(why, why_bytes, "a bare guest", EINVAL);
	bare = (struct gn_kvm_bare *)calloc(1, sizeof(*bare));
	if (!bare)
		return gn_kvm_sys_fail(why, why_bytes, "a bare guest", ENOMEM);
	bare->fd = bare->vm_fd = bare->cpu_fd = -1;
	bare->data_pages = data_pages;
	bare->bytes = (DATA_PA + data_pages * GN_PAGE_SIZE + 0x1fffff) & ~(uint64_t)0x1fffff;
	err = gn_kvm_sys_open(GN_KVM_DEVICE, &bare->fd, why, why_bytes);
	if (err)
		goto fail;
	failed = make_vm(bare, &err);
	if (!failed) {
		build_tables(bare);
		build_descriptors(bare);
		memcpy(bare->memory + CODE_PA, code, code_bytes);
		memcpy(bare->memory + PROGRAM_PA, forget_program, sizeof(forget_program));
		bare->memory[STACK_PA] = HLT;
		err = build_registers(bare);
		failed = err < 0 ? "KVM_GET_SREGS" : NULL;
	}
	if (failed) {
		gn_kvm_sys_fail(why, why_bytes, failed, -err);
		goto fail;
	}
	bare->run->kvm_valid_regs = SYNCED;
	*out = bare;
	return 0;
fail:
	gn_kvm_bare_destroy(bare);
	return err;
}

void gn_kvm_bare_destroy(struct gn_kvm_bare *bare)
{
	if (!bare)
		return;
	if (bare->run)
		munmap(bare->run, bare->run_bytes);
	if (bare->cpu_fd >= 0)
		close(bare->cpu_fd);
	if (bare->vm_fd >= 0)
		close(bare->vm_fd);
	if (bare->fd >= 0)
		close(bare->fd);
	if (bare->memory)
		munmap(bare->memory, bare->bytes);
	free(bare);
}

/* In with the registers given, out with a HLT at CPL 0. */
static int enter(struct gn_kvm_bare *bare)
{
	int err;

	bare->run->kvm_dirty_regs = SYNCED;
	err = gn_kvm_ioctl_value(bare->cpu_fd, KVM_RUN, 0);
	if (err < 0)
		return err;
	return bare->run->exit_reason == KVM_EXIT_HLT ? 0 : -EIO;
}

int gn_kvm_bare_run(struct gn_kvm_bare *bare, size_t entry, uint64_t count, uint64_t *traps)
{
	struct kvm_sync_regs *sync = &bare->run->s.regs;
	uint64_t *data_table = word(bare, DATA_PT_PA);

	*word(bare, STACK_PA + GN_PAGE_SIZE - 8) = STACK_VA;
	sync->sregs = bare->user;
	sync->regs = (struct kvm_regs){ .rip = CODE_VA + entry,
					.rdi = DATA_VA,
					.rcx = count,
					.rsp = STACK_VA + GN_PAGE_SIZE - 8,
					.rflags = 2 };
	for (*traps = 0;; (*traps)++) {
		int err = enter(bare);
		/* The error code, RIP, CS, RFLAGS, RSP, SS. */
		const uint64_t *frame = word(bare, sync->regs.rsp - MONITOR_VA);
		uint64_t vector = sync->regs.rip - 1 - (MONITOR_VA + ENTRIES_PA), page;

		if (err)
			return err;
		page = (sync->sregs.cr2 - DATA_VA) >> GN_PAGE_SHIFT;
		sync->regs.rip = frame[1];
		if (vector == VECTOR_GP) {
			if (bare->memory[frame[1]] == HLT)
				return 0;
			sync->regs.rip++;
		} else if (vector == VECTOR_PF && page < bare->data_pages) {
			__atomic_store_n(&data_table[page],
					 (DATA_PA + page * GN_PAGE_SIZE) | PAGE_USER,
					 __ATOMIC_RELEASE);
		} else {
			return -EIO;
		}
		sync->regs.rflags = frame[3];
		sync->regs.rsp = frame[4];
		sync->sregs = bare->user;
	}
}

int gn_kvm_bare_forget(struct gn_kvm_bare *bare)
{
	struct kvm_sync_regs *sync = &bare->run->s.regs;

	if (!bare->data_pages)
		return 0;
	memset(word(bare, DATA_PT_PA), 0, data_tables(bare) * GN_PAGE_SIZE);
	sync->sregs = bare->kernel;
	sync->regs = (struct kvm_regs){ .rip = MONITOR_VA + PROGRAM_PA,
					.rsi = MONITOR_VA + DATA_PT_PA,
					.rcx = data_tables(bare),
					.rsp = MONITOR_VA + RSP0_PA,
					.rflags = 2 };
	return enter(bare);
}
