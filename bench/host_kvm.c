/* SPDX-License-Identifier: MIT */
/*
 * host_kvm.c - the probe's findings as rows: what was found by trying is told apart from what was asked.
 */
#include "host_kvm.h"

struct fact {
	const char *name;
	bool holds;
};

/* "a, b, c" of those that hold (or don't); "none". */
static void print_list(struct table *t, const char *title, const struct fact *facts, size_t count,
		       bool holding)
{
	char text[256] = "";
	size_t used = 0;

	for (size_t i = 0; i < count; i++)
		if (facts[i].holds == holding && used < sizeof(text))
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s",
						 used ? ", " : "", facts[i].name);
	table_cell(t, TABLE_HEAD, "%s", title);
	table_cell(t, used ? TABLE_PLAIN : TABLE_DIM, "%s", used ? text : "none");
}

static void print_peculiarities(const struct gn_kvm_host *kvm, struct table *t)
{
	const struct {
		bool holds;
		const char *what, *otherwise;
	} rows[] = {
		{ kvm->kernel_mode_emulated, "CPL 0 code is emulated, instruction by instruction",
		  "CPL 0 code runs on the CPU" },
		{ kvm->table_upgrades_only,
		  "a present table entry changed from outside goes unseen, INVLPG or not",
		  "table entries changed from outside are seen after INVLPG" },
		{ kvm->syscall_stays_at_cpl3, "SYSCALL at CPL 3 stays at CPL 3",
		  "SYSCALL enters CPL 0" },
		{ kvm->int_n_is_ud, "INT n at CPL 3 raises #UD", "INT n goes through the IDT" },
		{ kvm->reserved_fault_without_p, "faults by reserved bits lack P in the error code",
		  "faults by reserved bits have P in the error code" },
		{ kvm->stack_fault_is_gp, "a stack access to no canonical address raises #GP",
		  "a stack access to no canonical address raises #SS" },
		{ kvm->breakpoints_lost, "breakpoints of the guest do not fire",
		  "breakpoints of the guest fire" },
		{ kvm->null_tss_loads, "LTR loads a null selector", "LTR refuses a null selector" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		table_cell(t, TABLE_HEAD, i ? "" : "tried in a guest");
		table_cell(t, TABLE_PLAIN, "%s", rows[i].holds ? rows[i].what : rows[i].otherwise);
	}
}

static void print_costs(const struct gn_kvm_host *kvm, struct table *t)
{
	const struct {
		uint64_t ns;
		const char *what;
	} rows[] = {
		{ kvm->ns_ioctl, "a vCPU ioctl (KVM_GET_REGS)" },
		{ kvm->ns_run_immediate, "KVM_RUN that does not enter" },
		{ kvm->ns_hlt, "HLT at CPL 0 to the VMM and back" },
		{ kvm->ns_io, "OUT at CPL 0 to the VMM and back" },
		{ kvm->ns_mmio, "a store to no memory at CPL 3 to the VMM and back" },
		{ kvm->ns_cpuid, "CPUID, answered in the kernel" },
		{ kvm->ns_trap, "an exception at CPL 3 to the VMM and back" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		table_cell(t, TABLE_HEAD, i ? "" : "measured, median");
		if (rows[i].ns)
			table_cell(t, TABLE_PLAIN, "%6.2f us  %s", (double)rows[i].ns / 1000,
				   rows[i].what);
		else
			table_cell(t, TABLE_DIM, "not known  %s", rows[i].what);
	}
}

void host_kvm_print(const struct gn_kvm_host *kvm, struct table *t)
{
	const struct fact features[] = {
		{ "pcid", kvm->pcid },	 { "invpcid", kvm->invpcid },
		{ "smep", kvm->smep },	 { "smap", kvm->smap },
		{ "pku", kvm->pku },	 { "la57", kvm->la57 },
		{ "nx", kvm->nx },	 { "1gb pages", kvm->gib_pages },
		{ "xsave", kvm->xsave },
	};
	const struct fact capabilities[] = {
		{ "read-only slots", kvm->readonly_mem },
		{ "dirty ring", kvm->dirty_ring },
		{ "irqchip", kvm->irqchip },
		{ "memory fault exit", kvm->memory_fault_exit },
		{ "statistics", kvm->binary_stats },
		{ "userfaultfd missing", kvm->uffd_missing },
		{ "userfaultfd minor", kvm->uffd_minor_shmem },
		{ "userfaultfd write-protect", kvm->uffd_wp_shmem },
		{ "templates under nested paging", kvm->uffd_wp_private },
		{ "2 MiB guest memory", kvm->shmem_collapse },
	};

	print_list(t, "guest CPU has", features, sizeof(features) / sizeof(features[0]), true);
	print_list(t, "guest CPU lacks", features, sizeof(features) / sizeof(features[0]), false);
	table_cell(t, TABLE_HEAD, "guest-physical addresses");
	table_cell(t, TABLE_PLAIN, "%u bits", kvm->phys_bits);
	print_list(t, "KVM has", capabilities, sizeof(capabilities) / sizeof(capabilities[0]),
		   true);
	print_list(t, "KVM lacks", capabilities, sizeof(capabilities) / sizeof(capabilities[0]),
		   false);
	table_cell(t, TABLE_HEAD, "KVM limits");
	table_cell(t, TABLE_PLAIN, "%u memory slots, %u vCPUs, %u mappings", kvm->memslots,
		   kvm->max_vcpus, kvm->mappings_max);
	print_peculiarities(kvm, t);
	print_costs(kvm, t);
}
