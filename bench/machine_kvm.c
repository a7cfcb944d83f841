/* SPDX-License-Identifier: MIT */
/*
 * machine_kvm.c - one guest for all schemes.
 *
 * A comparison holds guests' operations and memory against each other, so the guest must be configured alike under every
 * scheme: a kernel with PCIDs makes other CR3 writes than one without. Table schemes run the guest at CPL 3 and
 * virtualize PCID, SMEP and SMAP whatever the CPU has; nested ones have the guest use the CPU's own. So a feature is on
 * when no nested scheme takes part, or when KVM offers it to guests.
 *
 * What cannot run is found by making, and throwing away, a small VM for each scheme: not a list of what is thought to
 * work where.
 */
#include "machine_kvm.h"

#include <errno.h>
#include <string.h>

const struct gn_kvm_host *machine_kvm_host(bool measure)
{
	static struct gn_kvm_host host;
	static int known; /* 1: facts, 2: measured */

	if (known < 1 + measure) {
		gn_kvm_probe(&host, measure);
		known = 1 + measure;
	}
	return &host;
}

/* Make a VM of @scheme and ask whether it is nested. */
static bool try_scheme(const char *scheme)
{
	const struct gn_kvm_config config = {
		.vm = { .scheme = scheme, .mem_bytes = 32u << 20, .vcpus = 1 },
	};
	struct gn_kvm *kvm;
	char why[512] = "";
	bool is_nested;
	int err = gn_kvm_create(&config, &kvm, why, sizeof(why));

	if (err)
		cli_fail(EXIT_CANNOT, "%s cannot run on this host's KVM: %s", scheme,
			 why[0] ? why : strerror(-err));
	is_nested = gn_vcpu_hw(gn_vm_vcpu(gn_kvm_vm(kvm), 0))->kind == GN_HW_NESTED;
	gn_kvm_destroy(kvm);
	return is_nested;
}

void machine_kvm_agree(struct machine *machine, const struct cli_list *schemes)
{
	const struct gn_kvm_host *host = machine_kvm_host(true);
	const char *nested = NULL;

	if (!host->usable)
		cli_fail(EXIT_CANNOT, "--backend kvm: %s", host->why);
	if (machine->vcpus > host->max_vcpus)
		cli_fail(EXIT_CANNOT, "--vcpus %u: this host's KVM offers %u", machine->vcpus,
			 host->max_vcpus);
	for (size_t i = 0; i < schemes->count; i++)
		if (try_scheme(schemes->items[i]))
			nested = schemes->items[i];
	if (machine->guest_levels == 5 && !host->la57)
		cli_fail(EXIT_CANNOT, "--guest-levels 5: this host's KVM offers no 5-level paging "
				      "(LA57) to guests");
	if (machine->is_pcid_asked && machine->pcid && nested && !host->pcid)
		cli_fail(EXIT_CANNOT,
			 "--pcid on: this host's KVM offers no PCID, which %s would need; shadow "
			 "can "
			 "give it alone (--schemes shadow)",
			 nested);
	if (!machine->is_pcid_asked)
		machine->pcid = !nested || host->pcid;
	machine->smep = !nested || host->smep;
	machine->smap = !nested || host->smap;
	machine->kernel_work = !host->kernel_mode_emulated;
}

/* Full sizes take hours where each instruction of the guest's kernel is emulated. */
bool machine_choose_quick(const struct machine *machine, bool quick, bool full, bool has_size)
{
	if (quick && full)
		cli_fail(EXIT_USAGE, "--quick and --full cannot both be");
	if (quick || full || has_size || machine->backend != MACHINE_KVM ||
	    !machine_kvm_host(true)->kernel_mode_emulated)
		return quick;
	cli_warn("this host's KVM emulates kernel-mode code instruction by instruction: quick "
		 "sizes; "
		 "--full takes the others");
	return true;
}

const char *machine_kvm_summary(const struct gn_kvm_host *host)
{
	switch (host->paging) {
	case GN_KVM_PAGING_HARDWARE:
		return "hardware nested paging";
	case GN_KVM_PAGING_SOFTWARE:
		return "KVM shadows guest tables in software";
	case GN_KVM_PAGING_UNKNOWN:
		break;
	}
	return "who walks guest tables is not known";
}
