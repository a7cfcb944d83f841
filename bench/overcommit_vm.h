/* SPDX-License-Identifier: MIT */
/*
 * overcommit_vm.h - a real VM in a process of its own, and what it and the bench tell each other. How much memory
 * it has is between it and the daemon.
 *
 * Messages go over a SOCK_SEQPACKET pair, one struct each; both ends are the same program.
 */
#ifndef GN_BENCH_OVERCOMMIT_VM_H
#define GN_BENCH_OVERCOMMIT_VM_H

#include "overcommit.h"

/* Bench to VM: the phase that all VMs wait for may begin. */
struct overcommit_order {
	uint64_t phase;
};

enum overcommit_vm_state {
	OVERCOMMIT_VM_BOOTS,
	OVERCOMMIT_VM_RUNS,
	OVERCOMMIT_VM_RESTS,
	OVERCOMMIT_VM_ENDED,
	OVERCOMMIT_VM_DIED
};

/* VM to bench: each second, and when something happened. */
struct overcommit_report {
	enum overcommit_vm_state state;
	uint64_t target_bytes, actual_bytes;
	uint64_t wanted_bytes; /* working set and kernel, of the phase it is in */
	uint64_t waits_for;    /* the phase it wants to begin and waits for; 0: it waits for none */
	uint64_t refaults;     /* since boot */
	double refaults_per_s;
	uint64_t asks, asks_unmet;
	double cycles; /* of the part with phases, once it rests */
	double met_ms; /* > 0: an ask was met, after so long */
	char why[120]; /* when it died */
};

/* What one VM is made of. */
struct overcommit_vm_config {
	const struct overcommit_setup *setup;
	unsigned index;
	const char *socket; /* of the daemon */
	uint64_t boot_bytes;
	uint32_t shares;
	int fd; /* orders and reports */
};

/* Forked: become that VM. Does not return. */
__attribute__((noreturn)) void overcommit_vm_main(const struct overcommit_vm_config *config);

#endif
