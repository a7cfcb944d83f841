/* SPDX-License-Identifier: MIT */
/*
 * presets.c - the model CPUs: one table per CPU, one figure per line.
 *
 * F(value, source) is a figure somebody published or measured, E(value, reason) an estimate of ours:
 * no source was found, or the source speaks of a near relative. Estimates are marked in every listing, and
 * `gnomon compare` sweeps the two that matter most (exit cost, TLB reach).
 *
 * Figures that no vendor publishes (walk caches and nested TLB: CPUID does not report them; the VMM's
 * work in an exit) are estimates everywhere, and equal for all real CPUs, so that a difference between
 * two presets comes from what is known of them.
 *
 * Sources: CPUID: leaf 2, 4, 18h (Intel) or 8000_0005h, 8000_0006h, 8000_0019h (AMD) of a dump.
 * AT n: anandtech.com/show/n. SOG: AMD Software Optimization Guide, family 19h (56665, 57647). C&C:
 * chipsandcheese.com. LKML 2012.2: lkml.iu.edu/hypermail/linux/kernel/2012.2/00527.html.
 */
#include "preset.h"

#include <string.h>

#define F(value_, source_)                                                                         \
	{                                                                                          \
		value_, source_, false                                                             \
	}
#define E(value_, reason_)                                                                         \
	{                                                                                          \
		value_, reason_, true                                                              \
	}

#define CPUID	 "CPUID dump"
#define NO_CPUID "not reported by CPUID; set to"
#define VMM	 "estimate from published fault costs (PVM, SOSP'23, table of LMbench)"
#define ABSENT	 "the CPU has none"

/* What is not known of any CPU. Bhargava et al., ASPLOS'08, simulated a 24-entry walk cache and a 16-entry
 * nested TLB for AMD's; ChampSim models 2/4/8/32 for Intel's. */
#define WALK_CACHES                                                                                \
	[GN_FIG_PWC_PML5E_ENTRIES] = E(2, NO_CPUID " ChampSim's 2"),                               \
	[GN_FIG_PWC_PML5E_WAYS] = E(2, "fully associative"),                                       \
	[GN_FIG_PWC_PML4E_ENTRIES] = E(4, NO_CPUID " ChampSim's 4"),                               \
	[GN_FIG_PWC_PML4E_WAYS] = E(4, "fully associative"),                                       \
	[GN_FIG_PWC_PDPTE_ENTRIES] = E(8, NO_CPUID " ChampSim's 8"),                               \
	[GN_FIG_PWC_PDPTE_WAYS] = E(8, "fully associative"),                                       \
	[GN_FIG_PWC_PDE_ENTRIES] = E(32, NO_CPUID " ChampSim's and DMT's 32"),                     \
	[GN_FIG_PWC_PDE_WAYS] = E(4, "DMT's 8 sets of 4"),                                         \
	[GN_FIG_PWC_HOLDS_HPA] = F(1, "Intel SDM 3C 28.3.1: combined mappings; AMD alike"),        \
	[GN_FIG_NESTED_PWC_PML5E_ENTRIES] = E(2, "as the guest dimension"),                        \
	[GN_FIG_NESTED_PWC_PML5E_WAYS] = E(2, "as the guest dimension"),                           \
	[GN_FIG_NESTED_PWC_PML4E_ENTRIES] = E(4, "as the guest dimension"),                        \
	[GN_FIG_NESTED_PWC_PML4E_WAYS] = E(4, "as the guest dimension"),                           \
	[GN_FIG_NESTED_PWC_PDPTE_ENTRIES] = E(8, "as the guest dimension"),                        \
	[GN_FIG_NESTED_PWC_PDPTE_WAYS] = E(8, "as the guest dimension"),                           \
	[GN_FIG_NESTED_PWC_PDE_ENTRIES] = E(32, "as the guest dimension"),                         \
	[GN_FIG_NESTED_PWC_PDE_WAYS] = E(4, "as the guest dimension"),                             \
	[GN_FIG_NESTED_PWC_FOR_DATA] = E(1, "both kinds of GPA are walked by one walker"),         \
	[GN_FIG_NESTED_TLB_ENTRIES] = E(16, NO_CPUID " Bhargava's 16"),                            \
	[GN_FIG_NESTED_TLB_WAYS] = E(16, "fully associative"),                                     \
	[GN_FIG_NESTED_TLB_FOR_DATA] = E(0, "Bhargava: it serves the guest's table pages")

