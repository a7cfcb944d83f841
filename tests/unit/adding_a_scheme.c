/* SPDX-License-Identifier: MIT */
/*
 * adding_a_scheme.c - the scheme that docs/adding-a-scheme.md builds, compiled from the page itself: it must run
 * a guest as native does and audit clean.
 */
#include <criterion/criterion.h>

#include <gnomon/schemes.h>
#include <gnomon/soft.h>

#include "adding_a_scheme.inc.c" /* extracted from the page by tests/CMakeLists.txt */

#include "support/random_guest.h"

/* Results of one random history: outcomes and data, folded. */
static uint64_t history(const char *scheme)
{
	struct gn_soft_config config = { .vm = { .scheme = scheme,
						 .mem_bytes = RG_RAM_BYTES,
						 .vcpus = 1,
						 .guest_phys_bits = RG_PHYS_BITS } };
	struct test_random r = test_random_seed(7);
	struct gn_audit_report report;
	struct gn_regs now, next = { 0 };
	struct gn_soft *soft;
	struct gn_soft_cpu *cpu;
	uint64_t sum = 0;

	cr_assert_eq(gn_soft_create(&config, &soft), 0);
	cpu = gn_soft_cpu(soft, 0);
	for (unsigned i = 0; i < 3000; i++) {
		unsigned level = 1 + (unsigned)test_random_below(&r, 5);
		uint64_t entry = rg_random_entry(&r, level);
		uint64_t at =
			(rg_random_table(&r, level) << GN_PAGE_SHIFT) + rg_random_index(&r) * 8;

		cr_assert_eq(gn_vm_write(gn_soft_vm(soft), gpa(at), &entry, sizeof(entry)), 0);
	}
	for (unsigned i = 0; i < 20000; i++) {
		struct gn_soft_outcome out;
		struct gn_access a;
		uint64_t value = i;

		if (i % 500 == 0) {
			now = *gn_vcpu_regs(gn_vm_vcpu(gn_soft_vm(soft), 0));
			rg_random_mode(&r, &next);
			rg_enter_mode(cpu, &now, &next, false);
		}
		if (i % 100 == 99)
			cr_assert_eq(gn_p2m_move(gn_soft_vm(soft),
						 gfn(40 + test_random_below(&r, 500)), 4),
				     0);
		rg_random_access(&r, next.cr4 & X86_CR4_LA57 ? 5 : 4, &a);
		if (a.kind == GN_WRITE)
			a.kind = GN_READ;
		cr_assert_eq(gn_soft_probe(cpu, &a, &value, &out), 0);
		sum = sum * 31 +
		      (out.faulted ? out.vector * 64 + out.error_code : value + out.gpa.v);
	}
	cr_assert_eq(gn_audit(gn_soft_vm(soft), &report), 0, "%s: %s", scheme, report.first);
	sum ^= gn_vm_memory_sum(gn_soft_vm(soft));
	gn_soft_destroy(soft);
	return sum;
}

Test(adding_a_scheme, the_page_is_true)
{
	cr_assert_eq(gn_schemes_register_all(), 0);
	cr_assert_eq(gn_scheme_register(&gn_scheme_flat), 0);
	cr_assert_eq(history("flat"), history("native"));
}
