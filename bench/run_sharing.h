/* SPDX-License-Identifier: MIT */
/*
 * run_sharing.h - a run as a VM of gnomon-shared: the options, and its agent.
 */
#ifndef GN_BENCH_RUN_SHARING_H
#define GN_BENCH_RUN_SHARING_H

#include <argp.h>
#include <stdio.h>

#include "machine.h"
#include "results.h"
#include "sharing/agent.h"

struct run_sharing {
	const char *socket;	   /* NULL: no daemon */
	const char *domain;	   /* NULL: one of its own */
	bool quiet;		   /* no domain that is not */
	const char *template_name; /* NULL: the guest's memory begins with zeros */
	int template_fd;	   /* of run_sharing_get_template() */
	const char *name, *backend;
	char own_name[64]; /* where none was given */
};

/* An argp child whose input is a struct run_sharing. */
extern const struct argp run_sharing_argp;
/* Check it against the machine. @name: given for the VM, or NULL. */
void run_sharing_complete(struct run_sharing *sharing, const struct machine *machine,
			  const char *name);
/* Get the descriptor of the template, if there is to be one. Before the first VM is made; exits with a line if it is not to be had. */
void run_sharing_get_template(struct run_sharing *sharing, uint64_t mem_bytes);
/* Whether the guest's memory begins with anything but zeros. @sharing: NULL is fine. */
bool run_sharing_is_dirty(const struct run_sharing *sharing);
void run_sharing_fini(struct run_sharing *sharing);
/* What @config of the VM must have for it. */
void run_sharing_prepare(const struct run_sharing *sharing, struct gn_vm_config *config);
/* Before the guest's first access: registered. 0, or -errno and run->failure (-ETIMEDOUT: no daemon takes it); *out is to be
 * destroyed in any case, after the last look at the VM's memory. */
int run_sharing_join(const struct run_sharing *sharing, const struct gn_vm_config *config,
		     struct gn_vm *vm, struct results_run *run, struct gn_share_agent **out);
/* A gn_soft_hypercall_fn: @ctx is the agent. */
uint64_t run_sharing_hypercall(void *ctx, uint64_t nr, uint64_t arg);
/* What came of it. */
void run_sharing_print(const struct gn_share_agent_stats *stats, FILE *to);

#endif
