/* SPDX-License-Identifier: MIT */
/* daemon_trust.c - see the header. */
#include "daemon_trust.h"

#include "policy.h"

static bool has_stood(uint64_t since_ns, uint64_t now_ns)
{
	return since_ns && now_ns - since_ns > GN_TRUST_PROOF_NS;
}

/* It says that more is free than is unused. */
static bool is_too_free(struct gn_trust *trust, uint64_t now_ns, const struct gn_trust_report *r)
{
	uint64_t used = r->recent_bytes < r->active_bytes ? r->recent_bytes : r->active_bytes;

	if (r->free_bytes == GN_POLICY_UNKNOWN ||
	    r->free_bytes + used <= r->actual_bytes + r->actual_bytes / 4)
		trust->too_free_ns = 0;
	else if (!trust->too_free_ns)
		trust->too_free_ns = now_ns;
	return has_stood(trust->too_free_ns, now_ns);
}

/* It claims to need more, and does not use what it has. */
static bool needs_idly(struct gn_trust *trust, uint64_t now_ns, const struct gn_trust_report *r)
{
	if (r->active_bytes >= r->actual_bytes / 2)
		trust->needs_idly_ns = 0;
	else if (r->claims_need && !trust->needs_idly_ns)
		trust->needs_idly_ns = now_ns;
	return r->claims_need && has_stood(trust->needs_idly_ns, now_ns);
}

bool gn_trust_hear(struct gn_trust *trust, uint64_t now_ns, const struct gn_trust_report *report)
{
	if (report->active_bytes != GN_POLICY_UNKNOWN) {
		bool too_free = is_too_free(trust, now_ns, report);
		bool idly = needs_idly(trust, now_ns, report);

		if (too_free || idly)
			trust->lied_ns = now_ns;
	}
	return !trust->lied_ns || now_ns - trust->lied_ns > GN_TRUST_LOST_NS;
}
