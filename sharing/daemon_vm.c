/* SPDX-License-Identifier: MIT */
/*
 * daemon_vm.c - how a VM comes into the books, what it tells, and how it leaves them.
 *
 * A name belongs to one connection. A VM that comes back while its former self is lost is a new one: the frames that the
 * former was charged with are mapped in the same process still, so that stays charged until the process dies.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "control/process.h"
#include "control/step.h"
#include "daemon.h"
#include "link.h"

#define PAGE_BYTES 4096
#define LOST_MAX   16 /* of a process */

struct gn_shared_vm *gn_shared_vm_find(const struct gn_shared *d, const char *name)
{
	struct gn_shared_vm *vm = d->vms;

	while (vm && (!vm->peer || strcmp(vm->name, name) != 0))
		vm = vm->next;
	return vm;
}

static void log_vm(struct gn_shared *d, const char *event, const struct gn_shared_vm *vm)
{
	struct gn_json_writer *w = gn_event_log_begin(d->base.log, event);

	gn_json_put_text(w, "vm", vm->name);
	if (vm->domain)
		gn_json_put_text(w, "domain", vm->domain->name);
	if (vm->over)
		gn_json_put_text(w, "template", gn_shared_template_name(vm->over));
	gn_event_log_end(d->base.log);
}

/* ---- Leaving ----------------------------------------------------------------------------------------------------- */

/* Nobody has what it was charged with. */
static void release(struct gn_shared_vm *vm)
{
	sd_event_source_disable_unref(vm->death);
	gn_shared_unlink(vm);
	if (vm->broker_vm)
		gn_broker_remove(vm->broker_vm);
	if (vm->domain) {
		vm->domain->vm_count--;
		gn_shared_domain_leave(vm->daemon, vm->domain);
	}
	if (vm->over)
		gn_shared_template_leave(vm->daemon, vm->over);
	if (vm->process_fd >= 0)
		close(vm->process_fd);
	free(vm);
}

void gn_shared_forget(struct gn_shared_vm *vm)
{
	struct gn_shared *d = vm->daemon;
	struct gn_shared_vm **at = &d->vms;

	while (*at != vm)
		at = &(*at)->next;
	*at = vm->next;
	d->gones++;
	d->gone_scanned += vm->pages_scanned;
	d->gone_zero_pages += vm->zero_pages;
	d->gone_full_scans += vm->full_scans;
	d->lost_count -= !vm->peer;
	if (!gn_shared_vm_find(d, vm->name))
		gn_metrics_forget(d->base.metrics, "vm", vm->name);
	/* Of others it is made again when somebody looks. */
	gn_metrics_forget(d->base.metrics, "mechanism", vm->mechanism);
	log_vm(d, "gone", vm);
	release(vm);
	gn_step_pass("gone");
}

static int on_death(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
	(void)source;
	(void)fd;
	(void)events;
	gn_shared_forget(ctx);
	return 0;
}

/* The connection has ended, and the process is not known to be dead. */
static bool lose(struct gn_shared_vm *vm)
{
	struct gn_shared *d = vm->daemon;

	if (!vm->broker_vm || gn_process_is_dead(vm->process_fd))
		return false;
	/* Without a source it stays charged for good: better than frames that somebody still reads. */
	(void)sd_event_add_io(gn_service_event(d->base.service), &vm->death, vm->process_fd,
			      EPOLLIN, on_death, vm);
	vm->peer = NULL;
	d->lost_count++;
	gn_shared_unlink(vm);
	gn_broker_lose(vm->broker_vm);
	gn_shared_domain_order(d, vm->domain);
	log_vm(d, "lost", vm);
	return true;
}

void gn_shared_on_gone(void *ctx, struct gn_peer *p)
{
	struct gn_shared *d = ctx;
	struct gn_shared_vm *vm = gn_peer_tag(p);

	if (!vm)
		return;
	d->vm_count--;
	/* When the daemon stops, too: until it has, what it does for others must not take frames that this VM maps. */
	if (!lose(vm))
		gn_shared_forget(vm);
	if (!d->base.is_stopping)
		gn_shared_tell_budget(d, false);
}

