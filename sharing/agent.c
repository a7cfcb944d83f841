/* SPDX-License-Identifier: MIT */
/*
 * agent.c - connection, registration, reports, and the thread.
 *
 * A registration that is refused is tried again: the daemon's configuration may come to name this VM. An exchange that makes no
 * sense ends the session; the agent registers anew over a new connection.
 */
#include "agent.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "agent_impl.h"
#include "control/clock.h"
#include "mmu/vm.h"

#define MS_NS	    ((uint64_t)1000000)
#define REGISTER_ID "\"register\""

enum { RETRY_MS = 250, REPORT_MS = 1000, UNREGISTER_MS = 1000, SESSION_FDS = 2, POLL_FDS = 3 };

/* ---- Saying ------------------------------------------------------------------------------------------------------ */

/* How a merge reaches the hardware: the p2m's pointer, of which tables are made anew, or a mapping of the host's beside that. Over a template
 * nothing is merged, but a copy dropped. */
static const char *mechanism(const struct gn_share_agent *a)
{
	const bool is_nested = !strcmp(a->scheme, "ept") || !strcmp(a->scheme, "npt");

	if (gn_vm_is_over_template(a->config.vm))
		return "template";
	return is_nested && !strcmp(a->backend, "kvm") ? "mapping" : "p2m";
}

static void send_registration(struct gn_share_agent *a)
{
	struct gn_json_writer w = { .text = NULL };

	a->register_at_ns = 0;
	gn_protocol_begin_command(&w, "register");
	gn_json_begin_object(&w, "arguments");
	gn_json_put_text(&w, "name", a->name);
	gn_json_put_u64(&w, "mem_bytes", a->config.mem_bytes);
	gn_json_put_text(&w, "mechanism", mechanism(a));
	if (a->group[0]) {
		gn_json_put_text(&w, "domain", a->group);
		gn_json_put_bool(&w, "quiet", a->config.quiet);
	}
	if (a->over[0])
		gn_json_put_text(&w, "template", a->over);
	if (a->backend[0])
		gn_json_put_text(&w, "backend", a->backend);
	if (a->scheme[0])
		gn_json_put_text(&w, "scheme", a->scheme);
	gn_json_end_object(&w);
	gn_protocol_end_command(&w, REGISTER_ID);
	(void)gn_client_submit(a->client, &w);
}

/* Nothing was merged yet, and nothing is to be charged to us until our process dies. */
static void send_unregistration(struct gn_share_agent *a)
{
	struct gn_json_writer w = { .text = NULL };

	gn_protocol_begin_command(&w, "unregister");
	gn_protocol_end_command(&w, "");
	(void)gn_client_submit(a->client, &w);
}

static void send_report(struct gn_share_agent *a, uint64_t now_ns)
{
	struct gn_json_writer w = { .text = NULL };

	a->report_at_ns = now_ns + REPORT_MS * MS_NS;
	gn_protocol_begin_event(&w, "REPORT");
	gn_json_put_u64(&w, "pages_sharing", atomic_load(&a->pages_sharing));
	gn_json_put_u64(&w, "pages_shared", atomic_load(&a->pages_shared));
	gn_json_put_u64(&w, "pages_unshared", atomic_load(&a->pages_unshared));
	gn_json_put_u64(&w, "pages_sealed", atomic_load(&a->pages_sealed));
	gn_json_put_u64(&w, "pages_volatile", atomic_load(&a->pages_volatile));
	gn_json_put_u64(&w, "pages_scanned", atomic_load(&a->pages_scanned));
	gn_json_put_u64(&w, "full_scans", atomic_load(&a->full_scans));
	gn_json_put_u64(&w, "zero_pages", atomic_load(&a->zero_pages));
	gn_json_put_u64(&w, "stock_pages", atomic_load(&a->stock_pages));
	gn_json_put_u64(&w, "cpu_us", atomic_load(&a->cpu_ns) / 1000);
	gn_protocol_end_event(&w, 0);
	(void)gn_client_submit(a->client, &w);
}

/* ---- Hearing ----------------------------------------------------------------------------------------------------- */

static void on_up(void *ctx, struct gn_client *c)
{
	struct gn_share_agent *a = ctx;

	(void)c;
	a->register_at_ns = a->shy_until_ns ? a->shy_until_ns : gn_now_ns();
	a->shy_until_ns = 0;
}

