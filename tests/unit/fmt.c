/* SPDX-License-Identifier: MIT */
/*
 * fmt.c - what must hold of every entry format: its fields do not overlap, software bits are nobody's, encode and
 * decode are inverse, and each malformation the manuals name is one.
 */
#include <criterion/criterion.h>

#include <gnomon/x86.h>

#include "mmu/entry.h"
#include "mmu/fmt.h"
#include "mmu/fmt_x86.h"

#include "support/cases.h"

static const struct gn_fmt *const formats[] = { &gn_fmt_x86_4, &gn_fmt_x86_5, &gn_fmt_ept_4,
						&gn_fmt_ept_5, &gn_fmt_npt_4, &gn_fmt_npt_5,
						&gn_fmt_fake };
#define FORMATS (sizeof(formats) / sizeof(formats[0]))

/* Claim @field in @taken; a right may share its bit with `present` alone. */
static bool claims(uint64_t *taken, uint64_t field)
{
	bool is_free = !(*taken & field);

	*taken |= field;
	return is_free;
}

static void check_level(const struct gn_fmt *f, unsigned level)
{
	const struct gn_fmt_level *l = &f->level[level];
	uint64_t rights = 0, taken, low = gn_level_bytes(level) - GN_PAGE_SIZE;

	for (unsigned i = 0; i < GN_RIGHTS; i++) {
		cr_assert(!(rights & (l->grant[i] | l->deny[i])), "%s level %u: right %u overlaps",
			  f->name, level, i);
		cr_assert(!l->grant[i] || !l->deny[i], "%s level %u: right %u grants and denies",
			  f->name, level, i);
		rights |= l->grant[i] | l->deny[i];
	}
	cr_assert(!(l->present & ~rights), "%s level %u: present is no right's bit", f->name,
		  level);
	cr_assert(l->grant[GN_RI_R] & l->present, "%s level %u: R without present", f->name, level);

	taken = rights;
	cr_assert(claims(&taken, l->leaf), "%s level %u: leaf", f->name, level);
	cr_assert(claims(&taken, l->address), "%s level %u: address", f->name, level);
	cr_assert(claims(&taken, l->accessed), "%s level %u: accessed", f->name, level);
	cr_assert(claims(&taken, l->dirty), "%s level %u: dirty", f->name, level);
	cr_assert(claims(&taken, l->global), "%s level %u: global", f->name, level);
	cr_assert(claims(&taken, l->pkey), "%s level %u: pkey", f->name, level);
	cr_assert(claims(&taken, l->fixed), "%s level %u: fixed", f->name, level);
	cr_assert(claims(&taken, l->software), "%s level %u: software", f->name, level);
	cr_assert(!(l->software & (l->fixed_leaf | l->reserved_leaf | l->reserved_table)),
		  "%s level %u: a software bit means something", f->name, level);
	cr_assert(!(l->fixed_leaf & (taken | l->reserved_leaf)), "%s level %u: fixed_leaf", f->name,
		  level);
	cr_assert(!(l->reserved_leaf & taken & ~(l->address & low)), "%s level %u: reserved_leaf",
		  f->name, level);
	cr_assert(!(l->reserved_table & taken & ~l->leaf), "%s level %u: reserved_table", f->name,
		  level);
	cr_assert(__builtin_popcountll(l->software) >= GN_SW_BITS, "%s level %u: software bits",
		  f->name, level);
	cr_assert_eq(l->shift, gn_level_shift(level));
	cr_assert(level > 1 || l->leaf == 0);
	cr_assert_eq(l->leaf_allowed, level <= 3, "%s level %u", f->name, level);
}

Test(fmt, fields_do_not_overlap)
{
	for (unsigned i = 0; i < FORMATS; i++)
		for (unsigned level = 1; level <= formats[i]->levels; level++)
			check_level(formats[i], level);
}

