/* SPDX-License-Identifier: MIT */
/*
 * daemon_trust.h - whether a guest's claims are believed: what it says against what sampling sees.
 *
 * A guest that says it has more free memory than sampling leaves unused, or claims a need (it asks for memory, or says
 * that it fetches again what it had to give up) while sampling sees it use less than half of what it has, is not
 * believed for GN_TRUST_LOST_NS. But sampling comes after the fact: an ask is made before its memory is used, and what
 * was unmapped looks used until its averages have fallen. So a contradiction must stand for GN_TRUST_PROOF_NS; of
 * claims of a need, from the first one on that was not borne out. Only use bears one out: one claim is no proof of another.
 *
 * Pure: no clock. One thread at a time for one struct gn_trust; zero is trust.
 */
#ifndef GN_BALLOON_DAEMON_TRUST_H
#define GN_BALLOON_DAEMON_TRUST_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GN_TRUST_LOST_NS  ((uint64_t)30 * 1000000000)
#define GN_TRUST_PROOF_NS ((uint64_t)10 * 1000000000)

struct gn_trust {
	uint64_t lied_ns;		     /* when a contradiction last stood; 0: never */
	uint64_t too_free_ns, needs_idly_ns; /* since when there is one; 0: there is none */
};

/* What one report says. */
struct gn_trust_report {
	uint64_t actual_bytes;
	uint64_t active_bytes, recent_bytes; /* sampled; GN_POLICY_UNKNOWN */
	uint64_t free_bytes;		     /* claimed; GN_POLICY_UNKNOWN */
	bool claims_need;		     /* in a way that a policy would act on */
};

/* Hear a report at @now_ns > 0, which never goes back. True: the guest is believed. */
bool gn_trust_hear(struct gn_trust *trust, uint64_t now_ns, const struct gn_trust_report *report);

#ifdef __cplusplus
}
#endif

#endif
