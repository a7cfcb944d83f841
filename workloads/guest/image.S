/* SPDX-License-Identifier: MIT */
/* image.S - the two ELF files as data of the program they are linked into: a struct gn_guest_image of <gnomon/guest.h>. */
	.section .rodata
	.balign	4096
kernel:	.incbin	GN_GUEST_KERNEL_ELF
kernel_end:
	.balign	4096
user:	.incbin	GN_GUEST_USER_ELF
user_end:

	.section .data.rel.ro, "aw"
	.balign	8
	.globl	GN_GUEST_SYMBOL
	.type	GN_GUEST_SYMBOL, @object
GN_GUEST_SYMBOL:
	.quad	kernel, user
	.quad	kernel_end - kernel, user_end - user
	.quad	GN_GUEST_USER_START, GN_GUEST_RESERVED
	.size	GN_GUEST_SYMBOL, . - GN_GUEST_SYMBOL

	.section .note.GNU-stack, "", @progbits
