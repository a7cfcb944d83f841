/* SPDX-License-Identifier: MIT */
/* matrix_user.S - accesses at CPL 3. The head is that of workloads/guest/calls.h; functions stand where matrix.h says. */
#include "guest/calls.h"

#include "matrix.h"

	.section .head, "awx"
head:
	.globl	guest_user_entry
guest_user_entry:
	ud2

	.org	head + GUEST_USER_UPCALL, 0x90 /* rax(rdi, rsi, rdx) */
	call	*%rax
	xor	%edi, %edi
	mov	$GUEST_CALL_UPCALL_RETURN, %eax
	int3

	.org	head + MATRIX_USER_READ, 0x90
	mov	MATRIX_STAMP_OFFSET(%rsi), %rax
	mov	%rax, head + MATRIX_USER_VALUE(%rip)
	ret
	.org	head + MATRIX_USER_WRITE, 0x90
	mov	%rsi, MATRIX_WRITE_OFFSET(%rsi)
	ret
	.org	head + MATRIX_USER_FETCH, 0x90
	jmp	*%rsi
	.org	head + MATRIX_USER_FAULT, 0x90
	mov	$1, %edi
	mov	$GUEST_CALL_UPCALL_RETURN, %eax
	int3
	.org	head + MATRIX_USER_VALUE
	.quad	0
	.org	head + MATRIX_USER_STACK /* down from here */

	.section .note.GNU-stack, "", @progbits
