/* SPDX-License-Identifier: MIT */
/*
 * host_kvm.h - what this machine's KVM is, for people.
 */
#ifndef GN_BENCH_HOST_KVM_H
#define GN_BENCH_HOST_KVM_H

#include <gnomon/kvm.h>

#include "table.h"

/* Rows of a table of two columns: peculiarities, features, what each exit costs. */
void host_kvm_print(const struct gn_kvm_host *kvm, struct table *t);

#endif
