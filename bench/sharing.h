/* SPDX-License-Identifier: MIT */
/*
 * sharing.h - what `gnomon overcommit sharing` runs and what comes out.
 *
 * The same contents (sharing_contents.h) go into the memory of VMs and are shared in several ways, one after the
 * other in one run: by KSM, by this project under each scheme, and by the limit, which hashes every page once,
 * verifies duplicates and frees them, with no guest and no protection. Beside these runs stand probes, each of one
 * property: what a break costs, how a converged domain idles, what a guest feels, what its timing tells. What comes out
 * is a list of figures with a goal each, and memory saved over time and over CPU time.
 */
#ifndef GN_BENCH_SHARING_H
#define GN_BENCH_SHARING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sharing_contents.h"
#include "sharing_ksm.h"

#define SHARING_SCHEMA "gnomon.sharing/1"
enum {
	SHARING_MAX_CASES = 8,
	SHARING_MAX_REPEAT = 20,
	SHARING_MAX_PROBES = 8,
	SHARING_MAX_FIGURES = 256
};

/* Who shares. */
enum sharing_side {
	SHARING_KSM,
	SHARING_EPT,
	SHARING_SHADOW,
	SHARING_KVM,
	SHARING_TEMPLATE, /* VMs on KVM as well, each over a template: in cases of clones */
	SHARING_LIMIT,
	SHARING_SIDES
};
const char *sharing_side_name(enum sharing_side side);	  /* of tables and files */
const char *sharing_side_scheme(enum sharing_side side);  /* NULL: it is none of ours */
const char *sharing_side_backend(enum sharing_side side); /* the same */

struct sharing_probe;

struct sharing_setup {
	uint64_t mem_bytes; /* of all VMs together */
	unsigned repeat;
	uint64_t seed;
	bool quick;
	const struct sharing_case *cases[SHARING_MAX_CASES];
	size_t case_count;
	const struct sharing_probe *probes[SHARING_MAX_PROBES];
	size_t probe_count;
};

struct sharing_point {
	float t_s, cpu_s, saved_mib;
};

/* One way to share one case, once. */
struct sharing_run {
	bool is_there;
	uint64_t saved_pages;	   /* in the end */
	uint64_t possible_pages;   /* that could be saved in this way; 0: the oracle's */
	uint64_t first_pass_pages; /* when every page had been looked at once */
	double first_pass_cpu_s;
	double next_pass_cpu_s; /* of a pass with nothing left to do */
	/* Until 99 % of what the oracle saves was saved; by us, until the pass was over in which that was. With nothing to
	 * save: until the first pass was over. */
	double cpu_s, wall_s;
	uint64_t reached_pages; /* saved by then; 0: never came so far */
	/* kvm, when its guest has walked over its memory after the end: how far it came, in which time; what is saved still;
	 * mappings of the host's that the memory takes; shared pages that got a frame of their own for want of more; touches that
	 * had to be answered, while pages were shared and on the walk. */
	uint64_t walked_pages, walk_saved_pages, mappings, broken_pages, pass_faults, walk_faults;
	double walk_s;
	struct sharing_point *points;
	size_t point_count, point_capacity;
};
/* -ENOMEM. */
int sharing_add_point(struct sharing_run *run, double t_s, double cpu_s, uint64_t saved_pages);
void sharing_run_fini(struct sharing_run *run);
/* The part of the oracle's savings at which a run's time and CPU are read. */
static inline uint64_t sharing_enough_pages(const struct sharing_oracle *oracle)
{
	return oracle->saved_pages * 99 / 100;
}

struct sharing_case_result {
	const struct sharing_case *of;
	struct sharing_oracle oracle;
	struct sharing_run runs[SHARING_SIDES][SHARING_MAX_REPEAT];
};

enum sharing_promise { SHARING_SHOWN, SHARING_AT_MOST, SHARING_AT_LEAST };
/* One number: what it is of, its unit, what it should be. */
struct sharing_figure {
	char group[48], name[72], unit[16];
	double value, goal; /* NAN: could not be had */
	enum sharing_promise promise;
};

