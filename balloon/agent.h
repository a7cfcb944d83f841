/* SPDX-License-Identifier: MIT */
/*
 * agent.h - the VM's end of gnomon-balloond: it registers the VM, reports, and passes targets on to the balloon.
 *
 * All that matters is known here: what the VM has, and what it was told of min, max and shares. When the daemon is
 * away the balloon stays as it is; when one is back (within a second of it being there) the agent registers with
 * what is so by then. "target" and "actual" are what the VM has or should have, memory less balloon.
 *
 * Either gn_agent_start() gives it a thread, or its owner polls: many agents may live in one thread. The ops are
 * called on the thread of the agent.
 */
#ifndef GN_BALLOON_AGENT_H
#define GN_BALLOON_AGENT_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GN_AGENT_UNKNOWN UINT64_MAX

/* What is so now. Claims of the guest are passed on as such. */
struct gn_agent_sample {
	uint64_t actual_bytes;
	/* Sampled by the host, as struct gn_policy_vm has them; GN_AGENT_UNKNOWN. */
	uint64_t active_bytes, recent_bytes;
	uint64_t free_bytes, available_bytes; /* the guest's claims; GN_AGENT_UNKNOWN */
	uint64_t asks_bytes;		      /* beyond actual; 0: nothing */
	uint64_t touches;		      /* of ballooned pages, so far */
	uint64_t reclaimed_bytes;	      /* taken by the host side, so far */
	uint64_t reformed_blocks;	      /* of 2 MiB, that the balloon had split, so far */
	double refaults_per_s;
	bool claims_trusted;
};

struct gn_agent_ops {
	/* The VM should have so much. Must not wait for it. */
	void (*set_target)(void *ctx, uint64_t target_bytes);
	/* Fill *out, which holds "unknown", "nothing" and "trusted". */
	void (*sample)(void *ctx, struct gn_agent_sample *out);
	/* The guest missed its deadline: take cold pages from it; a period later it is asked again. NULL: the VM cannot. */
	void (*reclaim)(void *ctx, uint64_t bytes);
};

struct gn_agent_config {
	const char *socket, *name, *backend, *scheme; /* the last two may be NULL; all are copied */
	uint64_t mem_bytes, min_bytes, max_bytes;
	uint32_t shares;
	unsigned
		max_pause_ms; /* between attempts to find the daemon; less than half its settle time; 0: 1000 */
	const struct gn_agent_ops *ops;
	void *ctx;
};

struct gn_agent;

/* -EINVAL, -ENAMETOOLONG, -ENOMEM, -errno. */
int gn_agent_create(const struct gn_agent_config *, struct gn_agent **);
/* Stops the thread, if there is one, and unregisters: from here on the VM's memory may be given to others. NULL is fine. */
void gn_agent_destroy(struct gn_agent *);

int gn_agent_start(struct gn_agent *);
/* Something happened that cannot wait (a guest asks for memory): sample and report now. Any thread. */
void gn_agent_kick(struct gn_agent *);
/* Any thread. Whether the daemon has registered us. */
bool gn_agent_is_registered(const struct gn_agent *);

/* For owners that poll: fill @fds, return milliseconds until gn_agent_step() is due (-1: never); then step. */
#define GN_AGENT_FDS 2
int gn_agent_prepare(struct gn_agent *, struct pollfd fds[GN_AGENT_FDS], uint64_t now_ns);
void gn_agent_step(struct gn_agent *, const struct pollfd fds[GN_AGENT_FDS], uint64_t now_ns);

#ifdef __cplusplus
}
#endif

#endif
