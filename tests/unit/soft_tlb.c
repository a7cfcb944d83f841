/* SPDX-License-Identifier: MIT */
/*
 * soft_tlb.c - TLBs of several arrays, and walk caches.
 */
#include <criterion/criterion.h>

#include "softbackend/pwc.h"
#include "softbackend/tlb.h"

#define TAG(n) ((uint64_t)(n) << GN_KEY_TAG_SHIFT)
#define MIB    ((uint64_t)1 << 20)

static void make_split(struct gn_tlb *t)
{
	const struct gn_tlb_shape shape = { .entries = { 64, 32, 4 },
					    .ways = { 4, 4, 4 },
					    .home = { 0, 0, 1, 2 } };

	cr_assert_eq(gn_tlb_init(t, &shape), 0);
}

static void add(struct gn_tlb *t, uint64_t va, uint64_t tag, bool is_global, unsigned level)
{
	struct gn_tlb_place place = { 0 };
	struct gn_assoc_entry *e = gn_tlb_insert(t, va, tag, is_global, &place, &level);

	cr_assert_not_null(e);
	e->frame = va & ~(gn_level_bytes(level) - 1);
	e->meta = 0;
}

static bool has(struct gn_tlb *t, uint64_t va, uint64_t tag)
{
	struct gn_tlb_place place;
	struct gn_assoc_entry *e = gn_tlb_find(t, va, tag, &place);
	unsigned level = e ? place.level : 1;

	cr_assert(!e || e->frame == (va & ~(gn_level_bytes(level) - 1)));
	return e != NULL;
}

Test(soft_tlb, finds_every_page_size)
{
	struct gn_tlb t;

	make_split(&t);
	add(&t, 0x7fff12345678, TAG(1), false, 1);
	add(&t, 600 * MIB, TAG(1), false, 2);
	add(&t, 5000 * MIB, TAG(1), false, 3);
	cr_assert(has(&t, 0x7fff12345fff, TAG(1)));
	cr_assert(!has(&t, 0x7fff12346000, TAG(1)));
	cr_assert(has(&t, 601 * MIB, TAG(1)));
	cr_assert(!has(&t, 602 * MIB, TAG(1)));
	cr_assert(has(&t, 4100 * MIB, TAG(1)));
	cr_assert(!has(&t, 4100 * MIB, TAG(2)));
	gn_tlb_drop(&t, 601 * MIB + 5, TAG(1));
	cr_assert(!has(&t, 600 * MIB, TAG(1)));
	cr_assert(has(&t, 4100 * MIB, TAG(1)));
	gn_tlb_fini(&t);
}

Test(soft_tlb, globals_survive_what_flushes_a_tag)
{
	struct gn_tlb t;

	make_split(&t);
	add(&t, 0x1000, TAG(1), true, 1);
	add(&t, 0x2000, TAG(1), false, 1);
	add(&t, 0x3000, TAG(2), false, 1);
	cr_assert(has(&t, 0x1000, TAG(2)));
	gn_tlb_drop_tag(&t, TAG(1));
	cr_assert(has(&t, 0x1000, TAG(1)));
	cr_assert(!has(&t, 0x2000, TAG(1)));
	cr_assert(has(&t, 0x3000, TAG(2)));
	gn_tlb_drop_nonglobal(&t);
	cr_assert(has(&t, 0x1000, TAG(5)));
	cr_assert(!has(&t, 0x3000, TAG(2)));
	gn_tlb_drop(&t, 0x1000, TAG(9));
	cr_assert(!has(&t, 0x1000, TAG(1)));
	cr_assert_eq(t.present, 0);
	gn_tlb_fini(&t);
}

Test(soft_tlb, fractures_what_it_has_no_array_for)
{
	const struct gn_tlb_shape shape = { .entries = { 64, 8, 0 },
					    .ways = { 8, 8, 0 },
					    .home = { 0, 0, 1, 2 } };
	struct gn_tlb_place place = { 0 };
	unsigned level = 3;
	struct gn_tlb t;

	cr_assert_eq(gn_tlb_init(&t, &shape), 0);
	gn_tlb_insert(&t, 1500 * MIB, TAG(0), false, &place, &level)->frame = 1500 * MIB;
	cr_assert_eq(level, 2);
	cr_assert(has(&t, 1501 * MIB, TAG(0)));
	cr_assert(!has(&t, 1502 * MIB, TAG(0)));
	gn_tlb_fini(&t);
}

/* Ice Lake and later: 4 KiB pages live in both arrays of the L2 TLB. */
Test(soft_tlb, one_size_in_two_arrays)
{
	const struct gn_tlb_shape shape = { .entries = { 64, 64, 0 },
					    .ways = { 8, 8, 0 },
					    .home = { 0, 0, 0, 1 },
					    .also_4k = true };
	struct gn_tlb t;
	unsigned kept = 0;

	cr_assert_eq(gn_tlb_init(&t, &shape), 0);
	for (uint64_t page = 0; page < 128; page++)
		add(&t, page << GN_PAGE_SHIFT, TAG(0), false, 1);
	for (uint64_t page = 0; page < 128; page++)
		kept += has(&t, page << GN_PAGE_SHIFT, TAG(0));
	cr_assert_eq(kept, 128);
	add(&t, 0x40000000, TAG(0), false, 3);
	cr_assert_eq(t.array[1].used, 64);
	gn_tlb_drop_nonglobal(&t);
	cr_assert_eq(t.present, 0);
	gn_tlb_fini(&t);
}

