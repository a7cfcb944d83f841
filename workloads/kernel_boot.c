/* SPDX-License-Identifier: MIT */
/*
 * kernel_boot.c - from paging off to the first process.
 *
 * Boot is what any long-mode kernel does: build tables with physical stores, set EFER.LME|NXE and CR4,
 * load CR3, set CR0.PG|WP. The tables hold one thing, the direct map: all RAM at a fixed address of the high
 * half, in global 2 MiB pages, supervisor, no execute. Each process's root shares it. From then on the kernel
 * reaches physical memory only through it, so its page-table edits are ordinary stores at CPL 0: the stores a
 * shadow scheme must notice and a nested one need not.
 *
 * CR4.PCIDE comes last: the architecture allows it in long mode only (SDM vol. 3A 4.10.1).
 *
 * A freestanding image is entered in long mode already, on tables of its loader that hold all RAM at its physical
 * address and the image's two windows. The same steps are legal there and end the loader's tables: stores to physical
 * addresses reach RAM, the new tables hold the windows (this code runs in one), and CR0 and EFER get the values
 * they have. Only LA57 is a choice the loader made.
 *
 * Absent: interrupts, SMP, page-table isolation (each would be a scheme-neutral addition).
 */
#include "kernel_state.h"

/* Linux's addresses (Documentation/arch/x86/x86_64/mm.rst): page_offset_base for 4 and 5 levels. */
#define DIRECT_BASE_4 ((uint64_t)0xffff888000000000)
#define DIRECT_BASE_5 ((uint64_t)0xff11000000000000)
#define RESERVED_MIN  ((uint64_t)1 << 20)

CPU_OWN struct kernel *k_now;

size_t kernel_state_bytes(void)
{
	return sizeof(struct kernel);
}

void kernel_attach(void *state)
{
	k_now = state;
}

/* The kernel stack and the task struct of a real kernel are hot lines of guest memory. */
void k_touch_task(const struct process *p)
{
	uint64_t stack_top = k_va(k_gpa(p->task_frame)) + K_PAGE;

	cpu_store64(stack_top - 8, (uint64_t)p->pid);
	cpu_store64(stack_top - 72, (uint64_t)p->state);
	cpu_load64(stack_top - K_PAGE);
}

void k_enter(uint64_t work)
{
	cpu_enter_kernel();
	cpu_compute(K_WORK_SYSCALL + work);
	k_touch_task(k_now->current);
	if (k_now->balloon.dev.is_ready)
		k_balloon_poll(1);
}

void k_leave(void)
{
	cpu_load64(k_va(k_gpa(k_now->current->task_frame)) + K_PAGE - 8);
	cpu_enter_user();
}

/* Without SMAP a CPU may have no STAC and CLAC, and a kernel has no use for them. */
void k_user_copy(bool on)
{
	k_now->user_copy = on;
	if (k_now->config.smap)
		cpu_set_ac(on);
}

static void map_direct(uint64_t base)
{
	struct kernel *k = k_now;
	uint64_t flags =
		X86_PTE_P | X86_PTE_W | X86_PTE_A | X86_PTE_D | X86_PTE_PS | X86_PTE_G | X86_PTE_NX;

	k->init_mm.root = pt_table_new();
	for (uint64_t at = 0; at < k->config.mem_bytes; at += K_LARGE_PAGE)
		pt_set(pt_slot(&k->init_mm, base + at, 2), at | flags);
}

/* The image, where it was linked to run. The user's part comes first: the windows share their upper entries, and
 * a shared entry must let CPL 3 through. The kernel's leaves do not. */
static void map_windows(void)
{
	struct kernel *k = k_now;
	uint64_t flags = X86_PTE_P | X86_PTE_W | X86_PTE_A | X86_PTE_D | X86_PTE_PS | X86_PTE_G;

	for (uint64_t at = k->config.user_start; at < k->config.reserved_bytes; at += K_LARGE_PAGE)
		pt_set(pt_slot(&k->init_mm, GN_GUEST_USER_VA + at, 2), at | flags | X86_PTE_U);
	for (uint64_t at = 0; at < k->config.user_start; at += K_LARGE_PAGE)
		pt_set(pt_slot(&k->init_mm, GN_GUEST_KERNEL_VA + at, 2), at | flags);
}

static void paging_on(uint64_t base)
{
	struct kernel *k = k_now;
	uint64_t cr4 = X86_CR4_PAE | X86_CR4_PGE;

	if (k->config.levels == 5)
		cr4 |= X86_CR4_LA57;
	if (k->config.smep)
		cr4 |= X86_CR4_SMEP;
	if (k->config.smap)
		cr4 |= X86_CR4_SMAP;
	cpu_write_efer(X86_EFER_LME | X86_EFER_NXE);
	cpu_write_cr4(cr4);
	cpu_write_cr3(k->init_mm.root);
	cpu_write_cr0(X86_CR0_PE | X86_CR0_WP | X86_CR0_PG);
	k->direct_base = base;
	if (k->config.pcid)
		cpu_write_cr4(cr4 | X86_CR4_PCIDE);
}

static void set_addresses(struct kernel *k)
{
	if (k->config.levels == 5) {
		/* High enough that the fifth level's index is not 0. */
		k->user_end = (uint64_t)1 << 56;
		k->mmap_base = (uint64_t)0xf0 << 48;
		k->mmap_end = (uint64_t)0xff << 48;
	} else {
		k->user_end = (uint64_t)1 << 47;
		k->mmap_base = (uint64_t)0x7f00 << 32;
		k->mmap_end = (uint64_t)0x7fff << 32;
	}
}

void kernel_boot(const struct kernel_config *config)
{
	struct kernel *k = k_now;
	uint64_t frames = config->mem_bytes / K_PAGE;
	uint64_t reserved = config->reserved_bytes ? config->reserved_bytes : RESERVED_MIN;

	if (config->levels != 4 && config->levels != 5)
		cpu_panic("guest kernel: paging levels must be 4 or 5");
	if (config->user_start &&
	    (config->user_start % K_LARGE_PAGE || config->reserved_bytes % K_LARGE_PAGE ||
	     config->user_start >= config->reserved_bytes))
		cpu_panic("guest kernel: the image's parts must begin and end at 2 MiB boundaries");
	k->config = *config;
	if (frames > K_FRAME_MAX)
		frames = K_FRAME_MAX;
	if (frames * K_PAGE < reserved + 2 * K_LARGE_PAGE)
		cpu_panic("guest kernel: too little RAM to boot: 8 MiB is the least");
	k->config.mem_bytes = frames * K_PAGE;
	set_addresses(k);
	k_frames_boot((uint32_t)((reserved + K_PAGE - 1) / K_PAGE), (uint32_t)frames);
	k_vmas_boot();
	cpu_set_exception_handler(k_exception);

	uint64_t base = k->config.levels == 5 ? DIRECT_BASE_5 : DIRECT_BASE_4;
	map_direct(base);
	if (config->user_start)
		map_windows();
	paging_on(base);
	k->loaded = &k->init_mm;
	k->zero_frame = k_frame_alloc_cleared();
	if (config->balloon_pa)
		k_balloon_boot(config->balloon_pa);
	k_procs_boot();
	k_leave();
}

void kernel_stats(struct kernel_stats *out)
{
	*out = k_now->stats;
	out->frames_free = k_now->frames.free;
	out->frames_total = k_now->frames.total;
}
