/* SPDX-License-Identifier: MIT */
/*
 * blocks.c - a block of 2 MiB is split only where it pays, and made whole when it has ceased to.
 *
 * A large translation is worth more to a guest than a few pages are to the host. So the pages of a block are hashed and looked up
 * first, and nothing is done unless at least split_pages of them would go: those whose like is a shared frame, a small page, or
 * in another block that will be split as well; and those of zeros. A block is looked at only when it is cold, all of it.
 *
 * Two blocks may each be waiting for the other. Of each area it is counted how many of its pages were found to have their like
 * elsewhere, also by those who came later. When that reaches the bound, the block is worth splitting, and is offered once more.
 * Pages with their like in blocks that are not worth it, small pages as well, become candidates next to those, so that they are
 * found from the other side, up to a few under one tag. It is greedy: of blocks in a ring each of which waits for the next,
 * none is split.
 *
 * A block that was split is formed again when it has ceased to pay (forming.h).
 *
 * In quiet mode blocks stay as they are: who measures whether his block was split would learn what others have.
 *
 * Deliberately absent: blocks of 1 GiB.
 */
#include <errno.h>
#include <stdlib.h>

#include "domain_impl.h"
#include "mmu/arena.h"

#define BESIDE_MAX 3 /* entries under one tag */

int gn_blocks_init(struct gn_member *m)
{
	int err = gn_forming_init(&m->forming, m->vm, m->domain->config.split_pages);

	if (err || !m->forming.in)
		return err;
	m->alike = gn_alloc_should_fail() ? NULL : calloc(m->forming.areas, sizeof(m->alike[0]));
	return m->alike ? 0 : -ENOMEM;
}

void gn_blocks_fini(struct gn_member *m)
{
	free(m->alike);
	gn_forming_fini(&m->forming);
}

static bool is_block(const struct gn_member *m, gfn_t at)
{
	return gn_p2m_word_level(gn_p2m_get(&m->vm->p2m, at)) > 1;
}

/* ---- Splitting ------------------------------------------------------------------------------------- */

/* The page an entry speaks of, if that is in a large block. */
static struct gn_member *block_of(const struct gn_domain *d, const struct gn_index_entry *e,
				  uint64_t *area)
{
	struct gn_member *m;
	gfn_t at;

	if (gn_entry_kind_of(e->value) != GN_ENTRY_CANDIDATE)
		return NULL;
	m = d->members[gn_entry_vm_of(e->value)];
	at = gfn(gn_entry_number_of(e->value));
	*area = at.v / GN_BLOCK_PAGES;
	return m->alike && is_block(m, at) ? m : NULL;
}

/* A block that is looked at. */
struct look {
	struct gn_member *m;
	const struct gn_offer *offers;
	uint64_t area;
};

static struct gn_index_entry *find(const struct look *l, size_t i, bool *is_known)
{
	*is_known = false;
	return l->offers[i].is_zero ? NULL : gn_match_find(l->m, &l->offers[i], is_known);
}

/* A block has one page more with its like elsewhere. If that makes it worth splitting, it is offered once more. */
static void count_one(struct gn_member *m, uint64_t area)
{
	if (m->alike[area] == GN_BLOCK_PAGES || ++m->alike[area] != m->domain->config.split_pages)
		return;
	for (uint64_t i = 0; i < GN_BLOCK_PAGES; i++)
		gn_scanner_reoffer(m->scanner, gfn(area * GN_BLOCK_PAGES + i), false);
}

static bool is_worth(const struct gn_member *m, uint64_t area)
{
	return m->alike[area] >= m->domain->config.split_pages;
}

bool gn_blocks_is_out_of_reach(struct gn_domain *d, const struct gn_index_entry *e)
{
	uint64_t area;
	struct gn_member *m = block_of(d, e, &area);

	if (!m)
		return false;
	count_one(m, area);
	return !is_worth(m, area);
}

