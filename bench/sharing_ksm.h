/* SPDX-License-Identifier: MIT */
/*
 * sharing_ksm.h - the kernel's own page sharing (KSM) as a peer: its switches, its counters, its CPU time.
 *
 * KSM is one for the whole machine. So it is taken only where nobody uses it, by one bench at a time, and every
 * setting is put back by a process of its own, the guardian, as soon as its end of a pipe sees the bench gone,
 * whichever way it went.
 */
#ifndef GN_BENCH_SHARING_KSM_H
#define GN_BENCH_SHARING_KSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sharing_ksm;

/* Take it: settings are remembered, the guardian is there. NULL: a line in @why. Call it before anything large is
 * mapped and before there are threads. */
struct sharing_ksm *sharing_ksm_take(char *why, size_t why_bytes);
/* Put everything back. -EIO: something could not be; told on stderr. */
int sharing_ksm_give_back(struct sharing_ksm *ksm);

/* Run as fast as it can, zero pages too; pages that come later take part. -errno. */
int sharing_ksm_start(struct sharing_ksm *ksm);
/* Stop where it is. -errno. */
int sharing_ksm_stop(struct sharing_ksm *ksm);
/* Stop and forget all pages; call it after the memory is unmapped. -errno. */
int sharing_ksm_forget(struct sharing_ksm *ksm);

struct sharing_ksm_counts {
	uint64_t saved_pages; /* sharers beyond the first of each page, and zero pages */
	uint64_t full_scans;
	uint64_t cpu_ns; /* of ksmd */
};
void sharing_ksm_read(const struct sharing_ksm *ksm, struct sharing_ksm_counts *out);

#endif