static void on_down(void *ctx, struct gn_client *c)
{
	struct gn_share_agent *a = ctx;

	(void)c;
	atomic_store(&a->is_registered, false);
	/* Whoever sends is told of it as well, with the session in his hands. */
	a->is_over = a->exchange != NULL;
}

static void take_settings(struct gn_share_agent *a, const cJSON *from)
{
	struct gn_json_errors e = { .failed = false };
	uint64_t sweep_ms = a->sweep_ns / MS_NS;

	gn_json_get_u64(&e, from, "cpu_ppm", GN_JSON_OPTIONAL, 1000000, &a->cpu_ppm);
	gn_json_get_u64(&e, from, "sweep_ms", GN_JSON_OPTIONAL, 3600000, &sweep_ms);
	a->sweep_ns = (sweep_ms ? sweep_ms : 1) * MS_NS;
}

/* What the group is like. -EPROTO: it is none for this VM, which a daemon should have said itself. */
static int take_manner(struct gn_share_agent *a, const cJSON *body)
{
	struct gn_json_errors e = { .failed = false };
	bool is_dry = false;

	a->is_quiet = false;
	gn_json_get_bool(&e, body, "quiet", GN_JSON_OPTIONAL, &a->is_quiet);
	gn_json_get_bool(&e, body, "dry_run", GN_JSON_OPTIONAL, &is_dry);
	a->is_quiet = a->is_quiet && a->group[0];
	a->seals = a->is_quiet && !is_dry;
	return e.failed || (a->config.quiet && !a->is_quiet) ? -EPROTO : 0;
}

static void take_registration(struct gn_share_agent *a, const cJSON *body)
{
	int fds[SESSION_FDS];
	const size_t count = gn_client_take_fds(a->client, fds, SESSION_FDS);
	int err = take_manner(a, body);

	atomic_store(&a->is_refused_as_not_quiet, a->config.quiet && !a->is_quiet);
	if (!err && a->group[0] && count == SESSION_FDS) {
		err = gn_share_session_begin(a, fds);
	} else {
		err = err || a->group[0] || count ? -EPROTO : 0;
		for (size_t i = 0; i < count; i++)
			close(fds[i]);
	}
	if (err) {
		send_unregistration(a);
		a->is_broken = true;
		return;
	}
	a->sweep_ns = 1000 * MS_NS;
	take_settings(a, body);
	a->refilled_ns = a->sweep_at_ns = gn_now_ns();
	atomic_store(&a->is_registered, true);
	send_report(a, gn_now_ns());
}

static void take_refusal(struct gn_share_agent *a, const struct gn_message *m)
{
	atomic_store(&a->is_refused_as_not_quiet, !strcmp(m->name, "NotQuiet"));
	a->register_at_ns = gn_now_ns() + RETRY_MS * MS_NS;
}

static void take_segment_answer(struct gn_share_agent *a, bool is_given)
{
	int fd = -1;

	if (is_given && gn_client_take_fds(a->client, &fd, 1) != 1)
		fd = -1;
	gn_share_take_segment(a, fd);
	if (fd >= 0)
		close(fd);
}

static void on_message(void *ctx, struct gn_client *c, const struct gn_message *m)
{
	struct gn_share_agent *a = ctx;
	const bool is_return = m->kind == GN_MESSAGE_RETURN;

	(void)c;
	if (m->kind == GN_MESSAGE_EVENT) {
		if (!strcmp(m->name, "SETTINGS"))
			take_settings(a, m->body);
	} else if (!strcmp(m->id, REGISTER_ID) && !atomic_load(&a->is_registered)) {
		if (is_return)
			take_registration(a, m->body);
		else
			take_refusal(a, m);
	} else if (!strcmp(m->id, "\"segment\"") && a->exchange) {
		take_segment_answer(a, is_return);
	}
}

/* ---- Life -------------------------------------------------------------------------------------------------------- */

static int copy_name(char *to, size_t bytes, const char *from)
{
	return (size_t)snprintf(to, bytes, "%s", from ? from : "") < bytes ? 0 : -ENAMETOOLONG;
}

static int copy_names(struct gn_share_agent *a, const struct gn_share_agent_config *c)
{
	int err = copy_name(a->name, sizeof(a->name), c->name);

	if (!err)
		err = copy_name(a->group, sizeof(a->group), c->group);
	if (!err)
		err = copy_name(a->over, sizeof(a->over), c->template_name);
	if (!err)
		err = copy_name(a->backend, sizeof(a->backend), c->backend);
	if (!err)
		err = copy_name(a->scheme, sizeof(a->scheme), c->scheme);
	return err;
}

