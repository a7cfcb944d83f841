/* SPDX-License-Identifier: MIT */
/*
 * p2m.c - every state under every operation, sharing and copying, and that the scheme and the
 * hardware are told in the right order. Blocks are in p2m_blocks.c.
 */
#include <errno.h>

#include "support/p2m_rig.h"

static void set_up(void)
{
	rig_make(PAGES * GN_PAGE_SIZE, 1);
}

TestSuite(p2m, .init = set_up, .fini = rig_teardown);

/* Bring @at into @want, from UNBACKED. @at+1 is used up for SHARED. */
static void enter(uint64_t at, enum gn_p2m_state want)
{
	switch (want) {
	case GN_P2M_PRIVATE:
		rig_fill(at, 7);
		break;
	case GN_P2M_SHARED:
		rig_fill(at, 7);
		rig_fill(at + 1, 7);
		cr_assert_eq(gn_p2m_share(vm, gfn(at), gfn(at + 1)), 0);
		break;
	case GN_P2M_READONLY:
		rig_fill(at, 7);
		cr_assert_eq(gn_p2m_protect(vm, gfn(at), 1, true), 0);
		break;
	case GN_P2M_BALLOONED:
		cr_assert_eq(gn_p2m_balloon(vm, gfn(at), 1), 0);
		break;
	case GN_P2M_MMIO:
		cr_assert_eq(gn_p2m_set_mmio(vm, gfn(at), 1), 0);
		break;
	default:
		break;
	}
	cr_assert_eq(rig_state(at), want);
}

Test(p2m, every_state_under_every_operation)
{
	enum { U = GN_P2M_UNBACKED, P, S, R, B, M, NO = -1 };
	/* The state afterwards, or NO: -EINVAL and unchanged. */
	static const int after[OPS][GN_P2M_STATES] = {
		/*		U   P   S   R   B   M */
		/* populate */ { P, P, S, R, NO, NO },
		/* discard */ { U, U, U, U, NO, U },
		/* balloon */ { B, B, B, NO, NO, NO },
		/* unballoon */ { NO, NO, NO, NO, U, NO },
		/* protect */ { R, R, R, R, NO, NO },
		/* unprotect */ { U, P, S, P, NO, NO },
		/* set_mmio */ { M, M, M, M, M, M },
		/* move */ { U, P, S, R, NO, NO },
	};

	for (unsigned op = 0; op < OPS; op++) {
		for (unsigned s = 0; s < GN_P2M_STATES; s++) {
			int want = after[op][s];

			enter(100, (enum gn_p2m_state)s);
			uint64_t backed = vm->p2m.backed_pages;
			bool had = s == P || s == S || s == R;

			cr_assert_eq(rig_run(op, 100, 1), want == NO ? -EINVAL : 0,
				     "op %u state %u", op, s);
			cr_assert_eq((int)rig_state(100), want == NO ? (int)s : want,
				     "op %u state %u", op, s);
			bool has = want == P || want == S || want == R;

			if (want != NO)
				cr_assert_eq(vm->p2m.backed_pages, backed + has - had);
			if (had && has)
				cr_assert_eq(rig_byte_of(100), 7, "op %u state %u", op, s);
			cr_assert_not(vm->p2m.sequence & 1);
			/* Back to UNBACKED. */
			if (rig_state(100) == GN_P2M_BALLOONED)
				cr_assert_eq(gn_p2m_unballoon(vm, gfn(100), 1), 0);
			cr_assert_eq(gn_p2m_discard(vm, gfn(100), 2), 0);
		}
	}
	gn_retire_drain(vm);
	cr_assert_eq(vm->p2m.backed_pages, 0);
	cr_assert_eq(gn_frames_used(vm->frames), 1, "the scheme's table page");
}

