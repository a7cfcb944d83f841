/* SPDX-License-Identifier: MIT */
/*
 * matrix_kernel.c - the access-matrix guest: makes the accesses it is told to, on the real CPU.
 *
 * It stands on the image's entry code (workloads/guest/entry.S) and on the loader's tables, whose root has a slot to
 * spare. A fault at CPL 0 continues at the end of the accessing function, one at CPL 3 at the user part's own
 * way back; either way the handler has noted vector, error code and CR2.
 */
#include <stddef.h>

#include <gnomon/x86.h>

#include "guest/ring0.h"

#include "matrix.h"

#define GATE_KERNEL   0x8e
#define GATE_USER     0xee
#define TSS_BYTES     104
#define TSS_AVAILABLE 0x89
#define NO_EXCEPTION  0xff

/* The loader maps all RAM at its physical address. */
static struct matrix_batch *const batch = (struct matrix_batch *)MATRIX_BATCH;
static struct matrix_case *now;
static volatile uint64_t *const table[5] = {
	NULL,
	(volatile uint64_t *)(MATRIX_TABLES + 0x2000),
	(volatile uint64_t *)(MATRIX_TABLES + 0x1000),
	(volatile uint64_t *)MATRIX_TABLES,
	(volatile uint64_t *)MATRIX_ROOT,
};

extern char matrix_read_end[], matrix_write_end[], matrix_fetch_end[];

static void set_gate(unsigned vector, uint64_t to, unsigned type)
{
	guest_idt[vector][0] = (to & 0xffff) | 0x08 << 16 | (uint64_t)(vector == 8) << 32 |
			       (uint64_t)type << 40 | (to >> 16 & 0xffff) << 48;
	guest_idt[vector][1] = to >> 32;
}

void guest_descriptors(void)
{
	uint64_t tss = (uint64_t)guest_tss;

	for (unsigned v = 0; v < 32; v++)
		set_gate(v, (uint64_t)guest_vectors + (uint64_t)v * 16, GATE_KERNEL);
	set_gate(3, (uint64_t)guest_call_entry, GATE_USER);
	guest_gdt_tss[0] = (TSS_BYTES - 1) | (tss & 0xffffff) << 16 |
			   (uint64_t)TSS_AVAILABLE << 40 | (tss >> 24 & 0xff) << 56;
	guest_gdt_tss[1] = tss >> 32;
}

uint64_t guest_vmm_call(enum gn_guest_call call)
{
	__asm__ volatile("outl %0, %1"
			 :
			 : "a"((uint32_t)call), "d"((uint16_t)GN_GUEST_PORT_CALL)
			 : "memory");
	return *(volatile uint64_t *)&guest_boot()->call_result;
}

void guest_exit(enum gn_guest_exit status)
{
	for (;;)
		__asm__ volatile("outl %0, %1"
				 :
				 : "a"((uint32_t)status), "d"((uint16_t)GN_GUEST_PORT_EXIT)
				 : "memory");
}

uint64_t guest_call(unsigned number, struct guest_call_args *args)
{
	(void)args;
	guest_boot()->result = (int64_t)number;
	guest_exit(GN_GUEST_EXIT_PANIC); /* no such call here */
}

/* Where @rip's access ends. 0: the fault was not one of an access under test. */
static uint64_t continuation(const struct guest_trap *trap)
{
	if (!now || now->vector != NO_EXCEPTION)
		return 0;
	if (trap->cs & 3)
		return guest_user_base + MATRIX_USER_FAULT;
	switch (now->kind) {
	case MATRIX_READ:
		return (uint64_t)matrix_read_end;
	case MATRIX_WRITE:
		return (uint64_t)matrix_write_end;
	default:
		return (uint64_t)matrix_fetch_end;
	}
}

void guest_exception(const struct guest_trap *trap)
{
	uint64_t to = continuation(trap);

	if (!to) {
		guest_boot()->result = (int64_t)(trap->vector << 56 | (trap->rip & 0xffffffffffff));
		guest_exit(GN_GUEST_EXIT_PANIC);
	}
	now->vector = (uint32_t)trap->vector;
	now->error_code = (uint32_t)trap->error_code;
	if (trap->vector == X86_VEC_PF)
		__asm__ volatile("mov %%cr2, %0" : "=r"(now->cr2));
	((struct guest_trap *)trap)->rip = to;
}

