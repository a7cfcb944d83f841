/* SPDX-License-Identifier: MIT */
/*
 * scanner.h - one VM's pages: which stand still, and what their tags are.
 *
 * A sweep learns which pages were written since the last one; steps then go over those that wait to be looked at. Pages that
 * were clean for settle_sweeps are hashed and offered to the owner, who finds others like them and says what became of each. An
 * offered page is not hashed again before it was written. Pages of zeros lose their frame here: that needs nobody else's.
 *
 * Whether two pages are equal, and what is done about it, is the owner's affair (a domain's, or of an agent that talks to
 * a daemon).
 *
 * Threads: one at a time for a scanner; the guest may run. Not inside a guest access. The VM outlives it.
 */
#ifndef GN_SHARING_SCANNER_H
#define GN_SHARING_SCANNER_H

#include <gnomon/sharing.h>

#include "hash.h"

struct gn_scanner;

#define GN_SCANNER_BATCH 512 /* offers at a time, at most */

struct gn_offer {
	gfn_t at;
	struct gn_tag tag;
	bool is_zero;	 /* only in a block: nothing but zeros, and no tag */
	bool is_careful; /* what it was offered for before looked equal, and was not */
	bool is_shared;	 /* it has a frame that may be others' as well, since an offer before */
};

/* Offers in ascending order. @is_block: they are the 512 pages of one large block. The callback may say of any page what
 * became of it; one it says nothing of stays offered. */
typedef void gn_scanner_offers_fn(void *ctx, struct gn_scanner *scanner,
				  const struct gn_offer *offers, size_t count, bool is_block);

struct gn_scanner_config {
	struct gn_vm *vm;
	const struct gn_hasher *hasher; /* outlives the scanner */
	unsigned settle_sweeps;		/* 0: 2 */
	/* Shared pages stop being so without a write: all are looked after in every sweep. And a page that is not shared is offered when it
	 * stood still, and never sooner, whatever became of its offers before: when it is shared anew tells nothing of others. */
	bool quiet;
	gn_scanner_offers_fn *offers;
	void *ctx;
};
#define GN_SETTLE_SWEEPS_MAX 6
/* Sweeps until each page has been looked after once, for what nothing tells of. Seldom, for it reads a count for each shared page,
 * anywhere in the pool. */
#define GN_LOOK_AFTER_PERIOD 64

/* Starts the VM's dirty log. -EINVAL, -EBUSY (the log is someone else's), -ENOMEM. */
int gn_scanner_new(const struct gn_scanner_config *config, struct gn_scanner **out);
void gn_scanner_destroy(struct gn_scanner *scanner);
struct gn_vm *gn_scanner_vm(const struct gn_scanner *scanner);

/* -errno of the harvest: what could not be asked for counts as written. */
int gn_scanner_sweep(struct gn_scanner *scanner);
/* About as much as one batch of offers takes. True: the sweep is complete. */
bool gn_scanner_step(struct gn_scanner *scanner);

/* What became of a page that was offered, now or earlier. */
void gn_scanner_set_shared(struct gn_scanner *scanner, gfn_t at);
/* It is looked at again in the next sweep, if it is clean then; carefully, see gn_offer. */
void gn_scanner_reoffer(struct gn_scanner *scanner, gfn_t at, bool is_careful);
/* It was offered with that check and not known to be written since. */
bool gn_scanner_is_current(const struct gn_scanner *scanner, gfn_t at, uint8_t check);
/* It will be asked of @at soon. */
void gn_scanner_prefetch(const struct gn_scanner *scanner, gfn_t at);
bool gn_scanner_is_shared(const struct gn_scanner *scanner, gfn_t at);
/* Nobody has said that it must not be. */
bool gn_scanner_may_share(const struct gn_scanner *scanner, gfn_t at);

void gn_scanner_hint(struct gn_scanner *scanner, gfn_t start, uint64_t count,
		     enum gn_share_hint hint);

struct gn_scanner_stats {
	uint64_t pages_aging, pages_offered, pages_shared, pages_empty; /* now */
	uint64_t volatile_areas;
	uint64_t state_bytes;
	uint64_t full_scans, pages_hashed; /* sums */
	uint64_t known_pages; /* that held zeros, or over a template what it holds, and went */
};
void gn_scanner_stats(const struct gn_scanner *scanner, struct gn_scanner_stats *out);

#endif
