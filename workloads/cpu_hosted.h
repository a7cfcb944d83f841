/* SPDX-License-Identifier: MIT */
/*
 * cpu_hosted.h - which CPU of the software machine this thread's guest runs on. For hosted.c and tests.
 */
#ifndef GN_WORKLOADS_CPU_HOSTED_H
#define GN_WORKLOADS_CPU_HOSTED_H

#include <gnomon/soft.h>

typedef void cpu_hosted_progress_fn(void *ctx, double done);
typedef void cpu_hosted_phase_fn(void *ctx, unsigned phase, uint64_t operations);

/* From here on cpu.h acts on @cpu in this thread. The progress hook may be NULL. */
void cpu_hosted_enter(struct gn_soft_cpu *cpu, cpu_hosted_progress_fn *progress, void *ctx);
void cpu_hosted_leave(void);
/* In this thread, until cpu_hosted_leave(): who is told of cpu_phase(), with the progress hook's ctx. */
void cpu_hosted_on_phase(cpu_hosted_phase_fn *phase);
/* In this thread cpu_refs() reads where it should fetch, as a real CPU's does. Off at first. */
void cpu_hosted_fetch_reads(bool on);

#endif
