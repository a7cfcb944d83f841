/* SPDX-License-Identifier: MIT */
/*
 * daemon_commands.c - what can be asked of the daemon, and told to it.
 */
#include "control/clock.h"
#include "daemon.h"

static void put_vm(struct gn_json_writer *w, const struct gn_shared_vm *vm)
{
	struct gn_broker_vm_stats s = { 0 };

	if (vm->broker_vm)
		gn_broker_vm_get_stats(vm->broker_vm, &s);
	gn_json_begin_object(w, NULL);
	gn_json_put_text(w, "name", vm->name);
	gn_json_put_u64(w, "pid", (uint64_t)vm->pid);
	if (vm->mechanism[0])
		gn_json_put_text(w, "mechanism", vm->mechanism);
	if (vm->domain)
		gn_json_put_text(w, "domain", vm->domain->name);
	if (vm->over)
		gn_json_put_text(w, "template", gn_shared_template_name(vm->over));
	if (vm->backend[0])
		gn_json_put_text(w, "backend", vm->backend);
	if (vm->scheme[0])
		gn_json_put_text(w, "scheme", vm->scheme);
	if (vm->domain)
		gn_json_put_bool(w, "wants_quiet", vm->wants_quiet);
	gn_json_put_u64(w, "mem_bytes", vm->mem_bytes);
	gn_json_put_u64(w, "pages_sharing", vm->pages_sharing);
	gn_json_put_u64(w, "pages_shared", vm->pages_shared);
	gn_json_put_u64(w, "pages_unshared", vm->pages_unshared);
	gn_json_put_u64(w, "pages_volatile", vm->pages_volatile);
	gn_json_put_u64(w, "pages_sealed", vm->pages_sealed);
	gn_json_put_u64(w, "pages_scanned", vm->pages_scanned);
	gn_json_put_u64(w, "full_scans", vm->full_scans);
	gn_json_put_u64(w, "zero_pages", vm->zero_pages);
	gn_json_put_u64(w, "stock_pages", vm->stock_pages);
	gn_json_put_u64(w, "cpu_us", vm->cpu_us);
	gn_json_put_u64(w, "charged_pages", s.charged_pages);
	gn_json_put_u64(w, "offers", s.offers);
	gn_json_put_u64(w, "merged", s.merged);
	gn_json_put_u64(w, "refused", s.refused);
	gn_json_put_u64(w, "returns", s.returns);
	gn_json_put_u64(w, "bad_records", s.bad_records);
	gn_json_put_bool(w, "lost", !vm->peer);
	gn_json_end_object(w);
}

static void query_vms(void *ctx, struct gn_peer *p, const cJSON *a, struct gn_reply *reply)
{
	const struct gn_shared *d = ctx;

	(void)p;
	(void)a;
	gn_json_begin_array(reply->writer, "return");
	for (const struct gn_shared_vm *vm = d->vms; vm; vm = vm->next)
		put_vm(reply->writer, vm);
	gn_json_end_array(reply->writer);
}

