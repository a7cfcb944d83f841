/* SPDX-License-Identifier: MIT */
/*
 * smp_entry.S - ways in and out of the two-vCPU guest. rdi is the CPU's number at the start.
 *
 * Which CPU it is, is found by its stack pointer. User code is called: smp_user() leaves by IRETQ, the user's INT3 comes
 * back behind the call.
 */
#include "smp.h"

	.section .head, "ax"
	.globl smp_kernel_entry, guest_kernel_entry
guest_kernel_entry:
smp_kernel_entry:
	mov	%rdi, %rbx
	lea	1(%rdi), %rax
	imul	$SMP_STACK_BYTES, %rax, %rax
	lea	smp_stacks(%rip), %rsp
	add	%rax, %rsp
	call	smp_descriptors /* (cpu): the descriptor pointers, GDT's then IDT's */
	lgdt	(%rax)
	lidt	16(%rax)
	mov	$0x28, %eax
	ltr	%ax
	pushq	$0x10
	lea	8(%rsp), %rax
	push	%rax
	pushq	$2
	pushq	$0x08
	lea	1f(%rip), %rax
	push	%rax
	iretq
1:	mov	%rbx, %rdi
	call	smp_main
	ud2

	.text
	.balign	16
	.globl	smp_vectors /* 16 bytes each */
smp_vectors:
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
	call	smp_exception
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

/* uint64_t smp_user(code, rdi, rsi, stack, uint64_t *rsp0) */
	.globl	smp_user
smp_user:
	push	%rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%r8
	mov	%rsp, (%r8)
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	pushq	$0x1b
	push	%rcx
	pushq	$2
	pushq	$0x23
	push	%rax
	iretq
	.balign	16
	.globl	smp_user_return /* INT3 of user code: its frame is of no use */
smp_user_return:
	add	$40, %rsp
	pop	%r8
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	ret

	.bss
	.balign	SMP_STACK_BYTES
	.globl	smp_stacks
smp_stacks:
	.skip	SMP_CPUS * SMP_STACK_BYTES

	.section .note.GNU-stack, "", @progbits
