/* SPDX-License-Identifier: MIT */
/*
 * reclaim.c - the hand goes round: cold zeros go, what is in use or holds something stays, as much as was asked for and no
 * more, under every scheme.
 */
#include <criterion/criterion.h>

#include <errno.h>

#include "balloon/reclaim.h"
#include "mmu/audit.h"
#include "mmu/vm.h"
#include "unit/soft_guest.h"

#define MIB   ((uint64_t)1 << 20)
#define RAM   (32 * MIB)
#define PAGES (RAM / GN_PAGE_SIZE)
#define USED  ((uint64_t)4096) /* pages that the guest has mapped, from gfn 0 on */
#define BASE  ((uint64_t)0x40000000)

struct rig {
	struct guest g;
	struct gn_reclaim reclaim;
	uint64_t first, pages, value; /* what the guest does next */
};

static void boot(struct gn_soft_cpu *cpu, void *ctx)
{
	struct rig *r = ctx;

	(void)cpu;
	guest_start(&r->g, 0);
}

static void store(struct gn_soft_cpu *cpu, void *ctx)
{
	struct rig *r = ctx;

	for (uint64_t i = 0; i < r->pages; i++)
		gn_soft_store(cpu, gva(BASE + (r->first + i) * GN_PAGE_SIZE + 8 * (i % 512)), 8,
			      r->value);
}

/* The guest stores a word of @value to each of the pages. */
static void use(struct rig *r, uint64_t first, uint64_t pages, uint64_t value)
{
	r->first = first;
	r->pages = pages;
	r->value = value;
	cr_assert_eq(gn_soft_run(r->g.cpu, store, r), 0);
}

static void rig_init(struct rig *r, const char *scheme, unsigned backing_level)
{
	const struct gn_soft_config config = { .vm = { .scheme = scheme,
						       .mem_bytes = RAM,
						       .vcpus = 1,
						       .backing_level = backing_level } };

	memset(r, 0, sizeof(*r));
	guest_create(&r->g, &config, 4);
	for (uint64_t at = 0; at < USED; at += gn_level_pages(backing_level))
		guest_map(&r->g, BASE + at * GN_PAGE_SIZE, at * GN_PAGE_SIZE, backing_level,
			  GUEST_RW);
	r->reclaim.vm = r->g.vm;
	cr_assert_eq(gn_soft_run(r->g.cpu, boot, r), 0);
}

static void rig_fini(struct rig *r)
{
	struct gn_audit_report report;

	cr_assert_eq(gn_audit(r->g.vm, &report), 0, "%s", report.first);
	guest_destroy(&r->g);
}

static uint64_t reclaim(struct rig *r, uint64_t bytes)
{
	uint64_t freed = 1;

	cr_assert_eq(gn_reclaim_run(&r->reclaim, bytes, &freed), 0);
	cr_assert_eq(freed % GN_PAGE_SIZE, 0);
	return freed;
}

static uint64_t backed_among_used(struct rig *r)
{
	uint64_t backed = 0;

	for (uint64_t i = 0; i < USED; i++)
		backed += gn_p2m_word_has_frame(gn_p2m_get(&r->g.vm->p2m, gfn(i)));
	return backed;
}

static const char *const schemes[] = { "ept", "npt", "shadow" };
#define SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

/* Contents in [0, 1024), zeros up to USED; of those, [1024, 1536) stay in use. */
Test(reclaim, cold_zeros_go)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		struct rig r;

		rig_init(&r, schemes[s], 1);
		use(&r, 0, 1024, 7);
		use(&r, 1024, USED - 1024, 0);
		cr_assert_eq(reclaim(&r, RAM), 0, "%s: all was in use until now", schemes[s]);
		use(&r, 1024, 512, 0);
		cr_assert_eq(reclaim(&r, RAM), (USED - 1536) * GN_PAGE_SIZE, "%s", schemes[s]);
		cr_assert_eq(backed_among_used(&r), 1536, "%s", schemes[s]);
		cr_assert_eq(reclaim(&r, RAM), 512 * GN_PAGE_SIZE, "%s: cold by now", schemes[s]);
		cr_assert_eq(reclaim(&r, RAM), 0, "%s", schemes[s]);
		/* They come back when they are used, and what held something still does. */
		use(&r, 2000, 10, 9);
		cr_assert_eq(backed_among_used(&r), 1034, "%s", schemes[s]);
		for (uint64_t i = 0; i < 1024; i++) {
			uint64_t word;

			cr_assert_eq(
				gn_vm_read(r.g.vm, gpa(i * GN_PAGE_SIZE + 8 * (i % 512)), &word, 8),
				0);
			cr_assert_eq(word, 7, "%s: page %d", schemes[s], (int)i);
		}
		rig_fini(&r);
	}
}

