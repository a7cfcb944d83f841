/* SPDX-License-Identifier: MIT */
/*
 * domain_impl.h - what the files of the domain share (domain.c: life, sweeps and scans; match.c: pages find their like;
 * gather.c: what was found is carried out; blocks.c: large ones; audit.c); nobody else includes it, but for tests that
 * want the hook.
 */
#ifndef GN_SHARING_DOMAIN_IMPL_H
#define GN_SHARING_DOMAIN_IMPL_H

#include <gnomon/sharing.h>

#include <pthread.h>

#include "entry.h"
#include "forming.h"
#include "hash.h"
#include "index.h"
#include "mmu/vm.h"
#include "scanner.h"

/* A page that others are merged into: it is published first. */
struct gn_donor {
	struct gn_index_entry *entry; /* PENDING, with this donor's number */
	unsigned member;
	gfn_t at;
	uint8_t check;
	bool is_published, was_taken;
};

/* A page of the member being scanned that is to have another's frame. */
struct gn_taker {
	struct gn_index_entry *entry; /* FRAME, or its donor's */
	struct gn_donor *donor;	      /* NULL: it was FRAME from the start */
	gfn_t at;
	bool is_careful;
};

#define GN_GATHER_PAGES 2048

/* What was found equal and is not merged yet. */
struct gn_gathering {
	struct gn_donor donors[GN_GATHER_PAGES];
	struct gn_taker takers[GN_GATHER_PAGES];
	size_t donor_count, taker_count;
	struct gn_merge merges[GN_GATHER_PAGES]; /* for one call of the engine */
	uint32_t order[GN_GATHER_PAGES];	 /* donors or takers of those merges */
};

/* A VM. */
struct gn_member {
	struct gn_domain *domain; /* (c) */
	unsigned number;	  /* (c) */
	struct gn_vm *vm;	  /* (c) */
	struct gn_scanner *scanner;
	uint16_t *alike; /* by area: pages with their like elsewhere; NULL: no large blocks */
	struct gn_forming forming;
};

/* Where a test may come in between. */
enum gn_share_step {
	GN_STEP_HARVESTED,  /* a VM's dirtiness was taken */
	GN_STEP_HASHED,	    /* pages were hashed, and not looked up yet */
	GN_STEP_PUBLISHING, /* pages were found equal, and nothing is protected */
	GN_STEP_MERGING,    /* donors are published */
	GN_STEP_MERGED,
	GN_STEPS
};
typedef void gn_step_fn(void *ctx, enum gn_share_step step);

struct gn_domain {
	struct gn_domain_config config; /* (c), without the key */
	enum gn_share_access access;	/* (c) */
	struct gn_frames *frames;	/* (c) */
	struct gn_hasher hasher;	/* (c) */
	pthread_mutex_t lock;		/* all below */
	struct gn_index index;
	struct gn_member *members[GN_ENTRY_VMS];
	unsigned member_end;	/* one past the last in use */
	unsigned scan_member;	/* whose turn it is */
	unsigned scan_left;	/* members until the sweep is complete */
	uint64_t page_count;	/* of all members */
	uint64_t frame_entries; /* entries that are frames */
	struct gn_gathering *gathering;
	bool is_gathering;	       /* entries are pointed to */
	struct gn_frame_run freed[64]; /* given up, and not put yet */
	size_t freed_count;
	struct gn_sharing_stats sums; /* the sums of it */
	gn_step_fn *step;	      /* NULL: none */
	void *step_ctx;
};

static inline void gn_domain_tell_step(struct gn_domain *d, enum gn_share_step step)
{
	if (d->step)
		d->step(d->step_ctx, step);
}

/* ---- match.c ------------------------------------------------------------------------------------- */

/* Of a scanner's: each page finds its like, or becomes a candidate. @ctx: the member. */
void gn_match_offers(void *ctx, struct gn_scanner *scanner, const struct gn_offer *offers,
		     size_t count, bool is_block);
/* An entry other than the page's own that it may be merged with; NULL: none. *is_known: its own is there. What is found
 * to be stale on the way goes. */
struct gn_index_entry *gn_match_find(struct gn_member *m, const struct gn_offer *offer,
				     bool *is_known);
/* The page becomes a taker or a candidate. */
void gn_match_offer(struct gn_member *m, const struct gn_offer *offer);
void gn_match_insert(struct gn_member *m, const struct gn_offer *offer);
/* For the index: a candidate that was written; a frame nobody else has, or only one page. */
bool gn_match_give_up(void *domain, const struct gn_index_entry *entry);
/* It will be asked: what tells is fetched. */
void gn_match_soon(const void *domain, const struct gn_index_entry *entry);
/* The entry's frame has a reference less, and it goes. */
void gn_match_erase_frame(struct gn_domain *d, struct gn_index_entry *entry);
/* Frames that were given up go to the host. */
void gn_match_put_freed(struct gn_domain *d);

/* ---- gather.c -------------------------------------------------------------------------------------- */

/* There is room for a taker at @at and its donor; may carry out what is there. */
void gn_gather_make_room(struct gn_member *m, gfn_t at);
/* The candidate @entry is going to be published. */
void gn_gather_donor(struct gn_domain *d, struct gn_index_entry *entry);
void gn_gather_taker(struct gn_domain *d, struct gn_index_entry *entry,
		     const struct gn_offer *offer);
/* All of it; @m is who takes. */
void gn_gather_carry_out(struct gn_member *m);

/* ---- blocks.c -------------------------------------------------------------------------------------- */

int gn_blocks_init(struct gn_member *m);
void gn_blocks_fini(struct gn_member *m);
/* The entry's page is in a large block, and to have one more page of it merged does not pay yet. It is counted. */
bool gn_blocks_is_out_of_reach(struct gn_domain *d, const struct gn_index_entry *e);
/* A candidate beside its like, so that both are found. */
void gn_blocks_insert_beside(struct gn_member *m, const struct gn_offer *offer);
/* A page was published or merged: if it was in a large block, that is in pieces. */
void gn_blocks_note_small(struct gn_member *m, gfn_t at);
/* The 512 pages of a block: it is split if that pays. */
void gn_blocks_offers(struct gn_member *m, const struct gn_offer *offers);
/* Some areas that were split are made whole, if little of them is shared. */
void gn_blocks_form(struct gn_member *m);

#endif