#define NO_WALK_CACHES                                                                             \
	[GN_FIG_PWC_PML5E_ENTRIES] = F(0, TEXTBOOK), [GN_FIG_PWC_PML5E_WAYS] = F(0, TEXTBOOK),     \
	[GN_FIG_PWC_PML4E_ENTRIES] = F(0, TEXTBOOK), [GN_FIG_PWC_PML4E_WAYS] = F(0, TEXTBOOK),     \
	[GN_FIG_PWC_PDPTE_ENTRIES] = F(0, TEXTBOOK), [GN_FIG_PWC_PDPTE_WAYS] = F(0, TEXTBOOK),     \
	[GN_FIG_PWC_PDE_ENTRIES] = F(0, TEXTBOOK), [GN_FIG_PWC_PDE_WAYS] = F(0, TEXTBOOK),         \
	[GN_FIG_PWC_HOLDS_HPA] = F(0, TEXTBOOK),                                                   \
	[GN_FIG_NESTED_PWC_PML5E_ENTRIES] = F(0, TEXTBOOK),                                        \
	[GN_FIG_NESTED_PWC_PML5E_WAYS] = F(0, TEXTBOOK),                                           \
	[GN_FIG_NESTED_PWC_PML4E_ENTRIES] = F(0, TEXTBOOK),                                        \
	[GN_FIG_NESTED_PWC_PML4E_WAYS] = F(0, TEXTBOOK),                                           \
	[GN_FIG_NESTED_PWC_PDPTE_ENTRIES] = F(0, TEXTBOOK),                                        \
	[GN_FIG_NESTED_PWC_PDPTE_WAYS] = F(0, TEXTBOOK),                                           \
	[GN_FIG_NESTED_PWC_PDE_ENTRIES] = F(0, TEXTBOOK),                                          \
	[GN_FIG_NESTED_PWC_PDE_WAYS] = F(0, TEXTBOOK),                                             \
	[GN_FIG_NESTED_PWC_FOR_DATA] = F(0, TEXTBOOK),                                             \
	[GN_FIG_NESTED_TLB_ENTRIES] = F(0, TEXTBOOK), [GN_FIG_NESTED_TLB_WAYS] = F(0, TEXTBOOK),   \
	[GN_FIG_NESTED_TLB_FOR_DATA] = F(0, TEXTBOOK)

/* The peer's simulator: 2x1, 1x4, 8x4 entries for guest and host, no nested TLB, its walk caches keep
 * guest addresses, and the last host walk (of the datum) goes without them. */
#define DMT "the DMT artifact's simulator (ASPLOS'24)"
#define DMT_WALK_CACHES                                                                            \
	[GN_FIG_PWC_PML5E_ENTRIES] = F(0, DMT), [GN_FIG_PWC_PML5E_WAYS] = F(0, DMT),               \
	[GN_FIG_PWC_PML4E_ENTRIES] = F(2, DMT), [GN_FIG_PWC_PML4E_WAYS] = F(1, DMT),               \
	[GN_FIG_PWC_PDPTE_ENTRIES] = F(4, DMT), [GN_FIG_PWC_PDPTE_WAYS] = F(4, DMT),               \
	[GN_FIG_PWC_PDE_ENTRIES] = F(32, DMT), [GN_FIG_PWC_PDE_WAYS] = F(4, DMT),                  \
	[GN_FIG_PWC_HOLDS_HPA] = F(0, DMT), [GN_FIG_NESTED_PWC_PML5E_ENTRIES] = F(0, DMT),         \
	[GN_FIG_NESTED_PWC_PML5E_WAYS] = F(0, DMT), [GN_FIG_NESTED_PWC_PML4E_ENTRIES] = F(2, DMT), \
	[GN_FIG_NESTED_PWC_PML4E_WAYS] = F(1, DMT), [GN_FIG_NESTED_PWC_PDPTE_ENTRIES] = F(4, DMT), \
	[GN_FIG_NESTED_PWC_PDPTE_WAYS] = F(4, DMT), [GN_FIG_NESTED_PWC_PDE_ENTRIES] = F(32, DMT),  \
	[GN_FIG_NESTED_PWC_PDE_WAYS] = F(4, DMT), [GN_FIG_NESTED_PWC_FOR_DATA] = F(0, DMT),        \
	[GN_FIG_NESTED_TLB_ENTRIES] = F(0, DMT), [GN_FIG_NESTED_TLB_WAYS] = F(0, DMT),             \
	[GN_FIG_NESTED_TLB_FOR_DATA] = F(0, DMT)

