/* SPDX-License-Identifier: MIT */
/*
 * walk.c - the walks of host tables: for every format and leaf level the closed form of entries read, the right
 * address, rights that are the AND of the way; absent and malformed entries; and the named walks agree with
 * the one by descriptor on random tables.
 */
#include <criterion/criterion.h>

#include <string.h>

#include "mmu/walk.h"

#include "support/cases.h"

static const struct {
	const struct gn_fmt *fmt;
	gn_walk_fn *walk;
} all[] = { { &gn_fmt_x86_4, gn_walk_x86_4 }, { &gn_fmt_x86_5, gn_walk_x86_5 },
	    { &gn_fmt_ept_4, gn_walk_ept_4 }, { &gn_fmt_ept_5, gn_walk_ept_5 },
	    { &gn_fmt_npt_4, gn_walk_npt_4 }, { &gn_fmt_npt_5, gn_walk_npt_5 },
	    { &gn_fmt_fake, gn_walk_fake } };
#define FORMATS	   (sizeof(all) / sizeof(all[0]))
#define POOL_BYTES ((uint64_t)4 << 20)
#define ADDRESS	   ((uint64_t)0x0000123456789abc)

static struct gn_frames *pool(void)
{
	struct gn_frames *frames;

	cr_assert_eq(gn_frames_new(POOL_BYTES, GN_POOL_MEMFD, false, &frames), 0);
	return frames;
}

static uint64_t *slot_of(const struct gn_frames *frames, const struct gn_fmt *f, unsigned level,
			 pfn_t table, uint64_t address)
{
	return (uint64_t *)gn_frames_at(frames, pfn_to_hpa(table)) +
	       gn_fmt_index(f, level, address);
}

/* A way down to @leaf_level: table of level l in frame l, each with its own rights. */
static void build(const struct gn_frames *frames, const struct gn_fmt *f, unsigned leaf_level,
		  uint64_t address, gn_rights_t table_rights, gn_rights_t leaf_rights)
{
	for (unsigned level = f->levels; level > leaf_level; level--)
		*slot_of(frames, f, level, pfn(level), address) =
			gn_fmt_table(f, level, pfn(level - 1), table_rights);
	*slot_of(frames, f, leaf_level, pfn(leaf_level), address) =
		gn_fmt_leaf(f, leaf_level, pfn((uint64_t)1 << 18), leaf_rights);
}

Test(walk, references_are_the_closed_form)
{
	struct gn_frames *frames = pool();

	for (unsigned i = 0; i < FORMATS; i++)
		for (unsigned leaf = 1; leaf <= 3; leaf++) {
			const struct gn_fmt *f = all[i].fmt;
			struct gn_walk w;

			memset(frames->base, 0, 6 * GN_PAGE_SIZE);
			build(frames, f, leaf, ADDRESS, GN_RWXU, GN_RWXU);
			all[i].walk(frames, pfn_to_hpa(pfn(f->levels)), ADDRESS, &w);
			cr_assert_eq(w.end, GN_WALK_LEAF, "%s leaf %u", f->name, leaf);
			cr_assert_eq(w.refs, f->levels - leaf + 1, "%s leaf %u: %u", f->name, leaf,
				     w.refs);
			cr_assert_eq(w.level, leaf);
			cr_assert_eq(w.rights, GN_RWXU);
			cr_assert_eq(w.address,
				     ((uint64_t)1 << 30) | (ADDRESS & (gn_level_bytes(leaf) - 1)));
			cr_assert_eq(w.slot, slot_of(frames, f, leaf, pfn(leaf), ADDRESS));
			cr_assert_eq(w.entry, *w.slot);
		}
	gn_frames_destroy(frames);
}

Test(walk, rights_are_anded)
{
	struct gn_frames *frames = pool();

	for (unsigned i = 0; i < FORMATS; i++)
		for (unsigned upper = 0; upper <= GN_RWXU; upper++)
			for (unsigned lower = 0; lower <= GN_RWXU; lower++) {
				const struct gn_fmt *f = all[i].fmt;
				gn_rights_t want;
				struct gn_walk w;

				if (!(upper & lower & GN_R))
					continue;
				memset(frames->base, 0, 6 * GN_PAGE_SIZE);
				build(frames, f, 1, ADDRESS, (gn_rights_t)upper,
				      (gn_rights_t)lower);
				all[i].walk(frames, pfn_to_hpa(pfn(f->levels)), ADDRESS, &w);
				want = GN_RWXU;
				for (unsigned level = 1; level <= f->levels; level++)
					want &= gn_fmt_rights(
						f, level,
						*slot_of(frames, f, level, pfn(level), ADDRESS));
				cr_assert_eq(w.rights, want, "%s %x %x", f->name, upper, lower);
			}
	gn_frames_destroy(frames);
}

