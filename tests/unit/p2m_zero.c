/* SPDX-License-Identifier: MIT */
/*
 * p2m_zero.c - (of p2m_known.c) pages of zeros are given back and nothing else is: every state, blocks, many runs, and whoever comes in
 * between the first look and the second.
 */
#include <errno.h>

#include "mmu/audit.h"
#include "support/p2m_rig.h"
#include "support/resident.h"

TestSuite(p2m_zero, .fini = rig_teardown);

static uint64_t take(uint64_t at, uint64_t count)
{
	uint64_t freed = ~(uint64_t)0;
	struct gn_audit_report report;

	cr_assert_eq(gn_p2m_discard_zeroes(vm, gfn(at), count, NULL, &freed), 0);
	cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
	return freed;
}

static void put(uint64_t at, uint64_t offset, uint8_t byte)
{
	cr_assert_eq(gn_vm_write(vm, gpa(at * GN_PAGE_SIZE + offset), &byte, 1), 0);
}

static bool is_all(uint64_t at, uint8_t byte)
{
	uint8_t page[GN_PAGE_SIZE], expected[GN_PAGE_SIZE];

	memset(expected, byte, sizeof(expected));
	cr_assert_eq(gn_vm_read(vm, gfn_to_gpa(gfn(at)), page, sizeof(page)), 0);
	return !memcmp(page, expected, sizeof(page));
}

/* ---- States ------------------------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	enum gn_p2m_state before, after;
} states[] = {
	{ "unbacked", GN_P2M_UNBACKED, GN_P2M_UNBACKED },
	{ "private", GN_P2M_PRIVATE, GN_P2M_UNBACKED },
	{ "shared", GN_P2M_SHARED, GN_P2M_SHARED },
	{ "read-only", GN_P2M_READONLY, GN_P2M_READONLY },
	{ "ballooned", GN_P2M_BALLOONED, GN_P2M_BALLOONED },
	{ "mmio", GN_P2M_MMIO, GN_P2M_MMIO },
};
#define STATES (sizeof(states) / sizeof(states[0]))

Test(p2m_zero, every_state_of_zeros)
{
	rig_make(4 * MIB, 1);
	for (unsigned i = 0; i < STATES; i++) {
		uint64_t at = 4 * i, freed = states[i].before != states[i].after;
		uint64_t backed;

		rig_make_state(at, states[i].before, 0);
		backed = vm->p2m.backed_pages;
		cr_assert_eq(take(at, 1), freed, "%s", states[i].name);
		cr_assert_eq(rig_state(at), states[i].after, "%s", states[i].name);
		cr_assert_eq(vm->p2m.backed_pages, backed - freed, "%s", states[i].name);
	}
	cr_assert_eq(take(0, 4 * MIB / GN_PAGE_SIZE), 0, "nothing is left to take");
}

/* Whoever did not ask to give them finds them again, when others find no memory. */
Test(p2m_zero, zeros_that_were_taken_come_back_out_of_the_reserve)
{
	const uint64_t taken = 8;
	uint64_t spare;

	rig_make(4 * MIB, 1);
	for (uint64_t i = 0; i < taken; i++)
		rig_fill(i, 0);
	cr_assert_eq(take(0, taken), taken);
	spare = vm->frames->own_count - gn_frames_used(vm->frames);
	gn_frames_set_reserve(vm->frames, spare);
	cr_assert_eq(gn_p2m_populate(vm, gfn(taken), 1), -ENOMEM);
	for (uint64_t i = 0; i < taken; i++) {
		put(i, 100, 1);
		cr_assert_eq(rig_state(i), GN_P2M_PRIVATE);
		put(i, 100, 0);
		cr_assert(is_all(i, 0));
		cr_assert_eq(gn_frames_reserve_low(vm->frames), spare - i - 1);
	}
	/* Given away knowingly, it is like any other. */
	cr_assert_eq(take(0, 1), 1);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(0), 1), 0);
	cr_assert_eq(gn_p2m_unballoon(vm, gfn(0), 1), 0);
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), 1), -ENOMEM);
}

