/* SPDX-License-Identifier: MIT */
/*
 * soft_deprivileged.c - the software machine that runs all of its guest at CPL 3: what exits, what is flushed, and
 * that the guest notices nothing.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "mmu/vm.h"

#include "unit/soft_guest.h"

#define MIB	    ((uint64_t)1 << 20)
#define USER	    ((uint64_t)0x400000)
#define KERNEL	    ((uint64_t)0xffff800000000000)
#define DATA	    ((uint64_t)0x100000) /* GPA */
#define KERNEL_ONLY (GUEST_RW & ~(uint64_t)X86_PTE_U)

static struct guest g;
static struct gn_soft_exception seen;
static unsigned faults;
static bool kernel_at_handler;

static bool handler(struct gn_soft_cpu *cpu, const struct gn_soft_exception *e, void *ctx)
{
	(void)ctx;
	seen = *e;
	faults++;
	kernel_at_handler = !gn_soft_is_user(cpu) && gn_vm_vcpu(g.vm, 0)->view == GN_VIEW_KERNEL;
	if (e->vector == X86_VEC_PF)
		guest_map(&g, e->cr2.v & ~(uint64_t)4095, DATA, 1, GUEST_RW);
	else
		gn_soft_enter_kernel(cpu); /* and the instruction again */
	return e->vector == X86_VEC_PF;
}

static void create(const char *scheme)
{
	const struct gn_soft_config config = {
		.vm = { .scheme = scheme, .mem_bytes = 16 * MIB, .vcpus = 1 }, .deprivileged = true
	};

	guest_create(&g, &config, 4);
	guest_map(&g, USER, DATA, 1, GUEST_RW);
	guest_map(&g, USER + 4096, DATA + 4096, 1, GUEST_RW);
	guest_map(&g, KERNEL, DATA + 8192, 1, KERNEL_ONLY);
	guest_start(&g, X86_CR4_SMAP | X86_CR4_SMEP);
	faults = 0;
}

static void script(struct gn_soft_cpu *cpu, void *ctx)
{
	const struct gn_soft_ref refs[3] = { { .va = USER, .kind = GN_READ },
					     { .va = USER + 4096, .kind = GN_WRITE },
					     { .va = USER, .kind = GN_FETCH } };
	struct gn_counters before, after;

	(void)ctx;
	gn_soft_store(cpu, gva(KERNEL), 8, 11);
	gn_soft_set_ac(cpu, true);
	gn_soft_store(cpu, gva(USER + 4092), 8, 0x1122334455667788);
	gn_soft_set_ac(cpu, false);
	before = guest_counters(&g);
	gn_soft_enter_user(cpu);
	cr_assert(gn_soft_is_user(cpu));
	cr_assert_eq(gn_soft_load(cpu, gva(USER + 4092), 8), 0x1122334455667788);
	gn_soft_refs(cpu, refs, 3);
	gn_soft_load(cpu, gva(USER + 16 * 4096), 8); /* faults; the handler maps it */
	cr_assert_eq(faults, 1);
	cr_assert(seen.user && seen.error_code == X86_PF_U && kernel_at_handler);
	cr_assert(gn_soft_is_user(cpu));
	gn_soft_enter_kernel(cpu);
	cr_assert_eq(gn_soft_load(cpu, gva(KERNEL), 8), 11);
	after = guest_counters(&g);
	if (gn_vcpu_hw(gn_vm_vcpu(g.vm, 0))->kind == GN_HW_TABLES)
		cr_assert_eq(after.exits_by[GN_EXIT_HYPERCALL] - before.exits_by[GN_EXIT_HYPERCALL],
			     3, "a return, an IRET and a system call");
	else
		cr_assert_eq(after.exits_by[GN_EXIT_HYPERCALL], before.exits_by[GN_EXIT_HYPERCALL]);
}

Test(soft_deprivileged, the_guest_notices_nothing)
{
	static const char *const schemes[] = { "interp", "native", "shadow", "shadow-vtlb", "ept" };
	uint64_t first = 0;

	for (unsigned s = 0; s < 5; s++) {
		create(schemes[s]);
		gn_soft_set_handler(g.cpu, handler, NULL);
		cr_assert_eq(gn_soft_run(g.cpu, script, NULL), 0, "%s: %s", schemes[s],
			     gn_soft_stop_reason(g.cpu));
		first = s ? first : gn_vm_memory_sum(g.vm);
		cr_assert_eq(gn_vm_memory_sum(g.vm), first, "%s", schemes[s]);
		guest_destroy(&g);
	}
}

