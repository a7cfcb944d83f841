/* SPDX-License-Identifier: MIT */
/* user_entry.S - the head of the user's part, as calls.h lays it out, and the stack. */
#include "calls.h"

#define STACK_BYTES 0x20000

	.section .head, "awx"
head:
	.globl	guest_user_entry
guest_user_entry:
	lea	stack_end(%rip), %rsp
	call	guest_user_main
	ud2

	.org	head + GUEST_USER_UPCALL, 0x90 /* rax(rdi, rsi, rdx) */
	call	*%rax
	movzbl	%al, %edi
	mov	$GUEST_CALL_UPCALL_RETURN, %eax
	int3
	ud2

	.org	head + GUEST_USER_PROGRESS, 0x90
	.globl	guest_user_progress
guest_user_progress:
	.quad	0, 0

	.org	head + GUEST_USER_PARAMS
	.globl	guest_user_params
guest_user_params:
	.skip	GUEST_USER_PARAMS_BYTES

	.bss
	.balign	16
	.skip	STACK_BYTES
stack_end:

	.section .note.GNU-stack, "", @progbits
