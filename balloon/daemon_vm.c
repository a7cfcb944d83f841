/* SPDX-License-Identifier: MIT */
/*
 * daemon_vm.c - the books: who is registered, and what each VM last said.
 *
 * A VM is spoken to over its connection, and is charged for what it holds for as long as its process may hold it:
 * daemon_gone.c. A VM that comes back, to this daemon or to the next, comes with what it has.
 */
#include "daemon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/clock.h"
#include "control/process.h"
#include "control/step.h"

#define CRUMB_BYTES ((uint64_t)1 << 20)

struct gn_daemon_vm *gn_daemon_find(struct gn_daemon *d, const char *name)
{
	for (size_t i = 0; i < d->count; i++)
		if (!strcmp(d->vms[i]->name, name))
			return d->vms[i];
	return NULL;
}

uint64_t gn_daemon_sum_min(const struct gn_daemon *d)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < d->count; i++)
		sum += d->vms[i]->min_bytes;
	return sum + gn_daemon_lost_bytes(d);
}

uint64_t gn_daemon_own_budget(const struct gn_daemon *d)
{
	uint64_t lost = gn_daemon_lost_bytes(d), budget = d->config.budget_bytes;

	return budget > lost ? budget - lost : 0;
}

uint64_t gn_daemon_budget(const struct gn_daemon *d)
{
	uint64_t have = gn_daemon_sum_actual(d), saved = gn_daemon_saved_bytes(d);

	/* It is the word of others. More than all have cannot be saved. */
	return gn_daemon_own_budget(d) + (saved < have ? saved : have);
}

uint64_t gn_daemon_unreserved(const struct gn_daemon *d)
{
	uint64_t reserved = gn_daemon_sum_min(d), budget = d->config.budget_bytes;

	return budget > reserved ? budget - reserved : 0;
}

uint64_t gn_daemon_over_reserved(const struct gn_daemon *d)
{
	uint64_t reserved = gn_daemon_sum_min(d), budget = d->config.budget_bytes;

	return reserved > budget ? reserved - budget : 0;
}

uint64_t gn_daemon_sum_actual(const struct gn_daemon *d)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < d->count; i++)
		sum += d->vms[i]->actual_bytes;
	for (const struct gn_daemon_vm *vm = d->lost; vm; vm = vm->next_lost)
		sum += vm->actual_bytes;
	return sum;
}

void gn_daemon_vm_describe(const struct gn_daemon_vm *vm, struct gn_policy_vm *out)
{
	uint64_t has = vm->actual_bytes;

	if (vm->confirmed_serial != vm->serial && vm->unconfirmed_bytes > has)
		has = vm->unconfirmed_bytes;
	*out = (struct gn_policy_vm){
		.id = vm->id,
		.name = vm->name,
		.mem_bytes = vm->mem_bytes,
		.min_bytes = vm->min_bytes,
		.max_bytes = vm->max_bytes,
		.actual_bytes = has,
		.target_bytes = vm->target_bytes,
		.active_bytes = vm->active_bytes,
		.recent_bytes = vm->recent_bytes,
		.shares = vm->shares,
		.refaults_per_s = vm->refaults_per_s,
		.guest_free_bytes = vm->guest_free_bytes,
		.guest_available_bytes = vm->guest_available_bytes,
		.claims_trusted = vm->claims_trusted,
		.is_late = vm->is_late,
	};
	/* It asks beyond what it has, not beyond what it may be on its way to. */
	if (vm->actual_bytes + vm->asks_bytes > has)
		out->asks_bytes = vm->actual_bytes + vm->asks_bytes - has;
}

static bool grow(struct gn_daemon *d)
{
	size_t capacity = d->capacity ? 2 * d->capacity : 16;
	void *vms, *policy_vms, *decisions;

	if (d->count < d->capacity)
		return true;
	vms = realloc(d->vms, capacity * sizeof(*d->vms));
	if (vms)
		d->vms = vms;
	policy_vms = realloc(d->policy_vms, capacity * sizeof(*d->policy_vms));
	if (policy_vms)
		d->policy_vms = policy_vms;
	decisions = realloc(d->decisions, capacity * sizeof(*d->decisions));
	if (decisions)
		d->decisions = decisions;
	if (!vms || !policy_vms || !decisions)
		return false;
	d->capacity = capacity;
	return true;
}

