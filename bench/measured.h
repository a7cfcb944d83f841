/* SPDX-License-Identifier: MIT */
/*
 * measured.h - what can be said in words of a run on real hardware; the same words on the terminal and in the report.
 */
#ifndef GN_BENCH_MEASURED_H
#define GN_BENCH_MEASURED_H

#include "results.h"

/* Share of the measured part that was spent in exits, 0..1; negative: not known. */
double measured_exit_share(const struct results_run *run);
/* "pt_write 812 (31 %), page_fault 96 (4 %)": the reasons that cost most (percent of the measured part), or, where
 * times are not known, that came most often. "" when there was no exit. Into @out, returned. */
const char *measured_exits_text(const struct results_run *run, char *out, size_t bytes);
/* "1 GiB, 4-level tables, PCID on, SMEP and SMAP off". */
const char *measured_guest_text(const struct results_run *run, char *out, size_t bytes);

#endif
