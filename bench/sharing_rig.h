/* SPDX-License-Identifier: MIT */
/*
 * sharing_rig.h - VMs with the contents of a case (sharing_vm.h) over one pool of frames, and a domain that shares them.
 */
#ifndef GN_BENCH_SHARING_RIG_H
#define GN_BENCH_SHARING_RIG_H

#include <gnomon/sharing.h>

#include "sharing.h"
#include "sharing_guest.h"
#include "sharing_vm.h"

struct sharing_rig_config {
	const struct sharing_contents *contents;
	const char *scheme;
	unsigned backing_level; /* 0: 1 */
	unsigned guest_leaf;	/* level of the guest's leaves, 1 or 2; 0: 2 */
	unsigned split_pages;	/* the domain's; 0: its own mind */
	bool quiet;
	bool is_apart;		/* each VM a domain of its own, not one for all */
	uint64_t reserve_pages; /* of a domain */
};

struct sharing_rig {
	struct sharing_rig_config config;
	struct gn_frames *frames;
	struct sharing_vm vms[SHARING_MAX_VMS];
	struct sharing_guest *guests[SHARING_MAX_VMS];
	struct gn_domain *domains[SHARING_MAX_VMS]; /* NULL: that of the VM before */
	uint64_t used_pages; /* of the pool by the VMs' memory, before anything was shared */
};

/* Filled; nothing shared, no guest running. -errno; then nothing is left to fini. */
int sharing_rig_init(struct sharing_rig *rig, const struct sharing_rig_config *config);
void sharing_rig_fini(struct sharing_rig *rig);

int sharing_rig_start_guests(struct sharing_rig *rig, uint64_t pause_ns);
/* -EBADMSG: a guest loaded what was not there. */
int sharing_rig_stop_guests(struct sharing_rig *rig);

struct gn_vm *sharing_rig_vm(const struct sharing_rig *rig, unsigned vm);
struct gn_soft_cpu *sharing_rig_cpu(const struct sharing_rig *rig, unsigned vm);
/* Frames that sharing has freed: as the pool counts them, tables left out. */
uint64_t sharing_rig_saved(const struct sharing_rig *rig);

/* Run @guest on VM @vm in this thread: gn_soft_run(). */
int sharing_rig_run(struct sharing_rig *rig, unsigned vm,
		    void (*guest)(struct gn_soft_cpu *cpu, void *ctx), void *ctx);
/* A sweep of all domains and all of its scan, by this thread. -errno. */
int sharing_rig_pass(struct sharing_rig *rig);
/* Pass after pass until nothing more is found. */
int sharing_rig_converge(struct sharing_rig *rig, const struct sharing_oracle *oracle,
			 struct sharing_run *run);

#endif
