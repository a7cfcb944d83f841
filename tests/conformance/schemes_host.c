/* SPDX-License-Identifier: MIT */
/*
 * schemes_host.c - the suite over every registered scheme, second half: what the host does to a running
 * guest. Changes of the p2m, under data and under tables; dirty log and accessed harvest; another scheme in mid-flight;
 * allocations that fail; and at the end, memory that is equal whatever the scheme.
 */
#include "conformance/schemes_rig.h"

#include "mmu/walk.h"

#define MIB ((uint64_t)1 << 20)

/* ---- The p2m under a running guest -------------------------------------------------------------- */

SCENARIO(p2m_changes)
{
	uint64_t va = USER;
	struct gn_p2m_info info;

	for (unsigned i = 0; i < 16; i++) {
		map(rig, rig->root, va + i * 0x1000, 1, 1024 + i, RW_U);
		store(rig, va + i * 0x1000, 0x100 + i);
	}
	EXPECT(rig, gn_p2m_move(rig->vm, gfn(1024), 16) == 0);
	audit(rig);
	for (unsigned i = 0; i < 16; i++)
		EXPECT(rig, load(rig, va + i * 0x1000) == 0x100 + i);
	EXPECT(rig, gn_p2m_discard(rig->vm, gfn(1025), 2) == 0);
	audit(rig);
	EXPECT(rig, load(rig, va + 0x1000) == 0);
	touch(rig, va + 0x2000);
	EXPECT(rig, gn_p2m_balloon(rig->vm, gfn(1027), 2) == 0);
	audit(rig);
	access_as(rig, va + 0x3000, GN_READ, true, 0);
	access_as(rig, va + 0x4000, GN_WRITE, false, 0);
	EXPECT(rig, gn_p2m_unballoon(rig->vm, gfn(1027), 2) == 0);
	touch(rig, va + 0x3000);
	EXPECT(rig, gn_p2m_protect(rig->vm, gfn(1029), 2, true) == 0);
	audit(rig);
	EXPECT(rig, load(rig, va + 0x5000) == 0x105);
	access_as(rig, va + 0x5000, GN_WRITE, true, 1);
	access_as(rig, va + 0x6000, GN_WRITE, false, 1);
	EXPECT(rig, load(rig, va + 0x5000) == 0x105);
	EXPECT(rig, gn_p2m_protect(rig->vm, gfn(1029), 2, false) == 0);
	touch(rig, va + 0x5000);
	/* Equal contents share a frame until one of them is written. */
	store(rig, va + 0x7000, 0);
	store(rig, va + 0x8000, 0);
	EXPECT(rig, gn_p2m_share(rig->vm, gfn(1031), gfn(1032)) == 0);
	audit(rig);
	EXPECT(rig, load(rig, va + 0x8000) == 0);
	store(rig, va + 0x8000, 0x55);
	EXPECT(rig, load(rig, va + 0x7000) == 0);
	EXPECT(rig, !gn_p2m_query(rig->vm, gfn(1032), &info) && info.state == GN_P2M_PRIVATE);
	store(rig, va + 0x7000, 0x66);
	EXPECT(rig, load(rig, va + 0x8000) == 0x55);
}

static enum gn_p2m_state state_of(struct rig *rig, uint64_t at)
{
	struct gn_p2m_info info = { 0 };

	EXPECT(rig, gn_p2m_query(rig->vm, gfn(at), &info) == 0);
	return info.state;
}