Test(p2m, ranges_are_checked)
{
	static const struct {
		uint64_t start, count;
		int err;
	} cases[] = {
		{ 0, PAGES + 1, -EINVAL },
		{ PAGES, 1, -EINVAL },
		{ PAGES + 1, 0, -EINVAL },
		{ PAGES - 1, 2, -EINVAL },
		{ UINT64_MAX, 2, -EINVAL },
		{ 1, UINT64_MAX, -EINVAL },
		{ UINT64_MAX / 4096, UINT64_MAX, -EINVAL },
		{ PAGES, 0, 0 },
		{ 5, 0, 0 },
	};

	for (unsigned op = 0; op < OPS; op++)
		for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
			cr_assert_eq(rig_run(op, cases[i].start, cases[i].count), cases[i].err,
				     "op %u case %u", op, i);
	cr_assert_eq(gn_p2m_share(vm, gfn(0), gfn(PAGES)), -EINVAL);
	cr_assert_eq(gn_p2m_share(vm, gfn(PAGES), gfn(0)), -EINVAL);
	cr_assert_eq(gn_p2m_share(vm, gfn(UINT64_MAX), gfn(0)), -EINVAL);
	struct gn_p2m_info info;

	cr_assert_eq(gn_p2m_query(vm, gfn(PAGES), &info), -EINVAL);
	cr_assert_eq(gn_p2m_word_state(gn_p2m_get(&vm->p2m, gfn(PAGES))), GN_P2M_MMIO);
	cr_assert_eq(plain.ranges, 0);
}

Test(p2m, all_or_nothing)
{
	rig_fill(10, 1);
	rig_fill(12, 3);
	cr_assert_eq(gn_p2m_balloon(vm, gfn(11), 1), 0);
	unsigned ranges = plain.ranges;

	/* The middle of each range forbids it. */
	cr_assert_eq(gn_p2m_balloon(vm, gfn(10), 3), -EINVAL);
	cr_assert_eq(gn_p2m_move(vm, gfn(10), 3), -EINVAL);
	cr_assert_eq(gn_p2m_protect(vm, gfn(10), 3, true), -EINVAL);
	cr_assert_eq(gn_p2m_populate(vm, gfn(9), 4), -EINVAL);
	cr_assert_eq(plain.ranges, ranges);
	cr_assert_eq(rig_state(9), GN_P2M_UNBACKED);
	cr_assert_eq(rig_state(10), GN_P2M_PRIVATE);
	cr_assert_eq(rig_byte_of(10), 1);
	cr_assert_eq(rig_byte_of(12), 3);
}

Test(p2m, the_scheme_is_told_before_and_the_hardware_too)
{
	rig_fill(20, 1);
	rig_fill(21, 1);
	memset(&plain, 0, sizeof(plain));
	cr_assert_eq(gn_p2m_discard(vm, gfn(20), 2), 0);
	cr_assert_eq(plain.ranges, 1);
	cr_assert_eq(plain.start.v, 20);
	cr_assert_eq(plain.end.v, 22);
	cr_assert_eq(plain.change, GN_RANGE_ZAP);
	cr_assert(plain.sequence_was_odd);
	cr_assert_eq(plain.flushes, 1);
	cr_assert_eq(plain.flush.scope, GN_FLUSH_ALL);
	/* Nothing was cached of what had no frame. */
	cr_assert_eq(gn_p2m_balloon(vm, gfn(20), 2), 0);
	cr_assert_eq(plain.flushes, 1);
	/* First touch is no change at all. */
	uint64_t sequence = vm->p2m.sequence;

	rig_fill(30, 1);
	cr_assert_eq(vm->p2m.sequence, sequence);
	cr_assert_eq(plain.ranges, 2);
}

Test(p2m, a_fault_notices_a_change)
{
	uint64_t sequence = gn_p2m_begin_read(&vm->p2m);

	cr_assert_not(gn_p2m_retry(&vm->p2m, sequence));
	rig_fill(1, 1);
	cr_assert_not(gn_p2m_retry(&vm->p2m, sequence));
	gn_p2m_discard(vm, gfn(1), 1);
	cr_assert(gn_p2m_retry(&vm->p2m, sequence));
	cr_assert_not(gn_p2m_retry(&vm->p2m, gn_p2m_begin_read(&vm->p2m)));
}