#define SMALL_COSTS                                                                                \
	[GN_FIG_WALK_START_CYCLES] = E(4, "no source; a walker's queue and first address"),        \
	[GN_FIG_PWC_CYCLES] = F(1, "SagePTE's simulator: walk cache 1 cycle"),                     \
	[GN_FIG_ACCESS_CYCLES] = E(1, "one memory operation a cycle, pipelined"),                  \
	[GN_FIG_INSTRUCTION_CYCLES] = E(0.5, "two instructions a cycle"),                          \
	[GN_FIG_SYSCALL_CYCLES] = E(75, "no source; about 150 for the pair"),                      \
	[GN_FIG_GUEST_FAULT_CYCLES] =                                                              \
		F(710, "lastweek.io/notes/xperf: 440 to the kernel + 270 back, Xeon E5 v3"),       \
	[GN_FIG_CR3_CYCLES] = E(100, "no source found"),                                           \
	[GN_FIG_CR_CYCLES] = E(100, "no source found"),                                            \
	[GN_FIG_FLUSH_VA_CYCLES] = F(200, "INVLPG about 200 cycles (Linux TLB-flush patches)"),    \
	[GN_FIG_FLUSH_CYCLES] =                                                                    \
		F(350, "INVLPG + INVPCID about 550 (Linux TLB-flush patches), less INVLPG")

/* The engine's own part is taken from `gnomon micro` (shadow fill, nested fill, walk) at the preset's clock;
 * dispatch, locking and decoding of a production VMM come on top. */
#define VMM_COSTS                                                                                  \
	[GN_FIG_VMM_SHADOW_FAULT_CYCLES] = E(1100, VMM),                                           \
	[GN_FIG_VMM_EMULATE_CYCLES] = E(1800, VMM),                                                \
	[GN_FIG_VMM_NESTED_FAULT_CYCLES] = E(700, VMM), [GN_FIG_VMM_INJECT_CYCLES] = E(500, VMM),  \
	[GN_FIG_VMM_CR3_CYCLES] = E(500, VMM), [GN_FIG_VMM_CR_CYCLES] = E(600, VMM),               \
	[GN_FIG_VMM_INVALIDATE_CYCLES] = E(500, VMM), [GN_FIG_VMM_OTHER_CYCLES] = E(400, VMM),     \
	[GN_FIG_SOFTWARE_WALK_CYCLES] =                                                            \
		E(60, "`gnomon micro`: a software walk of both tables, caches warm")

#define INTEL_EXIT F(1549, "Skylake-SP VMCALL round trip 1,539-1,559 cycles (kvm-unit-tests)")
#define AMD_EXIT   F(1360, "LKML 2012.2: VMRUN to exit 1,344-1,376 cycles")

