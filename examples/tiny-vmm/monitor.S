/* SPDX-License-Identifier: MIT */
/*
 * monitor.S - what tiny-vmm keeps inside the virtual machine while its guest runs at CPL 3.
 *
 * Each exception of the guest enters a stub of its own at CPL 0, and the stub is a HLT, which is an exit. There is no way
 * back in here: the VMM puts the vCPU where it wants it.
 */
#include "layout.h"

	.section .rodata
	.globl monitor_image
	.balign 8
monitor_image: /* IDT: interrupt gates to the stubs */
	.set stub, MONITOR_STUBS
	.rept 256
	.short stub & 0xffff, 8, 0x8e00, (stub >> 16) & 0xffff
	.long stub >> 32, 0
	.set stub, stub + STUB_BYTES
	.endr

	.org monitor_image + (MONITOR_STUBS - MONITOR)
	.fill 0x1000, 1, 0xf4 /* hlt */

	.org monitor_image + (MONITOR_DESK - MONITOR)
	.quad 0, 0x00af9a000000ffff /* GDT: 64-bit code, CPL 0 */
	.org monitor_image + (MONITOR_TSS - MONITOR) + 4
	.quad MONITOR_STACK /* RSP0 */
	.org monitor_image + (MONITOR_TSS - MONITOR) + 0x66
	.short 0x68 /* the I/O bitmap lies beyond the limit: no port is allowed */
	.org monitor_image + 3 * 0x1000

	.section .note.GNU-stack, "", @progbits