struct sharing_results {
	struct sharing_setup setup;
	char no_ksm[160]; /* why there is none; "": there is */
	char no_kvm[256]; /* the same of real guests */
	char no_template[256];
	bool wrong_contents; /* a guest read what was not there */
	struct sharing_case_result cases[SHARING_MAX_CASES];
	struct sharing_figure figures[SHARING_MAX_FIGURES];
	size_t figure_count;
};
void sharing_add_figure(struct sharing_results *r, const char *group, const char *name,
			const char *unit, double value, enum sharing_promise promise, double goal);
/* "SIDE: @name" */
void sharing_add_side_figure(struct sharing_results *r, const char *group, enum sharing_side side,
			     const char *name, const char *unit, double value,
			     enum sharing_promise promise, double goal);
bool sharing_is_missed(const struct sharing_figure *figure);
void sharing_results_fini(struct sharing_results *r);

/* ---- Of a case's runs ----------------------------------------------------------------------------------------- */

typedef double sharing_value_fn(const struct sharing_case_result *c, const struct sharing_run *run);
/* NAN: there is no run of that side. */
double sharing_median(const struct sharing_case_result *c, enum sharing_side side,
		      sharing_value_fn *of);
/* The median of the ratios of each repetition. */
double sharing_ratio(const struct sharing_case_result *c, enum sharing_side side,
		     enum sharing_side to, sharing_value_fn *of);
double sharing_most(const struct sharing_case_result *c, enum sharing_side side,
		    sharing_value_fn *of);
/* What did not come so far is INFINITY; a part of nothing is NAN. */
sharing_value_fn sharing_cpu_per_gib, sharing_wall, sharing_first_part, sharing_last_part,
	sharing_first_pass_cpu, sharing_next_pass_cpu, sharing_walk_part, sharing_walked_part,
	sharing_walk_page_us, sharing_walk_page_faults, sharing_pass_faults, sharing_mappings,
	sharing_possible_part;
/* Ratios and goals of all cases, as figures. */
void sharing_compare_sides(struct sharing_results *r);

/* ---- Output ---------------------------------------------------------------------------------------------------- */

void sharing_print(const struct sharing_results *r, FILE *to, bool colour);
/* -errno. */
int sharing_write_json(const struct sharing_results *r, const char *path);
/* Ends the command when it cannot. */
void sharing_report(const struct sharing_results *r, const char *directory);
/* Memory saved over time and CPU time. False: there is nothing to show. */
bool sharing_plot_write(const struct sharing_results *r, const char *name, FILE *data,
			FILE *script);

/* ---- Probes ------------------------------------------------------------------------------------------------ */

/* Measures one property and adds its figures. @ksm may be NULL. -errno; -EBADMSG: contents were wrong. */
struct sharing_probe {
	const char *name, *what;
	int (*run)(struct sharing_results *r, struct sharing_ksm *ksm);
};
const struct sharing_probe *sharing_probe_at(unsigned index); /* NULL past the last */
extern const struct sharing_probe sharing_probe_break, sharing_probe_tax, sharing_probe_steady,
	sharing_probe_fan_out, sharing_probe_storm, sharing_probe_timing, sharing_probe_huge;
/* The contents of case "mixed" for a probe: @bytes, or @quick_bytes in a quick run. */
int sharing_probe_contents(const struct sharing_results *r, uint64_t bytes, uint64_t quick_bytes,
			   struct sharing_contents *contents, struct sharing_oracle *oracle);

/* ---- One run ------------------------------------------------------------------------------------------------- */

/* -errno; -EBADMSG: it ran, but a guest read wrong contents. */
int sharing_limit_run(const struct sharing_contents *contents, struct sharing_run *run);
int sharing_own_run(const char *scheme, const struct sharing_contents *contents,
		    const struct sharing_oracle *oracle, struct sharing_run *run);
/* Whether there can be such a VM here, over a template or not; if not, a line in @why. */
bool sharing_kvm_is_possible(bool over_template, char *why, size_t why_bytes);
/* Over a template each VM of the case is a VM, else one has the memory of all. */
int sharing_kvm_run(const struct sharing_contents *contents, const struct sharing_oracle *oracle,
		    bool over_template, struct sharing_run *run);
int sharing_ksm_run(struct sharing_ksm *ksm, const struct sharing_contents *contents,
		    const struct sharing_oracle *oracle, struct sharing_run *run);

#endif
