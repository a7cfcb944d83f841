/* SPDX-License-Identifier: MIT */
/*
 * smp.h - what passes between the two-vCPU guest (smp_kernel.c) and its test (../stress.c).
 */
#ifndef GN_TESTS_SMP_H
#define GN_TESTS_SMP_H

#define SMP_CPUS	2
#define SMP_STACK_BYTES 0x4000 /* and its alignment; the CPU's own data lie at its lower end */
#define SMP_MEM_BYTES	(128 << 20)
#define SMP_ROOT	0x2000 /* the loader's */

/* Physical places, used through the loader's identity map. */
#define SMP_CONTROL	0x1000000 /* struct smp_control */
#define SMP_FRAMES	0x2000000 /* frames of CPU 0; those of CPU 1 from SMP_FRAMES_EACH on */
#define SMP_FRAMES_EACH 0x2000000

/* Offsets in the user part, beyond its head. */
#define SMP_USER_SUM   0x100  /* rdi words from rsi on, each a page apart: rax their sum */
#define SMP_USER_WRITE 0x140  /* rdi to the word at rsi */
#define SMP_USER_STACK 0x3000 /* of CPU 0; each a page */

#ifndef __ASSEMBLER__
#include <stdint.h>

struct smp_control {
	uint64_t stop;	/* set by the test: finish and exit */
	uint64_t ready; /* set by CPU 0: the shared tables are there */
	struct {
		uint64_t forks, cow, protects, unmaps, shootdowns, shared_reads, user_calls, faults;
		uint64_t error, detail; /* what went wrong, 0: nothing */
		uint64_t cr2;		/* then: the last address that faulted */
	} cpu[SMP_CPUS];
};

enum smp_error {
	SMP_GOOD,
	SMP_UNEXPECTED_EXCEPTION,
	SMP_CHILD_SEES_WRONG,
	SMP_PARENT_SEES_WRONG,
	SMP_WRITE_LOST,
	SMP_FRESH_NOT_ZERO,
	SMP_READ_ONLY_WRITTEN,
	SMP_STALE_TRANSLATION, /* a page unmapped everywhere was read */
	SMP_USER_SEES_WRONG,
	SMP_OUT_OF_FRAMES,
};
#endif

#endif