/* Two kinds of pages come to have two frames. Readable ones are shared until they are written, sealed ones until they are used. */
static void merge_two_kinds(struct rig *rig, enum gn_share_access access)
{
	enum { FIRST = 1536, COUNT = 64 };
	const bool stays = access == GN_SHARE_READ;
	struct gn_merge pages[COUNT];
	uint64_t merged = 0;

	for (unsigned i = 0; i < COUNT; i++) {
		store(rig, USER + i * 0x1000, 7 + i % 2);
		pages[i].at = gfn(FIRST + i);
	}
	EXPECT(rig, gn_p2m_publish(rig->vm, pages, 2, access) == 0);
	audit(rig);
	for (unsigned i = 2; i < COUNT; i++)
		pages[i].frame = pages[i % 2].frame;
	pages[2].frame = pages[1].frame;
	EXPECT(rig, gn_p2m_merge(rig->vm, pages + 2, COUNT - 2, access, &merged) == 0);
	EXPECT(rig, merged == COUNT - 3 && pages[2].result == -EAGAIN);
	audit(rig);
	for (unsigned i = 0; i < COUNT; i++)
		EXPECT(rig, state_of(rig, FIRST + i) == (i == 2 ? GN_P2M_PRIVATE : GN_P2M_SHARED));
	for (unsigned i = 0; i < COUNT / 2; i++)
		EXPECT(rig, load(rig, USER + i * 0x1000) == 7 + i % 2);
	for (unsigned i = 0; i < COUNT; i += 4)
		store(rig, USER + i * 0x1000, 100 + i);
	audit(rig);
	for (unsigned i = 0; i < COUNT; i++) {
		bool is_shared = i != 2 && i % 4 && (i >= COUNT / 2 || stays);

		EXPECT(rig, (state_of(rig, FIRST + i) == GN_P2M_SHARED) == is_shared);
		EXPECT(rig, load(rig, USER + i * 0x1000) == (i % 4 ? 7 + i % 2 : 100 + i));
	}
	for (unsigned i = 0; i < 2; i++)
		gn_frames_put(rig->vm->frames, pages[i].frame);
}

SCENARIO(pages_published_and_merged)
{
	map(rig, rig->root, USER, 2, 1536, RW_U);
	merge_two_kinds(rig, GN_SHARE_READ);
	merge_two_kinds(rig, GN_SHARE_SEALED);
}

/* Every other page of a block, and a block as a whole, by one change each way. */
SCENARIO(balloons_of_many_runs)
{
	enum { RUNS = 65, BLOCK = 1536, WHOLE = 2048 };
	struct gn_gfn_run runs[RUNS];
	struct gn_balloon_usage usage;
	struct gn_p2m_info info;
	uint64_t va = USER, whole = USER + 2 * MIB, done;

	map(rig, rig->root, va, 2, BLOCK, RW_U);
	map(rig, rig->root, whole, 2, WHOLE, RW_U);
	for (unsigned i = 0; i < RUNS; i++) {
		runs[i] = (struct gn_gfn_run){ gfn(BLOCK + 2 * i), 1 };
		store(rig, va + i * 0x1000, 0x100 + i);
	}
	runs[RUNS - 1] = (struct gn_gfn_run){ gfn(WHOLE), 512 };
	store(rig, whole + 0x5000, 0x42);
	EXPECT(rig, gn_p2m_balloon_runs(rig->vm, runs, RUNS, &done) == 0);
	EXPECT(rig, done == RUNS - 1 + 512);
	gn_vm_balloon_usage(rig->vm, &usage);
	EXPECT(rig, usage.ballooned_pages == done && !usage.touches_denied);
	EXPECT(rig, gn_p2m_balloon_runs(rig->vm, runs, RUNS, &done) == -EINVAL && !done);
	audit(rig);
	/* The neighbours did not notice; what was given away is not to be had. */
	EXPECT(rig, load(rig, va + 0x1000) == 0x101);
	EXPECT(rig, load(rig, va + 0x3f000) == 0x13f);
	access_as(rig, va + 0x2000, GN_READ, true, 0);
	access_as(rig, va + 0x7e000, GN_WRITE, true, 1);
	access_as(rig, whole + 0x5000, GN_READ, false, 0);
	access_as(rig, whole + 0x1ff000, GN_WRITE, false, 1);
	gn_vm_balloon_usage(rig->vm, &usage);
	EXPECT(rig, usage.touches_denied == 4 && !usage.touches_granted);
	EXPECT(rig, gn_p2m_unballoon_runs(rig->vm, runs, RUNS, &done) == 0);
	audit(rig);
	EXPECT(rig, load(rig, va + 0x2000) == 0);
	EXPECT(rig, load(rig, va + 0x3f000) == 0x13f);
	EXPECT(rig, load(rig, whole + 0x5000) == 0);
	touch(rig, whole + 0x5000);
	/* What left as a block comes back as one. */
	EXPECT(rig, !gn_p2m_query(rig->vm, gfn(WHOLE + 300), &info));
	EXPECT(rig,
	       info.state == (rig->setup->backing_level == 2 ? GN_P2M_PRIVATE : GN_P2M_UNBACKED));
	EXPECT(rig, info.level == (rig->setup->backing_level == 2 ? 2 : 0));
}