void gn_shared_unregister(void *ctx, struct gn_peer *p, const cJSON *arguments,
			  struct gn_reply *reply)
{
	struct gn_shared *d = ctx;
	struct gn_shared_vm *vm = gn_peer_tag(p);

	(void)arguments;
	if (!vm) {
		gn_reply_fail(reply, "NotRegistered", "this connection is no VM's");
		return;
	}
	gn_peer_set_tag(p, NULL);
	d->vm_count--;
	gn_shared_forget(vm);
	gn_shared_tell_budget(d, false);
}

void gn_shared_recheck(struct gn_shared *d)
{
	for (struct gn_shared_vm *vm = d->vms; vm; vm = vm->next)
		if (vm->peer && vm->domain &&
		    (!gn_shared_config_allows(&d->config, vm->domain->name, vm->name) ||
		     vm->domain->is_quiet !=
			     gn_shared_config_is_quiet(&d->config, vm->domain->name)))
			gn_peer_drop(vm->peer);
	for (struct gn_shared_domain *domain = d->domains; domain; domain = domain->next)
		domain->is_quiet = gn_shared_config_is_quiet(&d->config, domain->name);
}

/* ---- Coming ------------------------------------------------------------------------------------------------------ */

/* What a VM of a domain has beside its entry. */
static int join(struct gn_shared *d, struct gn_shared_vm *vm, const char *domain,
		struct gn_reply *reply)
{
	int theirs = -1, err;

	/* Frames are taken back from it when its process is dead: that has to be seen. */
	vm->process_fd = gn_process_open(vm->pid);
	if (vm->process_fd < 0)
		return -ESRCH;
	vm->domain = gn_shared_domain_get(d, domain);
	if (!vm->domain)
		return -ENOMEM;
	vm->domain->vm_count++;
	err = gn_broker_add(vm->domain->broker, vm->mem_bytes / PAGE_BYTES, &vm->broker_vm);
	if (err)
		return err;
	err = gn_link_create(&vm->link_fd, &theirs);
	if (err)
		return err;
	err = gn_reply_attach(reply, gn_broker_vm_exchange_fd(vm->broker_vm));
	if (!err)
		err = gn_reply_attach(reply, theirs);
	close(theirs);
	return err ? err : gn_shared_link(vm);
}

/* Whether what a VM says of quiet fits @domain. @says: it says something. */
static void check_manner(const struct gn_shared *d, const struct gn_shared_vm *vm,
			 const char *domain, bool says, struct gn_reply *reply)
{
	const bool is_quiet = gn_shared_config_is_quiet(&d->config, domain);

	if (vm->wants_quiet && !is_quiet)
		gn_reply_fail(
			reply, "NotQuiet",
			"[domain %s] of the configuration is not quiet, and %s wants it to be",
			domain, vm->name);
	else if (is_quiet && !says)
		gn_reply_fail(reply, "IsQuiet",
			      "[domain %s] of the configuration is quiet, and %s does not know "
			      "of that: it has to say \"quiet\"",
			      domain, vm->name);
}

/* A process that comes again and again and leaves something behind each time, is held to be hostile. */
static bool has_lost_many(const struct gn_shared *d, pid_t pid)
{
	unsigned count = 0;

	for (const struct gn_shared_vm *vm = d->vms; vm && d->lost_count; vm = vm->next)
		count += !vm->peer && vm->pid == pid;
	return count >= LOST_MAX;
}

/* Of what a VM wants to be. "": of none. */
struct wishes {
	char domain[sizeof(((struct gn_shared_domain *)0)->name)];
	char over[48]; /* a template */
};

/* Its frames are its own for good, so there is nothing that a domain of several could do with it. */
static void check_template(const struct gn_shared *d, const struct gn_shared_vm *vm,
			   const struct wishes *w, struct gn_reply *reply)
{
	if (w->over[0] && w->domain[0])
		gn_reply_fail(reply, "InvalidArgument",
			      "a VM over a template is in no domain: its frames stay its own");
	else if (w->over[0])
		gn_shared_template_admits(d, w->over, vm->name, reply);
}