/* What it shares with: a window for the frames of others, or a domain of its own. */
static int make_sharing(struct gn_share_agent *a)
{
	struct gn_domain_config domain = { .frames = a->config.vm->frames, .max_pages = a->pages };
	int err = gn_frames_set_stock(a->config.vm->frames, gn_share_stock_most(a));

	if (err)
		return err;
	if (a->group[0]) {
		err = gn_share_blocks_init(a);
		return err ? err : gn_share_window_init(&a->window, a->config.vm->frames);
	}
	err = gn_domain_create(&domain, &a->domain);
	return err ? err : gn_domain_add(a->domain, a->config.vm);
}

static bool is_given(const char *name)
{
	return name && name[0];
}

/* Whether what is asked for goes together. */
static bool is_sound(const struct gn_share_agent_config *c)
{
	const bool has_group = is_given(c->group);

	if (!is_given(c->name) || !c->vm || c->mem_bytes / GN_PAGE_SIZE != c->vm->p2m.gfn_count)
		return false;
	if (gn_vm_is_over_template(c->vm) ? has_group : is_given(c->template_name))
		return false;
	return has_group || !c->quiet;
}

int gn_share_agent_create(const struct gn_share_agent_config *config, struct gn_share_agent **out)
{
	struct gn_client_config client = { .path = config->socket,
					   .max_pause_ms = config->max_pause_ms,
					   .up = on_up,
					   .down = on_down,
					   .message = on_message };
	struct gn_share_agent *a;
	int err;

	if (!is_sound(config))
		return -EINVAL;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->config = *config;
	a->pages = config->mem_bytes / GN_PAGE_SIZE;
	a->link_fd = -1;
	pthread_mutex_init(&a->hints_lock, NULL);
	a->hinted = calloc(a->pages, sizeof(*a->hinted));
	a->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = a->kick_fd < 0 ? -errno : copy_names(a, config);
	if (!a->hinted)
		err = -ENOMEM;
	if (!err)
		err = make_sharing(a);
	client.ctx = a;
	if (!err)
		err = gn_client_create(&client, &a->client);
	if (err)
		gn_share_agent_destroy(a);
	else
		*out = a;
	return err;
}

void gn_share_agent_stop(struct gn_share_agent *a)
{
	if (!a->has_thread)
		return;
	atomic_store(&a->is_stopping, true);
	/* Full means kicked already. */
	(void)eventfd_write(a->kick_fd, 1);
	pthread_join(a->thread, NULL);
	a->has_thread = false;
}

void gn_share_agent_destroy(struct gn_share_agent *a)
{
	if (!a)
		return;
	gn_share_agent_stop(a);
	/* Our process may live on, so that we end has to be said, and heard; who does not answer will see it end. */
	if (atomic_exchange(&a->is_registered, false))
		gn_client_tell(a->client, "unregister", UNREGISTER_MS);
	if (a->exchange)
		gn_share_session_end(a);
	gn_client_destroy(a->client);
	if (a->domain)
		gn_domain_remove(a->domain, a->config.vm);
	gn_domain_destroy(a->domain);
	gn_share_window_fini(&a->window);
	gn_frames_drop_anchors(a->config.vm->frames);
	(void)gn_frames_set_stock(a->config.vm->frames, 0); /* none needs no memory */
	if (a->kick_fd >= 0)
		close(a->kick_fd);
	pthread_mutex_destroy(&a->hints_lock);
	free(a->hinted);
	gn_share_blocks_fini(a);
	free(a);
}

bool gn_share_agent_is_registered(const struct gn_share_agent *a)
{
	return atomic_load(&a->is_registered);
}

bool gn_share_agent_is_refused_as_not_quiet(const struct gn_share_agent *a)
{
	return atomic_load(&a->is_refused_as_not_quiet);
}

/* ---- Hints ------------------------------------------------------------------------------------------------------- */

int gn_share_agent_hint(struct gn_share_agent *a, gfn_t start, uint64_t count,
			enum gn_share_hint hint)
{
	int err = -EAGAIN;

	if (hint > GN_SHARE_NEVER || start.v > a->pages || count > a->pages - start.v)
		return -EINVAL;
	pthread_mutex_lock(&a->hints_lock);
	if (a->hint_count < GN_SHARE_HINTS) {
		a->hints[a->hint_count++] = (struct gn_share_hint_run){ start, count, hint };
		err = 0;
	}
	pthread_mutex_unlock(&a->hints_lock);
	return err;
}