static const struct gn_cpu_preset skylake_sp = {
	.name = "skylake-sp",
	.summary = "Intel Xeon Scalable, 1st and 2nd generation (28 cores, 2.7 GHz)",
	.figure = {
		[GN_FIG_DTLB_4K_ENTRIES] = F(64, CPUID), [GN_FIG_DTLB_4K_WAYS] = F(4, CPUID),
		[GN_FIG_DTLB_2M_ENTRIES] = F(32, CPUID), [GN_FIG_DTLB_2M_WAYS] = F(4, CPUID),
		[GN_FIG_DTLB_1G_ENTRIES] = F(4, CPUID), [GN_FIG_DTLB_1G_WAYS] = F(4, CPUID),
		[GN_FIG_DTLB_UNIFIED] = F(0, CPUID),
		[GN_FIG_ITLB_4K_ENTRIES] = F(64, CPUID), [GN_FIG_ITLB_4K_WAYS] = F(8, CPUID),
		[GN_FIG_ITLB_2M_ENTRIES] = F(8, CPUID), [GN_FIG_ITLB_2M_WAYS] = F(8, CPUID),
		[GN_FIG_ITLB_UNIFIED] = F(0, CPUID),
		[GN_FIG_STLB_ENTRIES] = F(1536, CPUID), [GN_FIG_STLB_WAYS] = F(12, CPUID),
		[GN_FIG_STLB_1G_ENTRIES] = F(16, CPUID), [GN_FIG_STLB_1G_WAYS] = F(4, CPUID),
		[GN_FIG_STLB_1G_TAKES_4K] = F(0, CPUID),
		[GN_FIG_ISTLB_ENTRIES] = F(0, ABSENT), [GN_FIG_ISTLB_WAYS] = F(0, ABSENT),
		WALK_CACHES,
		[GN_FIG_L1_KIB] = F(32, "AT 11550"), [GN_FIG_L1_WAYS] = F(8, "AT 11550"),
		[GN_FIG_L2_KIB] = F(1024, "AT 11550"), [GN_FIG_L2_WAYS] = F(16, "AT 11550"),
		[GN_FIG_L3_KIB] = F(39424, "AT 11550: 1.375 MiB x 28"),
		[GN_FIG_L3_WAYS] = F(11, "AT 11550"),
		[GN_FIG_L1_CYCLES] = F(4, "AT 11550"),
		[GN_FIG_L2_CYCLES] = F(14, "AT 14694, Xeon 8280"),
		[GN_FIG_L3_CYCLES] = F(77, "AT 11550"),
		[GN_FIG_MEMORY_CYCLES] = F(259, "AT 11544: 96 ns, at 2.7 GHz"),
		[GN_FIG_STLB_CYCLES] = F(7, "Intel event DTLB_LOAD_MISSES.STLB_HIT: about 7 cycles"),
		SMALL_COSTS,
		[GN_FIG_EXIT_CYCLES] = INTEL_EXIT,
		VMM_COSTS,
		[GN_FIG_CLOCK_GHZ] = F(2.7, "Xeon 8280 base clock"),
	},
};

static const struct gn_cpu_preset sapphire_rapids = {
	.name = "sapphire-rapids",
	.summary = "Intel Xeon Scalable, 4th generation (Xeon 8480, 3.0 GHz)",
	.figure = {
		[GN_FIG_DTLB_4K_ENTRIES] = E(64, "CPUID dump; 96 for loads is also quoted"),
		[GN_FIG_DTLB_4K_WAYS] = F(4, CPUID),
		[GN_FIG_DTLB_2M_ENTRIES] = F(32, CPUID), [GN_FIG_DTLB_2M_WAYS] = F(4, CPUID),
		[GN_FIG_DTLB_1G_ENTRIES] = F(8, CPUID), [GN_FIG_DTLB_1G_WAYS] = F(8, CPUID),
		[GN_FIG_DTLB_UNIFIED] = F(0, CPUID),
		[GN_FIG_ITLB_4K_ENTRIES] = E(256, "Golden Cove as in C&C's description"),
		[GN_FIG_ITLB_4K_WAYS] = E(8, "as Skylake"),
		[GN_FIG_ITLB_2M_ENTRIES] = E(32, "Golden Cove as in C&C's description"),
		[GN_FIG_ITLB_2M_WAYS] = E(8, "as Skylake"),
		[GN_FIG_ITLB_UNIFIED] = F(0, CPUID),
		[GN_FIG_STLB_ENTRIES] = F(1024, CPUID), [GN_FIG_STLB_WAYS] = F(8, CPUID),
		[GN_FIG_STLB_1G_ENTRIES] = F(1024, CPUID), [GN_FIG_STLB_1G_WAYS] = F(8, CPUID),
		[GN_FIG_STLB_1G_TAKES_4K] = F(1, CPUID),
		[GN_FIG_ISTLB_ENTRIES] = F(0, ABSENT), [GN_FIG_ISTLB_WAYS] = F(0, ABSENT),
		WALK_CACHES,
		[GN_FIG_L1_KIB] = F(48, "hardwaretimes.com, Linux patch"),
		[GN_FIG_L1_WAYS] = F(12, "hardwaretimes.com, Linux patch"),
		[GN_FIG_L2_KIB] = F(2048, "hardwaretimes.com: 2 MiB a core"),
		[GN_FIG_L2_WAYS] = E(16, "CPUID, from memory"),
		[GN_FIG_L3_KIB] = E(107520, "Xeon 8480: 1.875 MiB x 56, from memory"),
		[GN_FIG_L3_WAYS] = E(15, "CPUID, from memory"),
		[GN_FIG_L1_CYCLES] = F(5, "C&C, Golden Cove's caches"),
		[GN_FIG_L2_CYCLES] = E(15, "Golden Cove, from memory"),
		[GN_FIG_L3_CYCLES] = E(125, "C&C measures 33 ns and more; high, at 3 to 3.8 GHz"),
		[GN_FIG_MEMORY_CYCLES] = E(330, "110 ns at 3.0 GHz"),
		[GN_FIG_STLB_CYCLES] = F(7, "Intel event DTLB_LOAD_MISSES.STLB_HIT: about 7 cycles"),
		SMALL_COSTS,
		[GN_FIG_EXIT_CYCLES] = E(1549, "as Skylake-SP; no source for this CPU"),
		VMM_COSTS,
		[GN_FIG_CLOCK_GHZ] = E(3.0, "all-core turbo"),
	},
};