static int admit(struct gn_daemon *d, const struct gn_daemon_vm *vm)
{
	struct gn_policy_vm newcomer;

	gn_daemon_vm_describe(vm, &newcomer);
	/* A reservation is for good, and savings are not. */
	d->host.budget_bytes = gn_daemon_own_budget(d);
	for (size_t i = 0; i < d->count; i++)
		gn_daemon_vm_describe(d->vms[i], &d->policy_vms[i]);
	return gn_policy_admit(&d->host, d->policy_vms, d->count, &newcomer);
}

static void read_registration(struct gn_json_errors *e, const cJSON *a, struct gn_daemon_vm *vm,
			      bool *is_resumed)
{
	uint64_t shares = 1000;

	gn_json_get_text(e, a, "name", GN_JSON_REQUIRED, vm->name, sizeof(vm->name));
	gn_json_get_u64(e, a, "mem_bytes", GN_JSON_REQUIRED, UINT64_MAX, &vm->mem_bytes);
	gn_json_get_u64(e, a, "min_bytes", GN_JSON_REQUIRED, UINT64_MAX, &vm->min_bytes);
	vm->max_bytes = vm->mem_bytes;
	gn_json_get_u64(e, a, "max_bytes", GN_JSON_OPTIONAL, UINT64_MAX, &vm->max_bytes);
	gn_json_get_u64(e, a, "actual_bytes", GN_JSON_REQUIRED, UINT64_MAX, &vm->actual_bytes);
	gn_json_get_u64(e, a, "shares", GN_JSON_OPTIONAL, 1000000, &shares);
	gn_json_get_text(e, a, "backend", GN_JSON_OPTIONAL, vm->backend, sizeof(vm->backend));
	gn_json_get_text(e, a, "scheme", GN_JSON_OPTIONAL, vm->scheme, sizeof(vm->scheme));
	gn_json_get_bool(e, a, "resumed", GN_JSON_OPTIONAL, is_resumed);
	vm->shares = (uint32_t)shares;
}

/* A VM that has run under a daemon has its memory, whether it fits or not: it is charged and squeezed like all. */
static bool check_registration(struct gn_daemon *d, struct gn_peer *p, struct gn_daemon_vm *vm,
			       const cJSON *arguments, struct gn_reply *reply)
{
	struct gn_json_errors errors = { .failed = false };
	const struct gn_daemon_vm *lost;
	bool is_resumed = false;
	int err;

	read_registration(&errors, arguments, vm, &is_resumed);
	lost = gn_daemon_find_lost(d, vm->name);
	is_resumed |= lost != NULL;
	if (errors.failed)
		gn_reply_fail(reply, "InvalidArgument", "%s", errors.why);
	else if (!vm->min_bytes || vm->min_bytes > vm->max_bytes || vm->max_bytes > vm->mem_bytes ||
		 vm->actual_bytes > vm->mem_bytes || !vm->shares)
		gn_reply_fail(reply, "InvalidArgument",
			      "0 < min_bytes <= max_bytes <= mem_bytes, actual_bytes <= mem_bytes, "
			      "and shares > 0 must hold");
	else if (gn_peer_tag(p))
		gn_reply_fail(reply, "AlreadyRegistered", "this connection is a VM's already");
	else if (gn_daemon_find(d, vm->name) || (lost && lost->pid != vm->pid))
		gn_reply_fail(reply, "NameTaken", "a VM named %s is registered", vm->name);
	else if (d->base.is_stopping || (!is_resumed && d->is_settling))
		gn_reply_fail(reply, "TryAgain",
			      d->base.is_stopping
				      ? "the daemon is stopping"
				      : "the daemon waits for the VMs of the one before it");
	else if (!grow(d))
		gn_reply_fail(reply, "OutOfMemory", "the daemon is out of memory");
	else if ((err = admit(d, vm)) == -ENOSPC && !is_resumed)
		gn_reply_fail(reply, "NoRoom",
			      "min_bytes is %llu, and %llu of the budget of %llu are not reserved",
			      (unsigned long long)vm->min_bytes,
			      (unsigned long long)gn_daemon_unreserved(d),
			      (unsigned long long)d->config.budget_bytes);
	else if (err && err != -ENOSPC)
		gn_reply_fail(reply, "InvalidArgument", "the policy refuses these sizes");
	return !reply->error_class;
}

