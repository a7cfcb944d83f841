/* SPDX-License-Identifier: MIT */
/*
 * entry.S - the kernel's ways in and out: start, exceptions, system calls, upcalls.
 *
 * All descriptors are flat; CS and SS matter, nothing else is loaded. IRETQ loads both at once, also at the start.
 * No SWAPGS, no SYSCALL: each instruction here may be executed by an emulator.
 *
 * An upcall leaves the kernel in the midst of a handler. What is on its stack then must stay, so the stack of
 * the next entry (TSS.RSP0) begins below it until the upcall returns. Upcalls nest; each keeps the former
 * values beside the registers it saved.
 */
#include "calls.h"

#define CS_KERNEL 0x08
#define SS_KERNEL 0x10
#define SS_USER	  0x1b
#define CS_USER	  0x23
#define TSS	  0x28

#define STACK_BYTES	   0x8000
#define FAULT_STACK_BYTES 0x1000
#define RFLAGS		   2 /* interrupts off */

	.section .head, "ax"
	.globl guest_kernel_entry
guest_kernel_entry:
	lea	stack_end(%rip), %rsp
	call	guest_descriptors
	lgdt	gdt_pointer(%rip)
	lidt	guest_idt_pointer(%rip)
	mov	$TSS, %eax
	ltr	%ax
	pushq	$SS_KERNEL
	lea	8(%rsp), %rax
	push	%rax
	pushq	$RFLAGS
	pushq	$CS_KERNEL
	lea	1f(%rip), %rax
	push	%rax
	iretq
1:	call	guest_kernel_main
	ud2

	.text
/* Each puts a zero where the CPU pushes no error code, and its number, on the stack. */
	.balign	16
	.globl	guest_vectors /* 16 bytes each */
guest_vectors:
	.set	v, 0
	.rept	32
	.balign	16
	.if	!(v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21 || v == 29 || v == 30)
	pushq	$0
	.endif
	pushq	$v
	jmp	exception
	.set	v, v + 1
	.endr

	.balign	16
exception:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	mov	%rsp, %rdi
	call	guest_exception
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$16, %rsp
	iretq

	.balign	16
	.globl	guest_call_entry /* INT3 */
guest_call_entry:
	cmp	$GUEST_CALL_UPCALL_RETURN, %eax
	je	upcall_return
	push	%r8
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	mov	%eax, %edi
	mov	%rsp, %rsi
	call	guest_call
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%r8
	iretq

/* bool guest_upcall(fn, ctx, va, write, user_rsp) */
	.globl	guest_upcall
guest_upcall:
	push	%rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	pushq	rsp0(%rip)
	pushq	upcall_stack(%rip)
	mov	%rsp, upcall_stack(%rip)
	mov	%rsp, rsp0(%rip)
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%ecx, %edx
	mov	guest_user_base(%rip), %rcx
	add	$GUEST_USER_UPCALL, %rcx
	jmp	to_user
upcall_return:
	mov	upcall_stack(%rip), %rsp
	popq	upcall_stack(%rip)
	popq	rsp0(%rip)
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	mov	%edi, %eax
	ret

/* void guest_start_user(void), does not return */
	.globl	guest_start_user
guest_start_user:
	mov	guest_user_base(%rip), %rcx /* = GUEST_USER_ENTRY; it sets its own stack */
	xor	%r8d, %r8d
to_user: /* at rcx, on the stack r8 */
	pushq	$SS_USER
	push	%r8
	pushq	$RFLAGS
	pushq	$CS_USER
	push	%rcx
	iretq

	.data
	.balign	16
gdt:
	.quad	0
	.quad	0x00af9b000000ffff /* code, CPL 0 */
	.quad	0x00cf93000000ffff /* data, CPL 0 */
	.quad	0x00cff3000000ffff /* data, CPL 3 */
	.quad	0x00affb000000ffff /* code, CPL 3 */
	.globl	guest_gdt_tss
guest_gdt_tss:
	.quad	0, 0
gdt_end:
gdt_pointer:
	.word	gdt_end - gdt - 1
	.quad	gdt
	.globl	guest_idt_pointer
guest_idt_pointer:
	.word	32 * 16 - 1
	.quad	guest_idt

	.balign	16
	.globl	guest_tss
	.long	0, 0, 0 /* so that RSP0 is aligned */
guest_tss:
	.long	0
rsp0:	.quad	stack_end
	.quad	0, 0, 0
	.quad	fault_stack_end /* IST1: double faults */
	.fill	6, 8, 0
	.quad	0
	.word	0, 0x68 /* no I/O bitmap */

	.bss
	.balign	16
	.globl	guest_idt
guest_idt:
	.skip	32 * 16
	.skip	STACK_BYTES
stack_end:
	.skip	FAULT_STACK_BYTES
fault_stack_end:
upcall_stack:
	.skip	8
	.globl	guest_user_base
guest_user_base:
	.skip	8

	.section .note.GNU-stack, "", @progbits
