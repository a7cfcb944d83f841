/* SPDX-License-Identifier: MIT */
/*
 * agent.h - the VM's end of gnomon-shared: it looks for pages that stand still and shares them, within the CPU time that
 * the daemon grants.
 *
 * A VM of no group is a domain of its own: all of it happens here, and the daemon grants time and counts. A VM of a group
 * offers its pages to the daemon (exchange.h) and merges what it is ordered to. It believes the daemon nothing that it
 * can find out itself: it compares, with all writers held off, before a page takes a frame. What it must believe is
 * that frames stand still afterwards.
 *
 * When the daemon is away, nothing is scanned, and what is shared stays so: the frames live as long as somebody has them
 * mapped. To the next daemon the VM is a new one.
 *
 * A group that the daemon's configuration declares quiet is so for the VM, too (agent_quiet.c): its guest learns nothing of others by the time
 * that accesses take. A VM with home frames seals as many pages as its pool has frames beyond those of the guest and its tables.
 *
 * A VM over a template (GN_POOL_TEMPLATE) shares by that alone and is of no group: its frames stay its own.
 *
 * A thread of its own does all of it; the guest runs meanwhile.
 */
#ifndef GN_SHARING_AGENT_H
#define GN_SHARING_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include <gnomon/sharing.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gn_share_agent_config {
	const char *socket, *name;
	const char *group; /* NULL: none */
	const char
		*template_name; /* the daemon's template that the VM is over; NULL: none of its */
	const char *backend, *scheme; /* may be NULL */
	bool quiet;		      /* of no group that is not quiet */
	uint64_t mem_bytes;
	/* Outlives the agent. Of a group: it has a window (gn_vm_config.window_bytes). */
	struct gn_vm *vm;
	unsigned max_pause_ms; /* between attempts to find the daemon; 0: 1000 */
};

struct gn_share_agent;

/* -EINVAL (also: of a group, and over a template), -ENAMETOOLONG, -ENOMEM, -errno. */
int gn_share_agent_create(const struct gn_share_agent_config *config, struct gn_share_agent **out);
int gn_share_agent_start(struct gn_share_agent *agent);
/* Stops the thread: nothing is scanned or merged any more, and what is shared stays so. */
void gn_share_agent_stop(struct gn_share_agent *agent);
/* Stops and unregisters. From here on the frames that the VM shares may be given to others: neither it nor its guest
 * must look at its memory any more. NULL is fine. */
void gn_share_agent_destroy(struct gn_share_agent *agent);

/* Any thread. */
bool gn_share_agent_is_registered(const struct gn_share_agent *agent);
/* The daemon's last answer was that the group is not quiet, as the configuration here wants it. It is asked again now and then. */
bool gn_share_agent_is_refused_as_not_quiet(const struct gn_share_agent *agent);

/* The guest says of some of its pages what gn_domain_hint() takes: heard by the thread at its next turn, unless it has many to
 * hear. Any thread, never waits. -EINVAL: no such pages or hint; -EAGAIN: not heard. */
int gn_share_agent_hint(struct gn_share_agent *agent, gfn_t start, uint64_t count,
			enum gn_share_hint hint);

/* Any thread; a glimpse. */
struct gn_share_agent_stats {
	uint64_t pages_sharing; /* pages that have a shared frame */
	uint64_t
		pages_sealed; /* of a quiet group: their next use is a copy, whether they have one or not */
	uint64_t pages_shared; /* the frames, of a VM without a group */
	uint64_t pages_scanned, full_scans, zero_pages;
	uint64_t stock_pages; /* free, and kept from the host: gn_frames_set_stock() */
	uint64_t merged, refused, shown, returned;
	uint64_t cpu_ns;
};
void gn_share_agent_get_stats(struct gn_share_agent *agent, struct gn_share_agent_stats *out);

#ifdef __cplusplus
}
#endif

#endif
