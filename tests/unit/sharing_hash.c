/* SPDX-License-Identifier: MIT */
/*
 * sharing_hash.c - tags: what they tell apart, and that the key is in them.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>

#include <gnomon/types.h>

#include "sharing/hash.h"

static uint8_t page[GN_PAGE_SIZE] __attribute__((aligned(64)));

static struct gn_hasher hasher_of(const char *key, unsigned tag_bits)
{
	struct gn_hasher h;

	cr_assert_eq(gn_hasher_init(&h, key, key ? strlen(key) : 0, tag_bits), 0);
	return h;
}

Test(sharing_hash, each_bit_of_a_page_counts)
{
	struct gn_hasher h = hasher_of("key", 0);
	struct gn_tag zero = gn_hasher_tag(&h, page);

	for (unsigned bit = 0; bit < GN_PAGE_SIZE * 8; bit += 61) {
		page[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_neq(gn_hasher_tag(&h, page).bits, zero.bits, "bit %u", bit);
		page[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	cr_assert_eq(gn_hasher_tag(&h, page).bits, zero.bits);
	cr_assert_eq(gn_hasher_tag(&h, page).check, zero.check);
}

Test(sharing_hash, keys_make_different_tags)
{
	struct gn_hasher a = hasher_of("key", 0), b = hasher_of("kez", 0),
			 again = hasher_of("key", 0);
	struct gn_hasher random = hasher_of(NULL, 0), other_random = hasher_of(NULL, 0);
	uint64_t tag = gn_hasher_tag(&a, page).bits;

	cr_assert_eq(gn_hasher_tag(&again, page).bits, tag);
	cr_assert_neq(gn_hasher_tag(&b, page).bits, tag);
	cr_assert_neq(gn_hasher_tag(&random, page).bits, gn_hasher_tag(&other_random, page).bits);
}

Test(sharing_hash, few_bits_are_the_high_ones)
{
	struct gn_hasher full = hasher_of("key", 0), few = hasher_of("key", 8),
			 all = hasher_of("key", 64);
	uint64_t tag = gn_hasher_tag(&full, page).bits;

	cr_assert_eq(gn_hasher_tag(&few, page).bits, tag >> 56 << 56);
	cr_assert_eq(gn_hasher_tag(&few, page).check, gn_hasher_tag(&full, page).check);
	cr_assert_eq(gn_hasher_tag(&all, page).bits, tag);
}

Test(sharing_hash, what_is_refused)
{
	struct gn_hasher h;

	cr_assert_eq(gn_hasher_init(&h, "key", 3, 65), -EINVAL);
	cr_assert_eq(gn_hasher_init(&h, "key", 0, 0), -EINVAL);
	cr_assert_eq(gn_hasher_init(&h, NULL, 3, 0), -EINVAL);
}

Test(sharing_hash, a_key_that_is_gone)
{
	struct gn_hasher h = hasher_of("key", 0);
	uint8_t any = 0;

	gn_hasher_fini(&h);
	for (unsigned i = 0; i < sizeof(h.secret); i++)
		any |= h.secret[i];
	cr_assert_eq(any, 0);
}
