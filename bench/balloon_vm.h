/* SPDX-License-Identifier: MIT */
/*
 * balloon_vm.h - a VM of either backend as one of gnomon-balloond's: its balloon device, its sampler, its agent.
 *
 * Made before the guest runs, and registered by then: the guest boots into a balloon that leaves it @boot_bytes.
 * When the daemon dies the guest runs on with the balloon as it is; when one is back it takes the VM's word.
 */
#ifndef GN_BENCH_BALLOON_VM_H
#define GN_BENCH_BALLOON_VM_H

#include <stdbool.h>
#include <stdint.h>

#include <gnomon/balloon.h>
#include <gnomon/soft.h>

struct balloon_vm_config {
	const char *socket, *name; /* of the daemon; of the VM */
	const char *backend, *scheme;
	uint64_t mem_bytes, min_bytes, max_bytes; /* multiples of 4 KiB */
	uint64_t boot_bytes; /* what it begins with, min to mem; 0: min_bytes */
	uint32_t shares;
	uint64_t seed;		    /* of the sampler */
	void (*changed)(void *ctx); /* the guest moved its balloon; its thread. May be NULL */
	void *ctx;
};

struct balloon_vm;

/* -errno. @machine outlives it. */
int balloon_vm_create(struct gn_vm *machine, const struct balloon_vm_config *config,
		      struct balloon_vm **out);
/* Of a software machine: made, hooked up, and admitted within @timeout_ms. Backend and scheme are its own; @config->max_bytes 0: all of its
 * memory. -errno; -ETIMEDOUT: it was not admitted. */
int balloon_vm_join(struct gn_soft *soft, const struct balloon_vm_config *config,
		    unsigned timeout_ms, struct balloon_vm **out);
/* For the backend's MMIO hook, before the guest runs. The guest finds it at GN_BALLOON_MMIO_GPA. */
struct gn_balloon *balloon_vm_device(const struct balloon_vm *vm);
/* After the guest's end. The daemon sees the VM as gone. NULL is fine. */
void balloon_vm_destroy(struct balloon_vm *vm);
/* Whether the daemon has admitted the VM, waiting for it up to @timeout_ms; from here on the guest may run. */
bool balloon_vm_await_admission(struct balloon_vm *vm, unsigned timeout_ms);

/* Any thread. What the VM has: memory less balloon, as the p2m has it. */
uint64_t balloon_vm_actual_bytes(struct balloon_vm *vm);
uint64_t balloon_vm_target_bytes(const struct balloon_vm *vm);
/* The guest will want @goal_bytes in all, and should have them at once; 0: no more than it has. */
void balloon_vm_ask(struct balloon_vm *vm, uint64_t goal_bytes);
/* So many pages of files the guest has read again since it booted. */
void balloon_vm_note_refaults(struct balloon_vm *vm, uint64_t refaults);
/* As last told to the daemon. */
double balloon_vm_refaults_per_s(const struct balloon_vm *vm);

struct balloon_vm_stats {
	uint64_t target_bytes, actual_bytes;
	uint64_t targets;  /* told by the daemon */
	uint64_t reliefs;  /* times the guest took memory back beyond its target, for want of it */
	uint64_t reclaims; /* times the host side was told to take memory */
	uint64_t reclaimed_bytes; /* that it took */
	uint64_t reformed_blocks; /* of 2 MiB, split by the balloon before */
	uint64_t touches;	  /* of pages in the balloon */
};
void balloon_vm_stats(struct balloon_vm *vm, struct balloon_vm_stats *out);

#endif
