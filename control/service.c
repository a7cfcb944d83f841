/* SPDX-License-Identifier: MIT */
/*
 * service.c - sd-event and sd-daemon in the little that the daemons need of them.
 *
 * RELOADING=1 is followed by READY=1 when the reload callback has returned, whether it took the new configuration or
 * kept the old: systemd wants to know that it is over. (MONOTONIC_USEC goes along, as Type=notify-reload of later
 * systemds requires.)
 */
#include "service.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "clock.h"

struct gn_service {
	struct gn_service_config config;
	sd_event *event;
	sd_event_source *hup, *term, *interrupt;
	sigset_t old_mask;
};

static int on_hup(sd_event_source *source, const struct signalfd_siginfo *info, void *ctx)
{
	struct gn_service *s = ctx;

	(void)source;
	(void)info;
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(gn_now_ns() / 1000));
	if (s->config.reload)
		s->config.reload(s->config.ctx);
	sd_notify(0, "READY=1");
	return 0;
}

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *info, void *ctx)
{
	struct gn_service *s = ctx;

	(void)source;
	(void)info;
	sd_notify(0, "STOPPING=1");
	if (s->config.stop)
		s->config.stop(s->config.ctx);
	else
		gn_service_exit(s, 0);
	return 0;
}

static int add_signals(struct gn_service *s)
{
	int err = sd_event_add_signal(s->event, &s->hup, SIGHUP, on_hup, s);

	if (err >= 0)
		err = sd_event_add_signal(s->event, &s->term, SIGTERM, on_stop, s);
	if (err >= 0)
		err = sd_event_add_signal(s->event, &s->interrupt, SIGINT, on_stop, s);
	return err < 0 ? err : 0;
}

int gn_service_create(const struct gn_service_config *config, struct gn_service **out)
{
	struct gn_service *s = calloc(1, sizeof(*s));
	sigset_t mask;
	int err;

	if (!s)
		return -ENOMEM;
	s->config = *config;
	sigemptyset(&mask);
	sigaddset(&mask, SIGHUP);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigprocmask(SIG_BLOCK, &mask, &s->old_mask);
	signal(SIGPIPE, SIG_IGN);
	err = sd_event_new(&s->event);
	if (err >= 0)
		err = add_signals(s);
	if (err < 0) {
		gn_service_destroy(s);
		return err;
	}
	*out = s;
	return 0;
}

void gn_service_destroy(struct gn_service *s)
{
	if (!s)
		return;
	sd_event_source_disable_unref(s->hup);
	sd_event_source_disable_unref(s->term);
	sd_event_source_disable_unref(s->interrupt);
	sd_event_unref(s->event);
	sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
	free(s);
}

sd_event *gn_service_event(struct gn_service *s)
{
	return s->event;
}

void gn_service_ready(struct gn_service *s)
{
	sd_event_set_watchdog(s->event, true);
	sd_notify(0, "READY=1");
}

void gn_service_feed_watchdog(void)
{
	/* Where it is not started yet it needs time, and no watchdog looks. */
	sd_notify(0, "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=30000000");
}

void gn_service_status(struct gn_service *s, const char *format, ...)
{
	char text[256];
	va_list args;

	(void)s;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	sd_notifyf(0, "STATUS=%s", text);
}

int gn_service_run(struct gn_service *s)
{
	return sd_event_loop(s->event);
}

void gn_service_exit(struct gn_service *s, int code)
{
	sd_event_exit(s->event, code);
}
