/* SPDX-License-Identifier: MIT */
/*
 * micro_code.S - see micro_code.h. Arguments as in the System V ABI: RDI, RSI, RDX, RCX; the result in RAX.
 *
 * Loops begin at cache lines, so that a copy at another page runs alike.
 */
	.section .text.micro_code, "ax", @progbits
	.balign 4096
	.globl micro_code_begin
micro_code_begin:

	.balign 64
	.globl micro_code_gups
	.type micro_code_gups, @function
micro_code_gups:
1:	mov %rdx, %rax		/* state = state << 1 ^ (state < 0 ? 7 : 0) */
	sar $63, %rax
	and $7, %eax
	add %rdx, %rdx
	xor %rax, %rdx
	mov %rdx, %rax
	and %rsi, %rax
	xor %rdx, (%rdi, %rax, 8)
	dec %rcx
	jnz 1b
	mov %rdx, %rax
	ret
	.size micro_code_gups, . - micro_code_gups

	.balign 64
	.globl micro_code_chase
	.type micro_code_chase, @function
micro_code_chase:
	mov %rsi, %rax
1:	mov (%rdi, %rax), %rax
	dec %rcx
	jnz 1b
	ret
	.size micro_code_chase, . - micro_code_chase

	.balign 64
	.globl micro_code_touch
	.type micro_code_touch, @function
micro_code_touch:
1:	movzbl (%rdi), %eax
	add $4096, %rdi
	dec %rcx
	jnz 1b
	ret
	.size micro_code_touch, . - micro_code_touch

	.balign 64
	.globl micro_code_visit
micro_code_visit:
	xor %eax, %eax
1:	mov (%rdi), %rdx
	mov 8(%rdi), %r8
	cmp %r8, (%rdx)
	je 2f
	inc %rax
2:	add $16, %rdi
	dec %rcx
	jnz 1b
	test %rsi, %rsi
	jz 4f
3:	mov (%rdi), %rdx
	mov 8(%rdi), %r8
	mov %r8, (%rdx)
	add $16, %rdi
	dec %rsi
	jnz 3b
4:	ret

	.balign 64
	.globl micro_code_traps
micro_code_traps:
1:	cli
	dec %rcx
	jnz 1b
	ret

	.balign 64
	.globl micro_code_user_end
micro_code_user_end:
	mov %rax, %rbx		/* the result, out of the way */
	int3
	.globl micro_code_kernel_end
micro_code_kernel_end:		/* entered, or returned to by a function of the kernel */
	xor %eax, %eax
	mov $0xf4, %edx		/* GN_GUEST_PORT_EXIT */
	out %eax, (%dx)
	.globl micro_code_kernel_fault
micro_code_kernel_fault:
	mov $1, %eax
	mov $0xf4, %edx
	out %eax, (%dx)
	.globl micro_code_end
micro_code_end:
	.section .note.GNU-stack, "", @progbits