static const struct gn_cpu_preset zen3 = {
	.name = "zen3",
	.summary = "AMD EPYC 7003, one core complex (8 cores, 32 MiB L3, 3.4 GHz)",
	.figure = {
		[GN_FIG_DTLB_4K_ENTRIES] = F(64, CPUID), [GN_FIG_DTLB_4K_WAYS] = F(64, CPUID),
		[GN_FIG_DTLB_2M_ENTRIES] = F(0, CPUID), [GN_FIG_DTLB_2M_WAYS] = F(0, CPUID),
		[GN_FIG_DTLB_1G_ENTRIES] = F(0, CPUID), [GN_FIG_DTLB_1G_WAYS] = F(0, CPUID),
		[GN_FIG_DTLB_UNIFIED] = F(1, "SOG: 64 entries for all page sizes"),
		[GN_FIG_ITLB_4K_ENTRIES] = F(64, CPUID), [GN_FIG_ITLB_4K_WAYS] = F(64, CPUID),
		[GN_FIG_ITLB_2M_ENTRIES] = F(0, CPUID), [GN_FIG_ITLB_2M_WAYS] = F(0, CPUID),
		[GN_FIG_ITLB_UNIFIED] = F(1, "SOG: 64 entries for all page sizes"),
		[GN_FIG_STLB_ENTRIES] = F(2048, CPUID),
		[GN_FIG_STLB_WAYS] = F(8, "CPUID: 8 ways for 4 KiB (4 for 2 MiB, not modelled)"),
		[GN_FIG_STLB_1G_ENTRIES] = F(0, "1 GiB pages stay in the L1 TLB"),
		[GN_FIG_STLB_1G_WAYS] = F(0, "1 GiB pages stay in the L1 TLB"),
		[GN_FIG_STLB_1G_TAKES_4K] = F(0, CPUID),
		[GN_FIG_ISTLB_ENTRIES] = F(512, CPUID), [GN_FIG_ISTLB_WAYS] = E(8, "as Zen 2 (7-cpu.com)"),
		WALK_CACHES,
		[GN_FIG_L1_KIB] = F(32, "SOG"), [GN_FIG_L1_WAYS] = F(8, "SOG"),
		[GN_FIG_L2_KIB] = F(512, "SOG"), [GN_FIG_L2_WAYS] = F(8, "SOG"),
		[GN_FIG_L3_KIB] = F(32768, "AT 16529: 32 MiB for 8 cores"),
		[GN_FIG_L3_WAYS] = E(16, "as Zen 2 (7-cpu.com)"),
		[GN_FIG_L1_CYCLES] = F(4, "SOG 2.12, quoted in LLVM's X86ScheduleZnver3.td"),
		[GN_FIG_L2_CYCLES] = E(12, "AT 14694: Zen 2, 13 and 12 cycles"),
		[GN_FIG_L3_CYCLES] = E(46, "SOG, from memory; Zen 2: 34 (AT 14694)"),
		[GN_FIG_MEMORY_CYCLES] = E(384, "113 ns as EPYC 7002 NPS4 (AT 14694), at 3.4 GHz"),
		[GN_FIG_STLB_CYCLES] = E(7, "as Intel; models use 8 to 12"),
		SMALL_COSTS,
		[GN_FIG_EXIT_CYCLES] = AMD_EXIT,
		VMM_COSTS,
		[GN_FIG_CLOCK_GHZ] = E(3.4, "boost of most EPYC 7003"),
	},
};