static void read_registration(struct gn_shared *d, struct gn_peer *p, struct gn_shared_vm *vm,
			      const cJSON *a, struct wishes *wishes, struct gn_reply *reply)
{
	struct gn_json_errors e = { .failed = false };
	const char *domain = wishes->domain;
	bool says_quiet;

	gn_json_get_text(&e, a, "name", GN_JSON_REQUIRED, vm->name, sizeof(vm->name));
	gn_json_get_u64(&e, a, "mem_bytes", GN_JSON_REQUIRED, (uint64_t)1 << 50, &vm->mem_bytes);
	gn_json_get_text(&e, a, "domain", GN_JSON_OPTIONAL, wishes->domain, sizeof(wishes->domain));
	gn_json_get_text(&e, a, "template", GN_JSON_OPTIONAL, wishes->over, sizeof(wishes->over));
	gn_json_get_text(&e, a, "backend", GN_JSON_OPTIONAL, vm->backend, sizeof(vm->backend));
	gn_json_get_text(&e, a, "mechanism", GN_JSON_OPTIONAL, vm->mechanism,
			 sizeof(vm->mechanism));
	gn_json_get_text(&e, a, "scheme", GN_JSON_OPTIONAL, vm->scheme, sizeof(vm->scheme));
	says_quiet = gn_json_get_bool(&e, a, "quiet", GN_JSON_OPTIONAL, &vm->wants_quiet);
	if (e.failed)
		gn_reply_fail(reply, "InvalidArgument", "%s", e.why);
	else if (vm->mem_bytes < PAGE_BYTES)
		gn_reply_fail(reply, "InvalidArgument", "mem_bytes must be a page at least");
	else if (gn_peer_tag(p))
		gn_reply_fail(reply, "AlreadyRegistered", "this connection is a VM's already");
	else if (gn_shared_vm_find(d, vm->name))
		gn_reply_fail(reply, "NameTaken", "a VM named %s is registered", vm->name);
	else if (d->base.is_stopping)
		gn_reply_fail(reply, "TryAgain", "the daemon is stopping");
	else if (domain[0] && has_lost_many(d, vm->pid))
		gn_reply_fail(reply, "NoRoom",
			      "%u connections of this process have ended and left it with frames",
			      LOST_MAX);
	else if (domain[0] && !gn_shared_config_allows(&d->config, domain, vm->name))
		gn_reply_fail(reply, "NotInDomain",
			      "[domain %s] of the configuration does not name %s", domain,
			      vm->name);
	else if (domain[0])
		check_manner(d, vm, domain, says_quiet, reply);
	if (!reply->error_class)
		check_template(d, vm, wishes, reply);
}

static void admit(struct gn_shared *d, struct gn_peer *p, struct gn_shared_vm *vm,
		  struct gn_json_writer *w)
{
	vm->peer = p;
	vm->next = d->vms;
	d->vms = vm;
	d->vm_count++;
	d->admitted++;
	gn_peer_set_tag(p, vm);
	gn_step_pass("admitted");
	gn_json_begin_object(w, "return");
	gn_json_put_u64(w, "cpu_ppm", gn_shared_share_ppm(d));
	gn_json_put_u64(w, "sweep_ms", d->config.sweep_ms);
	if (vm->domain && vm->domain->is_quiet) {
		gn_json_put_bool(w, "quiet", true);
		gn_json_put_bool(w, "dry_run", d->base.is_dry);
	}
	gn_json_end_object(w);
	log_vm(d, "registered", vm);
	gn_shared_tell_budget(d, false);
}

static const char *refusal(int err)
{
	return err == -ENOSPC ? "NoRoom" : err == -ESRCH ? "NoProcess" : "OutOfMemory";
}

void gn_shared_register(void *ctx, struct gn_peer *p, const cJSON *arguments,
			struct gn_reply *reply)
{
	struct gn_shared *d = ctx;
	struct gn_shared_vm *vm = calloc(1, sizeof(*vm));
	struct wishes wishes = { .domain = "" };
	int err = 0;