Test(p2m, fault_in_is_idempotent_and_zeroed)
{
	p2m_word_t a, b;

	cr_assert_eq(gn_p2m_fault_in(vm, gfn(3), false, &a), 0);
	cr_assert_eq(gn_p2m_fault_in(vm, gfn(3), true, &b), 0);
	cr_assert_eq(a.v, b.v);
	cr_assert_eq(gn_p2m_word_state(a), GN_P2M_PRIVATE);
	cr_assert_eq(gn_p2m_word_rights(a), GN_RWX);
	cr_assert_eq(gn_p2m_word_level(a), 1);
	cr_assert_eq(rig_byte_of(3), 0);
	cr_assert_eq(vm->p2m.backed_pages, 1);
	cr_assert_eq(gn_p2m_fault_in(vm, gfn(PAGES), true, &a), 0);
	cr_assert_eq(gn_p2m_word_state(a), GN_P2M_MMIO);
	cr_assert_null(gn_p2m_pointer(vm, gpa(4 * GN_PAGE_SIZE)));
	cr_assert_not_null(gn_p2m_pointer(vm, gpa(3 * GN_PAGE_SIZE + 5)));
}

Test(p2m, verdicts)
{
	static const enum gn_fix_kind want[GN_P2M_STATES][2] = {
		[GN_P2M_UNBACKED] = { GN_FIX_RETRY, GN_FIX_RETRY },
		[GN_P2M_PRIVATE] = { GN_FIX_RETRY, GN_FIX_RETRY },
		[GN_P2M_SHARED] = { GN_FIX_RETRY, GN_FIX_RETRY },
		[GN_P2M_READONLY] = { GN_FIX_RETRY, GN_FIX_DENIED },
		[GN_P2M_BALLOONED] = { GN_FIX_DENIED, GN_FIX_DENIED },
		[GN_P2M_MMIO] = { GN_FIX_MMIO, GN_FIX_MMIO },
	};

	for (unsigned s = 0; s < GN_P2M_STATES; s++) {
		for (unsigned write = 0; write < 2; write++) {
			uint64_t at = 100 + 4 * (2 * s + write);
			struct gn_fix fix = { 0 };
			p2m_word_t w;

			enter(at, (enum gn_p2m_state)s);
			cr_assert_eq(gn_p2m_resolve(vm, gfn(at), write, &w, &fix), 0);
			cr_assert_eq(fix.kind, want[s][write], "state %u write %u", s, write);
			cr_assert_eq(fix.gpa.v, at * GN_PAGE_SIZE);
			cr_assert_eq(fix.why != NULL, fix.kind == GN_FIX_DENIED);
			if (fix.kind == GN_FIX_RETRY)
				cr_assert(gn_p2m_word_grants(w, write ? GN_W : GN_R));
		}
	}
}

Test(p2m, share_needs_equal_bytes_and_owned_frames)
{
	rig_fill(1, 5);
	rig_fill(2, 6);
	uint64_t used = gn_frames_used(vm->frames);

	cr_assert_eq(gn_p2m_share(vm, gfn(1), gfn(2)), -EINVAL, "differ");
	cr_assert_eq(rig_state(1), GN_P2M_PRIVATE);
	cr_assert_eq(rig_state(2), GN_P2M_PRIVATE);
	cr_assert_eq(plain_query(vm, 1).rights, GN_RWX);
	cr_assert_eq(plain_query(vm, 2).rights, GN_RWX);
	cr_assert_eq(gn_p2m_share(vm, gfn(1), gfn(1)), -EINVAL, "itself");
	cr_assert_eq(gn_p2m_share(vm, gfn(1), gfn(3)), -EINVAL, "unbacked");
	rig_fill(2, 5);
	cr_assert_eq(gn_p2m_share(vm, gfn(1), gfn(2)), 0);
	cr_assert_eq(plain_query(vm, 1).pfn.v, plain_query(vm, 2).pfn.v);
	cr_assert_eq(plain_query(vm, 2).rights, GN_R | GN_X);
	cr_assert_eq(gn_p2m_share(vm, gfn(1), gfn(2)), 0, "already");
	gn_retire_drain(vm);
	cr_assert_eq(gn_frames_used(vm->frames), used - 1);
	cr_assert_eq(gn_frames_refs(vm->frames, plain_query(vm, 1).pfn), 2);
	/* A shared one takes another in; one that fails to stays shared. */
	rig_fill(3, 5);
	cr_assert_eq(gn_p2m_share(vm, gfn(2), gfn(3)), 0);
	cr_assert_eq(gn_frames_refs(vm->frames, plain_query(vm, 1).pfn), 3);
	rig_fill(4, 9);
	cr_assert_eq(gn_p2m_share(vm, gfn(4), gfn(3)), -EINVAL);
	cr_assert_eq(rig_state(3), GN_P2M_SHARED);
	cr_assert_eq(plain_query(vm, 3).rights, GN_R | GN_X);
}