Test(reclaim, a_large_leaf_is_cold_as_a_whole)
{
	for (unsigned s = 0; s < SCHEMES; s++) {
		struct rig r;

		rig_init(&r, schemes[s], 2);
		use(&r, 0, 1, 7);
		use(&r, 512, USED - 512, 0);
		cr_assert_eq(reclaim(&r, RAM), 0, "%s", schemes[s]);
		use(&r, 1023, 1, 0); /* one page of the second block */
		cr_assert_eq(reclaim(&r, RAM), (USED - 1024) * GN_PAGE_SIZE, "%s", schemes[s]);
		cr_assert_eq(backed_among_used(&r), 1024, "%s", schemes[s]);
		cr_assert_eq(reclaim(&r, RAM), 2 * MIB, "%s", schemes[s]);
		cr_assert_eq(backed_among_used(&r), 512, "%s", schemes[s]);
		rig_fini(&r);
	}
}

Test(reclaim, as_much_as_was_asked_for)
{
	uint64_t hand;
	struct rig r;

	rig_init(&r, "ept", 1);
	use(&r, 0, USED, 0);
	cr_assert_eq(reclaim(&r, RAM), 0);
	cr_assert_eq(r.reclaim.hand.v, 0, "once round");
	cr_assert_eq(reclaim(&r, 0), 0);
	cr_assert_eq(r.reclaim.hand.v, 0, "nothing was asked for");
	cr_assert_eq(reclaim(&r, 1), 2 * MIB);
	cr_assert_eq(r.reclaim.hand.v, 512);
	cr_assert_eq(reclaim(&r, 3 * MIB), 4 * MIB, "it goes on where it was");
	hand = r.reclaim.hand.v;
	cr_assert_eq(hand, 1536);
	cr_assert_eq(reclaim(&r, RAM), (USED - hand) * GN_PAGE_SIZE);
	cr_assert_eq(r.reclaim.hand.v, hand, "once round");
	rig_fini(&r);
}

/* A piece at the end that is no whole one. */
Test(reclaim, memory_that_ends_in_a_piece)
{
	static const uint64_t sizes[] = { 1, 511, 512, 513, 1300 };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct gn_vm_config config = { .scheme = "native",
					       .mem_bytes = sizes[i] * GN_PAGE_SIZE,
					       .vcpus = 1 };
		struct gn_reclaim hand = { .vm = NULL };
		uint64_t freed;

		(void)gn_schemes_register_all();
		cr_assert_eq(gn_vm_create(&config, &hand.vm), 0);
		cr_assert_eq(gn_p2m_populate(hand.vm, gfn(0), sizes[i]), 0);
		for (unsigned time = 0; time < 2; time++) {
			cr_assert_eq(gn_reclaim_run(&hand, RAM, &freed), 0);
			cr_assert_eq(freed, time ? 0 : sizes[i] * GN_PAGE_SIZE, "%d pages",
				     (int)sizes[i]);
			cr_assert_eq(hand.hand.v, 0);
		}
		gn_vm_destroy(hand.vm);
	}
}

/* One call looks at no more than it says. */
Test(reclaim, a_large_vm_is_looked_at_in_parts)
{
	const uint64_t look_pages = GN_RECLAIM_LOOK_BYTES / GN_PAGE_SIZE;
	struct gn_vm_config config = { .scheme = "native",
				       .mem_bytes = 3 * GN_RECLAIM_LOOK_BYTES / 2,
				       .vcpus = 1 };
	struct gn_reclaim hand = { .vm = NULL };
	uint64_t freed;

	(void)gn_schemes_register_all();
	cr_assert_eq(gn_vm_create(&config, &hand.vm), 0);
	cr_assert_eq(gn_p2m_populate(hand.vm, gfn(look_pages), 3), 0);
	cr_assert_eq(gn_reclaim_run(&hand, MIB, &freed), 0);
	cr_assert_eq(freed, 0);
	cr_assert_eq(hand.hand.v, look_pages);
	cr_assert_eq(gn_reclaim_run(&hand, MIB, &freed), 0);
	cr_assert_eq(freed, 3 * GN_PAGE_SIZE);
	cr_assert_eq(hand.hand.v, look_pages / 2);
	gn_vm_destroy(hand.vm);
}

Test(reclaim, without_accessed_bits_all_is_cold)
{
	struct rig r;

	rig_init(&r, "native", 1);
	use(&r, 0, 1024, 7);
	use(&r, 1024, USED - 1024, 0);
	cr_assert_eq(reclaim(&r, RAM), (USED - 1024) * GN_PAGE_SIZE);
	cr_assert_eq(backed_among_used(&r), 1024);
	use(&r, 0, 1024, 0);
	cr_assert_eq(reclaim(&r, RAM), 1024 * GN_PAGE_SIZE);
	rig_fini(&r);
}
