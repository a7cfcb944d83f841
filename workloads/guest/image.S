/* SPDX-License-Identifier: MIT */
/* image.S - the two ELF files as data of the program they are linked into: gn_guest_image of <gnomon/guest.h>. */
	.section .rodata
	.balign	4096
kernel:	.incbin	GN_GUEST_KERNEL_ELF
kernel_end:
	.balign	4096
user:	.incbin	GN_GUEST_USER_ELF
user_end:

	.section .data.rel.ro, "aw"
	.balign	8
	.globl	gn_guest_image
	.type	gn_guest_image, @object
gn_guest_image:
	.quad	kernel, user
	.quad	kernel_end - kernel, user_end - user
	.quad	GN_GUEST_USER_START, GN_GUEST_RESERVED
	.size	gn_guest_image, . - gn_guest_image

	.section .note.GNU-stack, "", @progbits
