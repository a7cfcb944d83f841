/* SPDX-License-Identifier: MIT */
/*
 * daemon_gone.c - how a VM leaves the books.
 *
 * Its memory is the budget's again when nobody can hold it any more: it said so itself (unregister), or its process is
 * dead. That its connection ended says neither. Mostly the process is dying and the kernel closes its files first;
 * but a process that is stopped, or too busy to read for seconds, is dropped by the server and keeps all it has. Such
 * a VM is *lost*: nobody is told anything about it, no policy sees it, and what it may hold is taken off the budget,
 * until its process dies (its pidfd becomes readable) or it registers again under its name.
 *
 * Where the kernel gives no pidfd the end of the connection must do for death.
 */
#include "daemon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "control/process.h"
#include "control/step.h"

static void log_leave(struct gn_daemon *d, const char *event, const struct gn_daemon_vm *vm)
{
	struct gn_json_writer *w = gn_event_log_begin(d->base.log, event);

	gn_json_put_text(w, "vm", vm->name);
	gn_json_put_u64(w, "actual_bytes", vm->actual_bytes);
	gn_event_log_end(d->base.log);
}

void gn_daemon_vm_free(struct gn_daemon_vm *vm)
{
	sd_event_source_disable_unref(vm->death);
	if (vm->process_fd >= 0)
		close(vm->process_fd);
	free(vm);
}

/* Its memory is the budget's. */
static void forget(struct gn_daemon *d, struct gn_daemon_vm *vm)
{
	d->gones++;
	gn_metrics_forget(d->base.metrics, "vm", vm->name);
	log_leave(d, "gone", vm);
	gn_daemon_vm_free(vm);
	gn_step_pass("gone");
	if (!d->base.is_stopping)
		gn_daemon_want_round(d);
}

static void take_out(struct gn_daemon *d, const struct gn_daemon_vm *vm)
{
	size_t i = 0;

	while (d->vms[i] != vm)
		i++;
	d->vms[i] = d->vms[--d->count];
}

static void take_out_lost(struct gn_daemon *d, const struct gn_daemon_vm *vm)
{
	struct gn_daemon_vm **at = &d->lost;

	while (*at != vm)
		at = &(*at)->next_lost;
	*at = vm->next_lost;
}

static int on_death(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	struct gn_daemon_vm *vm = ctx;
	struct gn_daemon *d = vm->daemon;

	(void)source;
	(void)fd;
	(void)events;
	take_out_lost(d, vm);
	forget(d, vm);
	return 0;
}

static bool lose(struct gn_daemon *d, struct gn_daemon_vm *vm)
{
	if (vm->process_fd < 0 || gn_process_is_dead(vm->process_fd) ||
	    sd_event_add_io(gn_service_event(d->base.service), &vm->death, vm->process_fd, EPOLLIN,
			    on_death, vm) < 0)
		return false;
	vm->daemon = d;
	vm->peer = NULL;
	vm->next_lost = d->lost;
	d->lost = vm;
	log_leave(d, "lost", vm);
	return true;
}

void gn_daemon_on_gone(void *ctx, struct gn_peer *p)
{
	struct gn_daemon *d = ctx;
	struct gn_daemon_vm *vm = gn_peer_tag(p);

	if (!vm)
		return;
	take_out(d, vm);
	if (d->base.is_stopping || !lose(d, vm))
		forget(d, vm);
}

void gn_daemon_unregister(void *ctx, struct gn_peer *p, const cJSON *arguments,
			  struct gn_reply *reply)
{
	struct gn_daemon *d = ctx;
	struct gn_daemon_vm *vm = gn_peer_tag(p);

	(void)arguments;
	if (!vm) {
		gn_reply_fail(reply, "NotRegistered", "this connection is no VM's");
		return;
	}
	gn_peer_set_tag(p, NULL);
	take_out(d, vm);
	forget(d, vm);
}

struct gn_daemon_vm *gn_daemon_find_lost(const struct gn_daemon *d, const char *name)
{
	struct gn_daemon_vm *vm = d->lost;

	while (vm && strcmp(vm->name, name) != 0)
		vm = vm->next_lost;
	return vm;
}

void gn_daemon_drop_lost(struct gn_daemon *d, struct gn_daemon_vm *vm)
{
	take_out_lost(d, vm);
	gn_daemon_vm_free(vm);
}

/* What it may have taken by now; and what it would be owed if it came back. */
uint64_t gn_daemon_lost_bytes_of(const struct gn_daemon_vm *vm)
{
	struct gn_policy_vm known;
	uint64_t bytes;

	gn_daemon_vm_describe(vm, &known);
	bytes = known.actual_bytes > known.target_bytes ? known.actual_bytes : known.target_bytes;
	return bytes > vm->min_bytes ? bytes : vm->min_bytes;
}

uint64_t gn_daemon_lost_bytes(const struct gn_daemon *d)
{
	uint64_t sum = 0;

	for (const struct gn_daemon_vm *vm = d->lost; vm; vm = vm->next_lost)
		sum += gn_daemon_lost_bytes_of(vm);
	return sum;
}
