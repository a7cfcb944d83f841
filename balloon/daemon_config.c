/* SPDX-License-Identifier: MIT */
/*
 * daemon_config.c - the daemon's keys: one table, from which the parser, its messages and the test of the sample file
 * in packaging/ all live.
 *
 * The policies' names stand here once more, because a choice is an index; a test holds them against gn_policy_at().
 */
#include "daemon_config.h"

#include <stddef.h>

#define AT(field)   offsetof(struct gn_daemon_config, field)
#define TEXT(field) AT(field), 0, sizeof(((struct gn_daemon_config *)0)->field), NULL

static const char *const policies[] = { "esx", "static", "mom", "ksmtuned", NULL };
static const char *const stops[] = { "hold", "deflate", NULL };

static const struct gn_config_key keys[] = {
	GN_BASE_KEYS("/run/gnomon/balloond.sock"),
	{ "daemon", "stop", GN_CONFIG_CHOICE, AT(stop), 0, 0, stops, "hold",
	  "at SIGTERM: leave balloons as they are, or give all memory back first" },
	{ "daemon", "stop_timeout", GN_CONFIG_MS, AT(stop_timeout_ms), 0, 600000, NULL, "5s",
	  "how long stop = deflate waits for the VMs" },
	{ "memory", "budget", GN_CONFIG_SIZE, AT(budget_bytes), 0x1p20, 0x1p52, NULL, NULL,
	  "memory of all VMs together" },
	{ "memory", "sharing_socket", GN_CONFIG_TEXT, TEXT(sharing_socket), "",
	  "of a gnomon-shared, whose savings less its reserve are added to the budget; empty: "
	  "none" },
	{ "policy", "name", GN_CONFIG_CHOICE, AT(policy), 0, 0, policies, "esx",
	  "who decides the targets" },
	{ "policy", "period", GN_CONFIG_MS, AT(period_ms), 50, 60000, NULL, "1s",
	  "between rounds; requests are served at once" },
	{ "policy", "deadline", GN_CONFIG_MS, AT(deadline_ms), 100, 600000, NULL, "10s",
	  "for a VM to shrink; then its host side reclaims" },
	{ "policy", "settle", GN_CONFIG_MS, AT(settle_ms), 0, 600000, NULL, "2500ms",
	  "after the start, for the VMs of the daemon before to come back" },
	{ "policy", "heartbeat", GN_CONFIG_MS, AT(heartbeat_ms), 200, 60000, NULL, "5s",
	  "a VM with nothing new reports this often" },
	{ "policy", "tau", GN_CONFIG_NUMBER, AT(tau), 0, 0.99, NULL, "0.75",
	  "idle memory tax, of esx" },
	{ "policy", "reserve", GN_CONFIG_NUMBER, AT(reserve_fraction), 0, 0.5, NULL, "0.06",
	  "share of the budget kept free for spikes, of esx" },
	{ "policy", "dead_band", GN_CONFIG_NUMBER, AT(dead_band_fraction), 0, 0.5, NULL, "0.015625",
	  "share of a VM's memory below which it is left alone, of esx" },
	{ "policy", "calm_shrink", GN_CONFIG_NUMBER, AT(calm_shrink_per_s), 0.0001, 1000, NULL,
	  "0.05", "share of a VM's memory taken in a second while nobody needs it, of esx" },
	{ "policy", "reversal", GN_CONFIG_MS, AT(reversal_ms), 0, 3600000, NULL, "30s",
	  "between two changes of direction, of esx" },
	{ "policy", "refaults", GN_CONFIG_NUMBER, AT(refaults_per_s), 0.001, 1e9, NULL, "50",
	  "per second; from here on a guest is short of memory, of esx" },
};

const struct gn_config_schema gn_daemon_schema = { keys, sizeof(keys) / sizeof(keys[0]),
						   sizeof(struct gn_daemon_config) };

void gn_daemon_config_policy(const struct gn_daemon_config *c, struct gn_policy_config *out)
{
	gn_policy_config_init(out);
	out->tau = c->tau;
	out->reserve_fraction = c->reserve_fraction;
	out->dead_band_fraction = c->dead_band_fraction;
	out->calm_shrink_per_s = c->calm_shrink_per_s;
	out->reversal_ns = c->reversal_ms * 1000000;
	out->refaults_per_s = c->refaults_per_s;
}