Test(p2m, a_write_to_a_shared_page_copies_until_the_last_who_keeps_it)
{
	for (uint64_t i = 0; i < 4; i++)
		rig_fill(i, 5);
	for (uint64_t i = 1; i < 4; i++)
		cr_assert_eq(gn_p2m_share(vm, gfn(0), gfn(i)), 0);
	pfn_t common = plain_query(vm, 0).pfn;

	memset(&plain, 0, sizeof(plain));
	for (uint64_t i = 3; i > 0; i--) {
		rig_fill(i, (uint8_t)(10 + i));
		cr_assert_eq(rig_state(i), GN_P2M_PRIVATE);
		cr_assert_neq(plain_query(vm, i).pfn.v, common.v);
		cr_assert_eq(plain.ranges, 4 - i);
		cr_assert_eq(plain.start.v, i);
		gn_retire_drain(vm);
		cr_assert_eq(gn_frames_refs(vm->frames, common), i);
		for (uint64_t k = 0; k < i; k++)
			cr_assert_eq(rig_byte_of(k), 5);
	}
	rig_fill(0, 10);
	cr_assert_eq(rig_state(0), GN_P2M_PRIVATE);
	cr_assert_eq(plain_query(vm, 0).pfn.v, common.v, "nobody left to copy from");
	cr_assert_eq(plain.ranges, 3);
	for (uint64_t i = 0; i < 4; i++)
		cr_assert_eq(rig_byte_of(i), 10 + i);
}

Test(p2m, partial_writes_after_sharing_keep_the_rest)
{
	uint8_t page[GN_PAGE_SIZE];

	for (unsigned i = 0; i < sizeof(page); i++)
		page[i] = (uint8_t)(i * 7);
	gn_vm_write(vm, gpa(0), page, sizeof(page));
	gn_vm_write(vm, gpa(GN_PAGE_SIZE), page, sizeof(page));
	cr_assert_eq(gn_p2m_share(vm, gfn(0), gfn(1)), 0);
	gn_vm_write(vm, gpa(GN_PAGE_SIZE + 100), "x", 1);
	page[100] = 'x';
	uint8_t got[GN_PAGE_SIZE];

	gn_vm_read(vm, gpa(GN_PAGE_SIZE), got, sizeof(got));
	cr_assert_eq(memcmp(page, got, sizeof(got)), 0);
}

Test(p2m, move_keeps_contents_and_changes_frames)
{
	for (uint64_t i = 0; i < 8; i++)
		if (i != 5)
			rig_fill(i, (uint8_t)(i + 1));
	cr_assert_eq(gn_p2m_protect(vm, gfn(2), 1, true), 0);
	uint64_t sum = gn_vm_memory_sum(vm);
	struct gn_p2m_info before[8];

	for (uint64_t i = 0; i < 8; i++)
		before[i] = plain_query(vm, i);
	cr_assert_eq(gn_p2m_move(vm, gfn(0), 8), 0);
	for (uint64_t i = 0; i < 8; i++) {
		struct gn_p2m_info now = plain_query(vm, i);

		cr_assert_eq(now.state, before[i].state);
		cr_assert_eq(now.rights, before[i].rights);
		if (i != 5)
			cr_assert_neq(now.pfn.v, before[i].pfn.v);
	}
	cr_assert_eq(gn_vm_memory_sum(vm), sum);
	cr_assert_eq(rig_state(5), GN_P2M_UNBACKED);
}

