/* SPDX-License-Identifier: MIT */
/*
 * daemon_refused.c - saying who was refused, and not four times a second.
 *
 * An agent that is refused tries again every 250 ms, for room may come; the log has a line when it is refused first, when
 * it is refused for another reason, and each QUIET_NS. What was said lately is remembered in a table without chains:
 * two that share a place push each other out and are logged more often, which harms nobody. All attempts are counted
 * (gnomon_vms_refused_total).
 */
#include "daemon.h"

#include <string.h>
#include <xxhash.h>

#include "control/clock.h"

#define QUIET_NS ((uint64_t)60 * 1000000000)

void gn_daemon_log_refused(struct gn_daemon *d, const char *name, const char *error_class)
{
	uint64_t now = gn_now_ns(), hash = XXH3_64bits(name, strlen(name));
	struct gn_daemon_refusal *said;
	struct gn_json_writer *w;

	d->refused++;
	hash = XXH3_64bits_withSeed(error_class, strlen(error_class), hash);
	said = &d->refusals[hash % GN_DAEMON_REFUSALS];
	if (said->hash == hash && now - said->said_ns < QUIET_NS)
		return;
	*said = (struct gn_daemon_refusal){ .hash = hash, .said_ns = now };
	w = gn_event_log_begin(d->log, "refused");
	gn_json_put_text(w, "vm", name);
	gn_json_put_text(w, "class", error_class);
	gn_event_log_end(d->log);
}