Test(p2m_zero, one_byte_keeps_a_page)
{
	static const uint64_t offsets[] = { 0, 1, 7, 8, 63, 64, 2048, 4088, 4095 };

	rig_make(4 * MIB, 1);
	for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		uint8_t byte;

		put(i, offsets[i], 0x80);
		cr_assert_eq(take(i, 1), 0, "byte %d", (int)offsets[i]);
		cr_assert_eq(rig_state(i), GN_P2M_PRIVATE);
		cr_assert_eq(gn_vm_read(vm, gpa(i * GN_PAGE_SIZE + offsets[i]), &byte, 1), 0);
		cr_assert_eq(byte, 0x80);
		put(i, offsets[i], 0);
		cr_assert_eq(take(i, 1), 1, "byte %d", (int)offsets[i]);
	}
}

/* ---- The host, and use afterwards ------------------------------------------------------------------------------- */

static uint64_t host_pages(void)
{
	struct gn_pool pool;

	gn_vm_pool(vm, &pool);
	return resident_pages(pool.base, pool.bytes);
}

/* Every other page, so more runs than a change takes; then what is between them. */
Test(p2m_zero, the_host_has_them_and_the_guest_too)
{
	struct gn_balloon_usage usage;
	uint64_t before;

	rig_make(PAGES * GN_PAGE_SIZE, 1);
	for (unsigned i = 0; i < PAGES; i++)
		rig_fill(i, i % 2 ? 5 : 0);
	before = host_pages();
	cr_assert_eq(take(0, PAGES), PAGES / 2);
	cr_assert_eq(host_pages(), before - PAGES / 2);
	gn_vm_balloon_usage(vm, &usage);
	cr_assert_eq(usage.released_bytes, PAGES / 2 * GN_PAGE_SIZE);
	cr_assert_eq(usage.ballooned_pages, 0);
	for (unsigned i = 0; i < PAGES; i++)
		cr_assert_eq(rig_state(i), i % 2 ? GN_P2M_PRIVATE : GN_P2M_UNBACKED);
	for (unsigned i = 0; i < PAGES; i++)
		cr_assert(is_all(i, i % 2 ? 5 : 0), "page %u", i);
	/* They have frames again for having been read. */
	for (unsigned i = 1; i < PAGES; i += 2)
		rig_fill(i, 0);
	cr_assert_eq(take(0, PAGES), PAGES);
	rig_fill(3, 9);
	cr_assert(is_all(3, 9));
}

Test(p2m_zero, translations_go_first_and_only_of_candidates)
{
	rig_make(4 * MIB, 1);
	for (unsigned i = 0; i < 8; i++)
		rig_fill(i, i == 4 || i == 5 ? 0 : 1);
	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(take(0, 8), 2);
	cr_assert_eq(plain.ranges, 1);
	cr_assert_eq(plain.start.v, 4);
	cr_assert_eq(plain.end.v, 6);
	cr_assert_eq(plain.change, GN_RANGE_ZAP);
	cr_assert(plain.sequence_was_odd);
	cr_assert_eq(plain.flushes, 1);
	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(take(0, 4), 0);
	cr_assert_eq(plain.ranges + plain.flushes, 0, "pages with contents are not disturbed");
}

Test(p2m_zero, nothing_changed_says_the_dirty_log)
{
	uint8_t marks = 0;

	rig_make(4 * MIB, 1);
	rig_fill(0, 0);
	rig_fill(1, 0);
	cr_assert_eq(gn_dirty_start(vm), 0);
	put(1, 0, 0);
	cr_assert_eq(take(0, 2), 2);
	cr_assert_eq(gn_dirty_harvest(vm, gfn(0), 8, &marks), 0);
	cr_assert_eq(marks, 2, "what was marked before stays marked");
	gn_dirty_stop(vm);
}

/* ---- Blocks ---------------------------------------------------------------------------------------------------- */

