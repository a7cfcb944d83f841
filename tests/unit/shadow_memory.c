/* SPDX-License-Identifier: MIT */
/*
 * shadow_memory.c - memory that is short, and p2m changes, dirty log and sampling under shadow tables.
 */
#include "shadow/shadow.h"
#include "unit/shadow_check.h"

#define USER	 ((uint64_t)0x40000000)
#define PAGE(n)	 ((uint64_t)(n) << 12)
#define FREE_GFN 2048

/* Each allocation of a fault fails once: -ENOMEM, or made good; tables sound; the next try succeeds. */
Test(shadow_memory, trap13_every_allocation_may_fail)
{
	for (unsigned large = 0; large < 2; large++)
		for (uint64_t nth = 1; nth < 40; nth++) {
			const struct gn_vm_config config = { 0 };
			struct rig_result r;
			struct rig rig;

			rig_start(&rig, &config);
			if (large)
				rig_map(&rig, rig.root, USER, 2,
					((uint64_t)6 << 20) | USER_RW | LARGE);
			else
				rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
			rig_map(&rig, rig.root, 2 * USER, 1, PAGE(FREE_GFN) | USER_RW);
			CHECK_OK(rig_poke(&rig, rig_entry(&rig, rig.root, USER, 3) + 64, 0));
			gn_alloc_fail_nth(nth);
			r = rig_user_store(&rig, USER, 1);
			cr_assert(r.end == RIG_OK || (r.end == RIG_ERROR && r.err == -ENOMEM));
			if (r.end == RIG_OK)
				rig_user_store(&rig, 2 * USER, 1);
			gn_alloc_fail_nth(0);
			CHECK_AUDIT(&rig);
			CHECK_OK(rig_user_store(&rig, USER, 2));
			CHECK_OK(rig_user_store(&rig, 2 * USER, 2));
			CHECK_AUDIT(&rig);
			rig_end(&rig);
		}
}

/* The same for loading a root and creating a VM. */
Test(shadow_memory, allocation_failures_of_roots_and_vms)
{
	struct gn_vm_config config = { .mem_bytes = 16 << 20, .vcpus = 2 };
	unsigned refused = 0;
	struct rig rig;

	rig_start(&rig, &config);
	for (uint64_t nth = 1; nth < 6; nth++) {
		uint64_t root = rig_table(&rig) + PAGE(512 * nth);
		bool gp;
		int err;

		gn_alloc_fail_nth(nth);
		err = gn_vcpu_write_cr3(rig.vcpu, root, &gp);
		gn_alloc_fail_nth(0);
		cr_assert(!err || err == -ENOMEM);
		CHECK_AUDIT(&rig);
		rig_cr3(&rig, root);
		CHECK_AUDIT(&rig);
	}
	rig_end(&rig);
	for (uint64_t nth = 1; nth < 40; nth++)
		for (unsigned vtlb = 0; vtlb < 2; vtlb++) {
			struct gn_vm *vm;
			int err;

			config.scheme = vtlb ? "shadow-vtlb" : "shadow";
			gn_alloc_fail_nth(nth);
			err = gn_vm_create(&config, &vm);
			gn_alloc_fail_nth(0);
			cr_assert(!err || err == -ENOMEM, "%d", err);
			refused += err != 0;
			if (!err)
				gn_vm_destroy(vm);
		}
	cr_assert_gt(refused, 20);
}

/* A budget of a few pages for many tables: slower, never wrong, never refused. */
Test(shadow_memory, trap15_budget)
{
	static const unsigned budgets[] = { 6, 8, 12, 40 };

	for (size_t b = 0; b < sizeof(budgets) / sizeof(budgets[0]); b++)
		for (unsigned vtlb = 0; vtlb < 2; vtlb++) {
			const struct gn_vm_config config = {
				.scheme = vtlb ? "shadow-vtlb" : "shadow",
				.scheme_table_limit_bytes = PAGE(budgets[b])
			};
			struct gn_table_usage usage;
			struct rig rig;

			rig_start(&rig, &config);
			for (unsigned i = 0; i < 40; i++)
				rig_map(&rig, rig.root, i * USER, 1, PAGE(FREE_GFN + i) | USER_RW);
			for (unsigned n = 0; n < 300; n++) {
				uint64_t i = n * 23 % 40;

				CHECK_OK(rig_user_store(&rig, i * USER, n));
				CHECK_OK(rig_load(&rig, RIG_LINEAR + PAGE(i * 90)));
				gn_vm_table_usage(rig.vm, &usage);
				cr_assert_leq(usage.frames_bytes, PAGE(budgets[b]));
				if (n % 10 == 0)
					CHECK_AUDIT(&rig);
			}
			rig_end(&rig);
		}
}

