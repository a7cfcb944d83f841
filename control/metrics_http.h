/* SPDX-License-Identifier: MIT */
/*
 * metrics_http.h - GET /metrics on a loopback port.
 */
#ifndef GN_CONTROL_METRICS_HTTP_H
#define GN_CONTROL_METRICS_HTTP_H

#include <systemd/sd-event.h>

#include "metrics.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gn_metrics_http;

/* On 127.0.0.1:@port; port 0: any, see gn_metrics_http_port(). @before is called ahead of each answer to bring
 * values up to date; may be NULL. -errno (-EADDRINUSE ...). */
int gn_metrics_http_create(sd_event *, struct gn_metrics *, uint16_t port,
			   void (*before)(void *ctx), void *ctx, struct gn_metrics_http **);
void gn_metrics_http_destroy(struct gn_metrics_http *);
uint16_t gn_metrics_http_port(const struct gn_metrics_http *);

#ifdef __cplusplus
}
#endif

#endif
