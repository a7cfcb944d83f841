/* SPDX-License-Identifier: MIT */
/*
 * monitor.h - what lives in the reserved root slot while the guest runs at CPL 3.
 *
 * One per VM. Made of frames of the pool, which no guest translation can reach. Two windows, supervisor only:
 *
 *   base + HPA         the whole pool, read and write, never executed
 *   base + CODE + ...  the entry page, then one program page a vCPU: execute and read, never written
 *
 * The base differs between 4-level and 5-level roots, since a root slot has another size there; so there are two
 * sets of what holds absolute addresses (IDT, TSS).
 */
#ifndef GN_KVM_MONITOR_H
#define GN_KVM_MONITOR_H

#include "machine.h"

#define GN_MONITOR_ROOT_SLOT                                                                       \
	480 /* of 512: the upper half, where no kernel known to us maps anything */

/* Selectors. High ones, so that the low ones a guest uses are null here: loading one faults, and is emulated. */
#define GN_MONITOR_CS0 ((uint16_t)0xf80)
#define GN_MONITOR_SS0 ((uint16_t)0xf88)
#define GN_MONITOR_SS3 ((uint16_t)0xf93)
#define GN_MONITOR_CS3 ((uint16_t)0xf9b)
#define GN_MONITOR_TR  ((uint16_t)0xfa0)

/* Which set: by the levels of the root in force. */
enum gn_monitor_set { GN_MONITOR_LEVELS_4, GN_MONITOR_LEVELS_5, GN_MONITOR_SETS };

struct gn_monitor_cpu {
	hpa_t tss[GN_MONITOR_SETS];
	hpa_t stack;   /* one page: exceptions from CPL 3 at its end, IST 1 at its middle */
	hpa_t program; /* GN_MONITOR_PROGRAM_BYTES of code made by downgrade.c */
	/* The same, from here. */
	const uint8_t *stack_end;
	uint8_t *program_code;
};

struct gn_monitor {
	struct gn_vm *vm;
	unsigned sets; /* how many there are: 1 where the CPU has no 5-level paging */
	hpa_t *frames; /* all of them, to give back */
	size_t count, capacity;
	struct gn_root_slot slot;
	hpa_t entries; /* HLT at the byte of each vector, and of SYSCALL */
	hpa_t gdt, idt[GN_MONITOR_SETS];
	struct gn_monitor_cpu *cpus;
};

#define GN_MONITOR_PROGRAM_BYTES 4096
/* Beside the 256 vectors, the entry page has this one for SYSCALL. */
#define GN_MONITOR_SYSCALL 256

/* What the CPU pushed: @error for vectors that have one. */
struct gn_monitor_frame {
	uint64_t rip, cs, rflags, rsp, ss;
};

/* Builds everything and reserves the root slot. -ENOMEM, -EBUSY, -E2BIG: a pool of more than 511 GiB. */
int gn_monitor_init(struct gn_monitor *monitor, struct gn_vm *vm, bool has_5_levels);
void gn_monitor_fini(struct gn_monitor *monitor);

/* Where in guest-virtual space. */
uint64_t gn_monitor_va(enum gn_monitor_set set, hpa_t at);
uint64_t gn_monitor_program_va(enum gn_monitor_set set, unsigned vcpu);
uint64_t gn_monitor_entry_va(enum gn_monitor_set set, unsigned entry);

/* The registers that point to the monitor, and flat segments of CPL 3. */
void gn_monitor_sregs(const struct gn_monitor *monitor, enum gn_monitor_set set, unsigned vcpu,
		      struct kvm_sregs *sregs);
/* The segments of CPL 0, for the program. */
void gn_monitor_segments_cpl0(struct kvm_sregs *sregs);

/* The frame of the exception at @vector that just arrived from CPL 3. */
void gn_monitor_frame(const struct gn_monitor *monitor, unsigned vcpu, unsigned vector,
		      struct gn_monitor_frame *frame, uint32_t *error);
bool gn_vector_has_error(unsigned vector);

#endif
