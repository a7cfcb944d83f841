/* SPDX-License-Identifier: MIT */
/*
 * service.h - a daemon as systemd (or a shell) runs it: loop, signals, watchdog, readiness.
 *
 * Without systemd everything works as well and the notifications go nowhere. One thread, which must have blocked
 * nothing: gn_service_create() blocks the signals that it takes.
 */
#ifndef GN_CONTROL_SERVICE_H
#define GN_CONTROL_SERVICE_H

#include <systemd/sd-event.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gn_service;

struct gn_service_config {
	void (*reload)(void *ctx); /* SIGHUP */
	void (*stop)(
		void *ctx); /* SIGTERM, SIGINT: end the loop by gn_service_exit(), now or later */
	void *ctx;
};

/* -errno. SIGPIPE is ignored from here on. */
int gn_service_create(const struct gn_service_config *, struct gn_service **);
void gn_service_destroy(struct gn_service *);
sd_event *gn_service_event(struct gn_service *);

/* READY=1; the watchdog, if WatchdogSec= asks for one, is fed from now on by the loop itself, so that a loop
 * that hangs starves it. */
void gn_service_ready(struct gn_service *);
/* For who keeps the loop from running for long, and does not hang: from time to time. */
void gn_service_feed_watchdog(void);
/* STATUS=, one line. */
__attribute__((format(printf, 2, 3))) void gn_service_status(struct gn_service *,
							     const char *format, ...);
/* Run until gn_service_exit(); its code, or -errno. */
int gn_service_run(struct gn_service *);
void gn_service_exit(struct gn_service *, int code);

#ifdef __cplusplus
}
#endif

#endif