Test(p2m, a_sum_of_a_range_knows_only_the_range)
{
	uint64_t all, inside, empty;

	rig_fill(3, 1);
	all = gn_vm_memory_sum(vm);
	cr_assert_eq(gn_vm_memory_sum_range(vm, gfn(0), UINT64_MAX), all);
	inside = gn_vm_memory_sum_range(vm, gfn(2), 4);
	empty = gn_vm_memory_sum_range(vm, gfn(4), 4);
	cr_assert_neq(inside, empty);
	rig_fill(1, 2);
	rig_fill(6, 2);
	cr_assert_eq(gn_vm_memory_sum_range(vm, gfn(2), 4), inside);
	cr_assert_neq(gn_vm_memory_sum(vm), all);
	cr_assert_eq(gn_vm_memory_sum_range(vm, gfn(UINT64_MAX), 4),
		     gn_vm_memory_sum_range(vm, gfn(2), 0), "nothing");
}

Test(p2m, protect_stops_writes_from_outside_too)
{
	rig_fill(1, 1);
	cr_assert_eq(gn_p2m_protect(vm, gfn(1), 2, true), 0);
	cr_assert_eq(gn_vm_write(vm, gpa(GN_PAGE_SIZE), "x", 1), -EFAULT);
	cr_assert_eq(rig_byte_of(1), 1);
	cr_assert_eq(rig_byte_of(2), 0);
	cr_assert_eq(gn_p2m_protect(vm, gfn(1), 2, false), 0);
	rig_fill(1, 2);
	cr_assert_eq(rig_byte_of(1), 2);
	/* A shared page that is protected gets a frame of its own, or unprotecting would free the
	 * other's. */
	rig_fill(3, 2);
	cr_assert_eq(gn_p2m_share(vm, gfn(1), gfn(3)), 0);
	cr_assert_eq(gn_p2m_protect(vm, gfn(3), 1, true), 0);
	cr_assert_neq(plain_query(vm, 1).pfn.v, plain_query(vm, 3).pfn.v);
	cr_assert_eq(gn_p2m_protect(vm, gfn(3), 1, false), 0);
	rig_fill(3, 9);
	cr_assert_eq(rig_byte_of(1), 2);
}

Test(p2m, a_full_pool_is_enomem_and_changes_nothing)
{
	struct gn_vm_config config = plain_config(4 * MIB);
	unsigned backed = 0;

	config.pool_bytes = 2 * MIB;
	struct gn_vm *full = plain_vm(&config);

	cr_assert_not_null(full);
	cr_assert_eq(gn_p2m_populate(full, gfn(0), 1024), -ENOMEM);
	cr_assert_eq(full->p2m.backed_pages, 0);
	cr_assert_eq(gn_frames_used(full->frames), 1);
	for (uint64_t i = 0; i < 1024; i++) {
		int err = gn_vm_write(full, gfn_to_gpa(gfn(i)), "x", 1);

		cr_assert_eq(err, i < 511 ? 0 : -ENOMEM);
		backed += !err;
	}
	cr_assert_eq(full->p2m.backed_pages, backed);
	cr_assert_eq(gn_p2m_move(full, gfn(0), 1), -ENOMEM);
	/* What waits for its grace period is found when it is needed. */
	cr_assert_eq(gn_p2m_balloon(full, gfn(0), 3), 0);
	for (uint64_t i = 0; i < 3; i++)
		cr_assert_eq(gn_vm_write(full, gfn_to_gpa(gfn(600 + i)), "x", 1), 0);
	cr_assert_eq(gn_vm_write(full, gfn_to_gpa(gfn(603)), "x", 1), -ENOMEM);
	gn_vm_destroy(full);
}
