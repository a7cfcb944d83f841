/* SPDX-License-Identifier: MIT */
/*
 * cpu.h - all that guest code knows of a CPU. Two implementations: cpu_hosted.c (calls of the software
 * machine, <gnomon/soft.h>) and real instructions in the freestanding image (guest/).
 *
 * Guest code touches guest memory and privileged state only through these. Its own C variables are
 * ordinary memory: host memory when hosted, the image's data section when freestanding.
 */
#ifndef GN_WORKLOADS_CPU_H
#define GN_WORKLOADS_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Storage of a variable that each running guest has its own of: hosted, a guest is a thread of the
 * tool; freestanding, there is one guest in the image. */
#ifdef GN_FREESTANDING
#define CPU_OWN
#elif defined(__cplusplus)
#define CPU_OWN thread_local
#else
#define CPU_OWN _Thread_local
#endif

#ifdef GN_FREESTANDING
#include "guest/access.h" /* loads and stores as what they are: one instruction each */
#else
uint64_t cpu_load64(uint64_t va);
uint32_t cpu_load32(uint64_t va);
uint8_t cpu_load8(uint64_t va);
void cpu_store64(uint64_t va, uint64_t value);
void cpu_store32(uint64_t va, uint32_t value);
void cpu_store8(uint64_t va, uint8_t value);
#endif
void cpu_fetch(uint64_t va); /* run an instruction at va: a call of a RET the guest put there */
void cpu_compute(uint64_t count); /* instructions without memory */

/* A batch of references, in order: each is translated as an instruction's would be, and data stay as they
 * are (a store is one for its rights, A and D bits and copy-on-write, not for its bytes). What a fetch finds at
 * its address is not executed: a real CPU, which could not fetch it otherwise, reads it instead. @va below 2^60. */
struct cpu_ref {
	uint64_t va : 60;
	uint64_t kind : 4; /* enum gn_access_kind of <gnomon/types.h> */
};
void cpu_refs(const struct cpu_ref *refs, size_t count);

void cpu_write_cr0(uint64_t value);
void cpu_write_cr3(uint64_t value);
void cpu_write_cr4(uint64_t value);
void cpu_write_efer(uint64_t value);
void cpu_invlpg(uint64_t va);
void cpu_invpcid(unsigned type, uint64_t pcid, uint64_t va);
void cpu_set_ac(bool ac);    /* STAC, CLAC */
void cpu_enter_kernel(void); /* SYSCALL; a no-op at CPL 0 is an error of the guest */
void cpu_enter_user(void);   /* SYSRET */
/* From CPL 0: call @fn at CPL 3 and come back. It may make system calls. */
typedef bool cpu_upcall_fn(void *ctx, uint64_t va, bool write);
bool cpu_upcall(cpu_upcall_fn *fn, void *ctx, uint64_t va, bool write);
uint64_t cpu_hypercall(uint64_t nr, uint64_t arg);
__attribute__((noreturn)) void cpu_panic(const char *why); /* stop the guest; static text */

/* Exceptions: the handler runs at CPL 0; true: run the instruction again, false: stop the guest. */
struct cpu_exception {
	unsigned vector;
	uint32_t error_code;
	uint64_t cr2;
	bool user;
};
typedef bool cpu_exception_fn(const struct cpu_exception *e);
void cpu_set_exception_handler(cpu_exception_fn *fn);

/* What a guest tells its observer; none changes what the guest does. */
void cpu_note_table_write(uint64_t pa, uint64_t value); /* about to store a page-table entry */
void cpu_measure(void);					/* warm-up is over: counters start here */
void cpu_progress(uint64_t done, uint64_t total);
void cpu_phase(unsigned phase, uint64_t done); /* a phase ended after so many operations in all */

#endif
