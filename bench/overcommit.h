/* SPDX-License-Identifier: MIT */
/*
 * overcommit.h - what `gnomon overcommit balloon` runs and what comes out.
 *
 * Several VMs with working sets that move share less memory than they have together; each policy runs the
 * same VMs. The result is per policy: how much the worst VM suffered, how long who asked had to wait, whether
 * anything was broken, and memory over time per VM. The runs are modelled (overcommit_model.c) or measured on
 * real VM processes; the label says which.
 */
#ifndef GN_BENCH_OVERCOMMIT_H
#define GN_BENCH_OVERCOMMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "balloon/policy.h"

#define OVERCOMMIT_SCHEMA      "gnomon.overcommit/1"
#define OVERCOMMIT_ORACLE      "static-oracle"
#define OVERCOMMIT_GRANT_BYTES ((uint64_t)256 << 20)
/* What issue and table promise of the policy under test. */
#define OVERCOMMIT_GOAL_SLOWDOWN 1.10 /* of the static oracle's worst */
#define OVERCOMMIT_GOAL_GRANT_MS 100.0
#define OVERCOMMIT_GOAL_TURNS	 2.0 /* a minute and VM, at rest */
enum { OVERCOMMIT_MAX_VMS = 64, OVERCOMMIT_MAX_POLICIES = 8 };

/* What one VM's workload wants over time: `low`, and `high` while it is its turn. */
struct overcommit_demand {
	uint64_t low_bytes, high_bytes;
	double period_s, turn_s;   /* every period it is high for turn_s */
	double offset_s;	   /* of its first turn */
	double anonymous_fraction; /* of the working set; the rest is file pages */
	double rest_s;		   /* from here on nothing moves: low for ever */
};
uint64_t overcommit_demand_at(const struct overcommit_demand *demand, double t_s, bool *is_high);

struct overcommit_setup {
	unsigned vms;
	uint64_t mem_bytes, min_bytes, budget_bytes; /* of each VM; of all */
	double overcommit;
	double phases_s, rest_s; /* the part with phases, then the part at rest */
	uint64_t seed;
	struct gn_policy_config policy;
	struct overcommit_demand demand[OVERCOMMIT_MAX_VMS];
	/* Of real VMs: rounds of turns, operations in a turn and at rest. */
	unsigned rounds;
	uint64_t turn_operations, rest_operations;
};
/* Fill .demand, .min_bytes and .budget_bytes from the rest. The working sets fit into the budget at all times. */
void overcommit_setup_demand(struct overcommit_setup *setup);

struct overcommit_sample {
	float t_s, target_mib, actual_mib, working_mib, faults_per_s;
};

struct overcommit_vm {
	double slowdown; /* time over the time with all of its memory, of the part with phases */
	uint64_t refaults;
	unsigned oom_kills;
	double turns_per_minute; /* at rest: the most in any minute */
	struct overcommit_sample *samples;
	size_t sample_count, sample_capacity;
};

struct overcommit_run {
	char policy[32];
	char summary[120];
	struct overcommit_vm vms[OVERCOMMIT_MAX_VMS];
	/* From an ask until the VM had OVERCOMMIT_GRANT_BYTES more (or all that it asked), in ms. */
	double *waits_ms;
	size_t wait_count, wait_capacity;
	uint64_t asks, asks_unmet;    /* unmet: until the need was over */
	uint64_t reservations_broken; /* samples in which a VM was below its minimum */
	uint64_t over_budget;	      /* samples in which the VMs had more than there is */
	uint64_t rounds;
	double round_us_worst; /* of the policy's own code, measured; 0: not measured */
};

/* Turns of one VM's target, once everything is at rest. */
struct overcommit_turns {
	int direction;
	double at_s[256];
	unsigned count;
};
/* A target went from @old to @new; counted if @counts. */
void overcommit_turns_note(struct overcommit_turns *turns, double t_s, uint64_t old,
			   uint64_t new_target, bool counts);
double overcommit_turns_most(const struct overcommit_turns *turns); /* in any minute */

struct overcommit_results {
	struct overcommit_setup setup;
	bool is_measured;
	struct overcommit_run runs[OVERCOMMIT_MAX_POLICIES];
	size_t run_count;
};

/* -ENOMEM. */
int overcommit_add_sample(struct overcommit_vm *vm, const struct overcommit_sample *sample);
int overcommit_add_wait(struct overcommit_run *run, double ms);
void overcommit_results_fini(struct overcommit_results *results);

double overcommit_worst_slowdown(const struct overcommit_results *r,
				 const struct overcommit_run *run);
/* Worst slowdown over that of the static oracle; 0: there is no oracle. */
double overcommit_against_oracle(const struct overcommit_results *r,
				 const struct overcommit_run *run);
double overcommit_turns(const struct overcommit_results *r, const struct overcommit_run *run);
unsigned overcommit_oom_kills(const struct overcommit_results *r, const struct overcommit_run *run);
uint64_t overcommit_refaults(const struct overcommit_results *r, const struct overcommit_run *run);
/* Of all asks, unmet ones waiting for ever: INFINITY. NAN: nobody asked. */
double overcommit_wait_ms(const struct overcommit_run *run, double quantile);
/* "4 VMs of 1 GiB on ...": into @out, returned. */
const char *overcommit_describe(const struct overcommit_results *r, char *out, size_t out_bytes);
/* The sentence that belongs beside every number. */
const char *overcommit_label(const struct overcommit_results *r);

/* Run @policy over modelled VMs; @shares NULL: equal. -EINVAL, -ENOMEM. */
int overcommit_model_run(const struct overcommit_setup *setup, const char *policy,
			 const uint32_t *shares, struct overcommit_run *run);
/* The static division whose worst slowdown is least, known in advance: as shares. -ENOMEM. */
int overcommit_model_oracle(const struct overcommit_setup *setup, uint32_t *shares);

/* Run @policy over real VM processes; @shares NULL: equal. @baseline_cycles: of each VM with all of its memory, for
 * slowdowns; with @is_baseline it is what is measured. -errno; the reason is told on stderr. */
int overcommit_measure_run(const struct overcommit_setup *setup, const char *policy,
			   const uint32_t *shares, bool is_baseline, double *baseline_cycles,
			   struct overcommit_run *run);

void overcommit_print(const struct overcommit_results *r, FILE *to, bool colour);
/* -errno. */
int overcommit_write_json(const struct overcommit_results *r, const char *path);
/* Ends the command when it cannot. */
void overcommit_report(const struct overcommit_results *r, const char *directory);
/* Pictures of memory over time: all policies side by side, or one. */
bool overcommit_plot_write(const struct overcommit_results *r, size_t first_run, size_t run_count,
			   const char *name, FILE *data, FILE *script);

#endif