	if (!vm) {
		gn_reply_fail(reply, "OutOfMemory", "the daemon is out of memory");
		return;
	}
	vm->daemon = d;
	vm->link_fd = vm->process_fd = -1;
	vm->pid = gn_peer_pid(p);
	read_registration(d, p, vm, arguments, &wishes, reply);
	if (!reply->error_class && wishes.over[0]) {
		vm->over = gn_shared_template_find(d, wishes.over);
		gn_shared_template_join(vm->over);
	}
	if (!reply->error_class && wishes.domain[0])
		err = join(d, vm, wishes.domain, reply);
	if (err)
		gn_reply_fail(reply, refusal(err), "the domain takes no VM more: %s",
			      err == -ESRCH ? "its process cannot be watched" : strerror(-err));
	if (reply->error_class) {
		gn_refusals_note(&d->base.refusals, d->base.log, vm->name, reply->error_class);
		release(vm);
		return;
	}
	admit(d, p, vm, reply->writer);
}

void gn_shared_get_segment(void *ctx, struct gn_peer *p, const cJSON *arguments,
			   struct gn_reply *reply)
{
	struct gn_shared_vm *vm = gn_peer_tag(p);
	struct gn_json_errors e = { .failed = false };
	uint64_t segment = 0;
	int fd;

	(void)ctx;
	gn_json_get_u64(&e, arguments, "segment", GN_JSON_REQUIRED, UINT32_MAX, &segment);
	if (e.failed) {
		gn_reply_fail(reply, "InvalidArgument", "%s", e.why);
		return;
	}
	if (!vm || !vm->broker_vm) {
		gn_reply_fail(reply, "NotRegistered", "this connection is no VM's of a domain");
		return;
	}
	fd = gn_broker_view(vm->broker_vm, (unsigned)segment);
	gn_step_pass("viewed");
	if (fd < 0)
		gn_reply_fail(reply, "NoSegment", "there is no segment %u now", (unsigned)segment);
	else if (gn_reply_attach(reply, fd))
		gn_reply_fail(reply, "OutOfMemory", "descriptors have run out");
}

/* ---- Telling ----------------------------------------------------------------------------------------------------- */

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

int gn_shared_on_event(void *ctx, struct gn_peer *p, const char *name, const cJSON *data)
{
	struct gn_shared_vm *vm = gn_peer_tag(p);
	struct gn_json_errors e = { .failed = false };
	struct gn_shared_vm told;

	(void)ctx;
	if (!vm || strcmp(name, "REPORT") != 0)
		return -EINVAL;
	told = *vm;
	/* No more than it has. */
	gn_json_get_u64(&e, data, "pages_sharing", GN_JSON_REQUIRED, vm->mem_bytes / PAGE_BYTES,
			&told.pages_sharing);
	gn_json_get_u64(&e, data, "pages_shared", GN_JSON_OPTIONAL, told.pages_sharing,
			&told.pages_shared);
	gn_json_get_u64(&e, data, "pages_unshared", GN_JSON_OPTIONAL, vm->mem_bytes / PAGE_BYTES,
			&told.pages_unshared);
	gn_json_get_u64(&e, data, "pages_sealed", GN_JSON_OPTIONAL, vm->mem_bytes / PAGE_BYTES,
			&told.pages_sealed);
	gn_json_get_u64(&e, data, "pages_volatile", GN_JSON_OPTIONAL, vm->mem_bytes / PAGE_BYTES,
			&told.pages_volatile);
	gn_json_get_u64(&e, data, "pages_scanned", GN_JSON_OPTIONAL, UINT64_MAX,
			&told.pages_scanned);
	gn_json_get_u64(&e, data, "full_scans", GN_JSON_OPTIONAL, UINT64_MAX, &told.full_scans);
	gn_json_get_u64(&e, data, "zero_pages", GN_JSON_OPTIONAL, UINT64_MAX, &told.zero_pages);
	gn_json_get_u64(&e, data, "stock_pages", GN_JSON_OPTIONAL, vm->mem_bytes / PAGE_BYTES,
			&told.stock_pages);
	gn_json_get_u64(&e, data, "cpu_us", GN_JSON_OPTIONAL, UINT64_MAX, &told.cpu_us);
	if (e.failed)
		return -EINVAL;
	/* Sums only rise. */
	told.pages_scanned = most(told.pages_scanned, vm->pages_scanned);
	told.full_scans = most(told.full_scans, vm->full_scans);
	told.zero_pages = most(told.zero_pages, vm->zero_pages);
	told.cpu_us = most(told.cpu_us, vm->cpu_us);
	*vm = told;
	gn_step_pass("reported");
	return 0;
}
