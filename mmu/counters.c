/* SPDX-License-Identifier: MIT */
/*
 * counters.c - the names of the counters, as they stand in result files, tables and plots.
 *
 * A name that was published is not changed: readers go by it.
 */
#include <gnomon/counters.h>

#include <stddef.h>

const char *gn_exit_reason_name(enum gn_exit_reason reason)
{
	static const char *const names[GN_EXIT_REASONS] = {
		[GN_EXIT_PAGE_FAULT] = "page_fault",
		[GN_EXIT_PT_WRITE] = "pt_write",
		[GN_EXIT_NESTED] = "nested_fault",
		[GN_EXIT_CR_ACCESS] = "cr_access",
		[GN_EXIT_CR3] = "cr3",
		[GN_EXIT_INVLPG] = "invlpg",
		[GN_EXIT_INVPCID] = "invpcid",
		[GN_EXIT_SOFTWARE] = "software",
		[GN_EXIT_IO] = "io",
		[GN_EXIT_HYPERCALL] = "hypercall",
		[GN_EXIT_HLT] = "hlt",
		[GN_EXIT_TRAP] = "trap",
	};

	return (unsigned)reason < GN_EXIT_REASONS ? names[reason] : "unknown";
}

#define COUNTER(field, text)                                                                       \
	{                                                                                          \
#field, offsetof(struct gn_counters, field), text                                  \
	}

static const struct gn_counter_desc descs[] = {
	COUNTER(accesses, "loads, stores and fetches the guest made"),
	COUNTER(l1_tlb_misses, "accesses whose translation was not in an L1 TLB"),
	COUNTER(walks, "hardware page walks begun"),
	COUNTER(walk_refs, "page-table entries read by the hardware walker, both dimensions"),
	COUNTER(walk_cycles, "cycles spent in hardware page walks"),
	COUNTER(guest_faults, "page faults delivered to the guest"),
	COUNTER(shadow_faults, "page-fault exits the scheme resolved by itself"),
	COUNTER(nested_faults, "nested violations resolved"),
	COUNTER(pt_writes_trapped, "guest page-table writes emulated"),
	COUNTER(exits, "exits from the guest to the VMM, for any reason"),
	COUNTER(cycles, "all cycles"),
	COUNTER(cycles_base, "cycles of the guest's own work"),
	COUNTER(exit_cycles, "cycles of exits and of what the VMM did in them"),
	COUNTER(flushes, "TLB invalidations carried out, of any scope"),
};

const struct gn_counter_desc *gn_counter_desc(unsigned i)
{
	return i < sizeof(descs) / sizeof(descs[0]) ? &descs[i] : NULL;
}