static void make_metrics(struct gn_daemon *d, struct gn_daemon_vm *vm)
{
	vm->target_metric =
		gn_metrics_get(d->base.metrics, GN_METRIC_GAUGE, "gnomon_vm_target_bytes",
			       "Memory the VM was told to have.", "vm", vm->name);
	vm->actual_metric =
		gn_metrics_get(d->base.metrics, GN_METRIC_GAUGE, "gnomon_vm_actual_bytes",
			       "Memory the VM has.", "vm", vm->name);
	vm->active_metric =
		gn_metrics_get(d->base.metrics, GN_METRIC_GAUGE, "gnomon_vm_active_bytes",
			       "Working set by sampling.", "vm", vm->name);
	vm->reclaimed_metric = gn_metrics_get(d->base.metrics, GN_METRIC_COUNTER,
					      "gnomon_vm_reclaimed_bytes_total",
					      "Memory the host side took unasked.", "vm", vm->name);
	vm->reformed_metric = gn_metrics_get(
		d->base.metrics, GN_METRIC_COUNTER, "gnomon_vm_reformed_blocks_total",
		"Blocks of 2 MiB that the balloon had split, formed again.", "vm", vm->name);
}

void gn_daemon_tell_settings(struct gn_daemon *d, struct gn_daemon_vm *vm)
{
	struct gn_json_writer *w = gn_peer_begin_event(vm->peer, "SETTINGS");

	gn_json_put_text(w, "vm", vm->name);
	gn_json_put_u64(w, "min_bytes", vm->min_bytes);
	gn_json_put_u64(w, "max_bytes", vm->max_bytes);
	gn_json_put_u64(w, "shares", vm->shares);
	gn_json_put_u64(w, "period_ms", d->config.period_ms);
	gn_json_put_u64(w, "heartbeat_ms", d->config.heartbeat_ms);
	gn_peer_end_event(vm->peer);
}

static void log_registered(struct gn_daemon *d, const struct gn_daemon_vm *vm)
{
	struct gn_json_writer *w = gn_event_log_begin(d->base.log, "registered");
	uint64_t over = gn_daemon_over_reserved(d);

	gn_json_put_text(w, "vm", vm->name);
	gn_json_put_u64(w, "pid", (uint64_t)vm->pid);
	gn_json_put_u64(w, "actual_bytes", vm->actual_bytes);
	gn_event_log_end(d->base.log);
	if (!over)
		return;
	w = gn_event_log_begin(d->base.log, "over-reserved");
	gn_json_put_text(w, "vm", vm->name);
	gn_json_put_u64(w, "over_bytes", over);
	gn_event_log_end(d->base.log);
}

void gn_daemon_register(void *ctx, struct gn_peer *p, const cJSON *arguments,
			struct gn_reply *reply)
{
	struct gn_daemon *d = ctx;
	struct gn_daemon_vm *vm = calloc(1, sizeof(*vm));
	struct gn_json_writer *w = reply->writer;
	struct gn_daemon_vm *lost;

	if (!vm) {
		gn_reply_fail(reply, "OutOfMemory", "the daemon is out of memory");
		return;
	}
	vm->pid = gn_peer_pid(p);
	vm->target_bytes = vm->active_bytes = vm->recent_bytes = GN_POLICY_UNKNOWN;
	vm->guest_free_bytes = vm->guest_available_bytes = GN_POLICY_UNKNOWN;
	vm->claims_trusted = true;
	if (!check_registration(d, p, vm, arguments, reply)) {
		gn_refusals_note(&d->base.refusals, d->base.log, vm->name, reply->error_class);
		free(vm);
		return;
	}
	vm->peer = p;
	vm->id = ++d->next_id;
	vm->target_bytes = vm->actual_bytes;
	vm->reported_ns = gn_now_ns();
	vm->process_fd = gn_process_open(vm->pid);
	lost = gn_daemon_find_lost(d, vm->name);
	if (lost)
		gn_daemon_drop_lost(d, lost);
	make_metrics(d, vm);
	d->vms[d->count++] = vm;
	d->admitted++;
	gn_peer_set_tag(p, vm);
	gn_step_pass("admitted");
	gn_json_begin_object(w, "return");
	gn_json_put_u64(w, "target_bytes", vm->target_bytes);
	gn_json_put_u64(w, "serial", vm->serial);
	gn_json_put_u64(w, "period_ms", d->config.period_ms);
	gn_json_put_u64(w, "heartbeat_ms", d->config.heartbeat_ms);
	gn_json_end_object(w);
	log_registered(d, vm);
	gn_daemon_want_round(d);
}

