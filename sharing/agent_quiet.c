/* SPDX-License-Identifier: MIT */
/*
 * agent_quiet.c - a VM of a quiet domain: by the time it takes, its guest must not learn which of its pages others have.
 *
 * Each page that is to be offered is sealed first, in the frame that it has, and that frame is anchored. From then on nothing that
 * the guest can do to the page takes another time if a like of it was found:
 *
 *     its next use, a read too    is a copy, made by the same steps: the frame has an anchor, so nobody who leaves one is the last
 *     merging it                  holds nobody off, for nobody can use what is sealed; is it used already, it is not merged
 *     showing it to the daemon    reads its frame, not the page: that would break the seal
 *     sealing it anew             is due when it stood still (scanner.h), whatever was ordered meanwhile
 *     frames for copies           come from a stock that is kept full for sealed pages, not for merged ones
 *     without a daemon            it stays sealed or broken as it is, in a frame of ours or of the former daemon's pool
 *
 * Anchors of frames that nobody uses any more are lifted at each sweep, with one wait for the guest's processors whether there are
 * any or not, and once a second when nothing is swept.
 *
 * With home frames a page is sealed away from its home, so that this is free for its copy. So many may be away as the pool has frames
 * that are no page's home, and some for tables; a merged page counts as one that is not, for when the next one is sealed would
 * tell else. Without, frames for the copies that the guest makes between two sweeps come out of the pool until that is empty;
 * then old anchors yield (mmu/anchor.c). What has just been sealed is not anchored yet, so a pool needs a batch of offers (2 MiB) beyond
 * the guest's pages and its tables; by default it has more.
 */
#include <errno.h>
#include <string.h>

#include "agent_impl.h"
#include "control/clock.h"
#include "mmu/frames.h"
#include "mmu/retire.h"
#include "mmu/vm.h"

#define LIFT_NS UINT64_C(1000000000)

/* ---- Anchors ----------------------------------------------------------------------------------------------------- */

/* Pages that may be sealed at a time. Half of what a pool has for tables by default is left to them. */
static uint64_t seals_most(const struct gn_share_agent *a)
{
	const uint64_t own = a->config.vm->frames->own_count;
	const uint64_t spared =
		a->pages + gn_vm_tables_bytes(a->pages * GN_PAGE_SIZE) / GN_PAGE_SIZE / 2;

	if (!a->config.vm->config.home_frames)
		return UINT64_MAX;
	return own > spared ? own - spared : 0;
}

void gn_share_lift(struct gn_share_agent *a, uint64_t now_ns)
{
	const uint64_t most = seals_most(a);
	uint64_t sealed;

	gn_retire_drain_always(a->config.vm);
	gn_frames_lift_anchors(a->config.vm->frames, &a->anchors);
	sealed = a->anchors.own + a->anchors.lent_uses;
	a->seals_left = most > sealed ? most - sealed : 0;
	a->lift_at_ns = a->anchors.own || a->anchors.lent ? now_ns + LIFT_NS : 0;
}

/* ---- Sealing ----------------------------------------------------------------------------------------------------- */

/* The offers of pages that are shared already, or those of the others; what may be told of them. */
static void seal(struct gn_share_agent *a, const struct gn_offer *offers, size_t count,
		 bool is_shared, bool *may_tell)
{
	struct gn_merge pages[GN_SCANNER_BATCH];
	uint16_t of[GN_SCANNER_BATCH];
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		if (offers[i].is_shared == is_shared && (is_shared || n < a->seals_left)) {
			of[n] = (uint16_t)i;
			pages[n++] = (struct gn_merge){ .at = offers[i].at };
		}
	/* They lie in RAM, and ascend. */
	(void)gn_p2m_publish(a->config.vm, pages, n, is_shared ? GN_SHARE_RESEAL : GN_SHARE_SEALED);
	for (size_t i = 0; i < n; i++) {
		may_tell[of[i]] = !pages[i].result;
		if (!pages[i].result)
			gn_frames_anchor(a->config.vm->frames, pages[i].frame);
		/* One that has been used meanwhile is found by the next sweep, like all that were sealed and used. */
		if (!pages[i].result || is_shared)
			gn_scanner_set_shared(a->scanner, pages[i].at);
		else if (pages[i].result == -ENOMEM)
			gn_scanner_reoffer(a->scanner, pages[i].at, false);
		if (!pages[i].result && !is_shared)
			a->seals_left--;
	}
}

void gn_share_seal(struct gn_share_agent *a, const struct gn_offer *offers, size_t count,
		   bool *may_tell)
{
	memset(may_tell, 0, count * sizeof(*may_tell));
	seal(a, offers, count, false, may_tell);
	seal(a, offers, count, true, may_tell);
	if (!a->lift_at_ns)
		a->lift_at_ns = gn_now_ns() + LIFT_NS;
}

/* ---- Orders ------------------------------------------------------------------------------------------------------ */

int gn_share_read_sealed(struct gn_share_agent *a, gfn_t at, uint8_t *page)
{
	p2m_word_t w;
	bool is_sealed;

	gn_rcu_read_lock();
	w = gn_p2m_get(&a->config.vm->p2m, at);
	is_sealed = gn_p2m_word_state(w) == GN_P2M_SHARED && (w.v & GN_P2M_SEALED);
	if (is_sealed)
		memcpy(page, gn_p2m_pointer_of(a->config.vm, w, gfn_to_gpa(at)), GN_PAGE_SIZE);
	gn_rcu_read_unlock();
	return is_sealed ? 0 : -EAGAIN;
}

void gn_share_reoffer(struct gn_share_agent *a, gfn_t at, bool is_careful)
{
	/* Was it used, or written, its time comes as if nothing had been ordered. */
	if (!a->seals || gn_scanner_is_shared(a->scanner, at))
		gn_scanner_reoffer(a->scanner, at, is_careful);
}
