/* SPDX-License-Identifier: MIT */
/*
 * depriv.c - stands in until the deprivileged mode is merged: nothing can be run by it.
 */
#include <errno.h>
#include <stdio.h>

#include "machine.h"

static int enter(struct gn_kvm *kvm)
{
	snprintf(kvm->why, sizeof(kvm->why), "deprivileged mode is not in this build");
	return -EOPNOTSUPP;
}
const struct gn_kvm_mode gn_kvm_mode_depriv = { .name = "deprivileged", .enter = enter };

int gn_kvm_depriv_new(struct gn_kvm *kvm, char *why, size_t why_bytes)
{
	(void)kvm;
	(void)why;
	(void)why_bytes;
	return 0;
}
void gn_kvm_depriv_destroy(struct gn_kvm *kvm)
{
	(void)kvm;
}
void gn_kvm_depriv_flush(struct gn_kvm_cpu *cpu, const struct gn_flush *flush)
{
	(void)cpu;
	(void)flush;
}
void gn_kvm_depriv_entry_changed(struct gn_kvm *kvm, hpa_t slot)
{
	(void)kvm;
	(void)slot;
}
void gn_kvm_depriv_table_retired(struct gn_kvm *kvm, pfn_t table)
{
	(void)kvm;
	(void)table;
}
