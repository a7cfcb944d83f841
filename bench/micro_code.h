/* SPDX-License-Identifier: MIT */
/*
 * micro_code.h - machine code that runs both in this process and in a guest.
 *
 * One page of position-independent code (micro_code.S). A guest gets a copy of its bytes; natively they are called
 * where they lie.
 */
#ifndef GN_BENCH_MICRO_CODE_H
#define GN_BENCH_MICRO_CODE_H

#include <stdint.h>

extern const uint8_t micro_code_begin[], micro_code_end[];

/* Random read-modify-write, as HPC Challenge's RandomAccess: @mask + 1 words. Returns the generator's state. */
uint64_t micro_code_gups(uint64_t *table, uint64_t mask, uint64_t state, uint64_t count);
/* Follow @count links, each the offset of the next from @base. Returns the last. */
uint64_t micro_code_chase(const void *base, uint64_t offset, uint64_t unused, uint64_t count);
/* Read one byte of each of @count pages. */
uint64_t micro_code_touch(const void *base, uint64_t unused1, uint64_t unused2, uint64_t count);
/* For guests only. RDI: a list of addresses with a word each. The first RCX, at least one, are loaded and compared with their
 * words, the next RSI store theirs. Returns how many were not equal. */
extern const uint8_t micro_code_visit[];
/* For guests only. @count privileged instructions of one byte. */
extern const uint8_t micro_code_traps[];
/* The user's return address: into the kernel. The kernel's: ends the run, with status 0 (vector 3) or 1. */
extern const uint8_t micro_code_user_end[], micro_code_kernel_end[], micro_code_kernel_fault[];

#endif