Test(p2m_zero, a_large_block_goes_whole_or_stays)
{
	rig_make(8 * MIB, 2);
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), 2048), 0);
	put(512 + 511, 4095, 1);
	cr_assert_eq(take(0, 511), 0, "in the range in part");
	cr_assert_eq(take(1, 511), 0, "in the range in part");
	cr_assert_eq(plain_query(vm, 0).level, 2);
	cr_assert_eq(take(0, 1536), 1024);
	cr_assert_eq(rig_state(0), GN_P2M_UNBACKED);
	cr_assert_eq(plain_query(vm, 512).level, 2, "never split");
	cr_assert_eq(rig_state(512), GN_P2M_PRIVATE);
	cr_assert_eq(rig_state(1024), GN_P2M_UNBACKED);
	cr_assert_eq(plain_query(vm, 1536).level, 2, "not asked for");
	/* It comes back as a block; one that was split before goes page by page. */
	put(0, 0, 1);
	cr_assert_eq(plain_query(vm, 0).level, 2);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(7), 1), 0);
	cr_assert_eq(take(0, 512), 510);
	cr_assert_eq(rig_byte_of(0), 0);
	cr_assert_eq(take(512, 512), 0);
}

Test(p2m_zero, a_block_of_1_gib_stays)
{
	struct gn_vm_config config = plain_config(1024 * MIB);

	config.backing_level = 3;
	config.pool_bytes = 2048 * MIB;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	put(0, 0, 0);
	cr_assert_eq(plain_query(vm, 0).level, 3);
	cr_assert_eq(take(0, 1024 * MIB / GN_PAGE_SIZE), 0);
	cr_assert_eq(plain_query(vm, 0).level, 3);
}

/* As cold as what gn_accessed_harvest() leaves out. */
Test(p2m_zero, what_is_spared_stays)
{
	static const uint8_t odd_ones[] = { 0xaa, 0xaa };
	static uint8_t one_in_the_last_block[128];
	uint64_t freed;

	rig_make(8 * MIB, 2);
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), 1024), 0);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(511), 1), 0);
	cr_assert_eq(gn_p2m_discard_zeroes(vm, gfn(3), 16, odd_ones, &freed), 0);
	cr_assert_eq(freed, 8);
	for (uint64_t i = 0; i < 16; i++)
		cr_assert_eq(rig_state(3 + i), i % 2 ? GN_P2M_PRIVATE : GN_P2M_UNBACKED);
	one_in_the_last_block[127] = 0x80;
	cr_assert_eq(gn_p2m_discard_zeroes(vm, gfn(0), 1024, one_in_the_last_block, &freed), 0);
	cr_assert_eq(freed, 503);
	cr_assert_eq(plain_query(vm, 512).level, 2, "one page spares its block");
	cr_assert_eq(gn_p2m_discard_zeroes(vm, gfn(512), 512, one_in_the_last_block + 64, &freed),
		     0);
	cr_assert_eq(freed, 0, "bits are counted from the start of the range");
	cr_assert_eq(take(0, 1024), 512);
}

/* Whoever says that it has seen zeros may be wrong, or late: a byte anywhere in a page keeps it. */
Test(p2m_zero, what_was_seen_is_read_again)
{
	static const uint8_t every_eighth[] = { 0x80, 0x80 };
	static const uint64_t offsets[] = { 0, 1, 7, 8, 63, 64, 2048, 4088, 4095 };
	const uint64_t count = sizeof(offsets) / sizeof(offsets[0]);
	struct gn_audit_report report;
	uint64_t freed;

	rig_make(4 * MIB, 1);
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), 16), 0);
	for (uint64_t i = 0; i < count; i++)
		put(i, offsets[i], 0x5a);
	cr_assert_eq(gn_p2m_discard_seen(vm, gfn(0), 16, every_eighth, &freed), 0);
	cr_assert_eq(freed, 16 - count - 1, "of 7 of zeros, page 15 is spared");
	for (uint64_t i = 0; i < 16; i++) {
		uint8_t byte = 0;

		cr_assert_eq(rig_state(i), i < count || i == 15 ? GN_P2M_PRIVATE : GN_P2M_UNBACKED,
			     "page %lu", i);
		if (i < count)
			cr_assert_eq(gn_vm_read(vm, gpa(i * GN_PAGE_SIZE + offsets[i]), &byte, 1),
				     0);
		cr_assert_eq(byte, i < count ? 0x5a : 0, "page %lu", i);
	}
	cr_assert_eq(gn_audit(vm, &report), 0, "%s", report.first);
	cr_assert_eq(gn_p2m_discard_seen(vm, gfn(4 * MIB / GN_PAGE_SIZE), 1, NULL, &freed),
		     -EINVAL);
}

