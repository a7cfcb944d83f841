/* SPDX-License-Identifier: MIT */
/*
 * sharing_blocks.c - blocks of 2 MiB are split where it pays, and made whole again.
 */
#include "support/sharing_rig.h"

#define BLOCK ((uint64_t)512)
#define RAM   (8 * MIB)

static const struct gn_domain_config plain_config;

/* Pages [first, first + count) of a VM hold the numbers from @number on. */
static void put_run(struct gn_vm *vm, uint64_t first, uint64_t count, uint64_t number)
{
	for (uint64_t i = 0; i < count; i++)
		rig_put(vm, first + i, number + i);
}

static void check_run(struct gn_vm *vm, uint64_t first, uint64_t count, uint64_t number)
{
	for (uint64_t i = 0; i < count; i++)
		cr_assert(rig_holds(vm, first + i, number + i), "page %d", (int)(first + i));
}

Test(sharing_blocks, clones_are_split)
{
	struct rig r;
	uint64_t used;

	rig_init(&r, "ept", 2, RAM, 2, &plain_config);
	for (unsigned v = 0; v < 2; v++)
		put_run(r.vms[v], 0, 2 * BLOCK, 1);
	used = gn_frames_used(r.frames);
	rig_settle(&r);
	cr_assert_eq(used - gn_frames_used(r.frames), 2 * BLOCK);
	cr_assert_eq(rig_stats(&r).pages_sharing, 2 * BLOCK);
	for (unsigned v = 0; v < 2; v++) {
		cr_assert_eq(rig_query(r.vms[v], 0).level, 1);
		check_run(r.vms[v], 0, 2 * BLOCK, 1);
	}
	rig_fini(&r);
}

static const struct {
	unsigned alike, zeros;
	bool goes;
} parts[] = { { 127, 0, false }, { 128, 0, true },  { 100, 27, false },
	      { 100, 28, true }, { 0, 127, false }, { 0, 128, true } };

Test(sharing_blocks, a_part_that_pays)
{
	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		const unsigned other = parts[i].alike + parts[i].zeros;
		unsigned saved = parts[i].goes ? other : 0;
		struct rig r;
		uint64_t used;

		rig_init(&r, "ept", 2, RAM, 2, &plain_config);
		for (unsigned v = 0; v < 2; v++) {
			put_run(r.vms[v], 0, parts[i].alike, 1);
			put_run(r.vms[v], other, BLOCK - other, 10000 * (v + 1));
		}
		used = gn_frames_used(r.frames);
		rig_settle(&r);
		saved += parts[i].goes ? parts[i].zeros : 0; /* those of the other block as well */
		cr_assert_eq(used - gn_frames_used(r.frames), saved, "%u alike, %u zeros",
			     parts[i].alike, parts[i].zeros);
		cr_assert_eq(rig_query(r.vms[0], 0).level == 2, !parts[i].goes);
		for (unsigned v = 0; v < 2; v++) {
			check_run(r.vms[v], 0, parts[i].alike, 1);
			check_run(r.vms[v], other, BLOCK - other, 10000 * (v + 1));
			for (uint64_t at = parts[i].alike; at < other; at++)
				cr_assert(rig_holds(r.vms[v], at, 0));
		}
		rig_fini(&r);
	}
}

/* What is alike lies in blocks of which too little is alike to split them. */
Test(sharing_blocks, partners_that_do_not_pay)
{
	struct rig r;
	uint64_t used;

	rig_init(&r, "ept", 2, RAM, 2, &plain_config);
	put_run(r.vms[0], 0, 4 * BLOCK, 1000);
	put_run(r.vms[1], 0, BLOCK, 10000);
	for (uint64_t block = 0; block < 4; block++) /* 160 in all, and 40 of each */
		put_run(r.vms[1], block * 40, 40, 1000 + block * BLOCK);
	used = gn_frames_used(r.frames);
	rig_settle(&r);
	cr_assert_eq(gn_frames_used(r.frames), used);
	cr_assert_eq(rig_query(r.vms[1], 0).level, 2);
	rig_fini(&r);
}

/* Block A is worth it only together with B and C, and was looked at before either. */
Test(sharing_blocks, blocks_that_wait_for_each_other)
{
	struct rig r;

	rig_init(&r, "ept", 1, 16 * MIB, 2, &plain_config);
	put_run(r.vms[0], 0, BLOCK, 1000);	   /* A */
	put_run(r.vms[0], BLOCK, BLOCK, 2000);	   /* D */
	put_run(r.vms[0], 2 * BLOCK, BLOCK, 3000); /* B: 120 of A, 120 of D */
	put_run(r.vms[0], 2 * BLOCK, 120, 1000);
	put_run(r.vms[0], 2 * BLOCK + 120, 120, 2000);
	put_run(r.vms[0], 3 * BLOCK, BLOCK, 4000); /* C: 120 others of A, 120 of E */
	put_run(r.vms[0], 3 * BLOCK, 120, 1200);
	put_run(r.vms[0], 4 * BLOCK, BLOCK, 5000); /* E */
	put_run(r.vms[0], 4 * BLOCK, 120, 4120);
	rig_settle(&r);
	rig_settle(&r);
	cr_assert_eq(rig_query(r.vms[0], 0).level, 1, "A");
	for (uint64_t i = 0; i < 120; i++) {
		cr_assert(rig_share(r.vms[0], i, r.vms[0], 2 * BLOCK + i));
		cr_assert(rig_share(r.vms[0], 200 + i, r.vms[0], 3 * BLOCK + i));
	}
	rig_fini(&r);
}

Test(sharing_blocks, formed_again_when_little_is_shared)
{
	struct rig r;

	rig_init(&r, "ept", 2, RAM, 2, &plain_config);
	for (unsigned v = 0; v < 2; v++)
		put_run(r.vms[v], 0, BLOCK, 1);
	rig_settle(&r);
	cr_assert_eq(rig_query(r.vms[0], 0).level, 1);
	put_run(r.vms[0], 0, BLOCK - 40, 7000);
	for (unsigned i = 0; i < 5; i++)
		rig_settle(&r);
	cr_assert_eq(rig_query(r.vms[0], 0).level, 1, "40 are shared");
	put_run(r.vms[0], BLOCK - 40, 10, 8000);
	rig_settle(&r);
	cr_assert_eq(rig_query(r.vms[0], 0).level, 2, "30 are");
	cr_assert_geq(rig_stats(&r).blocks_formed, 1);
	check_run(r.vms[0], 0, BLOCK - 40, 7000);
	check_run(r.vms[0], BLOCK - 40, 10, 8000);
	check_run(r.vms[0], BLOCK - 30, 30, 1 + BLOCK - 30);
	check_run(r.vms[1], 0, BLOCK, 1);
	rig_settle(&r);
	cr_assert_eq(rig_query(r.vms[0], 0).level, 2, "and it stays");
	rig_fini(&r);
}

Test(sharing_blocks, quiet_leaves_them_alone)
{
	const struct gn_domain_config config = { .quiet = true };
	struct rig r;

	rig_init(&r, "ept", 2, RAM, 2, &config);
	for (unsigned v = 0; v < 2; v++)
		put_run(r.vms[v], 0, BLOCK, 1);
	rig_settle(&r);
	cr_assert_eq(rig_query(r.vms[0], 0).level, 2);
	cr_assert_eq(rig_stats(&r).pages_sharing, 0);
	rig_fini(&r);
}
