/* SPDX-License-Identifier: MIT */
/*
 * soft_places.c - the place of an access, from when it is found to when it is used: what may change meanwhile, and what that costs.
 */
#include <criterion/criterion.h>

#include "mmu/frames.h"
#include "mmu/vm.h"
#include "unit/soft_guest.h"

#define MIB	((uint64_t)1 << 20)
#define DATA	((uint64_t)0xffff800000000000) /* GVA of GPA 1 MiB */
#define DATA_PA (1 * MIB)

static struct guest g;
static const char *const schemes[] = { "native", "interp", "shadow", "shadow-vtlb", "ept", "npt" };
#define SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

static uint64_t pa_of(unsigned page)
{
	return DATA_PA + page * GN_PAGE_SIZE;
}

static void create(const char *scheme)
{
	const struct gn_soft_config config = {
		.vm = { .scheme = scheme, .mem_bytes = 16 * MIB, .vcpus = 1 }
	};

	guest_create(&g, &config, 4);
	for (unsigned page = 0; page < 4; page++)
		guest_map(&g, DATA + page * GN_PAGE_SIZE, pa_of(page), 1, GUEST_RW);
	guest_start(&g, 0);
}

static uint64_t word_at(uint64_t pa)
{
	uint64_t word;

	cr_assert_eq(gn_vm_read(g.vm, gpa(pa), &word, sizeof(word)), 0);
	return word;
}

static void put(uint64_t pa, uint64_t word)
{
	cr_assert_eq(gn_vm_write(g.vm, gpa(pa), &word, sizeof(word)), 0);
}

/* ---- The answer changes the p2m itself -------------------------------------------------------------------------- */

static void store_twice(struct gn_soft_cpu *cpu, void *ctx)
{
	(void)ctx;
	gn_soft_store(cpu, gva(DATA + 8), 8, 1);
	gn_soft_store(cpu, gva(DATA + 8), 8, 2);
}

/* Under interp each access is one exit, also one that copies a shared page, or brings a page that was not there yet. */
Test(soft_places, a_change_of_the_answers_own_costs_no_second_exit)
{
	struct gn_merge page = { .at = gfn(DATA_PA >> GN_PAGE_SHIFT) };
	struct gn_counters before, after;

	create("interp");
	for (unsigned is_shared = 0; is_shared < 2; is_shared++) {
		if (is_shared) {
			cr_assert_eq(gn_p2m_publish(g.vm, &page, 1, GN_SHARE_READ), 0);
			cr_assert_eq(page.result, 0);
		}
		before = guest_counters(&g);
		cr_assert_eq(gn_soft_run(g.cpu, store_twice, NULL), 0);
		after = guest_counters(&g);
		cr_assert_eq(after.exits_by[GN_EXIT_SOFTWARE] - before.exits_by[GN_EXIT_SOFTWARE],
			     2);
		cr_assert_eq(word_at(DATA_PA + 8), 2);
	}
	gn_frames_put(g.vm->frames, page.frame);
	guest_destroy(&g);
}

/* ---- The guest's handler changes its tables ---------------------------------------------------------------------- */

/* The page that is missing comes, and the one before becomes another one. */
static bool map_and_remap(struct gn_soft_cpu *cpu, const struct gn_soft_exception *e, void *ctx)
{
	unsigned *faults = ctx;

	cr_assert_eq(e->vector, X86_VEC_PF);
	cr_assert_eq(e->cr2.v, DATA + 2 * GN_PAGE_SIZE);
	++*faults;
	guest_map(&g, DATA + 2 * GN_PAGE_SIZE, pa_of(2), 1, GUEST_RW);
	guest_map(&g, DATA + GN_PAGE_SIZE, pa_of(3), 1, GUEST_RW);
	gn_soft_invlpg(cpu, gva(DATA + GN_PAGE_SIZE));
	return true;
}