static gn_rights_t expressible(const struct gn_fmt *f, unsigned level, gn_rights_t rights)
{
	const struct gn_fmt_level *l = &f->level[level];

	for (unsigned i = 0; i < GN_RIGHTS; i++)
		if (!(l->grant[i] | l->deny[i]))
			rights |= (gn_rights_t)(1u << i);
	return rights;
}

static void check_inverse(const struct gn_fmt *f, unsigned level, gn_rights_t rights,
			  uint64_t number)
{
	const struct gn_fmt_level *l = &f->level[level];
	uint64_t e = gn_fmt_table(f, level, pfn(number), rights);
	gn_rights_t want = expressible(f, level, rights);

	if (level > 1) {
		cr_assert(gn_fmt_is_present(f, level, e));
		cr_assert(!gn_fmt_is_leaf(f, level, e));
		cr_assert_eq(gn_fmt_address(f, level, e), number << GN_PAGE_SHIFT);
		cr_assert_eq(gn_fmt_rights(f, level, e), want, "%s table %u rights %x", f->name,
			     level, rights);
		cr_assert(!gn_fmt_is_malformed(f, level, e, 52));
	}
	if (!l->leaf_allowed)
		return;
	number &= ~(gn_level_pages(level) - 1);
	e = gn_fmt_leaf(f, level, pfn(number), rights) | l->accessed | l->dirty | l->global |
	    l->software;
	for (unsigned key = 0; key < 16; key++) {
		uint64_t keyed = e | gn_fmt_pkey_bits(f, level, key);

		cr_assert(gn_fmt_is_present(f, level, keyed));
		cr_assert(gn_fmt_is_leaf(f, level, keyed));
		cr_assert_eq(gn_fmt_address(f, level, keyed), number << GN_PAGE_SHIFT);
		cr_assert_eq(gn_fmt_rights(f, level, keyed), want, "%s leaf %u rights %x", f->name,
			     level, rights);
		cr_assert(!gn_fmt_is_malformed(f, level, keyed, 52));
		cr_assert_eq(gn_fmt_pkey(f, level, keyed), l->pkey ? key : 0);
	}
}

Test(fmt, encode_and_decode_are_inverse)
{
	struct test_random r = test_random_seed(1);

	for (unsigned i = 0; i < FORMATS; i++)
		for (unsigned level = 1; level <= formats[i]->levels; level++)
			for (unsigned rights = 0; rights <= GN_RWXU; rights++)
				for (unsigned n = 0; n < 64 && (rights & GN_R); n++)
					check_inverse(formats[i], level, (gn_rights_t)rights,
						      test_random_next(&r) >> (24 + n % 40));
}

/* No right at all is no entry; and a bit of the address never reads as a right. */
Test(fmt, nothing_granted_is_not_present)
{
	for (unsigned i = 0; i < FORMATS; i++)
		for (unsigned level = 1; level <= formats[i]->levels; level++) {
			const struct gn_fmt *f = formats[i];
			pfn_t all = pfn(f->level[level].address >> GN_PAGE_SHIFT);

			cr_assert(!gn_fmt_is_present(f, level, gn_fmt_leaf(f, level, all, 0)),
				  "%s %u", f->name, level);
			cr_assert(!gn_fmt_is_present(f, level, gn_fmt_table(f, level, all, 0)),
				  "%s %u", f->name, level);
			cr_assert(!gn_fmt_is_present(f, level, f->level[level].software));
		}
}