void gn_blocks_note_small(struct gn_member *m, gfn_t at)
{
	m->domain->sums.blocks_split += gn_forming_note_small(&m->forming, at);
}

static void count_alike(struct look *l)
{
	uint16_t alike = 0;

	for (size_t i = 0; i < GN_BLOCK_PAGES; i++) {
		bool is_known;
		struct gn_index_entry *e = find(l, i, &is_known);
		uint64_t area;
		struct gn_member *other = e ? block_of(l->m->domain, e, &area) : NULL;

		alike += l->offers[i].is_zero || e;
		if (other && (other != l->m || area != l->area))
			count_one(other, area);
	}
	l->m->alike[l->area] = alike;
}

/* The entry's page may be merged with, for it is small or will be. */
static bool is_within_reach(const struct look *l, const struct gn_index_entry *e)
{
	uint64_t area;
	struct gn_member *other = block_of(l->m->domain, e, &area);

	return !other || (other == l->m && area == l->area) || is_worth(other, area);
}

static bool pays(const struct look *l)
{
	unsigned count = 0;

	for (size_t i = 0; i < GN_BLOCK_PAGES; i++) {
		bool is_known;
		struct gn_index_entry *e = find(l, i, &is_known);

		count += l->offers[i].is_zero || (e && is_within_reach(l, e));
	}
	return count >= l->m->domain->config.split_pages;
}

void gn_blocks_insert_beside(struct gn_member *m, const struct gn_offer *offer)
{
	const struct gn_index *index = &m->domain->index;
	struct gn_index_entry *e = NULL;
	unsigned beside = 0;

	while ((e = gn_index_next(index, offer->tag.bits, e)))
		beside++;
	if (beside < BESIDE_MAX)
		gn_match_insert(m, offer);
}

/* Nothing but zeros made it pay, and those go from small pages only: one that stays is published, and let go of. */
static void split_for_zeros(struct look *l)
{
	struct gn_merge page;
	size_t i = 0;

	while (l->offers[i].is_zero) /* not all of them are */
		i++;
	page.at = l->offers[i].at;
	if (gn_p2m_publish(l->m->vm, &page, 1, GN_SHARE_READ) || page.result)
		return;
	gn_frames_put(l->m->vm->frames, page.frame);
	gn_blocks_note_small(l->m, page.at);
}

static void split(struct look *l)
{
	for (size_t i = 0; i < GN_BLOCK_PAGES; i++) {
		bool is_known;
		struct gn_index_entry *e = find(l, i, &is_known);

		if (l->offers[i].is_zero) /* dropped when it is small */
			gn_scanner_reoffer(l->m->scanner, l->offers[i].at, false);
		else if (!e || is_within_reach(l, e))
			gn_match_offer(l->m, &l->offers[i]);
		else if (!is_known)
			gn_blocks_insert_beside(l->m, &l->offers[i]);
	}
	gn_gather_carry_out(l->m);
	if (is_block(l->m, l->offers[0].at))
		split_for_zeros(l);
}

/* The block stays; whoever comes later finds its pages. */
static void keep(struct look *l)
{
	for (size_t i = 0; i < GN_BLOCK_PAGES; i++) {
		bool is_known;

		(void)find(l, i, &is_known);
		if (!is_known && !l->offers[i].is_zero)
			gn_blocks_insert_beside(l->m, &l->offers[i]);
	}
}

void gn_blocks_offers(struct gn_member *m, const struct gn_offer *offers)
{
	struct look look = { .m = m, .offers = offers, .area = offers[0].at.v / GN_BLOCK_PAGES };

	if (m->domain->config.quiet)
		return;
	gn_gather_carry_out(m);
	count_alike(&look);
	if (pays(&look))
		split(&look);
	else
		keep(&look);
}

/* ---- Forming ----------------------------------------------------------------------------------------- */

void gn_blocks_form(struct gn_member *m)
{
	if (!m->domain->config.quiet) /* what is formed would tell what was merged */
		m->domain->sums.blocks_formed += gn_forming_step(&m->forming);
}