static const struct gn_cpu_preset zen4 = {
	.name = "zen4",
	.summary = "AMD EPYC 9004, one core complex (8 cores, 32 MiB L3, 3.7 GHz)",
	.figure = {
		[GN_FIG_DTLB_4K_ENTRIES] = F(72, CPUID), [GN_FIG_DTLB_4K_WAYS] = F(72, CPUID),
		[GN_FIG_DTLB_2M_ENTRIES] = F(0, CPUID), [GN_FIG_DTLB_2M_WAYS] = F(0, CPUID),
		[GN_FIG_DTLB_1G_ENTRIES] = F(0, CPUID), [GN_FIG_DTLB_1G_WAYS] = F(0, CPUID),
		[GN_FIG_DTLB_UNIFIED] = F(1, "SOG: 72 entries for all page sizes"),
		[GN_FIG_ITLB_4K_ENTRIES] = F(64, CPUID), [GN_FIG_ITLB_4K_WAYS] = F(64, CPUID),
		[GN_FIG_ITLB_2M_ENTRIES] = F(0, CPUID), [GN_FIG_ITLB_2M_WAYS] = F(0, CPUID),
		[GN_FIG_ITLB_UNIFIED] = F(1, "SOG: 64 entries for all page sizes"),
		[GN_FIG_STLB_ENTRIES] = F(3072, CPUID),
		[GN_FIG_STLB_WAYS] = E(12, "CPUID reports 6 for 2 MiB; 12 makes 256 sets"),
		[GN_FIG_STLB_1G_ENTRIES] = F(0, "1 GiB pages stay in the L1 TLB"),
		[GN_FIG_STLB_1G_WAYS] = F(0, "1 GiB pages stay in the L1 TLB"),
		[GN_FIG_STLB_1G_TAKES_4K] = F(0, CPUID),
		[GN_FIG_ISTLB_ENTRIES] = F(512, CPUID), [GN_FIG_ISTLB_WAYS] = E(8, "as Zen 2 (7-cpu.com)"),
		WALK_CACHES,
		[GN_FIG_L1_KIB] = F(32, "SOG"), [GN_FIG_L1_WAYS] = F(8, "SOG"),
		[GN_FIG_L2_KIB] = F(1024, "SOG"), [GN_FIG_L2_WAYS] = F(8, "SOG"),
		[GN_FIG_L3_KIB] = F(32768, "C&C, Zen 4: 32 MiB a complex"),
		[GN_FIG_L3_WAYS] = E(16, "as Zen 2 (7-cpu.com)"),
		[GN_FIG_L1_CYCLES] = F(4, "SOG 2.12, quoted in LLVM's X86ScheduleZnver4.td"),
		[GN_FIG_L2_CYCLES] = E(14, "SOG, from memory"),
		[GN_FIG_L3_CYCLES] = E(50, "SOG, from memory"),
		[GN_FIG_MEMORY_CYCLES] = E(426, "115 ns at 3.7 GHz"),
		[GN_FIG_STLB_CYCLES] = E(7, "as Intel; models use 8 to 12"),
		SMALL_COSTS,
		[GN_FIG_EXIT_CYCLES] = AMD_EXIT,
		VMM_COSTS,
		[GN_FIG_CLOCK_GHZ] = E(3.7, "boost of most EPYC 9004"),
	},
};

