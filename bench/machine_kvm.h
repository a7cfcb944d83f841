/* SPDX-License-Identifier: MIT */
/*
 * machine_kvm.h - what this host's KVM allows a comparison, settled before the first guest runs.
 */
#ifndef GN_BENCH_MACHINE_KVM_H
#define GN_BENCH_MACHINE_KVM_H

#include <gnomon/kvm.h>

#include "cli.h"
#include "machine.h"

/* The probe's answer, asked once: cheap facts, or with @measure also peculiarities and costs. */
const struct gn_kvm_host *machine_kvm_host(bool measure);

/* Choose the guest's configuration so that it is the same under every one of @schemes, into @machine. Ends the
 * command with exit code 3 and one line when KVM is not usable, a scheme cannot run, or an option asks for what
 * not every scheme can give. */
void machine_kvm_agree(struct machine *machine, const struct cli_list *schemes);

/* Whether to use quick sizes: as asked, or, when neither is, by what this host can bear (then said on stderr). */
bool machine_choose_quick(const struct machine *machine, bool quick, bool full, bool has_size);

/* "KVM shadows guest tables in software", for tables of what there is. */
const char *machine_kvm_summary(const struct gn_kvm_host *host);

#endif
