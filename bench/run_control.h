/* SPDX-License-Identifier: MIT */
/*
 * run_control.h - the options that make a run a VM of gnomon-balloond.
 */
#ifndef GN_BENCH_RUN_CONTROL_H
#define GN_BENCH_RUN_CONTROL_H

#include <argp.h>
#include <stdio.h>

#include "balloon_vm.h"
#include "machine.h"
#include "results.h"

struct run_control {
	struct balloon_vm_config vm; /* .socket NULL: no daemon */
	unsigned rest_ms;	     /* the guest idles after each phase */
	char name[64];		     /* where none was given */
	/* An option that was given and means nothing without --control; without a daemon. */
	const char *only_control, *only_daemon;
};

void run_control_init(struct run_control *control);
/* An argp child whose input is a struct run_control. */
extern const struct argp run_control_argp;
/* Check it against the machine, and fill in what was not given. */
void run_control_complete(struct run_control *control, const struct machine *machine,
			  const char *scheme, bool has_other_daemon);
/* Be @vm one of the daemon's, and wait until it is admitted, before the guest's first access. 0: *out is to be attached
 * to the backend. -errno, and run->failure: no daemon (-ETIMEDOUT), or none that admits it; *out is to be destroyed too. */
int run_control_join(const struct balloon_vm_config *config, struct gn_vm *vm,
		     struct results_run *run, struct balloon_vm **out);
/* A tick of an idle guest. */
#define RUN_IDLE_TICK_MS 100
void run_idle(void);
/* What being a VM of a daemon came to. */
void run_control_print(const struct balloon_vm_stats *stats, FILE *to);

#endif
