/* SPDX-License-Identifier: MIT */
/*
 * x86.h - architectural constants a guest or a VMM needs to name: control registers, page-table
 * entry bits, page-fault error codes.
 *
 * Source: Intel SDM vol. 3A, ch. 2.5 (control registers), 4.5 (4- and 5-level paging), 4.7 (page-fault
 * error code), 4.10 (PCID, INVPCID); AMD APM vol. 2, ch. 5. The engine itself speaks of entries only
 * through mmu/fmt_*; guests, which write real x86 tables, use the bits below.
 */
#ifndef GNOMON_X86_H
#define GNOMON_X86_H

#include <stdint.h>

#define X86_CR0_PE ((uint64_t)1 << 0)
#define X86_CR0_WP ((uint64_t)1 << 16)
#define X86_CR0_NW ((uint64_t)1 << 29)
#define X86_CR0_CD ((uint64_t)1 << 30)
#define X86_CR0_PG ((uint64_t)1 << 31)

#define X86_CR3_PCID_MASK ((uint64_t)0xfff)
#define X86_CR3_NOFLUSH	  ((uint64_t)1 << 63) /* MOV CR3 source operand only, with CR4.PCIDE */

#define X86_CR4_PSE   ((uint64_t)1 << 4)
#define X86_CR4_PAE   ((uint64_t)1 << 5)
#define X86_CR4_PGE   ((uint64_t)1 << 7)
#define X86_CR4_LA57  ((uint64_t)1 << 12)
#define X86_CR4_PCIDE ((uint64_t)1 << 17)
#define X86_CR4_SMEP  ((uint64_t)1 << 20)
#define X86_CR4_SMAP  ((uint64_t)1 << 21)
#define X86_CR4_PKE   ((uint64_t)1 << 22)

/* Every CR4 bit a guest may set here: VME PVI TSD DE PSE PAE MCE PGE, PCE OSFXSR OSXMMEXCPT UMIP LA57,
 * FSGSBASE PCIDE OSXSAVE, SMEP SMAP PKE. Not VMX, SMX, CET, PKS: their features are not offered. */
#define X86_CR4_KNOWN ((uint64_t)0x771fff)

#define X86_EFER_SCE   ((uint64_t)1 << 0)
#define X86_EFER_LME   ((uint64_t)1 << 8)
#define X86_EFER_LMA   ((uint64_t)1 << 10)
#define X86_EFER_NXE   ((uint64_t)1 << 11)
#define X86_EFER_KNOWN (X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE)

#define X86_PTE_P	   ((uint64_t)1 << 0)
#define X86_PTE_W	   ((uint64_t)1 << 1)
#define X86_PTE_U	   ((uint64_t)1 << 2)
#define X86_PTE_PWT	   ((uint64_t)1 << 3)
#define X86_PTE_PCD	   ((uint64_t)1 << 4)
#define X86_PTE_A	   ((uint64_t)1 << 5)
#define X86_PTE_D	   ((uint64_t)1 << 6)
#define X86_PTE_PS	   ((uint64_t)1 << 7) /* PAT in a level-1 entry */
#define X86_PTE_G	   ((uint64_t)1 << 8)
#define X86_PTE_PAT_LARGE  ((uint64_t)1 << 12)
#define X86_PTE_ADDR	   ((uint64_t)0x000ffffffffff000)
#define X86_PTE_PKEY_SHIFT 59
#define X86_PTE_PKEY_MASK  ((uint64_t)0xf << X86_PTE_PKEY_SHIFT)
#define X86_PTE_NX	   ((uint64_t)1 << 63)

/* Page-fault error code. */
#define X86_PF_P    ((uint32_t)1 << 0)
#define X86_PF_W    ((uint32_t)1 << 1)
#define X86_PF_U    ((uint32_t)1 << 2)
#define X86_PF_RSVD ((uint32_t)1 << 3)
#define X86_PF_I    ((uint32_t)1 << 4)
#define X86_PF_PK   ((uint32_t)1 << 5)

/* RFLAGS: interrupts are on. */
#define X86_FLAG_IF ((uint64_t)1 << 9)

#define X86_VEC_DB 1
#define X86_VEC_BP 3
#define X86_VEC_OF 4
#define X86_VEC_UD 6
#define X86_VEC_GP 13
#define X86_VEC_PF 14

/* INVPCID types. */
enum x86_invpcid {
	X86_INVPCID_ADDR = 0,
	X86_INVPCID_SINGLE = 1,
	X86_INVPCID_ALL_GLOBAL = 2,
	X86_INVPCID_ALL = 3
};

#endif