/* At each level in turn the way breaks. */
Test(walk, breaks_where_the_entry_is_bad)
{
	struct gn_frames *frames = pool();

	for (unsigned i = 0; i < FORMATS; i++)
		for (unsigned level = 1; level <= all[i].fmt->levels; level++) {
			const struct gn_fmt *f = all[i].fmt;
			uint64_t *slot = slot_of(frames, f, level, pfn(level), ADDRESS);
			uint64_t reserved = f->level[level].reserved_table;
			struct gn_walk w;

			memset(frames->base, 0, 6 * GN_PAGE_SIZE);
			build(frames, f, 1, ADDRESS, GN_RWXU, GN_RWXU);
			*slot &= ~f->level[level].present;
			all[i].walk(frames, pfn_to_hpa(pfn(f->levels)), ADDRESS, &w);
			cr_assert_eq(w.end, GN_WALK_ABSENT, "%s level %u", f->name, level);
			cr_assert_eq(w.level, level);
			cr_assert_eq(w.refs, f->levels - level + 1);
			cr_assert_eq(w.slot, slot);
			cr_assert_eq(w.rights, GN_RWXU);

			build(frames, f, 1, ADDRESS, GN_RWXU, GN_RWXU);
			if (reserved) {
				*slot |= reserved & -reserved;
				all[i].walk(frames, pfn_to_hpa(pfn(f->levels)), ADDRESS, &w);
				cr_assert_eq(w.end, GN_WALK_MALFORMED, "%s level %u", f->name,
					     level);
				cr_assert_eq(w.level, level);
			}
			/* A table outside the pool is not followed. */
			if (level > 1) {
				*slot = gn_fmt_table(f, level, pfn(frames->frame_count), GN_RWXU);
				all[i].walk(frames, pfn_to_hpa(pfn(f->levels)), ADDRESS, &w);
				cr_assert_eq(w.end, GN_WALK_MALFORMED, "%s level %u", f->name,
					     level);
				cr_assert_eq(w.level, level);
			}
		}
	gn_frames_destroy(frames);
}

static uint64_t random_entry(struct test_random *r, const struct gn_fmt *f, unsigned level)
{
	gn_rights_t rights = (gn_rights_t)(test_random_next(r) & GN_RWXU) | GN_R;
	uint64_t noise = test_random_once(r, 8) ? (uint64_t)1 << test_random_below(r, 64) : 0;

	if (test_random_once(r, 10))
		return noise & ~f->level[level].present;
	if (level == 1 || (f->level[level].leaf_allowed && test_random_once(r, 4)))
		return gn_fmt_leaf(
			       f, level,
			       pfn(test_random_below(r, 1 << 20) & ~(gn_level_pages(level) - 1)),
			       rights) |
		       noise;
	return gn_fmt_table(f, level, pfn(1 + test_random_below(r, 63)), rights) | noise;
}

Test(walk, named_and_by_descriptor_agree)
{
	struct gn_frames *frames = pool();
	struct test_random r = test_random_seed(3);
	unsigned ends[3] = { 0 };

	for (unsigned i = 0; i < FORMATS; i++)
		for (unsigned round = 0; round < 200; round++) {
			const struct gn_fmt *f = all[i].fmt;

			for (unsigned n = 0; n < 512; n++)
				((uint64_t *)frames->base)[512 + test_random_below(&r, 63) * 512 +
							   test_random_below(&r, 8)] =
					random_entry(
						&r, f,
						1 + (unsigned)test_random_below(&r, f->levels));
			for (unsigned n = 0; n < 200; n++) {
				uint64_t address = test_random_next(&r) & 0x00070381c0e07fff;
				struct gn_walk a = { 0 }, b = { 0 };
				hpa_t root = pfn_to_hpa(pfn(1 + test_random_below(&r, 63)));

				all[i].walk(frames, root, address, &a);
				gn_walk_any(f, frames, root, address, &b);
				cr_assert_eq(memcmp(&a, &b, sizeof(a)), 0, "%s", f->name);
				ends[a.end]++;
			}
		}
	cr_assert(ends[GN_WALK_LEAF] > 1000 && ends[GN_WALK_ABSENT] > 1000 &&
		  ends[GN_WALK_MALFORMED] > 1000);
	gn_frames_destroy(frames);
}
