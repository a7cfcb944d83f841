/* SPDX-License-Identifier: MIT */
/*
 * daemon_domain.c - domains of several VMs, and the loop that serves their exchanges.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "control/clock.h"
#include "control/step.h"
#include "daemon.h"
#include "daemon_link.h"

#define PAGE_BYTES  4096
#define RECORDS_MAX 512 /* of one VM in a turn */
#define LINKS_MAX   16

static int make_broker(struct gn_shared *d, struct gn_broker **out)
{
	const struct gn_broker_config config = { .pool_bytes = d->config.pool_bytes,
						 .index_pages = d->config.index_bytes / PAGE_BYTES,
						 .is_dry = d->base.is_dry,
						 .step = gn_step_pass };

	return gn_broker_create(&config, out);
}

struct gn_shared_domain *gn_shared_domain_get(struct gn_shared *d, const char *name)
{
	struct gn_shared_domain *domain = d->domains;

	while (domain && strcmp(domain->name, name) != 0)
		domain = domain->next;
	if (domain)
		return domain;
	domain = calloc(1, sizeof(*domain));
	if (!domain || make_broker(d, &domain->broker)) {
		free(domain);
		return NULL;
	}
	snprintf(domain->name, sizeof(domain->name), "%s", name);
	domain->next = d->domains;
	d->domains = domain;
	return domain;
}

void gn_shared_domain_leave(struct gn_shared *d, struct gn_shared_domain *domain)
{
	struct gn_shared_domain **at = &d->domains;

	if (domain->vm_count)
		return;
	while (*at != domain)
		at = &(*at)->next;
	*at = domain->next;
	gn_broker_destroy(domain->broker);
	free(domain);
}

void gn_shared_domain_order(struct gn_shared *d, const struct gn_shared_domain *domain)
{
	for (struct gn_shared_vm *vm = d->vms; vm; vm = vm->next)
		if (vm->domain == domain && vm->peer && gn_broker_vm_take_kick(vm->broker_vm))
			gn_link_kick(vm->link_fd);
}

/* ---- Links ------------------------------------------------------------------------------------------------------- */

static int listen_for(struct gn_shared_vm *vm, int operation, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = vm };

	return epoll_ctl(vm->daemon->links_fd, operation, vm->link_fd, &event) ? -errno : 0;
}

int gn_shared_link(struct gn_shared_vm *vm)
{
	return listen_for(vm, EPOLL_CTL_ADD, EPOLLIN);
}

void gn_shared_unlink(struct gn_shared_vm *vm)
{
	/* Its only end of ours: closed, the epoll forgets it. */
	if (vm->link_fd >= 0)
		close(vm->link_fd);
	vm->link_fd = -1;
}

/* What it says makes no sense: it is heard no more, and charged until its process is dead. */
static void give_up(struct gn_shared_vm *vm)
{
	struct gn_shared *d = vm->daemon;

	d->broken++;
	gn_json_put_text(gn_event_log_begin(d->base.log, "broken"), "vm", vm->name);
	gn_event_log_end(d->base.log);
	gn_peer_drop(vm->peer);
	gn_shared_unlink(vm);
}

/* Who put more than is looked at in a turn has another one after the others'. No kick tells of it, so we wait for what is there
 * at once: that its link can be written to. */
static void want_turn(struct gn_shared_vm *vm, bool wants)
{
	if (vm->wants_turn != wants &&
	    !listen_for(vm, EPOLL_CTL_MOD, wants ? EPOLLIN | EPOLLOUT : EPOLLIN))
		vm->wants_turn = wants;
}

static void on_kick(struct gn_shared_vm *vm)
{
	/* Before looking, so that what comes later kicks again. */
	const bool is_there = gn_link_drain(vm->link_fd);
	const int count = gn_broker_serve(vm->broker_vm, RECORDS_MAX);

	if (count < 0 || !is_there) {
		give_up(vm);
		return;
	}
	want_turn(vm, count == RECORDS_MAX);
	gn_shared_domain_order(vm->daemon, vm->domain);
}

static int on_links(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct epoll_event ready[LINKS_MAX];
	struct gn_shared *d = ctx;
	const uint64_t cpu_ns = gn_clock_ns(CLOCK_THREAD_CPUTIME_ID);
	int count;

	(void)source;
	(void)events;
	if (!gn_shared_may_work(d))
		return 0;
	count = epoll_wait(fd, ready, LINKS_MAX, 0);
	for (int i = 0; i < count; i++)
		on_kick(ready[i].data.ptr);
	gn_shared_charge(d, cpu_ns);
	return 0;
}

int gn_shared_links_start(struct gn_shared *d)
{
	int err;

	d->links_fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->links_fd < 0)
		return -errno;
	err = sd_event_add_io(gn_service_event(d->base.service), &d->links, d->links_fd, EPOLLIN,
			      on_links, d);
	/* Whoever asks something waits for no VM's offers. */
	if (err >= 0)
		err = sd_event_source_set_priority(d->links, SD_EVENT_PRIORITY_IDLE);
	return err < 0 ? err : 0;
}

void gn_shared_links_stop(struct gn_shared *d)
{
	sd_event_source_disable_unref(d->links);
	/* 0 is not ours: without a start there is none. */
	if (d->links_fd > 0)
		close(d->links_fd);
}