/* No budget, but a pool that runs out. */
Test(shadow_memory, trap15_pool_exhausted)
{
	const struct gn_vm_config config = { .mem_bytes = 16 << 20, .pool_bytes = 18 << 20 };
	struct rig rig;

	rig_start(&rig, &config);
	cr_assert_eq(gn_p2m_populate(rig.vm, gfn(0), 4096 - 64), 0);
	for (uint64_t i = 0; i < 300; i++)
		rig_map(&rig, rig.root, USER + (i << 21), 1, PAGE(FREE_GFN + i) | USER_RW);
	for (unsigned round = 0; round < 3; round++)
		for (uint64_t i = 0; i < 300; i++)
			CHECK_OK(rig_user_store(&rig, USER + (i << 21), 1));
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* Every p2m change reaches the leaves, small and large. */
Test(shadow_memory, p2m_changes)
{
	for (unsigned backing = 1; backing <= 2; backing++)
		for (unsigned vtlb = 0; vtlb < 2; vtlb++) {
			const struct gn_vm_config config = { .scheme = vtlb ? "shadow-vtlb"
									    : "shadow",
							     .backing_level = backing };
			const uint64_t block = (uint64_t)8 << 20;
			const gfn_t at = gpa_to_gfn(gpa(block));
			struct rig rig;

			rig_start(&rig, &config);
			rig_map(&rig, rig.root, USER, 2, block | USER_RW | LARGE);
			CHECK_OK(rig_user_store(&rig, USER, 77));
			CHECK_OK(rig_user_store(&rig, USER + 4096, 78));
			cr_assert_eq(rig_leaf_level(&rig, USER), backing);
			cr_assert_eq(gn_p2m_move(rig.vm, at, 1), 0);
			CHECK_AUDIT(&rig);
			cr_assert_eq(rig_user_load(&rig, USER).value, 77);
			cr_assert_eq(gn_p2m_protect(rig.vm, at, 1, true), 0);
			CHECK_AUDIT(&rig);
			cr_assert_eq(rig_user_store(&rig, USER, 1).end, RIG_DENIED);
			CHECK_OK(rig_user_load(&rig, USER));
			cr_assert_eq(gn_p2m_protect(rig.vm, at, 1, false), 0);
			CHECK_OK(rig_user_store(&rig, USER, 79));
			cr_assert_eq(gn_p2m_balloon(rig.vm, at, 1), 0);
			CHECK_AUDIT(&rig);
			cr_assert_eq(rig_user_load(&rig, USER).end, RIG_DENIED);
			cr_assert_eq(gn_p2m_unballoon(rig.vm, at, 1), 0);
			cr_assert_eq(rig_user_load(&rig, USER).value, 0);
			cr_assert_eq(rig_user_load(&rig, USER + 4096).value, 78);
			cr_assert_eq(gn_p2m_set_mmio(rig.vm, at, 1), 0);
			CHECK_AUDIT(&rig);
			cr_assert_eq(rig_user_load(&rig, USER).end, RIG_MMIO);
			CHECK_AUDIT(&rig);
			rig_end(&rig);
		}
}

Test(shadow_memory, shared_pages_are_copied_on_write)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;

	rig_start(&rig, &config);
	for (unsigned i = 0; i < 2; i++) {
		rig_map(&rig, rig.root, USER + PAGE(i), 1, PAGE(FREE_GFN + i) | USER_RW);
		CHECK_OK(rig_user_store(&rig, USER + PAGE(i), 5));
	}
	cr_assert_eq(gn_p2m_share(rig.vm, gfn(FREE_GFN), gfn(FREE_GFN + 1)), 0);
	CHECK_AUDIT(&rig);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(rig_user_load(&rig, USER + PAGE(i)).value, 5);
	CHECK_OK(rig_user_store(&rig, USER, 6));
	cr_assert_eq(rig_user_load(&rig, USER + 4096).value, 5);
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

Test(shadow_memory, dirty_log)
{
	const struct gn_vm_config config = { .backing_level = 2 };
	uint8_t bitmap[512];
	struct rig rig;

	rig_start(&rig, &config);
	rig_map(&rig, rig.root, USER, 2, ((uint64_t)8 << 20) | USER_RW | LARGE);
	CHECK_OK(rig_user_store(&rig, USER, 1));
	cr_assert_eq(rig_leaf_level(&rig, USER), 2);
	cr_assert_eq(gn_dirty_start(rig.vm), 0);
	CHECK_AUDIT(&rig);
	for (unsigned round = 0; round < 3; round++) {
		CHECK_OK(rig_user_load(&rig, USER + PAGE(1)));
		CHECK_OK(rig_user_store(&rig, USER + PAGE(2 + round), 1));
		CHECK_QUIET(rig_user_store(&rig, USER + PAGE(2 + round), 2));
		CHECK_AUDIT(&rig);
		cr_assert_eq(gn_dirty_harvest(rig.vm, gfn(0), 4096, bitmap), 0);
		for (unsigned i = 0; i < 512; i++)
			cr_assert_eq(bitmap[(2048 + i) / 8] >> i % 8 & 1, i == 2 + round, "page %u",
				     i);
		CHECK_AUDIT(&rig);
	}
	gn_dirty_stop(rig.vm);
	CHECK_OK(rig_user_store(&rig, USER, 1));
	cr_assert_eq(rig_leaf_level(&rig, USER), 2);
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

Test(shadow_memory, accessed_harvest)
{
	const struct gn_vm_config config = { 0 };
	uint8_t bitmap[512];
	struct rig rig;

	rig_start(&rig, &config);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	CHECK_OK(rig_user_load(&rig, USER));
	cr_assert_eq(gn_accessed_harvest(rig.vm, gfn(FREE_GFN - 8), 16, bitmap), 0);
	cr_assert_eq(bitmap[0], 0);
	cr_assert_eq(bitmap[1], 1);
	cr_assert_eq(gn_accessed_harvest(rig.vm, gfn(FREE_GFN - 8), 16, bitmap), 0);
	cr_assert_eq(bitmap[1], 0);
	CHECK_AUDIT(&rig);
	rig_end(&rig);
}

/* Pages of one contents at FREE_GFN and on, mapped at USER and on; the first is published. */
static pfn_t rig_alike(struct rig *rig, unsigned count)
{
	struct gn_merge page = { .at = gfn(FREE_GFN) };

	for (unsigned i = 0; i < count; i++) {
		rig_map(rig, rig->root, USER + PAGE(i), 1, PAGE(FREE_GFN + i) | USER_RW);
		CHECK_OK(rig_user_store(rig, USER + PAGE(i), 5));
	}
	cr_assert_eq(gn_p2m_publish(rig->vm, &page, 1, GN_SHARE_READ), 0);
	cr_assert_eq(page.result, 0);
	return page.frame;
}

static int rig_merge(struct rig *rig, uint64_t at, pfn_t frame)
{
	struct gn_merge page = { .at = gfn(at), .frame = frame };

	cr_assert_eq(gn_p2m_merge(rig->vm, &page, 1, GN_SHARE_READ, NULL), 0);
	return page.result;
}

/* Who reads a page does not fault when it comes to share, nor after, by whatever address. */
Test(shadow_memory, reads_go_on_while_pages_are_merged)
{
	static const char *const schemes[] = { "shadow", "shadow-vtlb" };

	for (unsigned i = 0; i < 2; i++) {
		const struct gn_vm_config config = { .scheme = schemes[i] };
		struct rig rig;
		pfn_t frame;

		rig_start(&rig, &config);
		frame = rig_alike(&rig, 3);
		rig_map(&rig, rig.root, 2 * USER, 1, PAGE(FREE_GFN + 1) | USER_RW);
		CHECK_OK(rig_user_load(&rig, 2 * USER));
		CHECK_QUIET(rig_user_load(&rig, USER));
		cr_assert_eq(rig_merge(&rig, FREE_GFN + 1, frame), 0);
		CHECK_AUDIT(&rig);
		CHECK_QUIET(rig_user_load(&rig, USER + PAGE(1)));
		CHECK_QUIET(rig_user_load(&rig, 2 * USER));
		cr_assert_eq(rig_user_load(&rig, 2 * USER).hpa, pfn_to_hpa(frame).v);
		/* A copy is seen at both addresses. What differs stays, and may be written again. */
		CHECK_OK(rig_user_store(&rig, USER + PAGE(1), 6));
		cr_assert_eq(rig_user_load(&rig, 2 * USER).value, 6);
		cr_assert_eq(rig_user_load(&rig, USER).value, 5);
		CHECK_AUDIT(&rig);
		CHECK_OK(rig_user_store(&rig, USER + PAGE(2), 7));
		cr_assert_eq(rig_merge(&rig, FREE_GFN + 2, frame), -EAGAIN);
		CHECK_QUIET(rig_user_load(&rig, USER + PAGE(2)));
		CHECK_OK(rig_user_store(&rig, USER + PAGE(2), 8));
		CHECK_AUDIT(&rig);
		gn_frames_put(rig.vm->frames, frame);
		rig_end(&rig);
	}
}

static struct rig *dropping;
static uint64_t dropped_entry;
static unsigned flushes_after;

static bool drop_mapping(struct gn_vcpu *vcpu, const struct gn_flush *flush)
{
	flushes_after += flush->scope == GN_FLUSH_ALL && !dropped_entry;
	if (flush->scope != GN_FLUSH_ALL || !dropped_entry)
		return false;
	CHECK_QUIET(rig_poke(dropping, dropped_entry, 0));
	dropped_entry = 0;
	gn_vcpu_invlpg(vcpu, gva(USER + PAGE(1)));
	return false;
}

/* The guest drops its mapping while pages are compared. No leaf is left to move, but a processor may use the translation still,
 * and its frame is about to go. */
Test(shadow_memory, a_mapping_dropped_meanwhile_is_flushed_before_its_frame_goes)
{
	const struct gn_vm_config config = { 0 };
	struct rig rig;
	pfn_t frame;

	rig_start(&rig, &config);
	frame = rig_alike(&rig, 2);
	dropping = &rig;
	dropped_entry = rig_entry(&rig, rig.root, USER + PAGE(1), 1);
	CHECK_OK(rig_poke(&rig, dropped_entry + 8, 0));
	CHECK_QUIET(rig_poke(&rig, dropped_entry + 8,
			     0)); /* unsync now: no change may be waited for below */
	flushes_after = 0;
	rig_on_flush = drop_mapping;
	cr_assert_eq(rig_merge(&rig, FREE_GFN + 1, frame), 0);
	rig_on_flush = NULL;
	cr_assert_eq(dropped_entry, 0);
	cr_assert_geq(flushes_after, 1);
	cr_assert_eq(rig_user_load(&rig, USER + PAGE(1)).end, RIG_PF);
	CHECK_AUDIT(&rig);
	gn_frames_put(rig.vm->frames, frame);
	rig_end(&rig);
}

/* A table of the guest's that is merged is unshadowed; the guest goes on with it, and a store to it makes a copy. */
Test(shadow_memory, a_table_that_is_merged_is_unshadowed)
{
	const struct gn_vm_config config = { 0 };
	uint64_t table[512] = { PAGE(FREE_GFN) | USER_RW };
	struct gn_merge page = { .at = gfn(FREE_GFN + 8) };
	struct rig rig;
	uint64_t at;

	rig_start(&rig, &config);
	rig_map(&rig, rig.root, USER, 1, table[0]);
	CHECK_OK(rig_user_store(&rig, USER, 5));
	at = rig_entry(&rig, rig.root, USER, 1) >> 12 << 12;
	cr_assert_eq(gn_vm_read(rig.vm, gpa(at), table, sizeof(table)), 0);
	cr_assert_eq(gn_vm_write(rig.vm, gpa(PAGE(FREE_GFN + 8)), table, sizeof(table)), 0);
	cr_assert_eq(gn_p2m_publish(rig.vm, &page, 1, GN_SHARE_READ), 0);
	cr_assert_neq(gn_rmap_marks(gn_shadow_of(rig.vm), gfn(at >> 12)), 0);
	cr_assert_eq(rig_merge(&rig, at >> 12, page.frame), 0);
	cr_assert_eq(gn_rmap_marks(gn_shadow_of(rig.vm), gfn(at >> 12)), 0);
	CHECK_AUDIT(&rig);
	cr_assert_eq(rig_user_load(&rig, USER).value, 5);
	CHECK_AUDIT(&rig);
	CHECK_OK(rig_poke(&rig, at + 8, PAGE(FREE_GFN + 1) | USER_RW));
	CHECK_OK(rig_user_store(&rig, USER + PAGE(1), 6));
	cr_assert_eq(rig_user_load(&rig, USER + PAGE(1)).value, 6);
	cr_assert_eq(*(uint64_t *)gn_frames_at(rig.vm->frames, hpa(pfn_to_hpa(page.frame).v + 8)),
		     0);
	CHECK_AUDIT(&rig);
	gn_frames_put(rig.vm->frames, page.frame);
	rig_end(&rig);
}

/* With several vCPUs the flush of a change is counted: who tracks a table next must wait for it. */
Test(shadow_memory, flushes_of_changes_are_counted)
{
	const struct gn_vm_config config = { .vcpus = 2 };
	struct rig rig;
	uint64_t before;

	rig_start(&rig, &config);
	rig_map(&rig, rig.root, USER, 1, PAGE(FREE_GFN) | USER_RW);
	CHECK_OK(rig_user_store(&rig, USER, 1));
	before = gn_shadow_of(rig.vm)->flush_seq;
	cr_assert_eq(gn_p2m_balloon(rig.vm, gfn(FREE_GFN + 1), 1), 0);
	cr_assert_eq(gn_shadow_of(rig.vm)->flush_seq, before, "nothing was mapped");
	cr_assert_eq(gn_p2m_balloon(rig.vm, gfn(FREE_GFN), 1), 0);
	cr_assert_gt(gn_shadow_of(rig.vm)->flush_seq, before);
	rig_end(&rig);
}