static void put_domain(struct gn_json_writer *w, const struct gn_shared_domain *domain)
{
	struct gn_broker_stats s;

	gn_broker_get_stats(domain->broker, &s);
	gn_json_begin_object(w, NULL);
	gn_json_put_text(w, "name", domain->name);
	gn_json_put_bool(w, "quiet", domain->is_quiet);
	gn_json_put_u64(w, "vms", domain->vm_count);
	gn_json_put_u64(w, "pages_shared", s.pages_shared);
	gn_json_put_u64(w, "pool_used_pages", s.pool_used_pages);
	gn_json_put_u64(w, "pool_resident_pages", s.pool_resident_pages);
	gn_json_put_u64(w, "segments", s.live_segments);
	gn_json_put_u64(w, "retired_segments", s.retired_segments);
	gn_json_put_u64(w, "retirements", s.retirements);
	gn_json_put_u64(w, "index_entries", s.index_entries);
	gn_json_put_u64(w, "index_full", s.index_full);
	gn_json_put_u64(w, "pool_full", s.pool_full);
	gn_json_put_u64(w, "offers", s.offers);
	gn_json_put_u64(w, "could_merge", s.could_merge);
	gn_json_put_u64(w, "shows", s.shows);
	gn_json_put_u64(w, "shows_differing", s.shows_differing);
	gn_json_put_u64(w, "shows_failed", s.shows_failed);
	gn_json_put_u64(w, "splits_ordered", s.splits_ordered);
	gn_json_put_u64(w, "merges_ordered", s.merges_ordered);
	gn_json_put_u64(w, "merged", s.merged);
	gn_json_put_u64(w, "refused_differing", s.refused_differing);
	gn_json_put_u64(w, "refused_busy", s.refused_busy);
	gn_json_put_u64(w, "refused_state", s.refused_state);
	gn_json_put_u64(w, "returns", s.returns);
	gn_json_put_u64(w, "bad_records", s.bad_records);
	gn_json_end_object(w);
}

static void query_domains(void *ctx, struct gn_peer *p, const cJSON *a, struct gn_reply *reply)
{
	const struct gn_shared *d = ctx;

	(void)p;
	(void)a;
	gn_json_begin_array(reply->writer, "return");
	for (const struct gn_shared_domain *domain = d->domains; domain; domain = domain->next)
		put_domain(reply->writer, domain);
	gn_json_end_array(reply->writer);
}

static void query_sharing(void *ctx, struct gn_peer *p, const cJSON *a, struct gn_reply *reply)
{
	const struct gn_shared *d = ctx;
	struct gn_json_writer *w = reply->writer;
	struct gn_shared_sums sums;

	(void)p;
	(void)a;
	gn_shared_sum(d, &sums);
	gn_json_begin_object(w, "return");
	gn_json_put_u64(w, "pages_shared", sums.pages_shared);
	gn_json_put_u64(w, "pages_sharing", sums.pages_sharing);
	gn_json_put_u64(w, "pages_unshared", sums.pages_unshared);
	gn_json_put_u64(w, "pages_volatile", sums.pages_volatile);
	gn_json_put_u64(w, "pages_sealed", sums.pages_sealed);
	gn_json_put_u64(w, "saved_bytes", sums.saved_bytes);
	gn_json_put_u64(w, "reserve_bytes", d->config.reserve_bytes);
	gn_json_put_u64(w, "vms", d->vm_count);
	gn_json_put_u64(w, "lost_vms", sums.lost_vms);
	gn_json_put_double(w, "cpu_percent", d->config.cpu_percent);
	gn_json_put_u64(w, "vm_cpu_ppm", gn_shared_share_ppm(d));
	gn_base_put_state(&d->base, w);
	gn_json_end_object(w);
}

/* The books of all domains, proved: slow. */
static void audit(void *ctx, struct gn_peer *p, const cJSON *a, struct gn_reply *reply)
{
	const struct gn_shared *d = ctx;
	char why[128] = "out of memory";

	(void)p;
	(void)a;
	for (const struct gn_shared_domain *domain = d->domains; domain; domain = domain->next)
		if (gn_broker_audit(domain->broker, why, sizeof(why))) {
			gn_reply_fail(reply, "AuditFailed", "domain %s: %s", domain->name, why);
			return;
		}
}

const struct gn_server_command gn_shared_commands[] = {
	{ "register", gn_shared_register,
	  "name mem_bytes domain template quiet mechanism backend scheme" },
	{ "get-template", gn_shared_get_template, "template name" },
	{ "unregister", gn_shared_unregister, NULL },
	{ "get-segment", gn_shared_get_segment, "segment" },
	{ "query-vms", query_vms, NULL },
	{ "query-domains", query_domains, NULL },
	{ "query-templates", gn_shared_query_templates, NULL },
	{ "query-sharing", query_sharing, NULL },
	{ "audit", audit, NULL },
	{ NULL, NULL, NULL },
};
