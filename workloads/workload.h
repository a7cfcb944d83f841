/* SPDX-License-Identifier: MIT */
/*
 * workload.h - what a workload is, and the list of all.
 *
 * A workload is C code that runs as a guest: it drives processes through the guest kernel (kernel.h) and
 * touches their memory through cpu.h, and it checks what it reads. One file per workload.
 *
 * The memory workloads fill their data, call cpu_measure() and then do what is measured: steady state.
 * The operating-system ones are measured from their first call: there the cold start is the subject
 * (ctx-switch, whose subject is not the forks, from its first turn).
 */
#ifndef GN_WORKLOADS_WORKLOAD_H
#define GN_WORKLOADS_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct workload_params {
	uint64_t
		size; /* bytes of working set, or count of steps: see workload.size_unit; 0: the default */
	uint64_t seed;
	uint64_t mem_bytes;   /* guest RAM; 0: 1 GiB */
	bool large_pages;     /* user memory in 2 MiB guest pages where aligned */
	bool pcid;	      /* the guest kernel uses PCIDs */
	unsigned levels;      /* guest paging levels: 4 or 5; 0: 4 */
	const char *argument; /* trace:F - the file */
};

enum workload_kind { WORKLOAD_MEMORY, WORKLOAD_OS, WORKLOAD_TRACE };

struct workload {
	const char *name;
	enum workload_kind kind;
	const char *models;    /* one line: which real program's behaviour this is */
	const char *size_unit; /* "bytes" or what is counted */
	uint64_t size_default, size_quick;
	/* Guest code, entered at CPL 3 in the first process, with no field of params left 0 but seed.
	 * 0, or -1 with *why when a self-check failed. */
	int (*run)(const struct workload_params *params, const char **why);
};

/* All that ship, the trace replayer (WORKLOAD_TRACE, which needs an argument) last. */
const struct workload *workload_at(unsigned index); /* NULL past the last */
const struct workload *
workload_find(const char *name); /* NULL: unknown. "trace:F" finds the trace replayer */

/* For run(): tell why a self-check failed. */
static inline int workload_fail(const char **why, const char *text)
{
	*why = text;
	return -1;
}

#endif
