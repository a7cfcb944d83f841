/* SPDX-License-Identifier: MIT */
/*
 * agent_scan.c - looking at pages with the CPU time that the daemon grants.
 *
 * A bucket of CPU time fills at the granted rate and is emptied by what this thread used, obeying included. A sweep begins
 * each sweep_ns, or when the last one is done if that takes longer. A ring of offers that has no room for a batch stops
 * the scan until the daemon has taken some.
 */
#include <errno.h>

#include "agent_impl.h"
#include "control/clock.h"
#include "mmu/frames.h"
#include "mmu/retire.h"
#include "mmu/vm.h"

#define MS_NS	   1000000
#define BUCKET_NS  (50 * MS_NS) /* at most: a longer pause is no claim to a longer burst */
#define SLICE_NS   (5 * MS_NS)	/* between looks at the orders */
#define RETRY_MS   5
#define STOCK_PART 1024 /* of the VM's memory */
#define FILL_PAGES 64	/* of it, between looks at the orders */

static uint64_t thread_ns(void)
{
	return gn_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static void refill(struct gn_share_agent *a, uint64_t now_ns)
{
	const uint64_t used_ns = thread_ns();

	a->tokens_ns += (int64_t)((now_ns - a->refilled_ns) / 1000 * a->cpu_ppm / 1000);
	if (a->tokens_ns > BUCKET_NS)
		a->tokens_ns = BUCKET_NS;
	a->tokens_ns -= (int64_t)(used_ns - atomic_load(&a->cpu_ns));
	atomic_store(&a->cpu_ns, used_ns);
	a->refilled_ns = now_ns;
}

void gn_share_put_offer(struct gn_share_agent *a, const struct gn_offer *page,
			enum gn_offer_kind kind)
{
	const struct gn_exchange_offer offer = { .gfn = page->at.v,
						 .tag = page->tag.bits,
						 .check = page->tag.check,
						 .kind = (uint8_t)kind };
	const int err = gn_exchange_put(a->exchange, GN_EXCHANGE_OFFERS, &offer);

	a->has_put = true;
	a->is_broken |= err == -EPROTO;
	if (err)
		gn_scanner_reoffer(a->scanner, page->at, false);
}

void gn_share_offer(void *ctx, struct gn_scanner *scanner, const struct gn_offer *offers,
		    size_t count, bool is_block)
{
	struct gn_share_agent *a = ctx;
	bool may_tell[GN_SCANNER_BATCH];

	(void)scanner; /* the session's */
	if (is_block) {
		gn_share_offer_block(a, offers);
		return;
	}
	if (a->seals)
		gn_share_seal(a, offers, count, may_tell);
	for (size_t i = 0; i < count; i++)
		if (!a->seals || may_tell[i])
			gn_share_put_offer(a, &offers[i], GN_OFFER_PAGE);
}

static bool has_room(const struct gn_share_agent *a)
{
	return !a->exchange ||
	       gn_exchange_room(a->exchange, GN_EXCHANGE_OFFERS) >= GN_SCANNER_BATCH;
}

/* A failed harvest costs a sweep its knowledge, not its safety. */
static void sweep(struct gn_share_agent *a, uint64_t now_ns)
{
	if (a->domain) {
		(void)gn_domain_sweep(a->domain);
		return;
	}
	(void)gn_scanner_sweep(a->scanner);
	gn_share_sweep_blocks(a);
	/* Frames that the guest used no more since: they wait for others, and the daemon for them. */
	if (a->seals)
		gn_share_lift(a, now_ns);
	else
		gn_retire_drain(a->config.vm);
}

/* Whether the sweep is complete. */
static bool step(struct gn_share_agent *a)
{
	bool is_done = false;

	if (!a->domain)
		return gn_scanner_step(a->scanner);
	return !gn_domain_scan(a->domain, SLICE_NS / 5, &is_done) && is_done;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void publish_scanner(struct gn_share_agent *a)
{
	struct gn_scanner_stats s;

	gn_scanner_stats(a->scanner, &s);
	if (a->seals) {
		const uint64_t merged = least(a->anchors.lent_uses, s.pages_shared);

		atomic_store(&a->pages_sharing, merged);
		atomic_store(&a->pages_sealed, s.pages_shared);
		atomic_store(&a->pages_unshared, s.pages_offered + s.pages_shared - merged);
	} else {
		atomic_store(&a->pages_sharing, s.pages_shared);
		atomic_store(&a->pages_sealed, 0);
		atomic_store(&a->pages_unshared, s.pages_offered);
	}
	atomic_store(&a->pages_volatile, s.pages_aging);
	atomic_store(&a->pages_scanned, s.pages_hashed);
	atomic_store(&a->full_scans, s.full_scans);
	atomic_store(&a->zero_pages, s.known_pages);
}

static void publish_domain(struct gn_share_agent *a)
{
	struct gn_sharing_stats s;

	gn_domain_stats(a->domain, &s);
	atomic_store(&a->pages_shared, s.pages_shared);
	atomic_store(&a->pages_sharing, s.pages_sharing + s.pages_shared);
	atomic_store(&a->pages_unshared, s.pages_unshared);
	atomic_store(&a->pages_volatile, s.pages_volatile);
	atomic_store(&a->pages_scanned, s.pages_scanned);
	atomic_store(&a->full_scans, s.full_scans);
	atomic_store(&a->zero_pages, s.zero_pages);
	atomic_store(&a->merged, s.pages_merged);
}

/* ---- The stock --------------------------------------------------------------------------------------------------- */

uint64_t gn_share_stock_most(const struct gn_share_agent *a)
{
	/* Breaks of a VM with home frames want a certain frame. */
	return a->config.vm->config.home_frames ? 0 : a->pages / STOCK_PART + 1;
}

/* Half of it may be missing, for merging fills it for nothing; and who shares nothing needs none. Where it must not tell how many were
 * merged, it is kept full. */
static void keep_stock(struct gn_share_agent *a)
{
	struct gn_frames *frames = a->config.vm->frames;
	const uint64_t most = gn_share_stock_most(a);

	if (a->seals ? atomic_load(&a->pages_sealed) && gn_frames_stock(frames) < most
		     : atomic_load(&a->pages_sharing) && gn_frames_stock(frames) < most / 2)
		gn_frames_fill_stock(frames, FILL_PAGES);
	atomic_store(&a->stock_pages, gn_frames_stock(frames));
}

int gn_share_scan(struct gn_share_agent *a, uint64_t now_ns)
{
	const uint64_t end_ns = thread_ns() + SLICE_NS;

	refill(a, now_ns);
	if (!a->is_sweeping && now_ns >= a->sweep_at_ns && a->tokens_ns > 0) {
		sweep(a, now_ns);
		a->is_sweeping = true;
		a->sweep_at_ns = now_ns + a->sweep_ns;
	}
	while (a->is_sweeping && !a->is_broken && a->tokens_ns > 0 && has_room(a) &&
	       thread_ns() < end_ns) {
		a->is_sweeping = !step(a);
		refill(a, gn_now_ns());
	}
	if (a->tokens_ns > 0)
		keep_stock(a);
	if (a->domain)
		publish_domain(a);
	else
		publish_scanner(a);
	if (!a->is_sweeping)
		return a->sweep_at_ns > now_ns ? (int)((a->sweep_at_ns - now_ns) / MS_NS) + 1
					       : RETRY_MS;
	if (a->tokens_ns <= 0)
		return a->cpu_ppm ? (int)((uint64_t)-a->tokens_ns / a->cpu_ppm) + 1 : 1000;
	return has_room(a) ? 0 : RETRY_MS;
}