static void hear_hints(struct gn_share_agent *a)
{
	struct gn_share_hint_run hints[GN_SHARE_HINTS];
	size_t count;

	pthread_mutex_lock(&a->hints_lock);
	count = a->hint_count;
	memcpy(hints, a->hints, count * sizeof(hints[0]));
	a->hint_count = 0;
	pthread_mutex_unlock(&a->hints_lock);
	for (size_t i = 0; i < count; i++) {
		if (a->domain)
			(void)gn_domain_hint(a->domain, a->config.vm, hints[i].start,
					     hints[i].count, hints[i].hint);
		else
			gn_scanner_hint(a->scanner, hints[i].start, hints[i].count, hints[i].hint);
		memset(&a->hinted[hints[i].start.v], (int)hints[i].hint, hints[i].count);
	}
}

void gn_share_agent_get_stats(struct gn_share_agent *a, struct gn_share_agent_stats *out)
{
	*out = (struct gn_share_agent_stats){
		.pages_sharing = atomic_load(&a->pages_sharing),
		.pages_shared = atomic_load(&a->pages_shared),
		.pages_sealed = atomic_load(&a->pages_sealed),
		.pages_scanned = atomic_load(&a->pages_scanned),
		.full_scans = atomic_load(&a->full_scans),
		.zero_pages = atomic_load(&a->zero_pages),
		.stock_pages = atomic_load(&a->stock_pages),
		.merged = atomic_load(&a->merged),
		.refused = atomic_load(&a->refused),
		.shown = atomic_load(&a->shown),
		.returned = atomic_load(&a->returned),
		.cpu_ns = atomic_load(&a->cpu_ns),
	};
}

/* ---- The thread -------------------------------------------------------------------------------------------------- */

static int sooner(int a_ms, int b_ms)
{
	return a_ms < 0 || (b_ms >= 0 && b_ms < a_ms) ? b_ms : a_ms;
}

static int until(uint64_t due_ns, uint64_t now_ns)
{
	return due_ns <= now_ns ? 0 : (int)((due_ns - now_ns) / MS_NS) + 1;
}

/* What is due now. Milliseconds until something is. */
static int work(struct gn_share_agent *a)
{
	const uint64_t now_ns = gn_now_ns();
	int wait_ms = -1;

	if (a->is_over)
		gn_share_session_end(a);
	if (a->lift_at_ns && now_ns >= a->lift_at_ns)
		gn_share_lift(a, now_ns);
	if (a->lift_at_ns)
		wait_ms = until(a->lift_at_ns, now_ns);
	if (!atomic_load(&a->is_registered)) {
		if (gn_client_is_up(a->client) && a->register_at_ns && now_ns >= a->register_at_ns)
			send_registration(a);
		return sooner(wait_ms, a->register_at_ns ? until(a->register_at_ns, now_ns) : -1);
	}
	hear_hints(a);
	if (a->exchange)
		gn_share_obey(a);
	wait_ms = sooner(wait_ms, gn_share_scan(a, now_ns));
	if (a->exchange)
		gn_share_session_kick(a);
	if (now_ns >= a->report_at_ns)
		send_report(a, now_ns);
	return sooner(wait_ms, until(a->report_at_ns, now_ns));
}

static void wait_and_hear(struct gn_share_agent *a, int wait_ms)
{
	struct pollfd fds[POLL_FDS] = { { .fd = a->kick_fd, .events = POLLIN },
					{ .fd = a->link_fd, .events = POLLIN } };

	wait_ms = sooner(wait_ms, gn_client_prepare(a->client, &fds[2], gn_now_ns()));
	if (poll(fds, POLL_FDS, wait_ms) < 0)
		fds[1].revents = fds[2].revents = 0;
	if (fds[1].revents)
		a->is_broken |= !gn_link_drain(a->link_fd);
	gn_client_step(a->client, fds[2].revents, gn_now_ns());
}

static void *run(void *ctx)
{
	struct gn_share_agent *a = ctx;

	while (!atomic_load(&a->is_stopping)) {
		const int wait_ms = work(a);

		if (a->is_broken) {
			a->is_broken = false;
			a->shy_until_ns = gn_now_ns() + RETRY_MS * MS_NS;
			gn_client_hang_up(a->client);
		}
		wait_and_hear(a, wait_ms);
	}
	return NULL;
}

int gn_share_agent_start(struct gn_share_agent *a)
{
	int err = pthread_create(&a->thread, NULL, run, a);

	if (!err)
		a->has_thread = true;
	return -err;
}
