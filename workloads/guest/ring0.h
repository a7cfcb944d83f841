/* SPDX-License-Identifier: MIT */
/*
 * ring0.h - the freestanding kernel's files to each other: entry.S, cpu.c, main.c.
 */
#ifndef GN_WORKLOADS_GUEST_RING0_H
#define GN_WORKLOADS_GUEST_RING0_H

#include <stdbool.h>
#include <stdint.h>

#include <gnomon/guest.h>

#include "calls.h"

/* The boot page, in the kernel's window: before paging is the kernel's own, and after. */
static inline struct gn_guest_boot *guest_boot(void)
{
	return (struct gn_guest_boot *)(GN_GUEST_KERNEL_VA + GN_GUEST_BOOT_PA);
}

/* ---- entry.S --------------------------------------------------------------------------------------------- */
extern char guest_vectors[], guest_call_entry[], guest_tss[];
extern uint64_t guest_idt[32][2], guest_gdt_tss[2];
extern uint64_t guest_user_base; /* virtual address of the user's part */
bool guest_upcall(bool (*fn)(void *ctx, uint64_t va, bool write), void *ctx, uint64_t va,
		  bool write, uint64_t user_rsp);
__attribute__((noreturn)) void guest_start_user(void);

/* ---- cpu.c, called by entry.S ------------------------------------------------------------------------------ */
struct guest_trap {
	uint64_t r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
	uint64_t vector, error_code;
	uint64_t rip, cs, rflags, rsp, ss;
};
void guest_descriptors(void);
void guest_exception(const struct guest_trap *trap);

/* ---- cpu.c ----------------------------------------------------------------------------------------------- */
uint64_t guest_vmm_call(enum gn_guest_call call); /* call_result */
__attribute__((noreturn)) void guest_exit(enum gn_guest_exit status);
uint64_t guest_tsc(void);

/* ---- main.c, called by entry.S ----------------------------------------------------------------------------- */
__attribute__((noreturn)) void guest_kernel_main(void);
uint64_t guest_call(unsigned number, struct guest_call_args *args);

#endif
