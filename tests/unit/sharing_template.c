/* SPDX-License-Identifier: MIT */
/*
 * sharing_template.c - a domain of a VM over a template: what counts as shared, when a copy is looked at and goes, and which domains
 * take such a VM.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <unistd.h>

#include <gnomon/schemes.h>
#include <gnomon/sharing.h>

#include "mmu/vm.h"
#include "support/template.h"

#define PAGES 1100u /* the last area is not whole */

static struct gn_vm *vm;
static struct gn_domain *domain;

static struct gn_vm *make_vm(void)
{
	const int fd = template_new(PAGES, TEMPLATE_SEALS);
	const struct gn_vm_config config = { .scheme = "ept",
					     .mem_bytes = PAGES * GN_PAGE_SIZE,
					     .vcpus = 1,
					     .pool = GN_POOL_TEMPLATE,
					     .template_fd = fd };
	struct gn_vm *made = NULL;
	static bool registered;

	cr_assert_geq(fd, 0);
	if (!registered)
		cr_assert_eq(gn_schemes_register_all(), 0);
	registered = true;
	cr_assert_eq(gn_vm_create(&config, &made), 0);
	close(fd);
	return made;
}

static void make(void)
{
	struct gn_domain_config config = { .max_pages = PAGES };

	vm = make_vm();
	config.frames = gn_vm_frames(vm);
	cr_assert_eq(gn_domain_create(&config, &domain), 0);
	cr_assert_eq(gn_domain_add(domain, vm), 0);
}

static void tear_down(void)
{
	struct gn_audit_report report;

	if (!vm)
		return;
	cr_assert_eq(gn_domain_audit(&domain, 1, &report), 0, "%s", report.first);
	gn_domain_destroy(domain);
	gn_vm_destroy(vm);
}

TestSuite(sharing_template, .fini = tear_down);

static void store(uint64_t at, unsigned word, uint64_t value)
{
	cr_assert_eq(gn_vm_write(vm, gpa(at * GN_PAGE_SIZE + word * sizeof(value)), &value,
				 sizeof(value)),
		     0);
}

static void rewrite(uint64_t at)
{
	store(at, 100, template_word(at, 100));
}

static struct gn_sharing_stats rounds(unsigned count)
{
	struct gn_sharing_stats stats;
	bool done;

	while (count--) {
		cr_assert_eq(gn_domain_sweep(domain), 0);
		do
			cr_assert_eq(gn_domain_scan(domain, 0, &done), 0);
		while (!done);
	}
	gn_domain_stats(domain, &stats);
	return stats;
}

Test(sharing_template, what_was_not_written_is_shared_and_costs_no_look)
{
	struct gn_sharing_stats stats;

	make();
	stats = rounds(2);
	cr_assert_eq(stats.template_pages, PAGES);
	cr_assert_eq(stats.pages_sharing, PAGES);
	cr_assert_eq(stats.pages_shared, 0);
	cr_assert_eq(stats.pages_scanned, 0);
	stats = rounds(100);
	cr_assert_eq(stats.pages_scanned, 0);
	cr_assert_eq(stats.template_pages, PAGES);
}

Test(sharing_template, a_copy_that_stood_still_is_compared_once)
{
	struct gn_sharing_stats stats;

	make();
	rounds(2);
	for (uint64_t at = 500; at < 520; at++)
		rewrite(at);
	store(505, 0, 1);
	store(PAGES - 1, 3, 1);
	rewrite(PAGES - 2);
	stats = rounds(1);
	cr_assert_eq(stats.template_pages, PAGES - 22);
	cr_assert_eq(stats.pages_scanned, 0, "it may be written again");
	stats = rounds(3);
	cr_assert_eq(stats.pages_merged, 20);
	cr_assert_eq(stats.zero_pages, 0);
	cr_assert_eq(stats.template_pages, PAGES - 2);
	cr_assert_eq(stats.pages_unshared, 2);
	cr_assert_eq(stats.pages_scanned, 22);
	stats = rounds(100);
	cr_assert_eq(stats.pages_scanned, 22);
	store(505, 0, template_word(505, 0));
	stats = rounds(4);
	cr_assert_eq(stats.pages_merged, 21);
	cr_assert_eq(stats.template_pages, PAGES - 1);
}

Test(sharing_template, what_is_no_memory_or_read_only)
{
	struct gn_sharing_stats stats;

	make();
	rewrite(7);
	cr_assert_eq(gn_p2m_protect(vm, gfn(7), 2, true), 0);
	cr_assert_eq(gn_p2m_set_mmio(vm, gfn(9), 3), 0);
	stats = rounds(4);
	cr_assert_eq(stats.pages_merged, 0);
	cr_assert_eq(stats.pages_volatile, 1, "it waits");
	cr_assert_eq(stats.pages_empty, 3);
	cr_assert_eq(stats.template_pages, PAGES - 4);
	cr_assert_eq(gn_p2m_protect(vm, gfn(7), 2, false), 0);
	cr_assert_eq(rounds(2).pages_merged, 1, "without another write");
}

Test(sharing_template, a_hint_never_is_heard)
{
	struct gn_sharing_stats stats;

	make();
	rewrite(7);
	rewrite(8);
	cr_assert_eq(gn_domain_hint(domain, vm, gfn(7), 1, GN_SHARE_NEVER), 0);
	stats = rounds(4);
	cr_assert_eq(stats.pages_merged, 1);
	cr_assert_eq(gn_domain_hint(domain, vm, gfn(7), 1, GN_SHARE_NONE), 0);
	stats = rounds(4);
	cr_assert_eq(stats.pages_merged, 2);
}

Test(sharing_template, without_a_log_pages_are_looked_at_again)
{
	struct gn_sharing_stats stats;

	make();
	gn_domain_remove(domain, vm);
	cr_assert_eq(gn_vm_switch_scheme(vm, "native"), 0);
	cr_assert_eq(gn_domain_add(domain, vm), 0);
	for (uint64_t at = 0; at < 10; at++)
		rewrite(at);
	store(3, 0, 1);
	stats = rounds(3);
	cr_assert_eq(stats.pages_merged, 9);
	store(3, 0, template_word(3, 0));
	rewrite(700);
	stats = rounds(20);
	cr_assert_eq(stats.pages_merged, 11, "nobody told of the stores");
	cr_assert_eq(stats.template_pages, PAGES);
}

Test(sharing_template, domains_that_do_not_take_it)
{
	struct gn_domain_config config = { .max_pages = PAGES, .quiet = true };
	struct gn_domain *other;
	struct gn_vm *stranger;

	make();
	stranger = make_vm();
	cr_assert_eq(gn_domain_add(domain, stranger), -EINVAL, "its pool is its own");
	config.frames = gn_vm_frames(stranger);
	cr_assert_eq(gn_domain_create(&config, &other), 0);
	cr_assert_eq(gn_domain_add(other, stranger), -EINVAL, "it would tell by its timing");
	gn_domain_destroy(other);
	gn_vm_destroy(stranger);
}
