/* SPDX-License-Identifier: MIT */
/*
 * p2m_blocks.c - blocks of host frames: given whole, split where they must be and no further, moved
 * as blocks; and a random history of every operation, held against a model, with blocks and
 * without.
 */
#include <errno.h>

#include "support/p2m_rig.h"

TestSuite(p2m_blocks, .fini = rig_teardown);

Test(p2m_blocks, one_touch_backs_a_block)
{
	rig_make(6 * MIB + 8 * GN_PAGE_SIZE, 2);
	rig_fill(700, 1);
	struct gn_p2m_info first = plain_query(vm, 512);

	cr_assert_eq(first.level, 2);
	cr_assert_eq(first.pfn.v % 512, 0);
	cr_assert_eq(vm->p2m.backed_pages, 512);
	for (uint64_t i = 0; i < 512; i++) {
		struct gn_p2m_info info = plain_query(vm, 512 + i);

		cr_assert_eq(info.pfn.v, first.pfn.v + i);
		cr_assert_eq(info.level, 2);
	}
	cr_assert_eq(rig_state(511), GN_P2M_UNBACKED);
	cr_assert_eq(rig_state(1024), GN_P2M_UNBACKED);
	/* The tail of RAM is no whole block. */
	rig_fill(1536 + 2, 1);
	cr_assert_eq(plain_query(vm, 1538).level, 1);
	cr_assert_eq(vm->p2m.backed_pages, 513);
	/* Neither is one where something is there already. */
	cr_assert_eq(gn_p2m_set_mmio(vm, gfn(3), 1), 0);
	rig_fill(0, 1);
	cr_assert_eq(plain_query(vm, 0).level, 1);
	cr_assert_eq(vm->p2m.backed_pages, 514);
	cr_assert_eq(gn_p2m_populate(vm, gfn(1030), 2), 0);
	cr_assert_eq(plain_query(vm, 1024).level, 2, "populate fills the whole block");
}

Test(p2m_blocks, smaller_when_the_pool_has_none)
{
	struct gn_vm_config config = plain_config(6 * MIB);

	config.backing_level = 2;
	config.pool_bytes = 6 * MIB; /* the scheme's page spoils one block */
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), 512 + 512 + 511), 0);
	cr_assert_eq(plain_query(vm, 0).level, 2);
	cr_assert_eq(plain_query(vm, 512).level, 2);
	cr_assert_eq(plain_query(vm, 1024).level, 1);
	cr_assert_eq(rig_state(1535), GN_P2M_UNBACKED);
}

Test(p2m_blocks, a_change_of_a_part_splits_the_block)
{
	rig_make(8 * MIB, 2);
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), PAGES), 0);
	uint64_t sum;

	rig_fill(512, 1);
	sum = gn_vm_memory_sum(vm);
	cr_assert_eq(gn_p2m_protect(vm, gfn(100), 1, true), 0);
	for (uint64_t i = 0; i < PAGES; i++) {
		cr_assert_eq(plain_query(vm, i).level, i < 512 ? 1 : 2, "gfn %u", (unsigned)i);
		cr_assert_eq(rig_state(i), i == 100 ? GN_P2M_READONLY : GN_P2M_PRIVATE);
	}
	/* From the middle of one block to the middle of the next: the one between stays whole. */
	cr_assert_eq(gn_p2m_protect(vm, gfn(512 + 5), 512 + 512, true), 0);
	for (uint64_t i = 512; i < PAGES; i++)
		cr_assert_eq(plain_query(vm, i).level, i / 512 == 2 ? 2 : 1, "gfn %u", (unsigned)i);
	cr_assert_eq(gn_vm_memory_sum(vm), sum);
}

Test(p2m_blocks, first_and_last_page_of_a_block)
{
	for (unsigned last = 0; last < 2; last++) {
		rig_make(2 * MIB, 2);
		cr_assert_eq(gn_p2m_populate(vm, gfn(0), 512), 0);
		cr_assert_eq(gn_p2m_discard(vm, gfn(last ? 511 : 0), 1), 0);
		for (uint64_t i = 0; i < 512; i++)
			cr_assert_leq(plain_query(vm, i).level, 1);
		if (!last)
			gn_vm_destroy(vm);
	}
}

Test(p2m_blocks, a_gib_splits_only_where_it_must)
{
	rig_make(1024 * MIB, 3);
	rig_fill(0, 1);
	cr_assert_eq(plain_query(vm, 0).level, 3);
	cr_assert_eq(vm->p2m.backed_pages, 262144);
	cr_assert_eq(gn_p2m_discard(vm, gfn(1024), 512), 0);
	cr_assert_eq(plain_query(vm, 0).level, 2);
	cr_assert_eq(plain_query(vm, 262143).level, 2);
	cr_assert_eq(rig_state(1024), GN_P2M_UNBACKED);
	cr_assert_eq(gn_p2m_discard(vm, gfn(1), 1), 0);
	cr_assert_eq(plain_query(vm, 0).level, 1);
	cr_assert_eq(plain_query(vm, 512).level, 2);
	cr_assert_eq(rig_byte_of(0), 1);
}

Test(p2m_blocks, move_of_a_block_is_a_block)
{
	rig_make(8 * MIB, 2);
	for (uint64_t i = 0; i < PAGES; i += 64)
		rig_fill(i, (uint8_t)(i / 64 + 1));
	uint64_t sum = gn_vm_memory_sum(vm);

	cr_assert_eq(gn_p2m_move(vm, gfn(0), 1024), 0);
	cr_assert_eq(plain_query(vm, 0).level, 2);
	cr_assert_eq(plain_query(vm, 1023).level, 2);
	cr_assert_eq(gn_p2m_move(vm, gfn(10), 1024), 0);
	cr_assert_eq(plain_query(vm, 0).level, 1);
	cr_assert_eq(plain_query(vm, 512).level, 2);
	cr_assert_eq(plain_query(vm, 1024).level, 1);
	cr_assert_eq(gn_vm_memory_sum(vm), sum);
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_used(vm->frames), PAGES + 1);
}