/* AMD's first level: one array for all sizes, of more ways than one vector has. */
Test(soft_tlb, all_sizes_in_one_wide_array)
{
	const struct gn_tlb_shape shape = { .entries = { 72, 0, 0 },
					    .ways = { 72, 0, 0 },
					    .home = { 0, 0, 0, 0 } };
	struct gn_tlb t;

	cr_assert_eq(gn_tlb_init(&t, &shape), 0);
	for (uint64_t page = 0; page < 60; page++)
		add(&t, page << GN_PAGE_SHIFT, TAG(0), false, 1);
	for (uint64_t page = 0; page < 12; page++)
		add(&t, (1000 + 2 * page) * MIB, TAG(0), true, 2);
	for (uint64_t page = 0; page < 60; page++)
		cr_assert(has(&t, page << GN_PAGE_SHIFT, TAG(0)));
	for (uint64_t page = 0; page < 12; page++)
		cr_assert(has(&t, (1000 + 2 * page) * MIB, TAG(1)));
	add(&t, 5000 * MIB, TAG(0), false, 3); /* the one used longest ago goes */
	cr_assert(!has(&t, 0, TAG(0)));
	cr_assert(has(&t, 1 << GN_PAGE_SHIFT, TAG(0)));
	cr_assert_eq(t.array[0].used, 72);
	gn_tlb_drop_nonglobal(&t);
	cr_assert_eq(t.array[0].used, 12);
	gn_tlb_fini(&t);
}

static unsigned level_found(struct gn_tlb *t, uint64_t va)
{
	struct gn_tlb_place place;

	return gn_tlb_find(t, va, TAG(0), &place) ? place.level : 0;
}

/* A guest that changed a page's size and flushed nothing: whichever is found, it is the size used last. */
Test(soft_tlb, of_two_sizes_the_one_used_last)
{
	const struct gn_tlb_shape wide = { .entries = { 64, 0, 0 },
					   .ways = { 64, 0, 0 },
					   .home = { 0, 0, 0, 0 } };

	for (unsigned i = 0; i < 2; i++) {
		struct gn_tlb t;

		if (i)
			cr_assert_eq(gn_tlb_init(&t, &wide), 0);
		else
			make_split(&t);
		add(&t, 4 * MIB, TAG(0), false, 1);
		add(&t, 4 * MIB, TAG(0), false, 2);
		add(&t, 8 * MIB, TAG(0), false, 1);
		cr_assert_eq(level_found(&t, 4 * MIB), 1);
		cr_assert_eq(level_found(&t, 5 * MIB), 2);
		cr_assert_eq(level_found(&t, 4 * MIB), 2);
		cr_assert_eq(level_found(&t, 8 * MIB), 1);
		cr_assert_eq(level_found(&t, 4 * MIB), 1);
		gn_tlb_fini(&t);
	}
}

Test(soft_pwc, answers_with_the_lowest_entry)
{
	const struct gn_pwc_shape shape = { .entries = { 0, 0, 32, 4, 2, 2 },
					    .ways = { 0, 0, 4, 4, 1, 2 } };
	const struct gn_assoc_entry *e;
	struct gn_assoc_place pde;
	struct gn_pwc p;
	unsigned level;

	cr_assert_eq(gn_pwc_init(&p, &shape), 0);
	cr_assert_null(gn_pwc_find(&p, 0x1000, TAG(1), 4, &level, &pde));
	gn_pwc_insert(&p, 0x1000, TAG(1), 4, &pde, 0xa000, GN_RWX, GN_R);
	e = gn_pwc_find(&p, 0x1000, TAG(1), 4, &level, &pde);
	cr_assert(e && level == 4 && e->frame == 0xa000 && gn_pwc_rights(e) == GN_RWX);
	gn_pwc_insert(&p, 0x1000, TAG(1), 2, &pde, 0xb000, GN_R, GN_R);
	e = gn_pwc_find(&p, 0x1fffff, TAG(1), 4, &level, &pde);
	cr_assert(e && level == 2 && e->frame == 0xb000);
	e = gn_pwc_find(&p, 0x200000, TAG(1), 4, &level, &pde);
	cr_assert(e && level == 4);
	cr_assert_null(gn_pwc_find(&p, 0x1000, TAG(2), 4, &level, &pde));
	gn_pwc_drop_tag(&p, TAG(1));
	cr_assert_null(gn_pwc_find(&p, 0x1000, TAG(1), 4, &level, &pde));
	gn_pwc_fini(&p);
}
