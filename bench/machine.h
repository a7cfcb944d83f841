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

enum machine_backend { MACHINE_SOFT, MACHINE_KVM };

struct machine {
	enum machine_backend backend;
	const struct gn_cpu_preset *cpu;
	struct gn_cpu_preset *own_cpu; /* from a file; freed by machine_fini() */
	uint64_t mem_bytes, seed;
	unsigned vcpus;
	unsigned backing_level, guest_levels, nested_levels;
	bool large_pages, pcid;
	bool is_pcid_asked;	      /* --pcid was given */
	bool smep, smap, kernel_work; /* kvm: filled in by machine_kvm_agree() */
	const char *only_soft;	      /* an option that was given and means nothing to kvm */
};

/* "soft", "kvm". */
const char *machine_backend_name(const struct machine *machine);

void machine_init(struct machine *machine);
void machine_fini(struct machine *machine);

/* An argp child whose input is a struct machine. */
extern const struct argp machine_argp;

#endif