/* ---- Who comes in between ---------------------------------------------------------------------------------------- */

static uint64_t storing_to, changing;

/* A processor that stores through a translation from before, until it is waited for. */
static void store_late(struct gn_vm *v)
{
	uint8_t *p = gn_p2m_pointer(v, gfn_to_gpa(gfn(storing_to)));

	if (p)
		p[99] = 1;
}

/* The VMM changes a page after it was found to be zeros: the first batch is done, the second begins with it. */
static void change_next(struct gn_vm *v, gfn_t start, gfn_t end)
{
	uint64_t at = changing;

	(void)start;
	(void)end;
	changing = 0;
	if (at)
		cr_assert_eq(gn_p2m_protect(v, gfn(at), 1, true), 0);
}

static const struct gn_backend_ops meddling = { .name = "meddling",
						.flush = plain_flush,
						.quiesce = store_late,
						.range_changed = change_next };

static void make_meddling(unsigned backing_level)
{
	struct gn_vm_config config = plain_config(PAGES * GN_PAGE_SIZE);

	config.backend = &meddling;
	config.backing_level = backing_level;
	vm = plain_vm(&config);
	cr_assert_not_null(vm);
	storing_to = ~(uint64_t)0;
}

Test(p2m_zero, the_second_look_counts)
{
	for (unsigned level = 1; level <= 2; level++) {
		uint64_t lost = level == 1 ? 1 : 512;

		make_meddling(level);
		cr_assert_eq(gn_p2m_populate(vm, gfn(0), 1024), 0);
		storing_to = 5;
		cr_assert_eq(take(0, 1024), 1024 - lost);
		storing_to = ~(uint64_t)0;
		cr_assert_eq(rig_state(5), GN_P2M_PRIVATE);
		cr_assert_eq(plain_query(vm, 5).level, level);
		cr_assert_eq(plain_query(vm, 5).rights, GN_RWX);
		cr_assert_eq(*((uint8_t *)gn_p2m_pointer(vm, gfn_to_gpa(gfn(5))) + 99), 1);
		cr_assert_eq(take(0, 1024), 0);
		if (level == 1)
			gn_vm_destroy(vm);
	}
}

Test(p2m_zero, what_was_changed_meanwhile_is_left_alone)
{
	for (unsigned level = 1; level <= 2; level++) {
		make_meddling(level);
		cr_assert_eq(gn_p2m_populate(vm, gfn(0), 1024), 0);
		changing = 512;
		cr_assert_eq(take(0, 1024), 512);
		cr_assert_eq(rig_state(512), GN_P2M_READONLY);
		cr_assert_eq(rig_state(513), GN_P2M_PRIVATE);
		cr_assert_eq(take(0, 1024), 511, "the others go the next time");
		cr_assert_eq(rig_state(512), GN_P2M_READONLY);
		if (level == 1)
			gn_vm_destroy(vm);
	}
}

/* ---- Errors ----------------------------------------------------------------------------------------------------- */

Test(p2m_zero, errors_and_memory)
{
	uint64_t freed;

	rig_make(PAGES * GN_PAGE_SIZE, 1);
	cr_assert_eq(gn_p2m_populate(vm, gfn(0), PAGES), 0);
	freed = 7;
	cr_assert_eq(gn_p2m_discard_zeroes(vm, gfn(PAGES), 1, NULL, &freed), -EINVAL);
	cr_assert_eq(freed, 0);
	cr_assert_eq(gn_p2m_discard_zeroes(vm, gfn(1), PAGES, NULL, &freed), -EINVAL);
	cr_assert_eq(gn_p2m_discard_zeroes(vm, gfn(1), ~(uint64_t)0, NULL, &freed), -EINVAL);
	cr_assert_eq(vm->p2m.backed_pages, PAGES);
	cr_assert_eq(take(5, 0), 0);
	cr_assert_eq(take(PAGES, 0), 0);
	gn_alloc_fail_nth(0);
	cr_assert_eq(gn_p2m_discard_zeroes(vm, gfn(0), PAGES, NULL, &freed), 0);
	cr_assert_eq(freed, PAGES);
	cr_assert_eq(gn_alloc_fail_nth(0), 0, "it needs no memory");
}