/* The leaf that the hardware would use for @va: of the scheme's tables, which are indexed by gpa under nested paging. 0:
 * there are no such tables. */
static unsigned leaf_level(struct rig *rig, uint64_t va, uint64_t gpa)
{
	const struct gn_hw *hw = gn_vcpu_hw(vcpu_of(rig));
	struct gn_walk walk;

	if (hw->kind != GN_HW_TABLES && hw->kind != GN_HW_NESTED)
		return 0;
	gn_walk_any(hw->fmt, rig->vm->frames, hw->root, hw->kind == GN_HW_NESTED ? gpa : va, &walk);
	return walk.end == GN_WALK_LEAF ? walk.level : 0;
}

/* A block loses some pages, they come back, and it is made whole. */
SCENARIO(blocks_formed_again)
{
	enum { BLOCK = 1536 };
	const uint64_t va = USER, at = (uint64_t)BLOCK << GN_PAGE_SHIFT;
	const bool is_large = rig->setup->backing_level == 2;
	unsigned large;

	map(rig, rig->root, va, 2, BLOCK, RW_U);
	for (unsigned i = 0; i < 64; i++)
		store(rig, va + i * 0x1000, 0x100 + i);
	large = leaf_level(rig, va, at);
	EXPECT(rig, (large > 0) == gn_scheme_keeps_tables(gn_scheme_find(rig->scheme)));
	EXPECT(rig, gn_p2m_balloon(rig->vm, gfn(BLOCK + 5), 2) == 0);
	EXPECT(rig, gn_p2m_collapse(rig->vm, gfn(BLOCK)) == -EINVAL);
	EXPECT(rig, load(rig, va + 0x4000) == 0x104);
	EXPECT(rig, leaf_level(rig, va + 0x4000, at + 0x4000) <= 1);
	EXPECT(rig, gn_p2m_unballoon(rig->vm, gfn(BLOCK + 5), 2) == 0);
	EXPECT(rig, gn_p2m_collapse(rig->vm, gfn(BLOCK)) == (is_large ? 0 : -EINVAL));
	audit(rig);
	for (unsigned i = 0; i < 64; i++)
		EXPECT(rig, load(rig, va + i * 0x1000) == (i == 5 || i == 6 ? 0 : 0x100 + i));
	touch(rig, va + 0x5000);
	EXPECT(rig, leaf_level(rig, va + 0x5000, at + 0x5000) == large);
	EXPECT(rig, !large || (large == 2) == (is_large && rig->setup->max_leaf_level > 1));
}

static unsigned told;

static void note_touch(struct gn_vm *vm, gfn_t at, bool write, enum gn_touch_answer answer,
		       void *ctx)
{
	(void)vm, (void)at;
	told += write && answer == GN_TOUCH_GRANT && ctx == &told;
}

SCENARIO(ballooned_pages_granted_at_a_touch)
{
	struct gn_balloon_usage usage;
	uint64_t va = USER;

	for (unsigned i = 0; i < 4; i++) {
		map(rig, rig->root, va + i * 0x1000, 1, 1024 + i, RW_U);
		store(rig, va + i * 0x1000, 0x100 + i);
	}
	told = 0;
	gn_vm_set_ballooned_touch(rig->vm, GN_TOUCH_GRANT, note_touch, &told);
	EXPECT(rig, gn_p2m_balloon(rig->vm, gfn(1024), 3) == 0);
	rig->grants = true;
	EXPECT(rig, load(rig, va) == 0);
	store(rig, va + 0x1000, 0x55);
	EXPECT(rig, load(rig, va + 0x1000) == 0x55);
	EXPECT(rig, load(rig, va + 0x3000) == 0x103);
	audit(rig);
	gn_vm_balloon_usage(rig->vm, &usage);
	EXPECT(rig, usage.ballooned_pages == 1);
	EXPECT(rig, usage.touches_granted == 2 && !usage.touches_denied);
	EXPECT(rig, told == 1);
	rig->grants = false;
	gn_vm_set_ballooned_touch(rig->vm, GN_TOUCH_DENY, NULL, NULL);
	access_as(rig, va + 0x2000, GN_READ, true, 0);
	gn_vm_balloon_usage(rig->vm, &usage);
	EXPECT(rig, usage.touches_granted == 2 && usage.touches_denied == 1);
}