/* TLBs, caches and costs of the simulators whose tables we repeat: SagePTE's latencies. */
#define SAGE "SagePTE's simulator"
#define SIMULATED                                                                                  \
	[GN_FIG_DTLB_4K_ENTRIES] = F(64, CPUID), [GN_FIG_DTLB_4K_WAYS] = F(4, CPUID),              \
	[GN_FIG_DTLB_2M_ENTRIES] = F(32, CPUID), [GN_FIG_DTLB_2M_WAYS] = F(4, CPUID),              \
	[GN_FIG_DTLB_1G_ENTRIES] = F(4, CPUID), [GN_FIG_DTLB_1G_WAYS] = F(4, CPUID),               \
	[GN_FIG_DTLB_UNIFIED] = F(0, CPUID), [GN_FIG_ITLB_4K_ENTRIES] = F(64, CPUID),              \
	[GN_FIG_ITLB_4K_WAYS] = F(8, CPUID), [GN_FIG_ITLB_2M_ENTRIES] = F(8, CPUID),               \
	[GN_FIG_ITLB_2M_WAYS] = F(8, CPUID), [GN_FIG_ITLB_UNIFIED] = F(0, CPUID),                  \
	[GN_FIG_STLB_ENTRIES] = F(1536, CPUID), [GN_FIG_STLB_WAYS] = F(12, CPUID),                 \
	[GN_FIG_STLB_1G_ENTRIES] = F(16, CPUID), [GN_FIG_STLB_1G_WAYS] = F(4, CPUID),              \
	[GN_FIG_STLB_1G_TAKES_4K] = F(0, CPUID), [GN_FIG_ISTLB_ENTRIES] = F(0, ABSENT),            \
	[GN_FIG_ISTLB_WAYS] = F(0, ABSENT), [GN_FIG_L1_KIB] = F(32, "AT 11550"),                   \
	[GN_FIG_L1_WAYS] = F(8, "AT 11550"), [GN_FIG_L2_KIB] = F(1024, "AT 11550"),                \
	[GN_FIG_L2_WAYS] = F(16, "AT 11550"), [GN_FIG_L3_KIB] = F(22528, "AT 11550: x 16"),        \
	[GN_FIG_L3_WAYS] = F(11, "AT 11550"), [GN_FIG_L1_CYCLES] = F(4, SAGE),                     \
	[GN_FIG_L2_CYCLES] = F(14, SAGE), [GN_FIG_L3_CYCLES] = F(54, SAGE),                        \
	[GN_FIG_MEMORY_CYCLES] = F(200, SAGE),                                                     \
	[GN_FIG_STLB_CYCLES] = F(7, "Intel event DTLB_LOAD_MISSES.STLB_HIT: about 7 cycles"),      \
	SMALL_COSTS, [GN_FIG_EXIT_CYCLES] = INTEL_EXIT,                                            \
	VMM_COSTS, [GN_FIG_CLOCK_GHZ] = E(2.7, "as Skylake-SP")

static const struct gn_cpu_preset dmt = {
	.name = "dmt",
	.summary = "the DMT artifact's walk caches (2/4/32 guest and host, no nested TLB)",
	.figure = { SIMULATED, DMT_WALK_CACHES },
};

#define TEXTBOOK "by definition: no walk caches, no nested TLB"
static const struct gn_cpu_preset textbook = {
	.name = "textbook",
	.summary = "TLBs but no walk caches: every walk makes all its references",
	.figure = { SIMULATED, NO_WALK_CACHES },
};

static const struct gn_cpu_preset *const presets[] = { &skylake_sp, &sapphire_rapids, &zen3, &zen4,
						       &dmt,	    &textbook };
#define PRESETS (sizeof(presets) / sizeof(presets[0]))

const struct gn_cpu_preset *gn_cpu_preset_at(unsigned index)
{
	return index < PRESETS ? presets[index] : NULL;
}

const struct gn_cpu_preset *gn_cpu_preset_find(const char *name)
{
	for (unsigned i = 0; i < PRESETS; i++)
		if (strcmp(presets[i]->name, name) == 0)
			return presets[i];
	return NULL;
}
