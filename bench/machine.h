/* SPDX-License-Identifier: MIT */
/*
 * machine.h - the options that describe the machine and the guest, the same for compare and run.
 */
#ifndef GN_BENCH_MACHINE_H
#define GN_BENCH_MACHINE_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

#include <gnomon/soft.h>

struct machine {
	const struct gn_cpu_preset *cpu;
	struct gn_cpu_preset *own_cpu; /* from a file; freed by machine_fini() */
	uint64_t mem_bytes, seed;
	unsigned vcpus;
	unsigned backing_level, guest_levels, nested_levels;
	bool large_pages, pcid;
};

void machine_init(struct machine *machine);
void machine_fini(struct machine *machine);

/* An argp child whose input is a struct machine. */
extern const struct argp machine_argp;

#endif