SCENARIO(p2m_changes_under_tables)
{
	uint64_t va = USER, table, twin;

	map(rig, rig->root, va, 1, DATA, RW_U);
	store(rig, va, 0x42);
	for (unsigned level = 1; level <= rig->setup->guest_levels; level++) {
		EXPECT(rig,
		       gn_p2m_move(rig->vm, gfn(table_for(rig, rig->root, va, level)), 1) == 0);
		audit(rig);
		EXPECT(rig, load(rig, va) == 0x42);
	}
	/* Two equal tables in one frame; then each goes its way. */
	table = table_for(rig, rig->root, va, 1);
	twin = rig->next_table++;
	for (unsigned i = 0; i < GN_TABLE_ENTRIES; i++)
		if (get(rig, table, i))
			put(rig, twin, i, get(rig, table, i));
	put(rig, table_for(rig, rig->root, va, 2), index_of(va, 2) + 1,
	    twin << GN_PAGE_SHIFT | RW_U);
	touch(rig, va);
	touch(rig, va + 0x200000);
	if (gn_p2m_share(rig->vm, gfn(table), gfn(twin)) == 0)
		audit(rig);
	EXPECT(rig, load(rig, va) == load(rig, va + 0x200000));
	map(rig, rig->root, va + 0x201000, 1, DATA + 1, RW_U);
	touch(rig, va + 0x201000);
	touch(rig, va + 0x1000);
	map(rig, rig->root, va + 0x1000, 1, DATA + 2, RW_U);
	touch(rig, va + 0x1000);
	touch(rig, va + 0x201000);
}

static bool is_stopped_at(struct rig *rig, uint64_t va, enum gn_access_kind kind)
{
	struct gn_access a = { .va = gva(va), .kind = (uint8_t)kind, .size = 8, .user = true };
	struct gn_soft_outcome outcome;
	uint64_t value = 1;

	return gn_soft_probe(rig->cpu, &a, &value, &outcome) == -ECANCELED;
}

/* The walker may read tables in read-only memory; it is stopped only where it must set A or D. */
SCENARIO(tables_in_rom)
{
	uint64_t va = USER, table;

	for (unsigned i = 0; i < 4; i++)
		map(rig, rig->root, va + i * 0x1000, 1, DATA + i, RW_U);
	map(rig, rig->root, va + 0x4000, 1, DATA + 4, X86_PTE_P | X86_PTE_U);
	map(rig, rig->root, va + 0x6000, 1, RAM_GFNS + 9, RW_U | X86_PTE_A | X86_PTE_D);
	map(rig, rig->root, va + 0x7000, 1, DATA + 7, RW_U | X86_PTE_A | X86_PTE_D);
	touch(rig, va);
	touch(rig, va + 0x4000);
	access_as(rig, va + 0x1000, GN_READ, true, 0);
	table = table_for(rig, rig->root, va, 1);
	EXPECT(rig, gn_p2m_protect(rig->vm, gfn(DATA + 7), 1, true) == 0);
	EXPECT(rig, gn_p2m_protect(rig->vm, gfn(table), 1, true) == 0);
	audit(rig);
	for (unsigned round = 0; round < 2; round++) {
		reload_root(rig);
		touch(rig, va);
		touch(rig, va + 0x4000);
		access_as(rig, va + 0x1000, GN_READ, true, 0);
		access_as(rig, va + 0x5000, GN_READ, true, 0);
		access_as(rig, va + 0x6000, GN_READ, true, 0);	/* a device */
		access_as(rig, va + 0x7000, GN_WRITE, true, 9); /* a store that ROM drops */
		EXPECT(rig, is_stopped_at(rig, va + 0x1000, GN_WRITE));
		EXPECT(rig, is_stopped_at(rig, va + 0x2000, GN_READ));
		EXPECT(rig, gn_p2m_move(rig->vm, gfn(table), 1) == 0);
	}
	EXPECT(rig, gn_p2m_protect(rig->vm, gfn(table), 1, false) == 0);
	touch(rig, va + 0x1000);
	touch(rig, va + 0x2000);
}

