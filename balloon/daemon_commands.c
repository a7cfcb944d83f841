/* SPDX-License-Identifier: MIT */
/*
 * daemon_commands.c - what can be asked of the daemon, and told to it.
 *
 * Whatever is changed here is not kept here: set-vm tells the VM (event SETTINGS), which brings it along when it
 * registers with the next daemon.
 */
#include "daemon.h"

#include <string.h>

#include "control/clock.h"

static void put_known(struct gn_json_writer *w, const char *key, uint64_t bytes)
{
	if (bytes != GN_POLICY_UNKNOWN)
		gn_json_put_u64(w, key, bytes);
}

static void put_vm(struct gn_json_writer *w, const struct gn_daemon_vm *vm, uint64_t now)
{
	gn_json_begin_object(w, NULL);
	gn_json_put_text(w, "name", vm->name);
	gn_json_put_u64(w, "pid", (uint64_t)vm->pid);
	if (vm->backend[0])
		gn_json_put_text(w, "backend", vm->backend);
	if (vm->scheme[0])
		gn_json_put_text(w, "scheme", vm->scheme);
	gn_json_put_u64(w, "mem_bytes", vm->mem_bytes);
	gn_json_put_u64(w, "min_bytes", vm->min_bytes);
	gn_json_put_u64(w, "max_bytes", vm->max_bytes);
	gn_json_put_u64(w, "shares", vm->shares);
	gn_json_put_u64(w, "target_bytes", vm->target_bytes);
	gn_json_put_u64(w, "actual_bytes", vm->actual_bytes);
	put_known(w, "active_bytes", vm->active_bytes);
	put_known(w, "recent_bytes", vm->recent_bytes);
	put_known(w, "free_bytes", vm->guest_free_bytes);
	put_known(w, "available_bytes", vm->guest_available_bytes);
	gn_json_put_u64(w, "asks_bytes", vm->asks_bytes);
	gn_json_put_double(w, "refaults_per_s", vm->refaults_per_s);
	gn_json_put_u64(w, "touches", vm->touches);
	gn_json_put_u64(w, "reclaimed_bytes", vm->reclaimed_bytes);
	gn_json_put_u64(w, "reformed_blocks", vm->reformed_blocks);
	gn_json_put_u64(w, "wish_bytes", vm->decision.wish_bytes);
	gn_json_put_text(w, "reason", gn_policy_reason_text(vm->decision.reason));
	gn_json_put_bool(w, "claims_trusted", vm->claims_trusted);
	gn_json_put_bool(w, "late", vm->is_late);
	gn_json_put_bool(w, "lost", !vm->peer);
	gn_json_put_u64(w, "report_age_ms", (now - vm->reported_ns) / 1000000);
	gn_json_end_object(w);
}

static void query_vms(void *ctx, struct gn_peer *p, const cJSON *a, struct gn_reply *reply)
{
	struct gn_daemon *d = ctx;
	uint64_t now = gn_now_ns();

	(void)p;
	(void)a;
	gn_json_begin_array(reply->writer, "return");
	for (size_t i = 0; i < d->count; i++)
		put_vm(reply->writer, d->vms[i], now);
	for (const struct gn_daemon_vm *vm = d->lost; vm; vm = vm->next_lost)
		put_vm(reply->writer, vm, now);
	gn_json_end_array(reply->writer);
}

static void query_host(void *ctx, struct gn_peer *p, const cJSON *a, struct gn_reply *reply)
{
	struct gn_daemon *d = ctx;
	struct gn_json_writer *w = reply->writer;

	(void)p;
	(void)a;
	gn_json_begin_object(w, "return");
	gn_json_put_u64(w, "budget_bytes", d->config.budget_bytes);
	gn_json_put_u64(w, "reserved_bytes", gn_daemon_sum_min(d));
	gn_json_put_u64(w, "actual_bytes", gn_daemon_sum_actual(d));
	gn_json_put_u64(w, "vms", d->count);
	gn_json_put_u64(w, "lost_bytes", gn_daemon_lost_bytes(d));
	gn_json_put_u64(w, "saved_bytes", gn_daemon_saved_bytes(d));
	gn_json_put_double(w, "psi_some", d->host.psi_some);
	gn_json_put_double(w, "psi_full", d->host.psi_full);
	gn_json_put_bool(w, "settling", d->is_settling);
	gn_base_put_state(&d->base, w);
	gn_json_end_object(w);
}