static void check_malformed(const struct gn_fmt *f, unsigned level)
{
	const struct gn_fmt_level *l = &f->level[level];
	uint64_t table = gn_fmt_table(f, level, pfn(0), GN_RWXU);
	uint64_t leaf = gn_fmt_leaf(f, level, pfn(0), GN_RWXU);

	for (unsigned bit = 0; bit < 64; bit++) {
		uint64_t b = (uint64_t)1 << bit;

		if (level > 1 && !(b & l->leaf))
			cr_assert_eq(gn_fmt_is_malformed(f, level, table | b, 52),
				     !!(b & l->reserved_table), "%s table %u bit %u", f->name,
				     level, bit);
		if (l->leaf_allowed)
			cr_assert_eq(gn_fmt_is_malformed(f, level, leaf | b, 52),
				     !!(b & l->reserved_leaf), "%s leaf %u bit %u", f->name, level,
				     bit);
		for (unsigned width = 32; width <= 52; width += 4) {
			bool beyond = (b & l->address) && bit >= width;

			if (level > 1 && !(b & (l->leaf | l->reserved_table)))
				cr_assert_eq(gn_fmt_is_malformed(f, level, table | b, width),
					     beyond);
		}
	}
}

Test(fmt, each_reserved_bit_is_malformed_and_no_other)
{
	for (unsigned i = 0; i < FORMATS; i++)
		for (unsigned level = 1; level <= formats[i]->levels; level++)
			check_malformed(formats[i], level);
}

/* The figures of the manuals, said once more and by hand. */
Test(fmt, x86_as_in_the_manual)
{
	const struct gn_fmt *f = &gn_fmt_x86_5;
	uint64_t full = X86_PTE_P | X86_PTE_W | X86_PTE_U;

	cr_assert_eq(gn_fmt_leaf(f, 1, pfn(0x1234), GN_RWXU), 0x1234000 | full);
	cr_assert_eq(gn_fmt_leaf(f, 1, pfn(0x1234), GN_R), 0x1234000 | X86_PTE_P | X86_PTE_NX);
	cr_assert_eq(gn_fmt_leaf(f, 2, pfn(0x1200), GN_R | GN_W),
		     0x1200000 | X86_PTE_P | X86_PTE_W | X86_PTE_PS | X86_PTE_NX);
	for (unsigned level = 4; level <= 5; level++)
		cr_assert(gn_fmt_is_malformed(f, level, full | X86_PTE_PS, 52));
	/* PAT of a large leaf is bit 12: neither reserved nor address. */
	for (unsigned level = 2; level <= 3; level++) {
		cr_assert(
			!gn_fmt_is_malformed(f, level, full | X86_PTE_PS | X86_PTE_PAT_LARGE, 52));
		cr_assert_eq(gn_fmt_address(f, level,
					    full | X86_PTE_PS | X86_PTE_PAT_LARGE | 0x40000000),
			     0x40000000);
		cr_assert(gn_fmt_is_malformed(f, level, full | X86_PTE_PS | 0x2000, 52));
	}
	cr_assert(!gn_fmt_is_malformed(f, 2, full | X86_PTE_PS | 0x200000, 52));
	cr_assert(gn_fmt_is_malformed(f, 3, full | X86_PTE_PS | 0x20000000, 52));
	cr_assert(gn_fmt_is_malformed(f, 1, full | (uint64_t)1 << 46, 46));
	cr_assert(!gn_fmt_is_malformed(f, 1, full | (uint64_t)1 << 45, 46));
}

Test(fmt, ept_as_in_the_manual)
{
	const struct gn_fmt *f = &gn_fmt_ept_4;

	/* Execute-only is legal; write-only and write-execute are misconfigurations. */
	cr_assert(!gn_fmt_is_malformed(f, 1, 4, 52));
	cr_assert(gn_fmt_is_malformed(f, 1, 2, 52));
	cr_assert(gn_fmt_is_malformed(f, 4, 6, 52));
	cr_assert_eq(gn_fmt_rights(f, 1, 4), GN_X | GN_U);
	cr_assert_eq(gn_fmt_leaf(f, 1, pfn(1), GN_RWX), 0x1000 | 7 | 6 << 3 | 1 << 6);
	cr_assert_eq(gn_fmt_leaf(f, 2, pfn(0x200), GN_R), 0x200000 | 1 | 6 << 3 | 1 << 6 | 1 << 7);
	cr_assert_eq(gn_fmt_table(f, 4, pfn(1), GN_RWX), 0x1007);
	cr_assert(gn_fmt_is_malformed(f, 4, 7 | 1 << 7, 52));
	cr_assert(gn_fmt_is_malformed(f, 3, 7 | 1 << 5, 52));
	cr_assert(gn_fmt_is_malformed(f, 2, 7 | 6 << 3 | 1 << 7 | 0x1000,
				      52)); /* bit 12 is reserved here */
	cr_assert_eq(f->level[1].accessed, 1 << 8);
	cr_assert_eq(f->level[1].dirty, 1 << 9);
}

