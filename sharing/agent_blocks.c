/* SPDX-License-Identifier: MIT */
/*
 * agent_blocks.c - blocks of 2 MiB of a VM of a group.
 *
 * Whether a block pays to be split cannot be known before others are asked. So its pages are offered as pages of a block, and the
 * daemon orders it to be split when enough of them have their like elsewhere (broker_blocks.c). It is marked then, and split
 * when it is found cold again; from there on its pages are pages like others. What has ceased to pay is formed again (forming.h);
 * what was offered before then is no page to share any more, and is offered as one of a block when it is asked for.
 *
 * In a quiet group blocks stay as they are: who measures whether his block was split would learn what others have.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent_impl.h"
#include "mmu/p2m.h"
#include "mmu/vm.h"

int gn_share_blocks_init(struct gn_share_agent *a)
{
	const int err = gn_forming_init(&a->forming, a->config.vm, GN_SPLIT_PAGES_DEFAULT);

	if (err || !a->forming.in)
		return err;
	a->to_split = calloc(a->forming.areas, sizeof(a->to_split[0]));
	return a->to_split ? 0 : -ENOMEM;
}

void gn_share_blocks_fini(struct gn_share_agent *a)
{
	gn_forming_fini(&a->forming);
	free(a->to_split);
}

static uint64_t area_of(const struct gn_offer *offers)
{
	return offers[0].at.v / GN_BLOCK_PAGES;
}

/* One of its pages becomes SHARED, which only a small page can be. */
static void split(struct gn_share_agent *a, const struct gn_offer *offers)
{
	struct gn_merge page;
	size_t i = 0;

	while (offers[i].is_zero) /* not all of them are */
		i++;
	page.at = offers[i].at;
	if (gn_p2m_publish(a->config.vm, &page, 1, GN_SHARE_READ) || page.result)
		return; /* what is whole still is counted anew */
	gn_frames_put(a->config.vm->frames, page.frame);
	gn_forming_note_small(&a->forming, page.at);
}

static void reoffer(struct gn_share_agent *a, uint64_t area)
{
	for (uint64_t i = 0; i < GN_BLOCK_PAGES; i++)
		gn_share_reoffer(a, gfn(area * GN_BLOCK_PAGES + i), false);
}

void gn_share_offer_block(struct gn_share_agent *a, const struct gn_offer *offers)
{
	const uint64_t area = area_of(offers);

	if (a->is_quiet || !a->forming.in)
		return;
	if (a->to_split[area]) {
		a->to_split[area] = false;
		split(a, offers);
		reoffer(a, area);
		return;
	}
	for (size_t i = 0; i < GN_BLOCK_PAGES; i++)
		gn_share_put_offer(a, &offers[i],
				   offers[i].is_zero ? GN_OFFER_ZEROES_IN_BLOCK
						     : GN_OFFER_IN_BLOCK);
}

bool gn_share_is_in_block(const struct gn_share_agent *a, uint64_t at)
{
	return a->forming.in && at < a->pages &&
	       gn_p2m_word_level(gn_p2m_get(&a->config.vm->p2m, gfn(at))) > 1;
}

int gn_share_split(struct gn_share_agent *a, uint64_t first)
{
	const uint64_t area = first / GN_BLOCK_PAGES;

	if (a->is_quiet || !a->forming.in || first % GN_BLOCK_PAGES || area >= a->forming.areas)
		return -EINVAL;
	a->to_split[area] = gn_share_is_in_block(a, first);
	reoffer(a, area);
	return 0;
}