/* The labels are where a faulting access goes on. A fetch is a call; its fault strikes at the target, with the return
 * address pushed, so the stack pointer is kept in a register. */
static __attribute__((noinline)) uint64_t kernel_read(uint64_t va)
{
	uint64_t value = 0;

	__asm__ volatile("mov (%1), %0\n"
			 ".globl matrix_read_end\nmatrix_read_end:"
			 : "+r"(value)
			 : "r"(va + MATRIX_STAMP_OFFSET)
			 : "memory");
	return value;
}

static __attribute__((noinline)) void kernel_write(uint64_t va)
{
	__asm__ volatile("mov %0, (%0)\n"
			 ".globl matrix_write_end\nmatrix_write_end:"
			 :
			 : "r"(va + MATRIX_WRITE_OFFSET)
			 : "memory");
}

static __attribute__((noinline)) void kernel_fetch(uint64_t va)
{
	__asm__ volatile("mov %%rsp, %%rbx\n"
			 "call *%0\n"
			 ".globl matrix_fetch_end\nmatrix_fetch_end:\n"
			 "mov %%rbx, %%rsp"
			 :
			 : "r"(va + MATRIX_RET_OFFSET)
			 : "rbx", "memory");
}

static void by_user(struct matrix_case *c)
{
	static const uint64_t entry[] = { MATRIX_USER_READ, MATRIX_USER_WRITE, MATRIX_USER_FETCH };

	(void)guest_upcall((bool (*)(void *, uint64_t, bool))(guest_user_base + entry[c->kind]),
			   NULL, c->va, false, guest_user_base + MATRIX_USER_STACK);
	/* Through the loader's identity map, which is the supervisor's. */
	c->value = *(volatile uint64_t *)(guest_boot()->user_start + MATRIX_USER_VALUE);
}

static void by_kernel(struct matrix_case *c)
{
	bool smap = batch->cr4 & X86_CR4_SMAP;

	if (c->ac && smap)
		__asm__ volatile("stac" : : : "memory", "cc");
	if (c->kind == MATRIX_READ)
		c->value = kernel_read(c->va);
	else if (c->kind == MATRIX_WRITE)
		kernel_write(c->va);
	else
		kernel_fetch(c->va);
	if (c->ac && smap)
		__asm__ volatile("clac" : : : "memory", "cc");
}

static void run_case(struct matrix_case *c)
{
	volatile uint64_t *slot[5];

	slot[4] = table[4] + MATRIX_SLOT;
	for (unsigned level = 3; level; level--)
		slot[level] = table[level] + (c->va >> (12 + 9 * (level - 1)) & 511);
	/* A store that changes nothing would cost an exit under shadow, and prove nothing. */
	for (unsigned level = 4; level; level--)
		if (*slot[level] != c->entry[level])
			*slot[level] = c->entry[level];
	__asm__ volatile("invlpg (%0)" : : "r"(c->va) : "memory");
	c->vector = NO_EXCEPTION;
	now = c;
	if (c->user)
		by_user(c);
	else
		by_kernel(c);
	now = NULL;
	for (unsigned level = 4; level; level--)
		c->entry[level] = *slot[level];
}

static void set_registers(void)
{
	uint64_t efer = batch->efer;

	__asm__ volatile("mov %0, %%cr0" : : "r"(batch->cr0) : "memory");
	__asm__ volatile("mov %0, %%cr4" : : "r"(batch->cr4) : "memory");
	__asm__ volatile("wrmsr"
			 :
			 : "c"(0xc0000080), "a"((uint32_t)efer), "d"((uint32_t)(efer >> 32))
			 : "memory");
}

void guest_kernel_main(void)
{
	guest_user_base = GN_GUEST_USER_VA + guest_boot()->user_start;
	for (;;) {
		guest_vmm_call(
			GN_GUEST_CALL_TEST); /* the batch at hand is done; a new one is there */
		if (!batch->count)
			guest_exit(GN_GUEST_EXIT_GOOD);
		set_registers();
		for (uint64_t i = 0; i < batch->count; i++)
			run_case(&batch->cases[i]);
	}
}
