/* SPDX-License-Identifier: MIT */
/*
 * guest.S - the guest of tiny-vmm: an image for guest-physical address 0, with the page tables it starts on.
 *
 * A kernel of some twenty instructions. It maps its first 2 MiB where they are, in 4 KiB supervisor pages. Then it gives
 * each of 64 pages its own address as contents, lends the frame of each other page to the first one by changing
 * the first one's entry, and looks whether reads and writes there reach that frame. It reports to port 0xf4: 0, all was
 * as the architecture says; 1, not.
 *
 * Stores to the table, and privileged instructions, take the only forms that tiny-vmm.c emulates:
 *     mov %rax, (%rdi)      invlpg (%rdi)      mov %rax, %cr3      out %al, $0xf4
 */
#include "layout.h"

#define PRESENT_WRITABLE 3
#define FIRST 0x100000
#define END (FIRST + 64 * 0x1000)
#define ENTRY (GUEST_LEAF + FIRST / 0x1000 * 8)	/* of the first page */

	.section .rodata
	.globl guest_image, guest_image_end
	.balign 8
guest_image:
	.org guest_image + GUEST_ROOT
	.quad 0x2000 + PRESENT_WRITABLE
	.org guest_image + 0x2000
	.quad 0x3000 + PRESENT_WRITABLE
	.org guest_image + 0x3000
	.quad GUEST_LEAF + PRESENT_WRITABLE
	.org guest_image + GUEST_LEAF
	.set page, 0
	.rept 512
	.quad page + PRESENT_WRITABLE
	.set page, page + 0x1000
	.endr

	.org guest_image + GUEST_CODE /* entered in 64-bit mode */
	mov $FIRST, %ebx
1:	mov %rbx, (%rbx)
	add $0x1000, %ebx
	cmp $END, %ebx
	jb 1b

	mov $FIRST + 0x1000, %ebx
2:	lea PRESENT_WRITABLE(%rbx), %eax
	mov $ENTRY, %edi
	mov %rax, (%rdi)
	mov $FIRST, %edi
	invlpg (%rdi)
	cmp %rbx, (%rdi)
	jne 3f
	orb $1, (%rdi)
	testb $1, (%rbx)
	jz 3f
	add $0x1000, %ebx
	cmp $END, %ebx
	jb 2b

	/* Its own frame again, this time made known by a reload of CR3. */
	mov $FIRST + PRESENT_WRITABLE, %eax
	mov $ENTRY, %edi
	mov %rax, (%rdi)
	mov $GUEST_ROOT, %eax
	mov %rax, %cr3
	mov $FIRST, %ebx
	cmp %rbx, (%rbx)
	jne 3f
	xor %eax, %eax
	out %al, $0xf4
3:	mov $1, %al
	out %al, $0xf4
guest_image_end:
	.section .note.GNU-stack, "", @progbits