/* ---- Dirty log and accessed harvest ------------------------------------------------------------- */

static bool harvested(const uint8_t *bitmap, uint64_t at)
{
	return (bitmap[at / 8] >> (at % 8)) & 1;
}

SCENARIO(dirty_log)
{
	static uint8_t bitmap[RAM_GFNS / 8];
	uint64_t va = USER;
	int err;

	for (unsigned i = 0; i < 32; i++) {
		map(rig, rig->root, va + i * 0x1000, 1, 1024 + i, RW_U);
		touch(rig, va + i * 0x1000);
	}
	err = gn_dirty_start(rig->vm);
	if (gn_vcpu_hw(vcpu_of(rig))->kind == GN_HW_GUEST) {
		EXPECT(rig, err == -EOPNOTSUPP);
		return;
	}
	EXPECT(rig, err == 0);
	audit(rig);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 32; i++) {
			access_as(rig, va + i * 0x1000, GN_READ, true, 0);
			if (i % 3 == round)
				access_as(rig, va + i * 0x1000, GN_WRITE, i & 1, i);
		}
		EXPECT(rig,
		       gn_vm_write(rig->vm, gpa((uint64_t)2000 << GN_PAGE_SHIFT), "x", 1) == 0);
		EXPECT(rig, gn_dirty_harvest(rig->vm, gfn(0), RAM_GFNS, bitmap) == 0);
		audit(rig);
		for (unsigned i = 0; i < 32; i++)
			EXPECT(rig, harvested(bitmap, 1024 + i) == (i % 3 == round));
		EXPECT(rig, harvested(bitmap, 2000));
	}
	/* A page newly mapped while the log runs, and A and D in the guest's table. */
	map(rig, rig->root, va + 0x30000, 1, 1100, RW_U);
	EXPECT(rig, gn_dirty_harvest(rig->vm, gfn(0), RAM_GFNS, bitmap) == 0);
	EXPECT(rig, harvested(bitmap, table_for(rig, rig->root, va, 1)));
	EXPECT(rig, !harvested(bitmap, 1100));
	access_as(rig, va + 0x30000, GN_WRITE, true, 7);
	EXPECT(rig, gn_dirty_harvest(rig->vm, gfn(0), RAM_GFNS, bitmap) == 0);
	EXPECT(rig, harvested(bitmap, table_for(rig, rig->root, va, 1)));
	EXPECT(rig, harvested(bitmap, 1100));
	gn_dirty_stop(rig->vm);
	audit(rig);
	touch(rig, va);
}

SCENARIO(accessed_harvest)
{
	static uint8_t bitmap[RAM_GFNS / 8];
	const struct gn_scheme_ops *ops = gn_scheme_find(rig->scheme);
	uint64_t va = USER;
	int err;

	/* One page in each of four 2 MiB blocks, for a large leaf has one bit. */
	for (unsigned i = 0; i < 4; i++) {
		map(rig, rig->root, va + i * 0x1000, 1, 2048 + i * 512, RW_U);
		touch(rig, va + i * 0x1000);
	}
	err = gn_accessed_harvest(rig->vm, gfn(0), RAM_GFNS, bitmap);
	if (!gn_scheme_keeps_tables(ops)) {
		EXPECT(rig, err == -EOPNOTSUPP);
		return;
	}
	EXPECT(rig, err == 0);
	for (unsigned i = 0; i < 4; i++)
		EXPECT(rig, harvested(bitmap, 2048 + i * 512));
	access_as(rig, va + 0x1000, GN_READ, true, 0);
	EXPECT(rig, gn_accessed_harvest(rig->vm, gfn(2048), 2048, bitmap) == 0);
	for (unsigned i = 0; i < 4; i++)
		EXPECT(rig, harvested(bitmap, i * 512) == (i == 1));
	audit(rig);
}

/* ---- The scheme itself -------------------------------------------------------------------------- */

