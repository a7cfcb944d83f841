/* SPDX-License-Identifier: MIT */
/*
 * run_kvm.h - one workload under one scheme in a real guest.
 */
#ifndef GN_BENCH_RUN_KVM_H
#define GN_BENCH_RUN_KVM_H

#include "run_one.h"

/* The part of run_one() that differs: @run's names and parameters are filled in, @params are complete. */
int run_kvm(const struct run_request *request, const struct workload_params *params,
	    struct results_run *run);

#endif