static void store_across(struct gn_soft_cpu *cpu, void *ctx)
{
	gn_soft_set_handler(cpu, map_and_remap, ctx);
	gn_soft_store(cpu, gva(DATA + 2 * GN_PAGE_SIZE - 4), 8, 0x2222222211111111);
	gn_soft_set_handler(cpu, NULL, NULL);
}

/* A store over the end of a page, whose second half faults: the first half goes where the tables say after the handler. */
Test(soft_places, nothing_is_kept_over_a_handler)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		unsigned faults = 0;

		create(schemes[s]);
		guest_map(&g, DATA + 2 * GN_PAGE_SIZE, 0, 1, 0);
		put(pa_of(2) - 8, 0);
		put(pa_of(4) - 8, 0);
		put(pa_of(2), 0);
		cr_assert_eq(gn_soft_run(g.cpu, store_across, &faults), 0, "%s", schemes[s]);
		cr_assert_eq(faults, 1, "%s", schemes[s]);
		cr_assert_eq(word_at(pa_of(2)), 0x22222222, "%s", schemes[s]);
		cr_assert_eq(word_at(pa_of(4) - 8), (uint64_t)0x11111111 << 32, "%s", schemes[s]);
		cr_assert_eq(word_at(pa_of(2) - 8), 0, "%s: the page it was before", schemes[s]);
		guest_destroy(&g);
	}
}

/* ---- Another thread changes the p2m ------------------------------------------------------------------------------- */

static unsigned reports;

/* interp; and before the second report of an access is answered somebody moves the page that the first one found. */
static int fault_and_move(struct gn_vcpu *vcpu, const struct gn_fault *what, struct gn_fix *fix)
{
	if (++reports == 2)
		cr_assert_eq(gn_p2m_move(g.vm, gfn(pa_of(1) >> GN_PAGE_SHIFT), 1), 0);
	return gn_scheme_interp.fault(vcpu, what, fix);
}

static void store_over_the_end(struct gn_soft_cpu *cpu, void *ctx)
{
	(void)ctx;
	gn_soft_store(cpu, gva(DATA + 2 * GN_PAGE_SIZE - 4), 8, 0x2222222211111111);
}

Test(soft_places, a_page_that_moves_meanwhile_is_found_again)
{
	static struct gn_scheme_ops moving;

	moving = gn_scheme_interp;
	moving.name = "moving";
	moving.fault = fault_and_move;
	create("interp"); /* registers the others */
	guest_destroy(&g);
	cr_assert_eq(gn_scheme_register(&moving), 0);
	create("moving");
	put(pa_of(2) - 8, 0);
	put(pa_of(2), 0);
	cr_assert_eq(gn_soft_run(g.cpu, store_over_the_end, NULL), 0);
	cr_assert_eq(word_at(pa_of(2) - 8), (uint64_t)0x11111111 << 32, "not where it was before");
	cr_assert_eq(word_at(pa_of(2)), 0x22222222);
	cr_assert_eq(reports, 3, "the first page is found twice");
	guest_destroy(&g);
}

/* ---- A place that was found is asked whether it still is one ------------------------------------------------------ */

Test(soft_places, a_fix_is_current_until_the_p2m_changes)
{
	const struct gn_fault fault = { .access = {
						.va = gva(DATA), .kind = GN_WRITE, .size = 8 } };
	struct gn_fix fix;

	create("interp");
	cr_assert_eq(gn_vcpu_fault(gn_vm_vcpu(g.vm, 0), &fault, &fix), 0);
	cr_assert_eq(fix.kind, GN_FIX_ACCESS);
	cr_assert(gn_fix_is_current(g.vm, &fix));
	cr_assert_eq(gn_p2m_move(g.vm, gfn(DATA_PA >> GN_PAGE_SHIFT), 1), 0);
	cr_assert_not(gn_fix_is_current(g.vm, &fix));
	cr_assert_eq(gn_vcpu_fault(gn_vm_vcpu(g.vm, 0), &fault, &fix), 0);
	cr_assert(gn_fix_is_current(g.vm, &fix));
	guest_destroy(&g);
}
