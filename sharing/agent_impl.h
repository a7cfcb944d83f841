/* SPDX-License-Identifier: MIT */
/*
 * agent_impl.h - the agent's insides, for agent*.c only.
 *
 * Fields: (c) const after create, (t) the agent's thread, (a) atomic.
 */
#ifndef GN_SHARING_AGENT_IMPL_H
#define GN_SHARING_AGENT_IMPL_H

#include <pthread.h>

#include <gnomon/sharing.h>

#include "agent.h"
#include "agent_window.h"
#include "link.h"
#include "control/client.h"
#include "mmu/atomics.h"
#include "mmu/frames.h"
#include "exchange.h"
#include "forming.h"
#include "scanner.h"

#define GN_SHARE_RETURNS 256
#define GN_SHARE_HINTS	 64

/* An area of 2 MiB. */
struct gn_share_area {
	bool is_told;	     /* its pages were offered as those of a block */
	bool is_to_split;    /* the daemon says that it pays */
	uint8_t splits;	     /* so far */
	uint64_t next_split; /* the sweep from which on it may be split again */
};

struct gn_share_agent {
	struct gn_share_agent_config config;			     /* (c) */
	char name[64], group[64], over[64], backend[16], scheme[24]; /* over: a template */
	uint64_t pages;						     /* (c) */
	struct gn_client *client;				     /* (t) */
	int kick_fd;						     /* (c) to stop */
	pthread_t thread;
	bool has_thread;
	_Atomic(bool) is_stopping, is_registered, is_refused_as_not_quiet; /* (a) */
	uint64_t register_at_ns;					   /* (t) 0: not */
	uint64_t shy_until_ns; /* (t) after a daemon that made no sense; 0: not */
	uint64_t report_at_ns; /* (t) */

	/* The budget, and where the scan is. (t) */
	uint64_t cpu_ppm, sweep_ns;
	int64_t tokens_ns;
	uint64_t refilled_ns, sweep_at_ns;
	bool is_sweeping;
	struct gn_domain *domain; /* (t) of a VM without a group */

	/* What the guest said and the thread has not heard yet. */
	pthread_mutex_t hints_lock;
	struct gn_share_hint_run {
		gfn_t start;
		uint64_t count;
		enum gn_share_hint hint;
	} hints[GN_SHARE_HINTS]; /* [hints_lock] */
	size_t hint_count;	 /* [hints_lock] */
	uint8_t *
		hinted; /* (t) enum gn_share_hint of each page; it outlives the session's scanner */

	/* Of a VM of a group. (t) */
	struct gn_share_window window;
	struct gn_exchange *exchange; /* NULL: no session */
	int link_fd; /* a socket, whose other end is the daemon's: a byte is a kick; -1: none */
	struct gn_hasher hasher;
	struct gn_scanner *scanner;
	struct gn_forming forming;
	struct gn_share_area *block_areas; /* as many as forming.areas */
	uint64_t block_sweep;
	bool has_put;	/* something, since the daemon was kicked */
	bool is_broken; /* the daemon makes no sense: the session ends */
	bool is_over; /* the connection has ended, and the session is to be ended by the thread's loop */
	struct gn_exchange_order held_back;
	bool is_held_back;	  /* an order that waits for its segment */
	bool is_asking;		  /* for it */
	unsigned refused_segment; /* the answer was an error; UINT_MAX: none */
	pfn_t returns[GN_SHARE_RETURNS];
	size_t return_count; /* taken from the engine, not yet told */

	/* Of a quiet one. (t) */
	bool is_quiet;
	bool seals;		   /* and the daemon orders merges: it is no dry run */
	struct gn_anchors anchors; /* when they were lifted last */
	uint64_t seals_left;	   /* pages that may be sealed until they are lifted again */
	uint64_t lift_at_ns;	   /* if nothing is swept before; 0: there are none */

	/* Told; the scanner's of earlier sessions are not in. (a) */
	_Atomic(uint64_t) pages_sharing, pages_shared, pages_unshared, pages_sealed, pages_volatile,
		pages_scanned, full_scans, zero_pages, merged, refused, shown, returned,
		stock_pages, cpu_ns;
};

/* agent_session.c: one registration with a group. */
/* From the registration's answer: @fds are the exchange and the link, which it takes over also on error. */
int gn_share_session_begin(struct gn_share_agent *agent, const int fds[2]);
void gn_share_session_end(struct gn_share_agent *agent);
/* Tell the daemon that something was put. */
void gn_share_session_kick(struct gn_share_agent *agent);

/* agent_orders.c: obeying, and returning. */
void gn_share_obey(struct gn_share_agent *agent);
/* The segment that was asked for: its descriptor, or -1. */
void gn_share_take_segment(struct gn_share_agent *agent, int fd);

/* agent_quiet.c: of a quiet group. */
/* Seal the pages of @offers. Of which of them the daemon may be told. */
void gn_share_seal(struct gn_share_agent *agent, const struct gn_offer *offers, size_t count,
		   bool *may_tell);
/* Anchors that nobody needs any more; at each sweep, and when lift_at_ns says. */
void gn_share_lift(struct gn_share_agent *agent, uint64_t now_ns);
/* What a page holds, without a use of it. -EAGAIN: it is not sealed. */
int gn_share_read_sealed(struct gn_share_agent *agent, gfn_t at, uint8_t *page);
/* gn_scanner_reoffer(), as far as that tells nothing; of any group. */
void gn_share_reoffer(struct gn_share_agent *agent, gfn_t at, bool is_careful);

/* agent_scan.c: the budget, and looking. */
/* Go on within the budget. Milliseconds until there is something to do. */
int gn_share_scan(struct gn_share_agent *agent, uint64_t now_ns);
/* Free frames that it keeps resident, at most. */
uint64_t gn_share_stock_most(const struct gn_share_agent *agent);
gn_scanner_offers_fn gn_share_offer;
/* Tell the daemon of a page, or later if it has no time. */
void gn_share_put_offer(struct gn_share_agent *agent, const struct gn_offer *page,
			enum gn_offer_kind kind);

/* agent_blocks.c: blocks of 2 MiB. */
/* -ENOMEM. */
int gn_share_blocks_init(struct gn_share_agent *agent);
void gn_share_blocks_fini(struct gn_share_agent *agent);
/* What a daemon was told of blocks, and ordered. */
void gn_share_forget_blocks(struct gn_share_agent *agent);
/* Once a sweep. */
void gn_share_sweep_blocks(struct gn_share_agent *agent);
/* The 512 pages of one that is cold. */
void gn_share_offer_block(struct gn_share_agent *agent, const struct gn_offer *offers);
bool gn_share_is_in_block(const struct gn_share_agent *agent, uint64_t gfn);
/* The daemon's order for the one that begins at gfn @first. -EINVAL; -EAGAIN: it was split lately. */
int gn_share_split(struct gn_share_agent *agent, uint64_t first);

#endif
