/* SPDX-License-Identifier: MIT */
/*
 * stats.c - sums over vCPUs. Each vCPU writes its own without atomics; a sum taken while they run is a snapshot that
 * may be a few counts behind. Of a vCPU that has come back from its run all is in it: the filler of nested mode, which
 * keeps a blocked vCPU's books and wakes it before it has closed them, is waited for.
 */
#include <string.h>

#include "machine.h"

_Static_assert(sizeof(struct gn_kvm_stats) % sizeof(uint64_t) == 0, "a row of counters");
_Static_assert(sizeof(struct gn_counters) % sizeof(uint64_t) == 0, "a row of counters");

static void add(void *sum, const void *what, size_t bytes)
{
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)what;

	for (size_t i = 0; i < bytes / sizeof(*to); i++)
		to[i] += from[i];
}

void gn_kvm_stats(struct gn_kvm *kvm, struct gn_kvm_stats *sum)
{
	memset(sum, 0, sizeof(*sum));
	gn_kvm_fill_settle(kvm);
	for (unsigned i = 0; i < kvm->cpu_count; i++)
		add(sum, &kvm->cpus[i].stats, sizeof(*sum));
	pthread_mutex_lock(&kvm->lock);
	sum->switches = kvm->switches;
	sum->switch_ns = kvm->switch_ns;
	pthread_mutex_unlock(&kvm->lock);
}

void gn_kvm_stats_reset(struct gn_kvm *kvm)
{
	gn_kvm_fill_settle(kvm);
	for (unsigned i = 0; i < kvm->cpu_count; i++) {
		memset(&kvm->cpus[i].stats, 0, sizeof(kvm->cpus[i].stats));
		memset(gn_vcpu_counters(kvm->cpus[i].vcpu), 0, sizeof(struct gn_counters));
	}
	pthread_mutex_lock(&kvm->lock);
	kvm->switches = 0;
	kvm->switch_ns = 0;
	pthread_mutex_unlock(&kvm->lock);
}

void gn_kvm_counters(struct gn_kvm *kvm, struct gn_counters *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (unsigned i = 0; i < kvm->cpu_count; i++)
		add(sum, gn_vcpu_counters(kvm->cpus[i].vcpu), sizeof(*sum));
}
