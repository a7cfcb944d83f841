/* SPDX-License-Identifier: MIT */
/* smp_user.S - what the two-vCPU guest runs at CPL 3. */
#include "smp.h"

	.section .head, "awx"
head:
	.globl	guest_user_entry
guest_user_entry:
	ud2
	.org	head + SMP_USER_SUM, 0x90
	xor	%eax, %eax
1:	add	(%rsi), %rax
	add	$4096, %rsi
	dec	%rdi
	jnz	1b
	int3
	.org	head + SMP_USER_WRITE, 0x90
	mov	%rdi, (%rsi)
	xor	%eax, %eax
	int3
	.org	head + SMP_USER_STACK + SMP_CPUS * 0x1000, 0

	.section .note.GNU-stack, "", @progbits
