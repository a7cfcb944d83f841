/* SPDX-License-Identifier: MIT */
/*
 * daemon.c - what gnomon-balloond adds to the life of every daemon (control/base.h).
 *
 * A reload: a budget below what is reserved is refused, because a reservation that was given is kept. The settling time and
 * the sharing daemon's socket are what they were at the start.
 *
 * Stopping: "hold" leaves all balloons as they are and the VMs on their own. "deflate" gives all memory back first,
 * whatever the budget says: that is what the operator who chose it wants before the daemon is away for long.
 */
#include "daemon.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/clock.h"

static const char *const capabilities[] = { "balloon", "events" };

static int make_policy(const struct gn_daemon_config *c, struct gn_policy **out)
{
	struct gn_policy_config config;

	gn_daemon_config_policy(c, &config);
	return gn_policy_create(gn_policy_at(c->policy), &config, out);
}

static bool same_policy(const struct gn_daemon_config *a, const struct gn_daemon_config *b)
{
	return a->policy == b->policy && a->tau == b->tau &&
	       a->reserve_fraction == b->reserve_fraction &&
	       a->dead_band_fraction == b->dead_band_fraction &&
	       a->calm_shrink_per_s == b->calm_shrink_per_s && a->reversal_ms == b->reversal_ms &&
	       a->refaults_per_s == b->refaults_per_s;
}

/* A budget may grow; it may shrink to what is reserved, once it is known what that is. */
static bool check_budget(const struct gn_daemon *d, uint64_t budget_bytes, char *why, size_t bytes)
{
	if (budget_bytes >= d->config.budget_bytes)
		return true;
	if (d->is_settling)
		snprintf(why, bytes, "budget cannot shrink before the VMs had time to come back");
	else if (budget_bytes < gn_daemon_sum_min(d))
		snprintf(why, bytes, "budget is %llu, but %llu are reserved by the VMs",
			 (unsigned long long)budget_bytes,
			 (unsigned long long)gn_daemon_sum_min(d));
	else
		return true;
	return false;
}

static int accept_config(void *ctx, void *fresh, char *why, size_t why_bytes)
{
	struct gn_daemon *d = ctx;
	struct gn_daemon_config *c = fresh;
	int err = 0;

	if (!check_budget(d, c->budget_bytes, why, why_bytes))
		return -EINVAL;
	gn_policy_destroy(d->fresh_policy);
	d->fresh_policy = NULL;
	if (!same_policy(c, &d->config) && (err = make_policy(c, &d->fresh_policy)))
		snprintf(why, why_bytes, "the policy could not be made: %s", strerror(-err));
	if (!err && strcmp(c->sharing_socket, d->config.sharing_socket) != 0) {
		gn_base_say(&d->base, "sharing_socket changes at a restart");
		memcpy(c->sharing_socket, d->config.sharing_socket, sizeof(c->sharing_socket));
	}
	c->settle_ms = d->config.settle_ms;
	return err;
}

/* VMs were told of these when they registered. */
static void change_times(struct gn_daemon *d, const struct gn_daemon_config *old)
{
	if (d->config.period_ms != old->period_ms)
		gn_daemon_restart_period(d);
	if (d->config.period_ms == old->period_ms && d->config.heartbeat_ms == old->heartbeat_ms)
		return;
	for (size_t i = 0; i < d->count; i++)
		gn_daemon_tell_settings(d, d->vms[i]);
}

static void applied(void *ctx, const void *old)
{
	struct gn_daemon *d = ctx;

	if (d->fresh_policy) {
		gn_policy_destroy(d->policy);
		d->policy = d->fresh_policy;
		d->fresh_policy = NULL;
	}
	change_times(d, old);
	gn_daemon_want_round(d);
}

static void paused(void *ctx)
{
	struct gn_daemon *d = ctx;

	if (!d->base.is_paused)
		gn_daemon_want_round(d);
}

static void stopping(void *ctx)
{
	struct gn_daemon *d = ctx;

	d->stop_by_ns = gn_now_ns();
	if (d->config.stop != GN_STOP_DEFLATE || d->base.is_dry)
		return;
	gn_event_log_begin(d->base.log, "deflating");
	gn_event_log_end(d->base.log);
	d->stop_by_ns += d->config.stop_timeout_ms * 1000000;
	for (size_t i = 0; i < d->count; i++)
		gn_daemon_tell(d, d->vms[i], d->vms[i]->max_bytes);
}

/* All memory is back, or time is up. */
static bool may_end(void *ctx)
{
	const struct gn_daemon *d = ctx;
	bool all = true;

	for (size_t i = 0; i < d->count; i++)
		all &= d->vms[i]->actual_bytes >= d->vms[i]->target_bytes;
	return all || gn_now_ns() >= d->stop_by_ns;
}

static int start(void *ctx)
{
	struct gn_daemon *d = ctx;
	int err = make_policy(&d->config, &d->policy);

	if (!err)
		err = gn_daemon_sharing_start(d);
	if (!err)
		err = gn_daemon_rounds_start(d);
	return err;
}

static void destroy(void *ctx)
{
	struct gn_daemon *d = ctx;

	while (d->lost)
		gn_daemon_drop_lost(d, d->lost);
	gn_daemon_sharing_stop(d);
	gn_policy_destroy(d->policy);
	gn_policy_destroy(d->fresh_policy);
	sd_event_source_disable_unref(d->period);
	sd_event_source_disable_unref(d->soon);
	free(d->vms);
	free(d->policy_vms);
	free(d->decisions);
}

const struct gn_base_ops gn_daemon_ops = {
	.name = "gnomon-balloond",
	.release = GN_DAEMON_RELEASE,
	.summary = "Divide a budget of memory among virtual machines.",
	.config_path = "/etc/gnomon/balloond.ini",
	.capabilities = capabilities,
	.capability_count = sizeof(capabilities) / sizeof(capabilities[0]),
	.daemon_bytes = sizeof(struct gn_daemon),
	.config_at = offsetof(struct gn_daemon, config),
	.schema = &gn_daemon_schema,
	.commands = gn_daemon_commands,
	.event = gn_daemon_on_event,
	.gone = gn_daemon_on_gone,
	.start = start,
	.destroy = destroy,
	.accept = accept_config,
	.applied = applied,
	.paused = paused,
	.stopping = stopping,
	.may_end = may_end,
	.update_metrics = gn_daemon_update_metrics,
};
