/* SPDX-License-Identifier: MIT */
/*
 * agent_blocks.c - blocks of 2 MiB of a VM of a group.
 *
 * Whether a block pays to be split cannot be known before others are asked. So its pages are offered as pages of a block, and the
 * daemon orders it to be split when enough of them have their like elsewhere (broker_blocks.c). It is marked then, and split
 * when it is found cold again; from there on its pages are pages like others. So they are if somebody else has split it, a
 * balloon for one. What has ceased to pay is formed again (forming.h); what was offered before then is no page to share
 * any more, and is offered as one of a block when it is asked for.
 *
 * Others may change their minds, or lie. A block is split at once when that is ordered for the first time; each time after that it
 * takes twice as many sweeps until it may be again.
 *
 * In a quiet group blocks stay as they are: who measures whether his block was split, or formed, would learn what others have.
 *
 * Deliberately absent: blocks of 1 GiB, which the scanner does not offer.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent_impl.h"
#include "mmu/arena.h"
#include "mmu/p2m.h"
#include "mmu/vm.h"

#define CALM_SWEEPS 64
#define DOUBLED_MAX 16

int gn_share_blocks_init(struct gn_share_agent *a)
{
	const int err = gn_forming_init(&a->forming, a->config.vm, GN_SPLIT_PAGES_DEFAULT);

	if (err || !a->forming.in)
		return err;
	a->block_areas =
		gn_alloc_should_fail() ? NULL : calloc(a->forming.areas, sizeof(a->block_areas[0]));
	return a->block_areas ? 0 : -ENOMEM;
}

void gn_share_blocks_fini(struct gn_share_agent *a)
{
	gn_forming_fini(&a->forming);
	free(a->block_areas);
}

void gn_share_forget_blocks(struct gn_share_agent *a)
{
	for (uint64_t i = 0; a->forming.in && i < a->forming.areas; i++)
		a->block_areas[i].is_told = a->block_areas[i].is_to_split = false;
}

bool gn_share_is_in_block(const struct gn_share_agent *a, uint64_t at)
{
	return a->forming.in && at < a->pages &&
	       gn_p2m_word_level(gn_p2m_get(&a->config.vm->p2m, gfn(at))) > 1;
}

/* All of it that is not shared. */
static void reoffer(struct gn_share_agent *a, uint64_t first)
{
	for (uint64_t at = first; at < first + GN_BLOCK_PAGES; at++)
		if (!gn_scanner_is_shared(a->scanner, gfn(at)))
			gn_share_reoffer(a, gfn(at), false);
}

void gn_share_sweep_blocks(struct gn_share_agent *a)
{
	a->block_sweep++;
	if (a->is_quiet || !a->forming.in)
		return;
	for (uint64_t i = 0; i < a->forming.areas; i++) {
		if (!a->block_areas[i].is_told || gn_share_is_in_block(a, i * GN_BLOCK_PAGES))
			continue;
		a->block_areas[i].is_told = false;
		gn_forming_note_small(&a->forming, gfn(i * GN_BLOCK_PAGES));
		reoffer(a, i * GN_BLOCK_PAGES);
	}
	gn_forming_step(&a->forming);
}

/* One of its pages becomes SHARED, which only a small page can be. The next sweep finds the pieces. */
static void split(struct gn_share_agent *a, const struct gn_offer *offers)
{
	for (size_t i = 0; i < GN_BLOCK_PAGES; i++) {
		struct gn_merge page = { .at = offers[i].at };

		if (offers[i].is_zero || gn_p2m_publish(a->config.vm, &page, 1, GN_SHARE_READ) ||
		    page.result)
			continue;
		gn_frames_put(a->config.vm->frames, page.frame);
		return;
	}
}

static bool is_readonly(const struct gn_share_agent *a, gfn_t at)
{
	return gn_p2m_word_state(gn_p2m_get(&a->config.vm->p2m, at)) == GN_P2M_READONLY;
}

void gn_share_offer_block(struct gn_share_agent *a, const struct gn_offer *offers)
{
	struct gn_share_area *area;

	if (a->is_quiet || !a->forming.in || is_readonly(a, offers[0].at))
		return;
	area = &a->block_areas[offers[0].at.v / GN_BLOCK_PAGES];
	area->is_told = true;
	if (area->is_to_split) {
		area->is_to_split = false;
		split(a, offers);
		return;
	}
	if (gn_exchange_room(a->exchange, GN_EXCHANGE_OFFERS) < GN_BLOCK_PAGES) {
		gn_scanner_reoffer(a->scanner, offers[0].at, false); /* and with it all */
		return;
	}
	for (size_t i = 0; i < GN_BLOCK_PAGES; i++)
		gn_share_put_offer(a, &offers[i],
				   offers[i].is_zero ? GN_OFFER_ZEROES_IN_BLOCK
						     : GN_OFFER_IN_BLOCK);
}

int gn_share_split(struct gn_share_agent *a, uint64_t first)
{
	struct gn_share_area *area;

	if (a->is_quiet || !a->forming.in || first % GN_BLOCK_PAGES ||
	    first / GN_BLOCK_PAGES >= a->forming.areas)
		return -EINVAL;
	if (!gn_share_is_in_block(a, first))
		return 0;
	area = &a->block_areas[first / GN_BLOCK_PAGES];
	if (a->block_sweep < area->next_split)
		return -EAGAIN;
	area->next_split = a->block_sweep + ((uint64_t)CALM_SWEEPS << area->splits);
	area->splits += area->splits < DOUBLED_MAX;
	area->is_to_split = true;
	gn_scanner_reoffer(a->scanner, gfn(first), false);
	return 0;
}