/* A change of privilege is a load of CR3 without PCIDs: nothing survives it in the TLBs. */
Test(soft_deprivileged, tlbs_do_not_outlive_a_root)
{
	struct gn_counters c;
	uint64_t misses;

	create("shadow");
	gn_soft_enter_user(g.cpu);
	gn_soft_load(g.cpu, gva(USER), 8);
	gn_soft_load(g.cpu, gva(USER), 8);
	misses = guest_counters(&g).l1_tlb_misses;
	gn_soft_load(g.cpu, gva(USER), 8);
	cr_assert_eq(guest_counters(&g).l1_tlb_misses, misses);
	gn_soft_enter_kernel(g.cpu);
	gn_soft_enter_user(g.cpu);
	gn_soft_load(g.cpu, gva(USER), 8);
	c = guest_counters(&g);
	cr_assert_eq(c.l1_tlb_misses, misses + 1);
	cr_assert_eq(gn_vm_vcpu(g.vm, 0)->view, GN_VIEW_USER);
	guest_destroy(&g);
}

/* A probe of another privilege leaves the machine's own in force. */
Test(soft_deprivileged, probes)
{
	const struct gn_access modes[] = {
		{ .user = true }, { .user = false }, { .ac = true }, { .implicit = true }
	};
	static const uint32_t user_page[] = { 0, X86_PF_P, 0, X86_PF_P };
	static const uint32_t kernel_page[] = { X86_PF_P | X86_PF_U, 0, 0, 0 };

	create("shadow");
	for (unsigned from = 0; from < 2; from++) {
		uint64_t root;

		if (from)
			gn_soft_enter_user(g.cpu);
		root = gn_vcpu_hw(gn_vm_vcpu(g.vm, 0))->root.v;
		for (unsigned i = 0; i < 8; i++) {
			struct gn_access a = modes[i % 4];
			uint32_t code = (i < 4 ? user_page : kernel_page)[i % 4];
			struct gn_soft_outcome out;
			uint64_t value = 0;

			a.va = gva(i < 4 ? USER : KERNEL);
			a.size = 8;
			cr_assert_eq(gn_soft_probe(g.cpu, &a, &value, &out), 0);
			cr_assert(out.faulted == (code != 0) && out.error_code == code,
				  "probe %u from %u", i, from);
			cr_assert_eq(gn_vcpu_hw(gn_vm_vcpu(g.vm, 0))->root.v, root);
			cr_assert_eq(gn_soft_is_user(g.cpu), from);
		}
	}
	guest_destroy(&g);
}

static void starve(struct gn_soft_cpu *cpu, void *ctx)
{
	(void)ctx;
	gn_soft_enter_user(cpu);
	cr_assert_fail("the guest went on without a root");
}

/* No memory for the other root: the guest is stopped, or a probe says so; the machine is as it was. */
Test(soft_deprivileged, without_memory)
{
	const struct gn_access a = { .va = gva(USER), .size = 8, .user = true };
	struct gn_soft_outcome out;
	uint64_t value;

	create("shadow");
	g.vm->config.scheme_table_limit_bytes = GN_PAGE_SIZE;
	cr_assert_eq(gn_soft_probe(g.cpu, &a, &value, &out), -ENOMEM);
	cr_assert_not(gn_soft_is_user(g.cpu));
	cr_assert_eq(gn_soft_run(g.cpu, starve, NULL), -ENOMEM);
	cr_assert(!gn_soft_is_user(g.cpu) && gn_vm_vcpu(g.vm, 0)->view == GN_VIEW_KERNEL);
	g.vm->config.scheme_table_limit_bytes = 0;
	cr_assert_eq(gn_soft_probe(g.cpu, &a, &value, &out), 0);
	cr_assert_not(out.faulted);
	guest_destroy(&g);
}

static void ask_as_user(struct gn_soft_cpu *cpu, void *ctx)
{
	(void)ctx;
	gn_soft_enter_user(cpu);
	gn_soft_invlpg(cpu, gva(USER));
}

/* #GP is an exit of its own; #PF was counted as one by what the scheme did about it. */
Test(soft_deprivileged, exceptions_exit)
{
	create("shadow");
	gn_soft_set_handler(g.cpu, handler, NULL);
	cr_assert_eq(gn_soft_run(g.cpu, ask_as_user, NULL), -ECANCELED, "the handler gives up");
	cr_assert(faults == 1 && seen.vector == X86_VEC_GP && seen.user);
	cr_assert_eq(guest_counters(&g).exits_by[GN_EXIT_HYPERCALL], 4,
		     "to the user; #GP; the handler's own SYSCALL; its return");
	guest_destroy(&g);
}
