/* SPDX-License-Identifier: MIT */
/*
 * trial.h - what this machine's KVM is: by trying (trial.c), for probe.c.
 */
#ifndef GN_KVM_TRIAL_H
#define GN_KVM_TRIAL_H

#include <gnomon/kvm.h>

/* Fill in peculiarities and costs. What cannot be tried stays false or 0. Some 100 ms. */
void gn_kvm_trial(struct gn_kvm_host *host);

#endif