SCENARIO(switches_of_the_scheme)
{
	const struct gn_scheme_ops *ops;
	uint64_t va = USER;

	for (unsigned i = 0; i < 8; i++) {
		map(rig, rig->root, va + i * 0x1000, 1, 1024 + i, RW_U);
		store(rig, va + i * 0x1000, i);
	}
	for (unsigned n = 0; (ops = gn_scheme_at(n)); n++) {
		EXPECT(rig, gn_vm_switch_scheme(rig->vm, gn_scheme_name(ops)) == 0);
		audit(rig);
		for (unsigned i = 0; i < 8; i++)
			EXPECT(rig, load(rig, va + i * 0x1000) == i + n * 16);
		map(rig, rig->root, va + 0x3000, 1, 1100 + n, RW_U);
		invlpg(rig, va + 0x3000);
		touch(rig, va + 0x3000);
		EXPECT(rig, gn_vm_switch_scheme(rig->vm, rig->scheme) == 0);
		audit(rig);
		map(rig, rig->root, va + 0x3000, 1, 1027, RW_U);
		invlpg(rig, va + 0x3000);
		for (unsigned i = 0; i < 8; i++)
			store(rig, va + i * 0x1000, i + (n + 1) * 16);
	}
	EXPECT(rig, gn_vm_switch_scheme(rig->vm, "no such scheme") == -ENOENT);
	EXPECT(rig, strcmp(gn_vm_scheme(rig->vm), rig->scheme) == 0);
	touch(rig, va);
}

/* Any allocation of a fault may fail; then the access is refused, and works when memory is back. */
SCENARIO(allocations_fail)
{
	uint64_t value = 1;

	for (unsigned i = 0; i < 12; i++)
		map(rig, rig->root, USER + ((uint64_t)i << 30), 1, 1024 + i * 16, RW_U);
	for (unsigned i = 0; i < 12; i++) {
		struct gn_access a = { .va = gva(USER + ((uint64_t)i << 30)),
				       .kind = GN_WRITE,
				       .size = 8 };
		struct gn_soft_outcome outcome;
		int err;

		gn_alloc_fail_nth(1 + i % 6);
		err = gn_soft_probe(rig->cpu, &a, &value, &outcome);
		gn_alloc_fail_nth(0);
		EXPECT(rig, err == 0 || err == -ENOMEM);
		audit(rig);
		touch(rig, a.va.v);
	}
}

/* ---- Equal contents ----------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

/* A small operating system's worth of random operations, the same under each scheme. */
static void random_life(struct rig *rig)
{
	uint64_t state = 42, roots[3] = { rig->root }, at = 0;

	roots[1] = new_root(rig);
	roots[2] = new_root(rig);
	rig->seldom = true;
	for (unsigned i = 0; i < 1500; i++) {
		uint64_t va =
			USER + next_random(&state) % 24 * 0x1000 + (next_random(&state) % 3 << 21);
		uint64_t bits =
			X86_PTE_P | (next_random(&state) % 4 ? X86_PTE_W | X86_PTE_U : X86_PTE_U);

		switch (next_random(&state) % 8) {
		case 0:
			at = next_random(&state) % 3;
			load_root(rig, roots[at]);
			break;
		case 1:
		case 2:
			map(rig, roots[at], va, 1, DATA + next_random(&state) % 64, bits);
			invlpg(rig, va);
			break;
		case 3:
			set_leaf(rig, roots[at], va, 1, 0);
			invlpg(rig, va);
			break;
		case 4:
			gn_p2m_move(rig->vm, gfn(DATA + next_random(&state) % 64), 1);
			break;
		default:
			access_as(rig, va, next_random(&state) % 3, next_random(&state) % 2, i);
			break;
		}
	}
}

Test(schemes, memory_is_equal_under_every_scheme, .timeout = 300)
{
	const struct gn_scheme_ops *ops;

	cr_assert_eq(gn_schemes_register_all(), 0);
	for (unsigned s = 0; s < SETUPS; s++) {
		uint64_t first = 0;

		for (unsigned i = 0; (ops = gn_scheme_at(i)); i++) {
			struct rig rig = { .setup = &setups[s],
					   .scheme = gn_scheme_name(ops),
					   .run = random_life };
			uint64_t sum = 0;
			int err = run_one(&rig, &sum);

			cr_assert_eq(err, 0, "%s, %s: %s", rig.scheme, setups[s].label,
				     rig.failure);
			if (!i)
				first = sum;
			cr_assert_eq(sum, first, "%s, %s: %#lx, under %s %#lx", rig.scheme,
				     setups[s].label, (unsigned long)sum,
				     gn_scheme_name(gn_scheme_at(0)), (unsigned long)first);
		}
	}
}