Test(fmt, npt_walks_as_user)
{
	const struct gn_fmt *f = &gn_fmt_npt_4;

	cr_assert_eq(gn_fmt_leaf(f, 1, pfn(1), GN_RWXU), 0x1000 | 7);
	cr_assert_eq(gn_fmt_rights(f, 1, 3),
		     GN_RWX); /* no U: the hardware's user walk fails here */
	cr_assert(gn_fmt_is_malformed(f, 4, 7 | 1 << 8, 52));
	cr_assert(!gn_fmt_is_malformed(f, 3, 7 | 1 << 8, 52));
}

/* The guest walk's short way to rights says what the descriptor says. */
Test(fmt, x86_rights_at_once)
{
	struct test_random r = test_random_seed(2);

	for (unsigned i = 0; i < 100000; i++) {
		unsigned level = 1 + (unsigned)test_random_below(&r, 5);
		uint64_t a = test_random_next(&r), b = test_random_next(&r);
		gn_rights_t want = gn_fmt_rights(&gn_fmt_x86_5, level, a) &
				   gn_fmt_rights(&gn_fmt_x86_5, level, b);

		cr_assert_eq(gn_x86_rights((a ^ GN_X86_FLIP) & (b ^ GN_X86_FLIP)), want);
	}
}

/* What gn_fmt_is_plain() says in one comparison, told one by one. */
static bool is_plain(const struct gn_fmt *f, unsigned level, uint64_t entry)
{
	return gn_fmt_is_present(f, level, entry) && gn_fmt_rights(f, level, entry) == GN_RWXU &&
	       gn_fmt_is_leaf(f, level, entry) == (level == 1) &&
	       !(f->level[level].accessed & ~entry) &&
	       !gn_fmt_is_malformed(f, level, entry, f->phys_bits);
}

Test(fmt, plain_entries_are_told_by_one_comparison)
{
	struct test_random r = test_random_seed(17);
	unsigned plain = 0, cases = 0;

	for (size_t i = 0; i < FORMATS; i++) {
		const struct gn_fmt *f = formats[i];

		for (unsigned level = 1; level <= f->levels; level++) {
			uint64_t base = level == 1 ? gn_fmt_leaf(f, 1, pfn(5), GN_RWXU)
						   : gn_fmt_table(f, level, pfn(5), GN_RWXU);

			base |= f->level[level].accessed;
			cr_assert(gn_fmt_is_plain(f, level, base, 0), "%s level %u", f->name,
				  level);
			for (unsigned bit = 0; bit < 64; bit++) {
				uint64_t one = (uint64_t)1 << bit;

				cr_assert(base & one ||
					  !gn_fmt_is_plain(f, level, base | one, one));
			}
			for (unsigned n = 0; n < 4096; n++, cases++) {
				uint64_t entry = base;

				for (uint64_t flips = test_random_below(&r, 12); flips; flips--)
					entry ^= (uint64_t)1 << test_random_below(&r, 64);
				cr_assert_eq(gn_fmt_is_plain(f, level, entry, 0),
					     is_plain(f, level, entry), "%s level %u: %#llx",
					     f->name, level, (unsigned long long)entry);
				plain += is_plain(f, level, entry);
			}
		}
	}
	cr_assert(plain > cases / 4 && plain < cases * 3 / 4, "%u of %u", plain, cases);
}