static void query_policy(void *ctx, struct gn_peer *p, const cJSON *a, struct gn_reply *reply)
{
	struct gn_daemon *d = ctx;
	struct gn_json_writer *w = reply->writer;

	(void)p;
	(void)a;
	gn_json_begin_object(w, "return");
	gn_json_put_text(w, "name", gn_policy_ops_of(d->policy)->name);
	gn_json_put_text(w, "summary", gn_policy_ops_of(d->policy)->summary);
	gn_json_put_double(w, "tau", d->config.tau);
	gn_json_put_u64(w, "period_ms", d->config.period_ms);
	gn_json_put_u64(w, "deadline_ms", d->config.deadline_ms);
	gn_json_put_u64(w, "rounds", d->rounds);
	gn_json_put_u64(w, "early_rounds", d->early_rounds);
	gn_json_put_double(w, "last_round_ms", (double)d->last_round_took_ns / 1e6);
	gn_json_put_double(w, "longest_round_ms", (double)d->longest_round_ns / 1e6);
	gn_json_put_double(w, "costliest_round_cpu_ms", (double)d->costliest_round_ns / 1e6);
	gn_json_end_object(w);
}

static void set_vm(void *ctx, struct gn_peer *p, const cJSON *a, struct gn_reply *reply)
{
	struct gn_daemon *d = ctx;
	struct gn_json_errors e = { .failed = false };
	struct gn_daemon_vm *vm;
	uint64_t min, max, shares, unreserved;
	char name[64] = "";

	(void)p;
	gn_json_get_text(&e, a, "vm", GN_JSON_REQUIRED, name, sizeof(name));
	vm = gn_daemon_find(d, name);
	if (!vm) {
		gn_reply_fail(reply, e.failed ? "InvalidArgument" : "VmNotFound", "%s%s",
			      e.failed ? e.why : "no VM named ", e.failed ? "" : name);
		return;
	}
	min = vm->min_bytes;
	max = vm->max_bytes;
	shares = vm->shares;
	gn_json_get_u64(&e, a, "min_bytes", GN_JSON_OPTIONAL, vm->mem_bytes, &min);
	gn_json_get_u64(&e, a, "max_bytes", GN_JSON_OPTIONAL, vm->mem_bytes, &max);
	gn_json_get_u64(&e, a, "shares", GN_JSON_OPTIONAL, 1000000, &shares);
	unreserved = gn_daemon_unreserved(d);
	if (e.failed)
		gn_reply_fail(reply, "InvalidArgument", "%s", e.why);
	else if (!min || min > max || !shares)
		gn_reply_fail(reply, "InvalidArgument",
			      "0 < min_bytes <= max_bytes and shares > 0 must hold");
	else if (min > vm->min_bytes && min - vm->min_bytes > unreserved)
		gn_reply_fail(reply, "NoRoom", "only %llu bytes of the budget are not reserved",
			      (unsigned long long)unreserved);
	if (reply->error_class)
		return;
	vm->min_bytes = min;
	vm->max_bytes = max;
	vm->shares = (uint32_t)shares;
	gn_daemon_tell_settings(d, vm);
	gn_daemon_want_round(d);
}

const struct gn_server_command gn_daemon_commands[] = {
	{ "register", gn_daemon_register,
	  "name mem_bytes min_bytes max_bytes shares actual_bytes backend scheme resumed" },
	{ "unregister", gn_daemon_unregister, NULL },
	{ "query-vms", query_vms, NULL },
	{ "query-host", query_host, NULL },
	{ "query-policy", query_policy, NULL },
	{ "set-vm", set_vm, "vm min_bytes max_bytes shares" },
	{ NULL, NULL, NULL },
};
