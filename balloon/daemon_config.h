/* SPDX-License-Identifier: MIT */
/*
 * daemon_config.h - what gnomon-balloond can be told. docs/balloond.md explains the keys.
 */
#ifndef GN_BALLOON_DAEMON_CONFIG_H
#define GN_BALLOON_DAEMON_CONFIG_H

#include "control/base.h"
#include "policy.h"

#ifdef __cplusplus
extern "C" {
#endif

enum gn_daemon_stop { GN_STOP_HOLD, GN_STOP_DEFLATE };

struct gn_daemon_config {
	struct gn_base_config base;
	char sharing_socket[108];
	uint64_t budget_bytes;
	uint64_t period_ms, deadline_ms, settle_ms, heartbeat_ms, stop_timeout_ms;
	unsigned policy; /* index, of gn_policy_at() */
	unsigned stop;	 /* enum gn_daemon_stop */
	double tau, reserve_fraction, dead_band_fraction, calm_shrink_per_s;
	uint64_t reversal_ms;
	double refaults_per_s;
};

extern const struct gn_config_schema gn_daemon_schema;

/* The policy's figures in the policy's own struct. */
void gn_daemon_config_policy(const struct gn_daemon_config *, struct gn_policy_config *);

#ifdef __cplusplus
}
#endif

#endif