/* ---- A random history ------------------------------------------------------------------------ */

/* What the p2m should say, by brute force. */
static struct {
	uint8_t state, byte;
} model[PAGES];

/* Every word of a large block agrees with its neighbours, and no frame is named twice unless
 * shared. */
static void check_words(void)
{
	static uint16_t named[64 * PAGES];
	uint64_t backed = 0;

	memset(named, 0, sizeof(named));
	for (uint64_t i = 0; i < PAGES; i++) {
		struct gn_p2m_info w = plain_query(vm, i);

		cr_assert_eq(w.state, model[i].state, "gfn %u", (unsigned)i);
		if (!w.level)
			continue;
		backed++;
		named[w.pfn.v]++;
		if (w.level == 2) {
			struct gn_p2m_info head = plain_query(vm, i & ~511ull);

			cr_assert_eq(head.level, 2);
			cr_assert_eq(head.pfn.v % 512, 0);
			cr_assert_eq(w.pfn.v, head.pfn.v + i % 512);
			cr_assert_eq(w.state, head.state);
			cr_assert_eq(w.rights, head.rights);
		}
	}
	cr_assert_eq(vm->p2m.backed_pages, backed);
	gn_retire_drain(vm);
	for (uint64_t i = 0; i < PAGES; i++) {
		struct gn_p2m_info w = plain_query(vm, i);

		if (w.level)
			cr_assert_eq(gn_frames_refs(vm->frames, w.pfn), named[w.pfn.v]);
		if (w.level && w.state != GN_P2M_SHARED)
			cr_assert_eq(named[w.pfn.v], 1);
	}
}

static void history(unsigned backing_level)
{
	uint64_t x = 0x9e3779b97f4a7c15u + backing_level;

	rig_make(PAGES * GN_PAGE_SIZE, backing_level);
	memset(model, 0, sizeof(model));
	for (unsigned step = 0; step < 6000; step++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		uint64_t start = (x >> 8) % PAGES, op = (x >> 32) % 12;
		uint64_t count = (x >> 40) % 16 ? 1 + (x >> 44) % 8 : 1 + (x >> 44) % 600;
		bool refused = false;

		if (start + count > PAGES)
			count = PAGES - start;
		if (op >= OPS) {
			uint8_t byte = (uint8_t)((x >> 50) & 3);
			unsigned s = model[start].state;
			uint8_t page[GN_PAGE_SIZE];

			memset(page, byte, sizeof(page));
			if (op == 11) {
				uint64_t other = (start + 1 + (x >> 20) % 64) % PAGES;
				bool equal = (s == GN_P2M_PRIVATE || s == GN_P2M_SHARED) &&
					     (model[other].state == GN_P2M_PRIVATE ||
					      model[other].state == GN_P2M_SHARED) &&
					     model[start].byte == model[other].byte;
				bool same = plain_query(vm, start).pfn.v ==
					    plain_query(vm, other).pfn.v;

				cr_assert_eq(gn_p2m_share(vm, gfn(start), gfn(other)),
					     equal ? 0 : -EINVAL);
				if (equal && !same)
					model[start].state = model[other].state = GN_P2M_SHARED;
				continue;
			}
			refused = s == GN_P2M_READONLY || s == GN_P2M_BALLOONED || s == GN_P2M_MMIO;
			cr_assert_eq(gn_vm_write(vm, gfn_to_gpa(gfn(start)), page, sizeof(page)),
				     refused ? -EFAULT : 0);
			if (!refused) {
				model[start].state = GN_P2M_PRIVATE;
				model[start].byte = byte;
			}
		} else {
			static const unsigned allowed[OPS] = { 0x0f, 0x2f, 0x07, 0x10,
							       0x0f, 0x0f, 0x3f, 0x0f };

			for (uint64_t i = start; i < start + count; i++)
				refused |= !(allowed[op] >> model[i].state & 1);
			cr_assert_eq(rig_run((unsigned)op, start, count), refused ? -EINVAL : 0);
			for (uint64_t i = start; !refused && i < start + count; i++) {
				unsigned s = model[i].state;

				if (op == 1 || op == 2 || op == 3 || op == 6)
					model[i].byte = 0;
				model[i].state =
					(uint8_t)(op == 0	       ? (s ? s : GN_P2M_PRIVATE)
						  : op == 1 || op == 3 ? GN_P2M_UNBACKED
						  : op == 2	       ? GN_P2M_BALLOONED
						  : op == 4	       ? GN_P2M_READONLY
						  : op == 5 && s == GN_P2M_READONLY ? GN_P2M_PRIVATE
						  : op == 6			    ? GN_P2M_MMIO
										    : s);
			}
		}
		/* Blocks are filled whole: follow what the p2m filled beyond what was asked for. */
		for (uint64_t i = 0; i < PAGES; i++)
			if (model[i].state == GN_P2M_UNBACKED && rig_state(i) == GN_P2M_PRIVATE) {
				cr_assert_gt(backing_level, 1);
				model[i].state = GN_P2M_PRIVATE;
			}
		if (step % 50 == 0)
			check_words();
	}
	check_words();
	for (uint64_t i = 0; i < PAGES; i++)
		if (plain_query(vm, i).level)
			cr_assert_eq(rig_byte_of(i), model[i].byte, "gfn %u", (unsigned)i);
}

Test(p2m_blocks, random_history_4k)
{
	history(1);
}

Test(p2m_blocks, random_history_2m)
{
	history(2);
}
