/* SPDX-License-Identifier: MIT */
/*
 * cpu.c - cpu.h at CPL 0, in real instructions, and the descriptors and exceptions behind it.
 *
 * Each operation on translation is added to the boot page's account just before it is executed, in the words
 * of <gnomon/guest.h>; the hosted twin (workloads/twin.c) makes the same account of the same guest on the
 * software machine.
 *
 * Entering kernel and user are what exceptions and IRETQ do, so cpu_enter_*() have nothing left to do. RFLAGS.AC is the
 * kernel's own: exceptions keep it, and the user's code here never sets it.
 *
 * Only baseline integer instructions: at CPL 0 this code may run in an emulator that knows no others.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gnomon/types.h>
#include <gnomon/x86.h>

#include "cpu.h"
#include "guest/ring0.h"

#define CODE_SELECTOR 0x08
#define GATE_KERNEL   0x8e /* present, interrupt gate, DPL 0 */
#define GATE_USER     0xee /* DPL 3 */
#define TSS_BYTES     104
#define TSS_AVAILABLE 0x89
#define VEC_DOUBLE    8
#define VEC_BREAK     3
#define RED_ZONE      128 /* ours has none, but what an upcall interrupts keeps its distance */

static cpu_exception_fn *handler;
static uint64_t user_rsp; /* of the user code that the exception at hand interrupted */

static void record(enum gn_guest_op op, uint64_t a, uint64_t b)
{
	gn_guest_op_add(&guest_boot()->ops, op, a, b);
}

/* ---- Privileged instructions --------------------------------------------------------------------------------- */

void cpu_write_cr0(uint64_t value)
{
	record(GN_GUEST_OP_CR, 0, value);
	__asm__ volatile("mov %0, %%cr0" : : "r"(value) : "memory");
}

void cpu_write_cr3(uint64_t value)
{
	record(GN_GUEST_OP_CR3, 0, value);
	__asm__ volatile("mov %0, %%cr3" : : "r"(value) : "memory");
}

void cpu_write_cr4(uint64_t value)
{
	record(GN_GUEST_OP_CR, 4, value);
	__asm__ volatile("mov %0, %%cr4" : : "r"(value) : "memory");
}

void cpu_write_efer(uint64_t value)
{
	record(GN_GUEST_OP_CR, 8, value);
	value |= X86_EFER_LMA; /* it is on, and not software's to change */
	__asm__ volatile("wrmsr"
			 :
			 : "c"(0xc0000080), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
			 : "memory");
}

void cpu_invlpg(uint64_t va)
{
	record(GN_GUEST_OP_INVLPG, va, 0);
	__asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

void cpu_invpcid(unsigned type, uint64_t pcid, uint64_t va)
{
	struct {
		uint64_t pcid, va;
	} descriptor = { pcid, va };

	record(GN_GUEST_OP_INVPCID, (uint64_t)type << 12 | pcid, va);
	__asm__ volatile("invpcid %0, %1" : : "m"(descriptor), "r"((uint64_t)type) : "memory");
}

void cpu_set_ac(bool ac)
{
	if (ac)
		__asm__ volatile("stac" : : : "memory", "cc");
	else
		__asm__ volatile("clac" : : : "memory", "cc");
}

void cpu_enter_kernel(void)
{
}

void cpu_enter_user(void)
{
}

bool cpu_upcall(cpu_upcall_fn *fn, void *ctx, uint64_t va, bool write)
{
	return guest_upcall(fn, ctx, va, write, (user_rsp - RED_ZONE) & ~(uint64_t)15);
}

void cpu_compute(uint64_t count)
{
	uint64_t turns = count / 2; /* of two instructions */

	if (turns && guest_boot()->kernel_work)
		__asm__ volatile("1: dec %0; jnz 1b" : "+r"(turns) : : "cc");
}

void cpu_note_table_write(uint64_t pa, uint64_t value)
{
	record(GN_GUEST_OP_TABLE_WRITE, pa, value & ~GN_GUEST_OP_IGNORED);
}

/* ---- The VMM ---------------------------------------------------------------------------------------------------- */

static void out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "d"(port) : "memory");
}