static bool is_believed(const struct gn_daemon *d, struct gn_daemon_vm *vm)
{
	struct gn_policy_vm claims;
	struct gn_trust_report report = { .actual_bytes = vm->actual_bytes,
					  .active_bytes = vm->active_bytes,
					  .recent_bytes = vm->recent_bytes,
					  .free_bytes = vm->guest_free_bytes };

	gn_daemon_vm_describe(vm, &claims);
	report.claims_need =
		vm->asks_bytes || gn_policy_is_refaulting(&claims, d->config.refaults_per_s);
	return gn_trust_hear(&vm->trust, vm->reported_ns, &report);
}

static int take_report(struct gn_daemon *d, struct gn_daemon_vm *vm, const cJSON *data)
{
	struct gn_json_errors e = { .failed = false };
	uint64_t actual = vm->actual_bytes, serial = vm->confirmed_serial, asks = 0, touches = 0,
		 reclaimed = 0, reformed = 0;
	uint64_t active = vm->active_bytes, recent = vm->recent_bytes;
	uint64_t free_bytes = vm->guest_free_bytes, available = vm->guest_available_bytes;
	bool told_trusted = true, has_shrunk, has_freed;
	double refaults = 0;

	gn_json_get_u64(&e, data, "actual_bytes", GN_JSON_REQUIRED, vm->mem_bytes, &actual);
	gn_json_get_u64(&e, data, "serial", GN_JSON_REQUIRED, vm->serial, &serial);
	gn_json_get_u64(&e, data, "active_bytes", GN_JSON_OPTIONAL, vm->mem_bytes, &active);
	gn_json_get_u64(&e, data, "recent_bytes", GN_JSON_OPTIONAL, vm->mem_bytes, &recent);
	gn_json_get_u64(&e, data, "free_bytes", GN_JSON_OPTIONAL, vm->mem_bytes, &free_bytes);
	gn_json_get_u64(&e, data, "available_bytes", GN_JSON_OPTIONAL, vm->mem_bytes, &available);
	gn_json_get_u64(&e, data, "asks_bytes", GN_JSON_OPTIONAL, vm->mem_bytes, &asks);
	gn_json_get_u64(&e, data, "touches", GN_JSON_OPTIONAL, UINT64_MAX, &touches);
	gn_json_get_u64(&e, data, "reclaimed_bytes", GN_JSON_OPTIONAL, UINT64_MAX, &reclaimed);
	gn_json_get_u64(&e, data, "reformed_blocks", GN_JSON_OPTIONAL, UINT64_MAX, &reformed);
	gn_json_get_double(&e, data, "refaults_per_s", GN_JSON_OPTIONAL, 0, 1e12, &refaults);
	gn_json_get_bool(&e, data, "claims_trusted", GN_JSON_OPTIONAL, &told_trusted);
	if (e.failed || serial < vm->confirmed_serial)
		return -EINVAL;
	/* Memory arrived: it was given back, or a larger target is no longer under way. Crumbs wait for the period. */
	has_shrunk = actual + CRUMB_BYTES <= vm->actual_bytes ||
		     (serial == vm->serial && vm->unconfirmed_bytes >= actual + CRUMB_BYTES);
	has_freed = free_bytes != GN_POLICY_UNKNOWN &&
		    (vm->guest_free_bytes == GN_POLICY_UNKNOWN ||
		     free_bytes >= vm->guest_free_bytes + CRUMB_BYTES);
	vm->actual_bytes = actual;
	vm->confirmed_serial = serial;
	if (serial == vm->serial)
		vm->unconfirmed_bytes = 0;
	vm->active_bytes = active;
	vm->recent_bytes = recent;
	vm->guest_free_bytes = free_bytes;
	vm->guest_available_bytes = available;
	vm->touches = touches;
	vm->reclaimed_bytes = reclaimed;
	vm->reformed_blocks = reformed;
	vm->refaults_per_s = refaults;
	if (asks && !vm->asks_bytes)
		d->asks++;
	vm->asks_bytes = asks;
	vm->reported_ns = gn_now_ns();
	vm->claims_trusted = is_believed(d, vm) && told_trusted;
	gn_step_pass("reported");
	/* What cannot wait: a guest short of memory, and memory that somebody waits for, or that could be taken for him. */
	if (asks || ((has_shrunk || has_freed) && d->is_waiting))
		gn_daemon_want_round(d);
	return 0;
}

int gn_daemon_on_event(void *ctx, struct gn_peer *p, const char *name, const cJSON *data)
{
	struct gn_daemon_vm *vm = gn_peer_tag(p);

	if (!vm || strcmp(name, "REPORT") != 0)
		return -EINVAL;
	return take_report(ctx, vm, data);
}
