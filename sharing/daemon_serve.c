/* SPDX-License-Identifier: MIT */
/*
 * daemon_serve.c - the loop that hears VMs' kicks and serves their exchanges, by turns.
 *
 * All links hang on one epoll, which the event loop watches: so all VMs rest by one switch when the budget is used up.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "control/clock.h"
#include "daemon.h"
#include "link.h"

#define RECORDS_MAX 512 /* of one VM in a turn */
#define LINKS_MAX   16	/* VMs in a turn */

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
