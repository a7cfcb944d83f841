/* SPDX-License-Identifier: MIT */
/*
 * results.h - a result file in memory, and its JSON and CSV forms. docs/results.md is the reference.
 *
 * Schema "gnomon.results/1". A reader ignores keys it does not know. A counter that was not known is
 * absent from the file, and its bit in `known` is clear; it is never written as 0.
 *
 * The order of runs is the order they were made in: by workload, then by scheme.
 */
#ifndef GN_BENCH_RESULTS_H
#define GN_BENCH_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <gnomon/counters.h>
#include <gnomon/guest.h>

#include "host.h"

#define RESULTS_SCHEMA	  "gnomon.results/1"
#define RESULTS_TEXT	  512 /* longest name, NUL included */
#define RESULTS_MAX_RUNS  20000
#define RESULTS_WALK_REFS 41 /* histogram slots: walks of 0..40 references */
#define RESULTS_MAX_BYTES ((size_t)256 << 20)

/* Where the cycles went. Adds up to counters.cycles. */
enum results_cause {
	RESULTS_BASE,	     /* the guest's own work */
	RESULTS_TLB,	     /* second-level TLB look-ups and the work of flushing */
	RESULTS_WALK,	     /* hardware page walks */
	RESULTS_EXIT,	     /* world switches */
	RESULTS_VMM,	     /* what the VMM did in the exits */
	RESULTS_GUEST_FAULT, /* delivery of #PF to the guest's kernel */
	RESULTS_OTHER,	     /* whatever the causes above do not name */
	RESULTS_CAUSES
};
const char *results_cause_name(enum results_cause cause);  /* the key in the file */
const char *results_cause_title(enum results_cause cause); /* for people */

/* A run on real hardware: what that is, and what only it has. */
enum results_paging {
	RESULTS_PAGING_UNKNOWN,
	RESULTS_PAGING_HARDWARE, /* EPT or NPT */
	RESULTS_PAGING_SOFTWARE, /* KVM shadows whatever tables its guest loads */
	RESULTS_PAGINGS
};
struct results_kvm {
	bool is_present;
	char module[64]; /* of the vendor: "kvm_intel"; "" not known */
	enum results_paging paging;
	bool smep, smap; /* the guest uses them */
	/* Time the VMM spent in exits, by reason, in one repetition: the one with the median time. From KVM_RUN's
	 * return to its next call, so the world switch and what KVM does by itself are the guest's. */
	bool has_exit_time;
	double exit_s[GN_EXIT_REASONS];
	double exit_of_s; /* the measured part of that repetition, by this process's clock */
	/* What the guest did to translation, from its entry on. */
	bool has_ops;
	struct gn_guest_ops ops;
	double *whole_s; /* wall time of each repetition, from creation to the guest's end */
	size_t whole_count;
};
const char *results_paging_name(enum results_paging paging); /* in the file */
const char *results_op_name(unsigned op);		     /* enum gn_guest_op, in the file */

struct results_params {
	uint64_t size;
	bool large_pages, pcid;
	unsigned backing_level, guest_levels, nested_levels;
};

struct results_run {
	char backend[RESULTS_TEXT], scheme[RESULTS_TEXT], workload[RESULTS_TEXT];
	char group[RESULTS_TEXT]; /* "memory", "os", "trace" */
	char cpu[RESULTS_TEXT];
	uint64_t seed, mem_bytes;
	unsigned vcpus;
	struct results_params params;

	struct gn_counters counters;
	uint64_t known;	      /* bit i: gn_counter_desc(i) is known */
	uint64_t exits_known; /* bit r: exits_by[r] is known */
	bool has_tables, has_sum, has_causes, has_histogram;
	uint64_t table_bytes, table_bytes_peak; /* counters of their own in the file */
	uint64_t table_frame_bytes, table_meta_bytes;
	uint64_t memory_sum;
	double cause_cycles[RESULTS_CAUSES];
	uint64_t walk_histogram[RESULTS_WALK_REFS];

	struct results_kvm kvm;

	/* One per repetition: soft, wall time of the simulator; kvm, the guest's measured part by its TSC. */
	double *samples_s;
	size_t sample_count;
	double median_s, ci95_s[2];
	char failure[RESULTS_TEXT * 2]; /* not empty: the run did not end well, and why */
};

/* One point of a sensitivity curve: a figure of the preset changed, everything else as it was. */
struct results_point {
	char axis[RESULTS_TEXT]; /* "exit_cost", "tlb_reach" */
	char scheme[RESULTS_TEXT], workload[RESULTS_TEXT];
	double factor, value; /* of the preset's own figure; and the figure itself */
	double overhead;      /* cycles / native cycles under the same figures, minus 1 */
};

struct results {
	struct host_info host;
	char command[1024];
	bool quick;
	struct results_run *runs;
	size_t run_count, run_capacity;
	struct results_point *points;
	size_t point_count, point_capacity;
};

void results_init(struct results *r);
void results_fini(struct results *r);
/* A zeroed run at the end, owned by @r; valid until the next one is added. NULL: no memory. */
struct results_run *results_add_run(struct results *r);
struct results_point *results_add_point(struct results *r);
const struct results_run *results_find(const struct results *r, const char *backend,
				       const char *workload, const char *scheme);
int results_add_sample(struct results_run *run,
		       double seconds); /* -ENOMEM; updates median and ci */

int results_add_whole(struct results_run *run, double seconds); /* -ENOMEM; of a kvm run */
double results_whole_median(const struct results_run *run);	/* 0: none */
/* Seconds of all reasons together. */
double results_exit_seconds(const struct results_run *run);

/* Where a measured run's numbers come from, in one sentence without a full stop: into @out, returned. Text in it
 * may come from a file. */
const char *results_label(const struct results_run *run, char *out, size_t bytes);

/* The backends that ran, in order of first appearance: i from 0 until NULL. Runs of different backends are never
 * held against each other. */
const char *results_backend_at(const struct results *r, unsigned i);

/* Ratio of a run's cycles to those of the native run of its workload. False: no such pair. */
bool results_ratio(const struct results *r, const struct results_run *run, double *ratio);

/* 0 or -errno. */
int results_write_json(const struct results *r, FILE *to);
int results_write_csv(const struct results *r, FILE *to);

/* 0; -EINVAL with one line in @why; -errno when the file cannot be read (also told in @why). */
int results_read_json(struct results *r, const char *path, char *why, size_t why_bytes);
/* The same from text, for tests. @text need not end in NUL. */
int results_parse_json(struct results *r, const char *text, size_t bytes, char *why,
		       size_t why_bytes);

#endif
