/* SPDX-License-Identifier: MIT */
/*
 * sharing_peer.h - memory that KSM shares, with the contents of a case and guests that run natively.
 */
#ifndef GN_BENCH_SHARING_PEER_H
#define GN_BENCH_SHARING_PEER_H

#include "sharing.h"
#include "sharing_guest.h"

struct sharing_peer {
	struct sharing_ksm *ksm;
	const struct sharing_contents *contents;
	uint8_t *memory[SHARING_MAX_VMS];
	struct sharing_guest *guests[SHARING_MAX_VMS];
};

/* Filled and told to KSM, which is not started. -errno; then nothing is left to fini. */
int sharing_peer_init(struct sharing_peer *peer, struct sharing_ksm *ksm,
		      const struct sharing_contents *contents);
void sharing_peer_fini(struct sharing_peer *peer);
/* Start KSM and watch until it finds nothing more; it goes on running. -errno. */
int sharing_peer_converge(struct sharing_peer *peer, const struct sharing_oracle *oracle,
			  struct sharing_run *run);
/* Both, for who wants to know nothing of the way there: KSM runs, and the peer has no guests. -errno, as init. */
int sharing_peer_init_converged(struct sharing_peer *peer, struct sharing_ksm *ksm,
				const struct sharing_contents *contents,
				const struct sharing_oracle *oracle);
int sharing_peer_stop_guests(struct sharing_peer *peer);

#endif