uint64_t guest_vmm_call(enum gn_guest_call call)
{
	guest_boot()->call_result = 0; /* of a VMM that does not know the call */
	out32(GN_GUEST_PORT_CALL, call);
	return *(volatile uint64_t *)&guest_boot()->call_result;
}

void guest_exit(enum gn_guest_exit status)
{
	for (;;)
		out32(GN_GUEST_PORT_EXIT, status);
}

uint64_t guest_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

uint64_t cpu_hypercall(uint64_t nr, uint64_t arg)
{
	guest_boot()->call_nr = nr;
	guest_boot()->call_argument = arg;
	return guest_vmm_call(GN_GUEST_CALL_HYPERCALL);
}

void cpu_measure(void)
{
	guest_vmm_call(GN_GUEST_CALL_MEASURE);
	guest_boot()->tsc_measure = guest_tsc();
}

void cpu_panic(const char *why)
{
	struct gn_guest_boot *boot = guest_boot();
	size_t i;

	for (i = 0; i < sizeof(boot->why) - 1 && why[i]; i++)
		boot->why[i] = why[i];
	boot->why[i] = 0;
	boot->result = -1;
	guest_exit(GN_GUEST_EXIT_PANIC);
}

/* ---- Exceptions --------------------------------------------------------------------------------------------------- */

static void set_gate(unsigned vector, uint64_t to, unsigned type, unsigned ist)
{
	guest_idt[vector][0] = (to & 0xffff) | CODE_SELECTOR << 16 | (uint64_t)ist << 32 |
			       (uint64_t)type << 40 | (to >> 16 & 0xffff) << 48;
	guest_idt[vector][1] = to >> 32;
}

void guest_descriptors(void)
{
	uint64_t tss = (uint64_t)guest_tss;

	for (unsigned v = 0; v < 32; v++)
		set_gate(v, (uint64_t)guest_vectors + (uint64_t)v * 16, GATE_KERNEL,
			 v == VEC_DOUBLE);
	set_gate(VEC_BREAK, (uint64_t)guest_call_entry, GATE_USER, 0);
	guest_gdt_tss[0] = (TSS_BYTES - 1) | (tss & 0xffffff) << 16 |
			   (uint64_t)TSS_AVAILABLE << 40 | (tss >> 24 & 0xff) << 56;
	guest_gdt_tss[1] = tss >> 32;
}

void cpu_set_exception_handler(cpu_exception_fn *fn)
{
	handler = fn;
}

static char *put_hex(char *to, uint64_t value)
{
	for (int shift = 60; shift >= 0; shift -= 4)
		if (value >> shift || !shift)
			*to++ = "0123456789abcdef"[value >> shift & 15];
	return to;
}

static char *put_text(char *to, const char *text)
{
	while (*text)
		*to++ = *text++;
	return to;
}

/* What neither kernel nor user of the image ever raise. */
__attribute__((noreturn)) static void unexpected(const struct guest_trap *trap, uint64_t cr2)
{
	static char text[160];
	char *p = put_text(text, "guest: exception 0x");

	p = put_hex(p, trap->vector);
	p = put_hex(put_text(p, " at 0x"), trap->rip);
	p = put_hex(put_text(p, ", CS 0x"), trap->cs);
	p = put_hex(put_text(p, ", error code 0x"), trap->error_code);
	p = put_hex(put_text(p, ", CR2 0x"), cr2);
	*p = 0;
	cpu_panic(text);
}

void guest_exception(const struct guest_trap *trap)
{
	struct cpu_exception e = { .vector = (unsigned)trap->vector,
				   .error_code = (uint32_t)trap->error_code,
				   .user = trap->cs & 3 };

	if (e.vector == X86_VEC_PF) {
		__asm__ volatile("mov %%cr2, %0" : "=r"(e.cr2));
		record(GN_GUEST_OP_FAULT, e.cr2, e.error_code);
	}
	/* A fault at CPL 0 outside of the kernel's copies from and to its processes is a defect of the image, or of
	 * what runs it: tell where. */
	if (e.vector != X86_VEC_PF || !handler || (!e.user && e.cr2 >= GN_GUEST_KERNEL_VA))
		unexpected(trap, e.cr2);
	if (e.user)
		user_rsp = trap->rsp;
	handler(&e);
}
