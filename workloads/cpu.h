/* SPDX-License-Identifier: MIT */
/*
 * cpu.h - all that guest code knows of a CPU. Two implementations: cpu_hosted.c (calls of the software
 * machine, <gnomon/soft.h>) and real instructions in the freestanding image.
 *
 * Guest code touches guest memory and privileged state only through these. Its own C variables are
 * ordinary memory: host memory when hosted, the image's data section when freestanding.
 */
#ifndef GN_WORKLOADS_CPU_H
#define GN_WORKLOADS_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t cpu_load64(uint64_t va);
uint32_t cpu_load32(uint64_t va);
uint8_t cpu_load8(uint64_t va);
void cpu_store64(uint64_t va, uint64_t value);
void cpu_store32(uint64_t va, uint32_t value);
void cpu_store8(uint64_t va, uint8_t value);
void cpu_fetch(uint64_t va); /* run an instruction at va: a call of a RET the guest put there */
void cpu_compute(uint64_t count); /* instructions without memory */

void cpu_write_cr0(uint64_t value);
void cpu_write_cr3(uint64_t value);
void cpu_write_cr4(uint64_t value);
void cpu_write_efer(uint64_t value);
void cpu_invlpg(uint64_t va);
void cpu_invpcid(unsigned type, uint64_t pcid, uint64_t va);
void cpu_enter_kernel(void); /* SYSCALL; a no-op at CPL 0 is an error of the guest */
void cpu_enter_user(void);   /* SYSRET */
uint64_t cpu_hypercall(uint64_t nr, uint64_t arg);
__attribute__((noreturn)) void cpu_panic(const char *why); /* stop the guest */

#endif
