/* SPDX-License-Identifier: MIT */
/*
 * matrix.h - what passes between the access-matrix guest and its test (../matrix.c).
 *
 * The test fills a batch of cases in guest memory; the guest makes each in turn: writes the four entries that lead to
 * its address, invalidates, makes the access at the CPL asked for, and writes down what came of it.
 */
#ifndef GN_TESTS_MATRIX_H
#define GN_TESTS_MATRIX_H

/* Guest-physical places. The root is the loader's, whose entry MATRIX_SLOT is free. */
#define MATRIX_ROOT	  0x2000
#define MATRIX_SLOT	  100
#define MATRIX_TABLES	  0x1000000 /* level 3, then 2, then 1: a page each */
#define MATRIX_DATA	  0x2200000 /* pages that leaves lead to */
#define MATRIX_DATA_PAGES 64
#define MATRIX_BATCH	  0x1800000
#define MATRIX_CASES	  4096
#define MATRIX_MEM_BYTES  ((uint64_t)64 << 20)

/* Each page of data: a RET for fetches, its own address for reads, a word for writes. */
#define MATRIX_RET_OFFSET   0
#define MATRIX_STAMP_OFFSET 8
#define MATRIX_WRITE_OFFSET 16

/* Entry points of the user part, beyond its head (workloads/guest/calls.h). */
#define MATRIX_USER_READ  0x100
#define MATRIX_USER_WRITE 0x120
#define MATRIX_USER_FETCH 0x140
#define MATRIX_USER_FAULT 0x160	 /* where a fault at CPL 3 continues */
#define MATRIX_USER_VALUE 0x1000 /* what the last read at CPL 3 gave */
#define MATRIX_USER_STACK 0x3000

#ifndef __ASSEMBLER__
#include <stdint.h>

enum matrix_kind { MATRIX_READ, MATRIX_WRITE, MATRIX_FETCH };

struct matrix_case {
	uint64_t entry[5]; /* by level; [0] unused. In: before the access; out: after it */
	uint64_t va;
	uint32_t kind, user, ac;
	uint32_t vector, error_code; /* out; vector 0xff: no exception */
	uint32_t unused;
	uint64_t cr2;	/* out, with vector 14 */
	uint64_t value; /* out: what a read gave */
};

struct matrix_batch {
	uint64_t cr0, cr4, efer; /* in force for all of the batch */
	uint64_t count;		 /* 0: the end */
	struct matrix_case cases[MATRIX_CASES];
};
#endif

#endif
